//! Why an encrypted file cannot be read.

use std::io;
use std::path::PathBuf;

use crate::failure::{Class, Failure};
use crate::storage::StorageError;

/// Why a file that is, or may be, encrypted cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecryptionError {
    /// It is encrypted, and nobody has named a key.
    #[error("`{}` is encrypted, and no identity is given that opens it", path.display())]
    NoKeys {
        /// The file.
        path: PathBuf,
    },
    /// It is encrypted to others.
    #[error("no identity in `{}` opens `{}`", keys.display(), path.display())]
    OtherKeys {
        /// The file.
        path: PathBuf,
        /// The identity file.
        keys: PathBuf,
    },
    /// The identity file cannot be read.
    #[error("cannot read the identity file `{}`", keys.display())]
    KeysUnreadable {
        /// The identity file.
        keys: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read the identity file.
    #[error("the identity file `{}` is open to other users: its mode is {mode:04o}", keys.display())]
    KeysExposed {
        /// The identity file.
        keys: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The identity file is something else.
    #[error("`{}` is not an identity file of age", keys.display())]
    KeysMalformed {
        /// The identity file.
        keys: PathBuf,
        /// What is wrong with it; never what is in it.
        source: io::Error,
    },
    /// It was altered, or never was what its name says.
    #[error("the encrypted `{}` is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: age::DecryptError,
    },
    /// The file itself cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl DecryptionError {
    /// Whether the file is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Storage(error) if error.is_not_found())
    }

    /// Whether it would be read with the right keys.
    pub fn is_for_want_of_keys(&self) -> bool {
        !matches!(self, Self::Damaged { .. } | Self::Storage(_))
    }
}

impl Failure for DecryptionError {
    fn class(&self) -> Class {
        match self {
            Self::NoKeys { .. } | Self::OtherKeys { .. } => Class::Refused,
            Self::KeysUnreadable { .. } | Self::KeysExposed { .. } | Self::KeysMalformed { .. } => {
                Class::Usage
            }
            Self::Damaged { .. } => Class::Failed,
            Self::Storage(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoKeys { .. } => "name the file with the secret key: `--identity FILE`, or \
                 `encryption_identity` in the configuration"
                .to_owned(),
            Self::OtherKeys { .. } => {
                "name the identity file of one of the keys that were `encryption_recipients` when \
                 it was stored"
                    .to_owned()
            }
            Self::KeysUnreadable { keys, source } => match source.kind() {
                io::ErrorKind::PermissionDenied => format!(
                    "`{}` must belong to the user who runs this, with mode 0600",
                    keys.display()
                ),
                _ => {
                    "name the file with the secret key, as `age-keygen -o FILE` wrote it".to_owned()
                }
            },
            Self::KeysExposed { keys, .. } => {
                format!("whoever has read it can read all backups: `chmod 0600 {}`", keys.display())
            }
            Self::KeysMalformed { .. } => "an identity file holds lines such as \
                 AGE-SECRET-KEY-1…, as `age-keygen -o FILE` writes them; one that is protected by \
                 a passphrase must be decrypted first"
                .to_owned(),
            Self::Damaged { .. } => return None,
            Self::Storage(error) => return error.hint(),
        })
    }
}
