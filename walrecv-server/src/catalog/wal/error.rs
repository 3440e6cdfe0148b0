//! Why WAL cannot be read.

use std::io;
use std::path::PathBuf;

use crate::catalog::wal_index::WalIndexError;
use crate::failure::{Class, Failure};
use crate::storage::{DecryptionError, StorageError};

/// Why WAL cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// A file does not hold what it must.
    #[error("`{}` holds {found} bytes of WAL instead of {expected}", path.display())]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// The size that it must have.
        expected: u64,
        /// The size that it has, decompressed; one more than expected stands for any more.
        found: u64,
    },
    /// A file is not what was stored.
    #[error("the WAL in `{}` is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What its codec says.
        source: io::Error,
    },
    /// What is known of the archive cannot be read.
    #[error(transparent)]
    Index(#[from] WalIndexError),
    /// A file is encrypted, and cannot be decrypted.
    #[error(transparent)]
    Decryption(DecryptionError),
    /// A file cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl WalError {
    /// Whether a key is missing, and nothing else is known to be wrong.
    pub fn is_for_want_of_keys(&self) -> bool {
        matches!(self, Self::Decryption(error) if error.is_for_want_of_keys())
    }

    /// Whether a file is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Storage(error) if error.is_not_found())
    }
}

impl From<DecryptionError> for WalError {
    fn from(error: DecryptionError) -> Self {
        match error {
            DecryptionError::Storage(error) => error.into(),
            error => Self::Decryption(error),
        }
    }
}

impl Failure for WalError {
    fn class(&self) -> Class {
        match self {
            Self::Decryption(error) => error.class(),
            Self::WrongSize { .. } | Self::Damaged { .. } | Self::Index(_) | Self::Storage(_) => {
                Class::Failed
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::WrongSize { .. } | Self::Damaged { .. } => None,
            Self::Index(error) => error.hint(),
            Self::Decryption(error) => error.hint(),
            Self::Storage(error) => error.hint(),
        }
    }
}
