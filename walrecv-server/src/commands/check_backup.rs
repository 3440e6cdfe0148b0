//! `check-backup`: whether the WAL that a backup needs is there, and noting that it is.

use crate::catalog::{BackupError, BackupRecord, Catalog, Standing};
use crate::failure::{Class, Failure};
use crate::storage::{LockError, LockKind, ServerDir, ServerLock};

/// What a backup is worth.
#[derive(Clone, Debug)]
pub struct CheckBackupOutcome {
    /// Its record.
    pub record: BackupRecord,
    /// What it is worth.
    pub standing: Standing,
}

/// Why that cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckBackupFailure {
    /// There is no such backup, or it cannot be looked at.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Another process works on the backups, and it could not be noted.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl Failure for CheckBackupFailure {
    fn class(&self) -> Class {
        match self {
            Self::Backup(error) => error.class(),
            Self::Lock(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Backup(error) => error.hint(),
            Self::Lock(error) => error.hint(),
        }
    }
}

/// Looks at the WAL of the backup that `wanted` names.
pub fn check_backup(
    server: &ServerDir,
    wanted: &str,
) -> Result<CheckBackupOutcome, CheckBackupFailure> {
    let catalog = Catalog::new(server);
    let mut record = catalog.resolve(wanted)?;
    let standing = match ServerLock::try_acquire(server, LockKind::Backup) {
        Ok(lock) => {
            // Nobody is taking one, whatever its record says.
            catalog.fail_interrupted(&lock)?;
            record = catalog.load(record.id)?;
            catalog.settle(&mut record, &lock)?
        }
        // One is being taken. What can be seen can be told all the same.
        Err(LockError::Held { .. }) => catalog.standing(&record)?,
        Err(error) => return Err(error.into()),
    };
    Ok(CheckBackupOutcome { record, standing })
}
