//! Bytes that last: paths, durable writes, locks, compression and encryption.
//!
//! Everything here blocks; asynchronous callers hand it to a blocking thread. It knows files, but
//! not what they mean: that is the catalog's business.

mod backup_id;
mod commits;
#[cfg(test)]
pub(crate) mod counted;
mod crc;
mod error;
mod fingerprint;
mod form;
mod hash;
mod layout;
mod pace;
mod pieces;
mod read_ahead;

pub mod archived_writer;
pub mod compression;
pub mod durable;
pub mod encryption;
pub mod lock;
pub mod tar;
mod write_back;
mod zeros;

pub use archived_writer::{ArchivedWriter, Packing};
pub use backup_id::{BackupId, BackupIdError};
pub use commits::Commits;
pub use compression::{Codec, CompressedWriter, Frame, Method};
pub use crc::{Crc32c, Crc32cError, Crc32cWriter, Plain};
pub use durable::Access;
pub use encryption::{DecryptionError, EncryptedWriter, KeyFile};
pub use error::{StorageError, is_out_of_space};
pub use fingerprint::{Fingerprint, FingerprintWriter};
pub use form::Form;
pub use hash::{HashingWriter, Sha256Sum, Sha256SumError, Stored};
pub use layout::{ArchivedWal, ArchivedWalError, BackupDir, Home, ServerDir};
pub use lock::{LockError, LockKind, ServerLock};
pub use pace::Pace;
pub use pieces::{Piece, Pieces};
pub use read_ahead::read_ahead;
pub use zeros::is_zero;
