//! Bytes that last: paths, durable writes, locks and compression.
//!
//! Everything here blocks; asynchronous callers hand it to a blocking thread. It knows files, but
//! not what they mean: that is the catalog's business.

mod backup_id;
#[cfg(test)]
pub(crate) mod counted;
mod crc;
mod error;
mod hash;
mod layout;

pub mod compression;
pub mod durable;
pub mod lock;
pub mod tar;

pub use backup_id::{BackupId, BackupIdError};
pub use compression::{Codec, CompressedWriter, Frame, Method};
pub use crc::{Crc32c, Crc32cError, Crc32cWriter, Plain};
pub use durable::Access;
pub use error::StorageError;
pub use hash::{HashingWriter, Sha256Sum, Sha256SumError, Stored};
pub use layout::{ArchivedWal, ArchivedWalError, BackupDir, Home, ServerDir};
pub use lock::{LockError, LockKind, ServerLock};
