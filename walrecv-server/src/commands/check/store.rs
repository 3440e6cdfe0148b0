//! What is stored for a server.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pgwire_stream::SegmentName;
use rustix::fs::{Access as Allowed, access};

use super::running::RECEIVER;
use super::{Row, State};
use crate::catalog::{BackupError, BackupOutcome, BackupStatus};
use crate::commands::list_backups::{ListedBackup, list_backups};
use crate::storage::{LockKind, ServerDir, ServerLock, durable};

const DIRECTORIES: &str = "directories";
const BACKLOG: &str = "archive backlog";
const LAST_BACKUP: &str = "last backup";
const WAL_ARCHIVE: &str = "WAL archive";
const ERRORS: &str = "archiver errors";

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
    for backup in &list {
        if let ListedBackup::Known { record, standing, wal_size: size } = backup {
            wal_size += size;
            match standing.status {
                BackupStatus::Done => last_size = last_size.or(Some(record.stored_size())),
                BackupStatus::Broken => broken.push(match standing.missing {
                    Some(gap) => format!("backup {} lacks {gap}", record.id),
                    None => format!("backup {} is broken", record.id),
                }),
                _ => {}
            }
        }
    }
    let wal = if broken.is_empty() {
        Row::ok(WAL_ARCHIVE)
    } else {
        Row::remark(WAL_ARCHIVE, State::Failed, format!("WAL is missing: {}", broken.join(", ")))
    };
    Backups { rows: vec![last_backup(&list), wal], last_size, wal_size }
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

    use super::*;
    use crate::storage::{Access, Home};

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
}
