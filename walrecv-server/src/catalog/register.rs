//! `state/backups.json`: the backups that have to be there. One that somebody moved away, or whose disk
//! is not mounted, is told by it from one that never was.
//!
//! A backup is entered when it is complete, and struck out before it is removed. So whatever breaks off
//! in between, the register never names one that this program took away; and what it lacks, the next
//! settling enters, also where a store is older than its register.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::backups::{BackupError, Catalog};
use super::document;
use crate::storage::{BackupId, ServerDir, ServerLock};

const FORMAT: u64 = 1;

#[derive(Default, Serialize, Deserialize)]
struct Register {
    backups: BTreeSet<BackupId>,
}

impl Register {
    fn load(server: &ServerDir) -> Result<Self, BackupError> {
        let found = document::load(&server.register(), FORMAT);
        Ok(found.map_err(|source| BackupError::Register { source })?.unwrap_or_default())
    }

    fn save(&self, server: &ServerDir) -> Result<(), BackupError> {
        Ok(document::save(&server.register(), FORMAT, self, server.access())?)
    }
}

impl Catalog {
    /// Enters backups; those are left out that are not there any more. Durable on return.
    ///
    /// # Errors
    /// If the register cannot be read or written.
    pub fn enter(
        &self,
        backups: impl IntoIterator<Item = BackupId>,
        _backup: &ServerLock,
    ) -> Result<(), BackupError> {
        let mut register = Register::load(self.server())?;
        let before = register.backups.len();
        let is_there = |id: &BackupId| self.server().backup(*id).path().is_dir();
        register.backups.extend(backups.into_iter().filter(is_there));
        if register.backups.len() == before { Ok(()) } else { register.save(self.server()) }
    }

    /// Strikes a backup out; whether it was in. Durable on return.
    ///
    /// # Errors
    /// If the register cannot be read or written.
    pub fn strike_out(&self, id: BackupId, _backup: &ServerLock) -> Result<bool, BackupError> {
        let mut register = Register::load(self.server())?;
        let was_in = register.backups.remove(&id);
        if was_in {
            register.save(self.server())?;
        }
        Ok(was_in)
    }

    /// The backups that have to be there, and are not.
    ///
    /// # Errors
    /// If the register cannot be read.
    pub fn vanished(&self) -> Result<Vec<BackupId>, BackupError> {
        let missing = || -> Result<Vec<BackupId>, BackupError> {
            let backups = Register::load(self.server())?.backups.into_iter();
            Ok(backups.filter(|id| !self.server().backup(*id).path().is_dir()).collect())
        };
        // One that is removed meanwhile is struck out before it is gone: it is not missing twice.
        if missing()?.is_empty() { Ok(Vec::new()) } else { missing() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::catalog::NoNewLeases;
    use crate::storage::{Access, Home, LockKind};

    fn id(day: u32) -> BackupId {
        format!("202603{day:02}T151133").parse().unwrap()
    }

    #[test]
    fn what_is_removed_is_not_missed_and_what_is_moved_away_is() {
        let dir = tempfile::tempdir().unwrap();
        let server = Home::new(dir.path(), Access::Private).server(&"main".parse().unwrap());
        server.create().unwrap();
        let catalog = Catalog::new(&server);
        let lock = ServerLock::try_acquire(&server, LockKind::Backup).unwrap();
        assert_eq!(catalog.vanished().unwrap(), []);
        for day in 1..4 {
            fs::create_dir(server.backup(id(day)).path()).unwrap();
            catalog.enter([id(day), id(9)], &lock).unwrap();
        }
        assert_eq!(catalog.vanished().unwrap(), []);
        catalog.hide(id(1), &lock, &NoNewLeases::hold(&server).unwrap()).unwrap();
        assert_eq!(catalog.vanished().unwrap(), []);
        fs::rename(server.backup(id(2)).path(), dir.path().join("away")).unwrap();
        assert_eq!(catalog.vanished().unwrap(), [id(2)]);
        assert!(catalog.strike_out(id(2), &lock).unwrap());
        assert!(!catalog.strike_out(id(2), &lock).unwrap());
        assert_eq!(catalog.vanished().unwrap(), []);
        // A register that says anything else is not taken for an empty one.
        fs::write(server.register(), b"{}").unwrap();
        assert!(matches!(catalog.vanished(), Err(BackupError::Register { .. })));
        assert!(catalog.enter([id(3)], &lock).is_err());
    }
}
