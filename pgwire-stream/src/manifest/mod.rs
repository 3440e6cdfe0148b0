//! `backup_manifest`: the list of files and WAL that PostgreSQL 13 and later send with a base
//! backup, by which the backup can be verified.
//!
//! Reading is a push parser of bounded memory, because a manifest has a line for every file of the
//! cluster: [`ManifestReader`]. [`ManifestWriter`] writes the bytes that a server would have
//! written. Neither touches files; [`verify_directory`] does, and compares an unpacked backup with
//! its manifest.
//!
//! ```
//! use pgwire_stream::manifest::{ChecksumAlgorithm, ManifestItem, ManifestReader};
//!
//! # let bytes = {
//! #     use pgwire_stream::manifest::{ManifestFile, ManifestWriter};
//! #     let mut writer = ManifestWriter::version_1(Vec::new())?;
//! #     let mut hasher = ChecksumAlgorithm::Crc32c.hasher();
//! #     hasher.update(b"15\n");
//! #     writer.file(&ManifestFile {
//! #         path: b"PG_VERSION".to_vec(),
//! #         size: 3,
//! #         modified: "2026-03-05 15:11:33 GMT".to_owned(),
//! #         checksum: Some((ChecksumAlgorithm::Crc32c, hasher.finish())),
//! #     })?;
//! #     writer.finish(&[])?
//! # };
//! let mut reader = ManifestReader::new();
//! for piece in bytes.chunks(8192) {
//!     for item in reader.feed(piece)? {
//!         if let ManifestItem::File(file) = item {
//!             assert_eq!(file.path, b"PG_VERSION");
//!         }
//!     }
//! }
//! reader.finish()?; // The checksum of the manifest itself is verified here.
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Follows `src/backend/backup/backup_manifest.c` and `src/common/parse_manifest.c`.

mod checksum;
mod entry;
mod error;
mod hex;
mod json;
mod read;
#[cfg(test)]
mod tests;
mod verify;
mod write;

pub use checksum::{ChecksumAlgorithm, FileHasher, UnknownChecksumAlgorithm};
pub use error::ManifestError;
pub use read::ManifestReader;
pub use verify::{Discrepancy, Problem, Verified, VerifyError, VerifyOptions, verify_directory};
pub use write::ManifestWriter;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use write::rewritten;

use crate::{Lsn, SystemId, TimelineId};

/// One statement of a manifest, in the order in which the file makes them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestItem {
    /// The version of the format: 1 (PostgreSQL 13 to 16) or 2 (17 and later). Always the first.
    Version(u32),
    /// The cluster that was backed up; only in version 2.
    SystemId(SystemId),
    /// A file of the backup, in the order in which the server sent them.
    File(ManifestFile),
    /// WAL that is needed to make the backup consistent; the newest timeline first.
    WalRange(WalRange),
}

/// A regular file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// The path below the data directory, in the bytes of the server's file system. Files of
    /// tablespaces are below `pg_tblspc/<oid>/`.
    pub path: Vec<u8>,
    /// The size in bytes.
    pub size: u64,
    /// When the file was last changed, such as `2026-03-05 15:11:33 GMT`; empty if the manifest
    /// does not say.
    pub modified: String,
    /// The algorithm and the digest of the content; `None` if the backup was taken without.
    pub checksum: Option<(ChecksumAlgorithm, Vec<u8>)>,
}

/// A stretch of WAL on one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline.
    pub timeline: TimelineId,
    /// The first byte that is needed.
    pub start: Lsn,
    /// The first byte that is not needed any more.
    pub end: Lsn,
}
