//! Why nothing, or not all, was removed.

use std::path::PathBuf;

use crate::catalog::{
    BackupError, DocumentError, HistoryStoreError, IdentityError, WalError, hint_to_unreadable,
    hint_to_vanished,
};
use crate::failure::{Class, Failure};
use crate::storage::{BackupId, LockError, StorageError};

/// Why nothing, or not all, was removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetentionError {
    /// Nobody knows what a backup is.
    #[error("backup `{backup}` cannot be understood, so nothing is removed")]
    Backup {
        /// The backup.
        backup: BackupId,
        /// Why not.
        source: BackupError,
    },
    /// Somebody took backups away, or they cannot be seen.
    #[error(
        "{} not in `{}` any more, so nothing is removed that they may need",
        are(backups),
        base.display()
    )]
    Vanished {
        /// The backups.
        backups: Vec<BackupId>,
        /// Where they were.
        base: PathBuf,
    },
    /// Nobody knows whether a backup is to be kept.
    #[error("cannot tell whether backup `{backup}` is to be kept, so nothing is removed")]
    Mark {
        /// The backup.
        backup: BackupId,
        /// Why not.
        source: DocumentError,
    },
    /// Nobody knows what a restore needs.
    #[error("cannot tell what a restore needs, so nothing is removed")]
    Lease {
        /// Why not.
        source: DocumentError,
    },
    /// Nobody knows what time it is.
    #[error("cannot tell when the server was heard of last, so nothing is removed")]
    Clock {
        /// Why not.
        source: DocumentError,
    },
    /// Nobody knows which timeline leads to which.
    #[error("cannot tell which timeline leads to which, so nothing is removed")]
    History {
        /// Why not.
        source: HistoryStoreError,
    },
    /// Nobody knows what happened to WAL.
    #[error("cannot tell what happened to WAL, so nothing is removed")]
    Journal {
        /// Why not.
        source: StorageError,
    },
    /// The list of backups cannot be read.
    #[error(transparent)]
    Catalog(#[from] BackupError),
    /// Nobody knows whose store it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The archive cannot be read.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// Another process works on the backups.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file cannot be read, written or removed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// How many of them are named.
const NAMED: usize = 5;

fn are(backups: &[BackupId]) -> String {
    let names: Vec<_> = backups.iter().take(NAMED).map(|id| format!("`{id}`")).collect();
    match (backups.len(), backups.len().saturating_sub(NAMED)) {
        (1, _) => format!("backup {} is", names.join("")),
        (_, 0) => format!("backups {} are", names.join(", ")),
        (_, more) => format!("backups {} and {more} more are", names.join(", ")),
    }
}

impl RetentionError {
    /// Whether another process works on the backups, so that there is a next time.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Lock(LockError::Held { .. }))
    }
}

impl Failure for RetentionError {
    fn class(&self) -> Class {
        match self {
            Self::Backup { .. }
            | Self::Vanished { .. }
            | Self::Mark { .. }
            | Self::Lease { .. }
            | Self::Clock { .. }
            | Self::History { .. }
            | Self::Journal { .. } => Class::Refused,
            Self::Catalog(error) => error.class(),
            Self::Identity(error) => error.class(),
            Self::Wal(error) => error.class(),
            Self::Lock(error) => error.class(),
            Self::Storage(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Backup { backup, source } => {
                source.hint().or_else(|| Some(hint_to_unreadable(*backup)))
            }
            Self::Vanished { backups, .. } => backups.first().copied().map(hint_to_vanished),
            Self::Mark { source, .. } | Self::Lease { source } | Self::Clock { source } => source
                .hint()
                .or_else(|| Some("see to that file, or remove it if it is not wanted".to_owned())),
            Self::History { source } => source.hint(),
            Self::Journal { source } => source.hint(),
            Self::Catalog(error) => error.hint(),
            Self::Identity(error) => error.hint(),
            Self::Wal(error) => error.hint(),
            Self::Lock(error) => error.hint(),
            Self::Storage(error) => error.hint(),
        }
    }
}
