//! Why a file of WAL is not delivered, and the exit codes that tell PostgreSQL so.

use std::io;
use std::path::{Path, PathBuf};

use pgwire_stream::{SegmentName, WalFileName, WalNameError};

use super::lookup::TRIES;
use crate::catalog::Absence;
use crate::failure::{Class, Failure};
use crate::settings::ServerName;
use crate::storage::{DecryptionError, StorageError};

/// The exit codes of `get-wal`. All but the first two make PostgreSQL stop its recovery.
pub mod exit_code {
    /// The file is where it is wanted.
    pub const DELIVERED: u8 = 0;
    /// The archive was read completely and ends before this file.
    pub const END_OF_ARCHIVE: u8 = 1;
    /// The command, the name or the configuration is wrong.
    pub const USAGE: u8 = 200;
    /// The store may not be read, and nobody serves this user.
    pub const NOT_PERMITTED: u8 = 201;
    /// What is stored is not what was received.
    pub const CORRUPT: u8 = 202;
    /// The file is missing, though WAL behind it is held.
    pub const GAP: u8 = 203;
    /// Reading or writing failed.
    pub const IO: u8 = 204;
    /// The program itself failed.
    pub const PANIC: u8 = 205;
    /// The file is encrypted, and no key that opens it is at hand.
    pub const ENCRYPTED: u8 = 206;
}

/// Why a file of WAL is not delivered, although the archive does not end before it.
#[derive(Debug, thiserror::Error)]
pub enum GetWalError {
    /// Nothing that an archive could hold is called so.
    #[error("get-wal was asked for something else than WAL")]
    Name(#[from] WalNameError),
    /// A `.partial` file is not asked for by its own name.
    #[error("`{name}` is the beginning of a segment, which is delivered under the segment's name")]
    PartialName {
        /// What was asked for.
        name: WalFileName,
    },
    /// Nothing was ever stored for this server.
    #[error("nothing is stored for server `{server}` in `{}`", path.display())]
    UnknownServer {
        /// The server.
        server: ServerName,
        /// Where it would be.
        path: PathBuf,
    },
    /// The store is closed to this user.
    #[error("the store may not be read by this user")]
    NotPermitted(#[source] StorageError),
    /// A file of the store is damaged.
    #[error("the stored `{name}` is damaged")]
    Corrupt {
        /// What was asked for.
        name: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of the store is encrypted, and no key that opens it is at hand.
    #[error("the stored `{name}` cannot be decrypted")]
    Encrypted {
        /// What was asked for.
        name: String,
        /// Why not.
        source: DecryptionError,
    },
    /// The file is lost.
    #[error("`{segment}` is {absence}, and the archive does not end there")]
    Gap {
        /// The segment.
        segment: SegmentName,
        /// How much of its beginning is held.
        held: u64,
        /// Why it is not there.
        absence: Absence,
    },
    /// The file was moved each time it was looked for.
    #[error("`{segment}` was moved {TRIES} times while it was looked for")]
    Restless {
        /// The segment.
        segment: SegmentName,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Storage(StorageError),
}

impl GetWalError {
    /// The exit code of the program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Name(_) | Self::PartialName { .. } | Self::UnknownServer { .. } => {
                exit_code::USAGE
            }
            Self::NotPermitted(_) => exit_code::NOT_PERMITTED,
            Self::Corrupt { .. } => exit_code::CORRUPT,
            Self::Encrypted { .. } => exit_code::ENCRYPTED,
            Self::Gap { .. } => exit_code::GAP,
            Self::Restless { .. } | Self::Storage(_) => exit_code::IO,
        }
    }

    /// Whether somebody who may read the store could still deliver the file.
    pub fn is_not_permitted(&self) -> bool {
        matches!(self, Self::NotPermitted(_))
    }

    /// Whether somebody who has a key could still deliver the file.
    pub fn is_without_keys(&self) -> bool {
        matches!(self, Self::Encrypted { source: DecryptionError::NoKeys { .. }, .. })
    }

    pub(super) fn corrupt(
        name: WalFileName,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Corrupt { name: name.to_string(), source: source.into() }
    }
}

impl From<StorageError> for GetWalError {
    fn from(error: StorageError) -> Self {
        match error.source.kind() {
            io::ErrorKind::PermissionDenied => Self::NotPermitted(error),
            _ => Self::Storage(error),
        }
    }
}

impl Failure for GetWalError {
    fn class(&self) -> Class {
        match self {
            Self::Name(_) | Self::PartialName { .. } | Self::UnknownServer { .. } => Class::Usage,
            Self::Encrypted { source, .. } => source.class(),
            _ => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Name(_) => "segments are called like 00000001000000A100000002, histories like \
                 00000002.history"
                .to_owned(),
            Self::PartialName { .. } => "ask for the segment's name with --partial".to_owned(),
            Self::UnknownServer { .. } => {
                "check the name of the server and the home directory".to_owned()
            }
            Self::NotPermitted(_) => {
                "run the daemon with this user among its `wal_readers`, or let the user's group \
                 read the store with `group_access = true`"
                    .to_owned()
            }
            Self::Corrupt { .. } => "check the disk of the store; recovery cannot get past this \
                                     file, but a target before it can be reached"
                .to_owned(),
            Self::Encrypted { source, .. } => return source.hint(),
            Self::Gap { .. } => {
                "recovery cannot get past this segment; a target before it can be reached, and a \
                 later backup begins behind it"
                    .to_owned()
            }
            Self::Restless { .. } => "try again".to_owned(),
            Self::Storage(error) => return error.hint(),
        })
    }
}

pub(in crate::restore) fn wrong_length(name: &str, found: u64, expected: u64) -> GetWalError {
    let message = format!("it has {found} bytes or more instead of {expected}");
    GetWalError::Corrupt { name: name.to_owned(), source: message.into() }
}

pub(in crate::restore) fn read_error(name: &str, source: io::Error) -> GetWalError {
    // What neither the operating system nor the daemon said, a codec or a checksum did.
    let broke_off = source.kind() == io::ErrorKind::ConnectionAborted;
    if source.raw_os_error().is_none() && !broke_off {
        return GetWalError::Corrupt { name: name.to_owned(), source: source.into() };
    }
    GetWalError::Storage(StorageError { action: "read", path: name.into(), source })
}

/// Of the destination, where "not permitted" has nothing to do with the store.
pub(super) fn storage_error(action: &'static str, path: &Path, source: io::Error) -> GetWalError {
    GetWalError::Storage(StorageError { action, path: path.to_owned(), source })
}
