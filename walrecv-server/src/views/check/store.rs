//! How the store of a server is, apart from what is in it.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pgwire_stream::SegmentName;
use rustix::fs::{Access as Allowed, access};

use super::running::RECEIVER;
use super::{Row, State};
use crate::catalog::{Catalog, Leases, Turns};
use crate::failure::in_one_line;
use crate::retention::RetentionError;
use crate::storage::{Home, LockKind, ServerDir, ServerLock, durable};

const DIRECTORIES: &str = "directories";
const BACKLOG: &str = "archive backlog";
const ERRORS: &str = "archiver errors";
const LEASES: &str = "restores";
const HALF_ADOPTED: &str = "interrupted adopt";
const VANISHED: &str = "vanished backups";
const SCHEDULES: &str = "schedules";

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

/// A store that `adopt` was about to set apart; no row if there is none.
pub(super) fn half_adopted(store: &ServerDir) -> Option<Row> {
    let home = Home::new(store.path().parent()?, store.access());
    let apart = home.being_set_apart(store.name());
    apart.path().exists().then(|| {
        let (apart, server) = (apart.path().display(), store.name());
        let remark = format!(
            "the store of the cluster before is still in {apart}: `walrecv-server adopt {server}` \
             finishes that"
        );
        Row::remark(HALF_ADOPTED, State::Failed, remark)
    })
}

/// The backups that have to be there, and are not; no row if all are.
pub(super) fn vanished(store: &ServerDir) -> Option<Row> {
    let vanished = match Catalog::new(store).vanished() {
        Ok(vanished) => vanished,
        Err(error) => return Some(Row::failure(VANISHED, State::Failed, &error)),
    };
    if vanished.is_empty() {
        return None;
    }
    let error = RetentionError::Vanished { backups: vanished, base: store.base() };
    Some(Row::failure(VANISHED, State::Failed, &error))
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

/// That nobody knows which scheduled moments have had their turn, if so: then nothing is begun.
pub(super) fn schedules(store: &ServerDir) -> Option<Row> {
    let error = Turns::load(store).err()?;
    Some(Row::remark(
        SCHEDULES,
        State::Failed,
        format!(
            "no schedule is followed: {}; without `{}` they begin anew",
            in_one_line(&error),
            store.schedule().display()
        ),
    ))
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

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;
    use crate::storage::Access;

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
    fn schedules_that_are_not_followed_fail() {
        let (_directory, store) = store();
        assert_eq!(schedules(&store), None);
        store.create().unwrap();
        fs::write(store.schedule(), b"{").unwrap();
        let row = schedules(&store).unwrap();
        assert_eq!((row.state, row.advisory), (State::Failed, false));
        assert!(row.remark.unwrap().contains("schedule.json` is damaged"));
    }

    #[test]
    fn what_was_set_apart_is_told_and_fails_nothing() {
        let (_directory, store) = store();
        store.create().unwrap();
        fs::write(store.errors().join("x"), b"").unwrap();
        assert_eq!(set_apart(&store).state, State::Warning);
    }
}
