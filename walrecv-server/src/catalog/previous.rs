//! Setting apart what is stored for a server when another cluster takes over its name.
//!
//! ```text
//! <home>/main ──▶ <home>/.main.adopting ──▶ <home>/main/previous/<system id>
//! ```
//!
//! The first renaming takes everything at once, so that nothing of one cluster is ever found beside
//! what is stored for another. If the way breaks off there, it is finished the next time; meanwhile
//! nothing is stored under the name, and the new cluster may begin.

use std::fs;

use super::identity::{Identity, IdentityError};
use super::leases::LeaseId;
use crate::failure::{Class, Failure};
use crate::settings::ServerName;
use crate::storage::durable::{self, Put};
use crate::storage::{Home, ServerDir, ServerLock, StorageError};

/// Why a store was not set apart.
#[derive(Debug, thiserror::Error)]
pub enum PreviousError {
    /// Nobody knows whose it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A directory cannot be made or renamed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Failure for PreviousError {
    fn class(&self) -> Class {
        match self {
            Self::Identity(error) => error.class(),
            Self::Storage(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Identity(error) => error.hint(),
            Self::Storage(error) => error.hint(),
        }
    }
}

/// Sets the store of a server apart. Nobody else may write into it: these are all its locks. Durable
/// on return; where it is now.
///
/// # Errors
/// If something cannot be renamed.
pub fn set_apart(
    home: &Home,
    name: &ServerName,
    _all: &[ServerLock],
) -> Result<Option<ServerDir>, PreviousError> {
    finish(home, name)?;
    let _: Put = durable::rename_file(home.server(name).path(), home.being_set_apart(name).path())?;
    finish(home, name)
}

/// The store that a restored server reads, which its lease went with when that was set apart: the WAL
/// of the cluster that has the name now is none of its own.
pub fn store_of(server: &ServerDir, lease: Option<&LeaseId>) -> ServerDir {
    let of_before = || {
        let lease = lease.filter(|lease| !server.lease(lease).exists())?;
        let previous = server.previous();
        let mut stores = previous.servers().ok()?.into_iter().map(|name| previous.server(&name));
        stores.find(|store| store.lease(lease).exists())
    };
    of_before().unwrap_or_else(|| server.clone())
}

/// Finishes what was interrupted; where that store is now.
///
/// # Errors
/// If something cannot be renamed.
pub fn finish(home: &Home, name: &ServerName) -> Result<Option<ServerDir>, PreviousError> {
    let apart = home.being_set_apart(name);
    if !apart.path().exists() {
        return Ok(None);
    }
    let identity = Identity::require(&apart)?;
    let previous = home.server(name).previous();
    durable::create_dir(previous.path(), home.access())?;
    // Those from before go where they are looked for.
    for older in apart.previous().servers()? {
        move_to(&apart.previous().server(&older), &previous, &older)?;
    }
    // Empty by now, unless somebody put something there.
    let _ = fs::remove_dir(apart.previous().path());
    let system: ServerName =
        identity.system_id.to_string().parse().map_err(|error| {
            StorageError::of("name", apart.path())(std::io::Error::other(error))
        })?;
    move_to(&apart, &previous, &system).map(Some)
}

/// Moves a store beneath another, under this name or, where it is taken, one with a number behind.
fn move_to(
    store: &ServerDir,
    previous: &Home,
    name: &ServerName,
) -> Result<ServerDir, PreviousError> {
    let mut free = name.clone();
    for number in 2u32.. {
        let target = previous.server(&free);
        if durable::rename_file(store.path(), target.path())? == Put::Stored {
            break;
        }
        if let Ok(next) = format!("{name}.{number}").parse() {
            free = next;
        }
    }
    Ok(previous.server(&free))
}

#[cfg(test)]
mod tests {
    use pgwire_stream::{SegmentSize, ServerVersion, SystemId};

    use super::*;
    use crate::storage::{Access, LockKind};

    fn establish(server: &ServerDir, id: u64) {
        let identity = Identity {
            system_id: SystemId::from_u64(id),
            segment_size: SegmentSize::DEFAULT,
            server_version: ServerVersion::from_num(180_000),
            data_checksums: None,
        };
        identity.establish(server).unwrap();
        fs::write(server.wals().join("of"), id.to_string()).unwrap();
    }

    fn set_apart_now(home: &Home, name: &ServerName) -> ServerDir {
        let lock = ServerLock::try_acquire(&home.server(name), LockKind::Receiver).unwrap();
        set_apart(home, name, &[lock]).unwrap().unwrap()
    }

    #[test]
    fn every_cluster_keeps_its_store() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), Access::Private);
        let name: ServerName = "main".parse().unwrap();
        let server = home.server(&name);
        assert_eq!(finish(&home, &name).unwrap(), None);
        // The second cluster comes back at last.
        for id in [7, 8, 9, 8] {
            establish(&server, id);
            set_apart_now(&home, &name);
            assert!(!server.identity().exists() && !server.wals().exists());
        }
        let names: Vec<_> =
            server.previous().servers().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["7", "8", "8.2", "9"]);
        for name in names {
            let previous = server.previous().server(&name.parse().unwrap());
            let of = fs::read_to_string(previous.wals().join("of")).unwrap();
            assert_eq!(of, name.split('.').next().unwrap());
        }
    }

    #[test]
    fn a_lease_names_the_store_that_it_went_with() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), Access::Private);
        let name: ServerName = "main".parse().unwrap();
        let server = home.server(&name);
        let (old, new): (LeaseId, LeaseId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let lease = |id: &LeaseId| {
            fs::create_dir_all(server.leases()).unwrap();
            fs::write(server.lease(id), b"{}").unwrap();
        };
        establish(&server, 7);
        lease(&old);
        assert_eq!(store_of(&server, Some(&old)), server);
        let previous = set_apart_now(&home, &name);
        establish(&server, 8);
        lease(&new);
        assert_eq!(store_of(&server, Some(&old)), previous);
        assert_eq!(store_of(&server, Some(&new)), server);
        assert_eq!(store_of(&server, None), server);
    }

    #[test]
    fn what_was_interrupted_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path(), Access::Private);
        let name: ServerName = "main".parse().unwrap();
        let server = home.server(&name);
        establish(&server, 7);
        set_apart_now(&home, &name);
        establish(&server, 8);
        // After the first step, and a new cluster has begun already.
        fs::rename(server.path(), home.being_set_apart(&name).path()).unwrap();
        establish(&server, 9);
        let eight = finish(&home, &name).unwrap().unwrap();
        assert_eq!(fs::read_to_string(eight.wals().join("of")).unwrap(), "8");
        assert_eq!(server.previous().servers().unwrap().len(), 2);
        assert_eq!(Identity::require(&server).unwrap().system_id, SystemId::from_u64(9));
        assert!(!home.being_set_apart(&name).path().exists());
    }
}
