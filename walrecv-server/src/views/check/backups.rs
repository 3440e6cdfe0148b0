//! The base backups that are stored: whether there is a good one, young and large enough.

use jiff::Timestamp;

use super::{Row, State, wal};
use crate::catalog::{BackupError, BackupOutcome, BackupStatus};
use crate::settings::{Period, ServerSettings};
use crate::storage::ServerDir;
use crate::units::{duration, size};
use crate::views::backups::{ListedBackup, list_backups};

const LAST_BACKUP: &str = "last backup";
const MAXIMUM_AGE: &str = "backup maximum age";
const MINIMUM_SIZE: &str = "backup minimum size";
const FAILED: &str = "failed backups";
const DAMAGED: &str = "damaged backups";

/// How the backups are, and the WAL that they need.
pub(super) struct Backups {
    pub(super) rows: Vec<Row>,
    pub(super) last_size: Option<u64>,
    pub(super) wal_size: u64,
    /// Whether there are incremental ones.
    pub(super) chains: bool,
}

/// Looks at the backups, and at the WAL that they need.
pub(super) fn backups(store: &ServerDir, settings: &ServerSettings, now: Timestamp) -> Backups {
    let list = match list_backups(store) {
        Ok(list) => list.backups,
        Err(error) => {
            let error: BackupError = error;
            let rows = vec![Row::failure(LAST_BACKUP, State::Failed, &error)];
            return Backups { rows, last_size: None, wal_size: 0, chains: false };
        }
    };
    let mut wal_size = 0;
    let mut last_size = None;
    let mut broken = Vec::new();
    let mut records = Vec::new();
    for backup in &list {
        if let ListedBackup::Known { record, standing, wal_size: size, .. } = backup {
            wal_size += size;
            records.push(&**record);
            match standing.status {
                BackupStatus::Done => last_size = last_size.or(Some(record.stored_size())),
                BackupStatus::Broken => broken.push(match standing.missing {
                    Some(gap) => {
                        format!("backup {} lacks {gap}, which is {}", record.id, gap.absence)
                    }
                    None => format!("backup {} is broken", record.id),
                }),
                _ => {}
            }
        }
    }
    let mut rows = vec![
        wal::wal_archive(store, &records, broken),
        maximum_age(&list, settings.last_backup_maximum_age, now),
        minimum_size(&list, settings.last_backup_minimum_size),
        wal::maximum_age(store, settings.last_wal_maximum_age, now),
        wal::wal_size(wal_size),
        failed(&list),
        last_backup(&list),
    ];
    rows.extend(damaged(&list));
    let chains = records.iter().any(|record| record.parent.is_some());
    Backups { rows, last_size, wal_size, chains }
}

/// The newest backup that was copied completely: when it ended, and its stored size.
fn newest(list: &[ListedBackup]) -> Option<(Timestamp, u64)> {
    list.iter().find_map(|backup| match backup {
        ListedBackup::Known { record, .. } if record.outcome == BackupOutcome::Copied => {
            Some((record.ended_at.unwrap_or(record.began_at), record.stored_size()))
        }
        _ => None,
    })
}

fn maximum_age(list: &[ListedBackup], allowed: Option<Period>, now: Timestamp) -> Row {
    let Some(allowed) = allowed else {
        return Row::remark(MAXIMUM_AGE, State::Ok, "no last_backup_maximum_age provided");
    };
    let (state, age) = match newest(list) {
        None => (State::Failed, "No available backups".to_owned()),
        Some((ended, _)) => {
            let state = if ended >= allowed.before(now) { State::Ok } else { State::Failed };
            (state, age_in_words(ended, now))
        }
    };
    let remark = format!("interval provided: {allowed}, latest backup age: {age}");
    Row::remark(MAXIMUM_AGE, state, remark)
}

/// How long ago something happened.
pub(super) fn age_in_words(then: Timestamp, now: Timestamp) -> String {
    duration(now.duration_since(then).try_into().unwrap_or_default())
}

fn minimum_size(list: &[ListedBackup], least: Option<u64>) -> Row {
    let bytes = newest(list).map_or(0, |(_, bytes)| bytes);
    match least {
        Some(least) if bytes < least => Row::remark(
            MINIMUM_SIZE,
            State::Failed,
            format!("{}, {} at least expected", size(bytes), size(least)),
        ),
        _ => Row::remark(MINIMUM_SIZE, State::Ok, size(bytes)),
    }
}

/// How many backups failed. One that a good one followed keeps no server from being backed up.
fn failed(list: &[ListedBackup]) -> Row {
    let failed = |backup: &ListedBackup| matches!(backup, ListedBackup::Known { standing, .. } if standing.status == BackupStatus::Failed);
    let count = list.iter().filter(|backup| failed(backup)).count();
    let told = format!("there are {count} failed backups");
    match list.first() {
        _ if count == 0 => Row::remark(FAILED, State::Ok, told),
        Some(newest) if failed(newest) => Row::remark(FAILED, State::Failed, told),
        _ => Row::remark(FAILED, State::Warning, format!("{told}; `delete` removes them")),
    }
}

/// The backups that a verification found damaged; no row if there are none.
fn damaged(list: &[ListedBackup]) -> Option<Row> {
    let damaged = list.iter().filter_map(|backup| match backup {
        ListedBackup::Known { record, standing, .. } if standing.damaged => {
            Some(record.id.to_string())
        }
        _ => None,
    });
    let damaged: Vec<_> = damaged.collect();
    (!damaged.is_empty()).then(|| {
        let remark = format!("{}; `verify-backup` names what is wrong", damaged.join(", "));
        Row::remark(DAMAGED, State::Failed, remark)
    })
}

/// How the newest backup is; the list begins with it.
fn last_backup(list: &[ListedBackup]) -> Row {
    let row = |state, remark: String| Row::remark(LAST_BACKUP, state, remark);
    match list.first() {
        None => row(State::Warning, "there is none yet".to_owned()),
        Some(ListedBackup::Unreadable { id, reason, .. }) => {
            row(State::Failed, format!("{id} cannot be read: {reason}"))
        }
        Some(ListedBackup::Known { record, standing, .. }) => {
            let state = match standing.status {
                BackupStatus::Done | BackupStatus::Started => State::Ok,
                BackupStatus::WaitingForWals => State::Warning,
                BackupStatus::Failed | BackupStatus::Broken => State::Failed,
            };
            let mut remark = format!("{} is {}", record.id, standing.status);
            if let Some(error) = standing.error(record) {
                remark.push_str(&format!(": {error}; take another one ({})", last_good(list)));
            }
            row(state, remark)
        }
    }
}

/// What there is to fall back on.
fn last_good(list: &[ListedBackup]) -> String {
    let good = list.iter().find_map(|backup| match backup {
        ListedBackup::Known { record, standing, .. }
            if standing.status == BackupStatus::Done && !standing.damaged =>
        {
            Some(record.id)
        }
        _ => None,
    });
    good.map_or_else(
        || "no good one is there".to_owned(),
        |id| format!("{id} is the last good one"),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::catalog::{BackupRecord, Standing};
    use crate::retention::Label;
    use crate::storage::{Access, Home};

    fn store() -> (tempfile::TempDir, ServerDir) {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path().join("home"), Access::Private);
        (directory, home.server(&"main".parse().unwrap()))
    }

    fn last(store: &ServerDir) -> Row {
        let rows = super::super::backups(store);
        rows.into_iter().find(|row| row.name == LAST_BACKUP).unwrap()
    }

    #[test]
    fn an_unreadable_backup_is_a_failure() {
        let (_directory, store) = store();
        let backup = store.backup("20260305T151133".parse().unwrap());
        fs::create_dir_all(backup.path()).unwrap();
        let row = last(&store);
        assert_eq!(row.state, State::Failed);
        assert!(row.remark.as_ref().unwrap().starts_with("20260305T151133 cannot be read"));
    }

    #[test]
    fn a_store_without_backups_is_worth_a_warning() {
        let (_directory, store) = store();
        assert_eq!(last(&store).state, State::Warning);
    }

    fn listed(id: &str, outcome: BackupOutcome, status: BackupStatus) -> ListedBackup {
        let id: crate::storage::BackupId = id.parse().unwrap();
        let record = BackupRecord {
            id,
            server: "main".parse().unwrap(),
            outcome,
            name: None,
            label: String::new(),
            parent: None,
            system_id: pgwire_stream::SystemId::from_u64(7),
            segment_size: pgwire_stream::SegmentSize::DEFAULT,
            server_version: pgwire_stream::ServerVersion::from_num(180_000),
            data_checksums: None,
            program_version: String::new(),
            began_at: id.time(),
            ended_at: Some(id.time()),
            done_at: None,
            begin: None,
            end: None,
            tablespaces: Vec::new(),
            archives: Vec::new(),
            manifest: None,
            config_files: None,
            damaged_pages: None,
        };
        let standing = Standing { status, missing: None, damaged: false };
        ListedBackup::Known {
            record: Box::new(record),
            standing,
            wal_size: 0,
            keep: None,
            retention: Label::None,
        }
    }

    fn good(id: &str) -> ListedBackup {
        listed(id, BackupOutcome::Copied, BackupStatus::Done)
    }

    fn bad(id: &str) -> ListedBackup {
        let outcome = BackupOutcome::Failed { error: "disk on fire".to_owned() };
        listed(id, outcome, BackupStatus::Failed)
    }

    #[test]
    fn a_backup_may_be_too_old_or_too_small() {
        let now: Timestamp = "2026-03-05T18:00:00Z".parse().unwrap();
        let list = [bad("20260305T170000"), good("20260305T120000")];
        let age = |allowed: &str| maximum_age(&list, allowed.parse().ok(), now);
        assert_eq!(age("").remark.unwrap(), "no last_backup_maximum_age provided");
        let row = age("6 HOURS");
        assert_eq!(row.state, State::Ok);
        assert_eq!(row.remark.unwrap(), "interval provided: 6 HOURS, latest backup age: 6 hours");
        assert_eq!(age("5 HOURS").state, State::Failed);
        assert_eq!(maximum_age(&list[..1], "5 HOURS".parse().ok(), now).state, State::Failed);
        assert_eq!(minimum_size(&list, None).state, State::Ok);
        let row = minimum_size(&list, Some(1024));
        assert_eq!(row.state, State::Failed);
        assert_eq!(row.remark.unwrap(), "0 B, 1.0 KiB at least expected");
    }

    #[test]
    fn a_failed_backup_counts_until_a_good_one_follows() {
        assert_eq!(failed(&[]).state, State::Ok);
        assert_eq!(failed(&[good("20260305T120000")]).state, State::Ok);
        let row = failed(&[bad("20260305T170000"), good("20260305T120000")]);
        assert_eq!(row.state, State::Failed);
        assert_eq!(row.remark.unwrap(), "there are 1 failed backups");
        assert_eq!(
            failed(&[good("20260305T180000"), bad("20260305T170000")]).state,
            State::Warning
        );
    }
}
