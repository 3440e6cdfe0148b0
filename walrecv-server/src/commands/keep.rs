//! `keep`: marks a backup that no policy removes, and takes the mark away.

use jiff::Timestamp;

use crate::catalog::{BackupError, BackupOutcome, Catalog, DocumentError, Keep, KeepTarget};
use crate::failure::{Class, Failure};
use crate::settings::ServerName;
use crate::storage::{BackupId, LockError, LockKind, ServerDir, ServerLock};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAction {
    /// Mark it.
    Mark(KeepTarget),
    /// Take the mark away.
    Release,
    /// Say whether there is one.
    Show,
}

/// A backup, and the mark that it has now.
#[derive(Clone, Debug)]
pub struct KeepOutcome {
    /// The server.
    pub server: ServerName,
    /// The backup.
    pub backup: BackupId,
    /// Its mark.
    pub keep: Option<Keep>,
}

/// Why the mark is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepFailure {
    /// There is no such backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// It is no backup that could be kept for itself.
    #[error("backup `{backup}` builds on `{parent}` and cannot be kept alone")]
    Incremental {
        /// The backup.
        backup: BackupId,
        /// What it builds on.
        parent: BackupId,
    },
    /// It is no backup that anybody could want.
    #[error("backup `{backup}` is not complete")]
    NotComplete {
        /// The backup.
        backup: BackupId,
    },
    /// The mark cannot be read or written.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Another process works on the backups.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl Failure for KeepFailure {
    fn class(&self) -> Class {
        match self {
            Self::Backup(error) => error.class(),
            Self::Lock(error) => error.class(),
            Self::Incremental { .. } => Class::Refused,
            Self::NotComplete { .. } | Self::Document(_) => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Backup(error) => error.hint(),
            Self::Incremental { .. } => {
                Some("keep the full backup that its chain begins with".to_owned())
            }
            Self::NotComplete { .. } => None,
            Self::Document(error) => error.hint(),
            Self::Lock(error) => error.hint(),
        }
    }
}

/// Changes or shows the mark of the backup that `wanted` names.
pub fn keep(
    server: &ServerDir,
    wanted: &str,
    action: KeepAction,
) -> Result<KeepOutcome, KeepFailure> {
    // One that is being removed at this moment cannot be kept any more.
    let _lock = match action {
        KeepAction::Show => None,
        _ => Some(ServerLock::try_acquire(server, LockKind::Backup)?),
    };
    let record = Catalog::new(server).resolve(wanted)?;
    let backup = server.backup(record.id);
    match action {
        KeepAction::Show => {}
        KeepAction::Mark(target) => {
            if let Some(parent) = record.parent {
                return Err(KeepFailure::Incremental { backup: record.id, parent });
            }
            if record.outcome != BackupOutcome::Copied {
                return Err(KeepFailure::NotComplete { backup: record.id });
            }
            Keep { target, since: Timestamp::now() }.save(&backup)?;
        }
        KeepAction::Release => Keep::release(&backup)?,
    }
    let keep = Keep::load(&backup)?;
    Ok(KeepOutcome { server: server.name().clone(), backup: record.id, keep })
}
