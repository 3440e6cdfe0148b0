//! What is stored for a server.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pgwire_stream::SegmentName;
use rustix::fs::{Access as Allowed, access};

use super::running::RECEIVER;
use super::{Row, State};
use crate::catalog::{
    Absence, BackupError, BackupOutcome, BackupRecord, BackupStatus, Catalog, Identity, Leases,
    SuspectWal, WalHealth,
};
use crate::failure::in_one_line;
use crate::storage::{LockKind, ServerDir, ServerLock, durable};
use crate::views::backups::{ListedBackup, list_backups};

const DIRECTORIES: &str = "directories";
const BACKLOG: &str = "archive backlog";
const LAST_BACKUP: &str = "last backup";
const WAL_ARCHIVE: &str = "WAL archive";
const ERRORS: &str = "archiver errors";
const LEASES: &str = "restores";

/// How many segments may wait to be archived before that is worth a warning.
const MANY: usize = 256;

/// Whether the store can be written, by the right users only.
pub(super) fn directories(store: &ServerDir) -> Row {
    let failed = |remark| Row::remark(DIRECTORIES, State::Failed, remark);
    let path = store.path();
    let Some(existing) = path.ancestors().find(|path| path.exists()) else {
        return failed(format!("{} is not there", path.display()));
    };
    let needed = Allowed::READ_OK | Allowed::WRITE_OK | Allowed::EXEC_OK;
    if let Err(error) = access(existing, needed) {
        return failed(format!(
            "{} cannot be written by the user who runs this: {}",
            existing.display(),
            std::io::Error::from(error)
        ));
    }
    if existing != path {
        return Row::remark(DIRECTORIES, State::Ok, "made when receiving begins");
    }
    match too_open(path, store.access().directory_mode()) {
        Ok(None) => Row::ok(DIRECTORIES),
        Ok(Some(mode)) => failed(format!(
            "{} may be read by others: its mode is {mode:04o}, not {:04o}",
            path.display(),
            store.access().directory_mode()
        )),
        Err(error) => failed(format!("{}: {error}", path.display())),
    }
}

/// The mode of a directory, if it allows more than it should.
fn too_open(path: &Path, allowed: u32) -> std::io::Result<Option<u32>> {
    let mode = path.metadata()?.permissions().mode() & 0o777;
    Ok((mode & !allowed != 0).then_some(mode))
}

/// Whether somebody receives the server's WAL.
pub(super) fn receiver(store: &ServerDir) -> Row {
    match ServerLock::is_held(store, LockKind::Receiver) {
        Ok(true) => Row::ok(RECEIVER),
        Ok(false) => {
            Row::remark(RECEIVER, State::Failed, "nobody receives: start `walrecv-server run`")
        }
        Err(error) => Row::failure(RECEIVER, State::Failed, &error),
    }
}

/// How many complete segments wait to be archived.
pub(super) fn backlog(store: &ServerDir) -> Row {
    let files = match durable::list_dir(&store.streaming()) {
        Ok(files) => files,
        Err(error) => return Row::advice(BACKLOG, State::Warning, error.to_string()),
    };
    let is_segment =
        |file: &&OsString| file.to_str().is_some_and(|name| name.parse::<SegmentName>().is_ok());
    let waiting = files.iter().filter(is_segment).count();
    let state = if waiting < MANY { State::Ok } else { State::Warning };
    Row::advice(BACKLOG, state, format!("{waiting} segments wait to be archived"))
}

/// What restores keep from being removed, if there is any.
pub(super) fn leases(store: &ServerDir) -> Option<Row> {
    let leases = Leases::load(store);
    if let Some(error) = leases.unreadable() {
        let remark = format!("no backup can be removed: {}", in_one_line(error));
        return Some(Row::advice(LEASES, State::Warning, remark));
    }
    let held: Vec<_> = leases
        .live()
        .iter()
        .filter_map(|lease| Some(format!("{} for `{}`", lease.backups.first()?, lease.destination)))
        .collect();
    (!held.is_empty()).then(|| Row::advice(LEASES, State::Ok, format!("keep {}", held.join(", "))))
}

/// Whether what must not happen to WAL happened.
pub(super) fn set_apart(store: &ServerDir) -> Row {
    match durable::list_dir(&store.errors()) {
        Ok(files) if files.is_empty() => Row::ok(ERRORS),
        Ok(files) => Row::remark(
            ERRORS,
            State::Warning,
            format!("{} files were set apart in {}", files.len(), store.errors().display()),
        ),
        Err(error) => Row::failure(ERRORS, State::Failed, &error),
    }
}

/// How the backups are.
pub(super) struct Backups {
    pub(super) rows: Vec<Row>,
    pub(super) last_size: Option<u64>,
    pub(super) wal_size: u64,
}

/// Looks at the last backup, and at the WAL that the backups need.
pub(super) fn backups(store: &ServerDir) -> Backups {
    let list = match list_backups(store) {
        Ok(list) => list.backups,
        Err(error) => {
            let error: BackupError = error;
            let rows = vec![Row::failure(LAST_BACKUP, State::Failed, &error)];
            return Backups { rows, last_size: None, wal_size: 0 };
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
    let rows = vec![last_backup(&list), wal_archive(store, &records, broken)];
    Backups { rows, last_size, wal_size }
}

/// Whether a recovery gets from every backup to the end of WAL.
fn wal_archive(store: &ServerDir, records: &[&BackupRecord], mut failed: Vec<String>) -> Row {
    // What is wrong with the identity has a row of its own.
    let health = match Identity::load(store) {
        Ok(Some(identity)) => Catalog::new(store).wal_health(identity.segment_size, records),
        Ok(None) | Err(_) => Ok(WalHealth::default()),
    };
    let WalHealth { gaps, suspect } = match health {
        Ok(health) => health,
        Err(error) => return Row::failure(WAL_ARCHIVE, State::Failed, &error),
    };
    let mut left_out = Vec::new();
    for gap in gaps {
        let list = if gap.absence == Absence::Missing { &mut failed } else { &mut left_out };
        list.push(format!("WAL from {gap} is {}", gap.absence));
    }
    if let Some(SuspectWal { segment, range }) = suspect.first() {
        let more = match suspect.len() {
            1 => String::new(),
            2 => ", and 1 more place is".to_owned(),
            count => format!(", and {} more places are", count - 1),
        };
        failed.push(format!(
            "WAL from {} to {} in segment {segment} is suspect: {}{more}; take a backup, because \
             none before it can be recovered beyond it",
            range.from, range.to, range.what
        ));
    }
    if !failed.is_empty() {
        failed.append(&mut left_out);
        return Row::remark(WAL_ARCHIVE, State::Failed, failed.join("; "));
    }
    if left_out.is_empty() {
        Row::ok(WAL_ARCHIVE)
    } else {
        Row::remark(WAL_ARCHIVE, State::Warning, left_out.join("; "))
    }
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
            if let BackupOutcome::Failed { error } = &record.outcome {
                remark.push_str(&format!(": {error}; take another one ({})", last_good(list)));
            }
            row(state, remark)
        }
    }
}

/// What there is to fall back on.
fn last_good(list: &[ListedBackup]) -> String {
    let good = list.iter().find_map(|backup| match backup {
        ListedBackup::Known { record, standing, .. } if standing.status == BackupStatus::Done => {
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
    use std::fs::{self, Permissions};
    use std::sync::Arc;

    use pgwire_stream::{
        Lsn, SegmentName, SegmentNumber, SegmentSize, ServerVersion, SystemId, TimelineId,
    };

    use super::*;
    use crate::catalog::{
        Position, SuspectRange, Validity, WalFindings, WalIndexRecord, WalIndexWriters, journal,
    };
    use crate::storage::{Access, ArchivedWal, BackupId, Codec, Home, Plain, Sha256Sum, Stored};

    const MIB: u64 = 1 << 20;

    fn store() -> (tempfile::TempDir, ServerDir) {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path().join("home"), Access::Private);
        (directory, home.server(&"main".parse().unwrap()))
    }

    #[test]
    fn what_is_not_there_yet_is_no_failure_and_is_not_made() {
        let (directory, store) = store();
        assert_eq!(directories(&store).state, State::Ok);
        assert_eq!(set_apart(&store).state, State::Ok);
        assert_eq!(backups(&store).rows[0].state, State::Warning);
        assert_eq!(receiver(&store).state, State::Failed);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn directories_that_others_may_read_fail() {
        let (_directory, store) = store();
        store.create().unwrap();
        assert_eq!(directories(&store), Row::ok(DIRECTORIES));
        fs::set_permissions(store.path(), Permissions::from_mode(0o750)).unwrap();
        let row = directories(&store);
        assert_eq!(row.state, State::Failed);
        assert!(row.remark.unwrap().ends_with("its mode is 0750, not 0700"));
    }

    #[test]
    fn a_receiver_holds_its_lock() {
        let (_directory, store) = store();
        let lock = ServerLock::try_acquire(&store, LockKind::Receiver).unwrap();
        assert_eq!(receiver(&store), Row::ok(RECEIVER));
        drop(lock);
        assert_eq!(receiver(&store).state, State::Failed);
    }

    #[test]
    fn complete_segments_wait_to_be_archived() {
        let (_directory, store) = store();
        let told = |count| (State::Ok, true, Some(format!("{count} segments wait to be archived")));
        let row = |row: Row| (row.state, row.advisory, row.remark);
        assert_eq!(row(backlog(&store)), told(0));
        store.create().unwrap();
        for name in ["000000010000000000000005", "000000010000000000000006.partial", ".tmp"] {
            fs::write(store.streaming().join(name), b"").unwrap();
        }
        assert_eq!(row(backlog(&store)), told(1));
        for number in 0..MANY {
            fs::write(store.streaming().join(format!("0000000100000001{number:08X}")), b"")
                .unwrap();
        }
        assert_eq!(backlog(&store).state, State::Warning);
    }

    #[test]
    fn what_restores_keep_is_told() {
        let (_dir, store) = store();
        store.create().unwrap();
        assert_eq!(leases(&store), None);
        fs::create_dir(store.leases()).unwrap();
        fs::write(store.lease("a"), b"{").unwrap();
        let row = leases(&store).unwrap();
        assert_eq!((row.state, row.advisory), (State::Warning, true));
        assert!(row.remark.unwrap().contains("a.json"));
    }

    #[test]
    fn what_was_set_apart_is_told_and_fails_nothing() {
        let (_directory, store) = store();
        store.create().unwrap();
        fs::write(store.errors().join("x"), b"").unwrap();
        assert_eq!(set_apart(&store).state, State::Warning);
    }

    #[test]
    fn an_unreadable_backup_is_a_failure() {
        let (_directory, store) = store();
        let backup = store.backup("20260305T151133".parse().unwrap());
        fs::create_dir_all(backup.path()).unwrap();
        let row = &backups(&store).rows[0];
        assert_eq!((row.name, row.state), (LAST_BACKUP, State::Failed));
        assert!(row.remark.as_ref().unwrap().starts_with("20260305T151133 cannot be read"));
    }

    /// A store with a backup in segment 1, and WAL in these.
    fn backed_up(store: &ServerDir, held: &[u64]) {
        let (size, version) = (SegmentSize::new(MIB).unwrap(), ServerVersion::from_num(180_000));
        let system_id = SystemId::from_u64(7);
        Identity { system_id, segment_size: size, server_version: version, data_checksums: None }
            .establish(store)
            .unwrap();
        let id: BackupId = "20260305T151133".parse().unwrap();
        let position =
            |lsn| Some(Position { lsn: Lsn::from_u64(lsn), timeline: TimelineId::FIRST });
        let record = BackupRecord {
            id,
            server: store.name().clone(),
            outcome: BackupOutcome::Copied,
            name: None,
            label: String::new(),
            parent: None,
            system_id,
            segment_size: size,
            server_version: version,
            data_checksums: None,
            program_version: String::new(),
            began_at: id.time(),
            ended_at: None,
            done_at: None,
            begin: position(MIB + 40),
            end: position(MIB + 400),
            tablespaces: Vec::new(),
            archives: Vec::new(),
            manifest: None,
            config_files: None,
            damaged_pages: None,
        };
        fs::create_dir_all(store.backup(id).path()).unwrap();
        record.save(&store.backup(id)).unwrap();
        for number in held {
            let path = store.archived(segment(*number), Codec::None);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
    }

    fn segment(number: u64) -> SegmentName {
        let size = SegmentSize::new(MIB).unwrap();
        SegmentName::new(TimelineId::FIRST, SegmentNumber::from_u64(number), size)
    }

    fn wal_row(store: &ServerDir) -> (State, String) {
        let mut rows = backups(store).rows;
        let row = rows.pop().unwrap();
        assert_eq!(row.name, WAL_ARCHIVE);
        (row.state, row.remark.unwrap_or_default())
    }

    #[test]
    fn wal_that_is_missing_behind_a_backup_is_told_and_why_it_is() {
        let (_directory, store) = store();
        let at = |mib| Lsn::from_u64(mib * MIB);
        backed_up(&store, &[1, 2]);
        assert_eq!(wal_row(&store), (State::Ok, String::new()));
        backed_up(&store, &[5]);
        let (state, remark) = wal_row(&store);
        assert_eq!(state, State::Failed);
        assert_eq!(
            remark,
            format!("WAL from 0/300000 to 0/400000 in segment {} is missing", segment(3))
        );
        journal::record_gap(&store, TimelineId::FIRST, at(3), at(5)).unwrap();
        let (state, remark) = wal_row(&store);
        assert_eq!(state, State::Warning);
        assert!(remark.ends_with("is left out, as was asked for"), "{remark}");
        let lock = ServerLock::try_acquire(&store, LockKind::Archive).unwrap();
        journal::record_retired(&store, TimelineId::FIRST, at(2), at(5), &lock).unwrap();
        assert_eq!(wal_row(&store), (State::Ok, String::new()));
        // The backup itself needs the first one.
        fs::remove_file(store.archived(segment(1), Codec::None)).unwrap();
        let (state, remark) = wal_row(&store);
        assert_eq!(state, State::Failed);
        assert!(remark.contains("backup 20260305T151133 lacks 0/100028 to"), "{remark}");
    }

    #[test]
    fn suspect_wal_is_a_failure_if_a_backup_needs_it() {
        let (_directory, store) = store();
        backed_up(&store, &[0, 1, 2, 3]);
        let lock = ServerLock::try_acquire(&store, LockKind::Archive).unwrap();
        let size = SegmentSize::new(MIB).unwrap();
        let mut indexes = WalIndexWriters::new(&store, size, Arc::new(lock));
        let mut suspect = |number| {
            let file =
                ArchivedWal { segment: segment(number), partial: false, form: Codec::None.into() };
            let from = Lsn::from_u64(number * MIB);
            let (to, what) = (from.saturating_add(8), "it is broken".to_owned());
            let findings = WalFindings {
                validity: Some(Validity::Suspect),
                suspect: vec![SuspectRange { from, to, what }],
                ..WalFindings::default()
            };
            let stored = Stored { size: 0, sha256: Sha256Sum::of(b"") };
            let record = WalIndexRecord::new(file, Plain::default(), stored).with(findings);
            indexes.append(&[record]).unwrap();
        };
        // What lies before the oldest backup harms nobody.
        suspect(0);
        assert_eq!(wal_row(&store), (State::Ok, String::new()));
        suspect(2);
        suspect(3);
        let (state, remark) = wal_row(&store);
        assert_eq!(state, State::Failed);
        let expected =
            format!("0/200000 to 0/200008 in segment {} is suspect: it is broken", segment(2));
        assert!(remark.contains(&expected), "{remark}");
        assert!(remark.contains("1 more place"), "{remark}");
    }
}
