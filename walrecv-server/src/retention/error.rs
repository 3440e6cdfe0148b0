//! Why nothing, or not all, was removed.

use crate::catalog::{BackupError, DocumentError, HistoryStoreError, IdentityError, WalError};
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
            Self::Backup { backup, source } => source.hint().or_else(|| {
                Some(format!("see to its `backup.json`, or move the directory `{backup}` away"))
            }),
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
