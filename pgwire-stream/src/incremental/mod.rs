//! Incremental files: what PostgreSQL 17 and later send of a relation file of which an earlier
//! backup has the rest, and how the file is put together again.
//!
//! ```text
//!  magic │ number of blocks │ truncation block length │ block numbers … │ zeros │ blocks …
//!  └──────────────── u32, little-endian ──────────────────────────────┘ └ to a whole block
//! ```
//!
//! An [`IncrementalReader`] verifies a file as it arrives and gives its [`BlockMap`];
//! a [`Reconstruction`] says where each block of the whole file lies in a chain of backups.
//! Nothing here reads or writes files.
//!
//! ```
//! use pgwire_stream::RelationFiles;
//! use pgwire_stream::incremental::{BlockMap, BlockSource, PriorFile, Reconstruction};
//!
//! // The newest backup has block 1 of three; the full one before it has two blocks.
//! let newest = BlockMap::new(RelationFiles::DEFAULT, 3, vec![1])?;
//! let prior = [PriorFile::Full { size: 2 * 8192 }];
//! let whole = Reconstruction::new(&newest, &prior)?;
//! assert_eq!(whole.source_of(0), BlockSource::At { backup: 1, offset: 0 });
//! assert_eq!(whole.source_of(1), BlockSource::At { backup: 0, offset: 8192 });
//! assert_eq!(whole.source_of(2), BlockSource::Zeros);
//! assert_eq!(whole.size(), 3 * 8192);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Follows `src/backend/backup/basebackup_incremental.c` and
//! `src/bin/pg_combinebackup/reconstruct.c`.

mod block_map;
mod error;
mod reader;
mod reconstruct;
#[cfg(test)]
mod tests;

pub use block_map::BlockMap;
pub use error::{IncrementalError, ReconstructionError};
pub use reader::IncrementalReader;
pub use reconstruct::{BlockRun, BlockSource, PriorFile, Reconstruction};

/// What the name of an incremental file begins with.
pub const FILE_NAME_PREFIX: &str = "INCREMENTAL.";

/// `INCREMENTAL_MAGIC`.
const MAGIC: u32 = 0xD3AE_1F0D;

/// The length of what stands before the block numbers.
const FIXED_LENGTH: u64 = 12;

/// The name of the relation file, if this is the name of an incremental one; without directories.
pub fn relation_file_name(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(FILE_NAME_PREFIX.as_bytes()).filter(|rest| !rest.is_empty())
}
