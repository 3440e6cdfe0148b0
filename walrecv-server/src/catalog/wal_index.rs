//! `wals/<dir>/index`: what is known of the segments in a directory of the archive.
//!
//! One line per segment: the CRC-32C of the rest of the line in eight hexadecimal digits, a
//! space, and the record as JSON. A line is appended and made durable before the raw segment
//! is dropped, so a line that is not whole is the last one and nobody relied on it.
//!
//! A line whose checksum holds but whose record is not understood comes from a later version of
//! this program and is left alone.
//!
//! Beside its record, each line has what the index says of the directory as a whole up to there.
//!
//! The files are the truth: the index only tells their checksums, and what was seen in them when
//! they were received. It can be made again from them.

mod line;
mod rebuild;
mod totals;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use pgwire_stream::SegmentName;
use serde::{Deserialize, Serialize};

use self::line::{Line, decode, parse};
pub use self::totals::WalTotals;
pub use self::writer::{WalIndexWriter, WalIndexWriters};
use super::wal_findings::WalFindings;
use crate::failure::Failure;
#[cfg(test)]
use crate::storage::counted::count;
use crate::storage::{
    ArchivedWal, Crc32c, Fingerprint, Plain, ServerDir, Sha256Sum, StorageError, Stored,
};

/// A directory has at most 4096 segments; this is enough for 16 kB about each. From half of it on
/// records are added without what takes room.
const MAX_SIZE: u64 = 64 << 20;

/// What is known of a file of the WAL archive. What nobody filled in is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalIndexRecord {
    /// The file.
    pub file: ArchivedWal,
    /// How much WAL is in it: the segment size, or less in a partial one.
    pub plain_size: u64,
    /// The checksum of the WAL in it: it tells whether decompressing gave what was received.
    pub plain_crc32c: Crc32c,
    /// The size of the file.
    pub stored_size: u64,
    /// The checksum of the file; absent where the WAL is stored as it came, whose own is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_sha256: Option<Sha256Sum>,
    /// What was found in it when it was received, or read again.
    #[serde(flatten)]
    pub findings: WalFindings,
}

impl WalIndexRecord {
    /// What is known of a file by reading it.
    pub fn new(file: ArchivedWal, plain: Plain, stored: Stored) -> Self {
        Self {
            file,
            plain_size: plain.size,
            plain_crc32c: plain.crc32c,
            stored_size: stored.size,
            stored_sha256: Some(stored.sha256),
            findings: WalFindings::default(),
        }
    }

    /// What is known of a file that holds WAL as it came.
    pub fn raw(file: ArchivedWal, plain: Plain) -> Self {
        Self {
            file,
            plain_size: plain.size,
            plain_crc32c: plain.crc32c,
            stored_size: plain.size,
            stored_sha256: None,
            findings: WalFindings::default(),
        }
    }

    /// What the file is recognised by.
    pub fn fingerprint(&self) -> Fingerprint {
        let (size, crc32c) = (self.stored_size, self.plain_crc32c);
        match self.stored_sha256 {
            Some(sha256) => Stored { size, sha256 }.into(),
            None => Fingerprint::Crc32c(Plain { size, crc32c }),
        }
    }

    /// Whether this is about the file that another record, made by reading it, is about.
    fn describes(&self, fresh: &Self) -> bool {
        match self.stored_sha256 {
            Some(sum) => fresh.stored_sha256 == Some(sum),
            None => (self.plain_size, self.plain_crc32c) == (fresh.plain_size, fresh.plain_crc32c),
        }
    }

    /// The same record with what was found in the segment.
    #[must_use]
    pub fn with(self, findings: WalFindings) -> Self {
        Self { findings, ..self }
    }
}

/// The index of one directory of the archive.
#[derive(Clone, Debug)]
pub struct WalIndex {
    path: PathBuf,
    directory: PathBuf,
    server: ServerDir,
}

/// Why an index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WalIndexError {
    /// A line that was once durable is not any more.
    #[error("line {line} of `{}` is damaged", path.display())]
    Damaged {
        /// The index.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
    /// It is too large to be an index.
    #[error("`{}` is damaged: it is too large", path.display())]
    TooLarge {
        /// The index.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Failure for WalIndexError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged { path, .. } | Self::TooLarge { path } => Some(format!(
                "check the disk; the segments beside `{}` are read without it",
                path.display()
            )),
            Self::Storage(error) => error.hint(),
        }
    }
}

impl WalIndex {
    /// The index of the directory that holds this segment.
    pub fn of(server: &ServerDir, segment: SegmentName) -> Self {
        Self {
            path: server.wal_index(segment),
            directory: server.wal_dir(segment),
            server: server.clone(),
        }
    }

    /// What is in the index, in the order in which it was added; nothing if there is none.
    ///
    /// # Errors
    /// If it cannot be read, or a line other than the last is damaged.
    pub fn records(&self) -> Result<Vec<WalIndexRecord>, WalIndexError> {
        Ok(parse(&self.text()?).map_err(|line| self.damaged(line))?.records)
    }

    /// The stored size of each file of which a whole line tells, by the newest one.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn stored_sizes(&self) -> Result<BTreeMap<ArchivedWal, u64>, WalIndexError> {
        Ok(line::stored_sizes(&self.text()?))
    }

    /// The newest record about a file.
    ///
    /// # Errors
    /// As [`records`](Self::records).
    pub fn find(&self, file: ArchivedWal) -> Result<Option<WalIndexRecord>, WalIndexError> {
        Ok(self.records()?.into_iter().rev().find(|record| record.file == file))
    }

    /// The newest record about a file, for those who want nothing else and want it quickly: no
    /// line is taken apart that does not name it, so what is wrong with others is not noticed.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn glance(&self, file: ArchivedWal) -> Result<Option<WalIndexRecord>, WalIndexError> {
        let text = self.text()?;
        let name = format!("\"{file}\"");
        let lines = text.rsplit(|&byte| byte == b'\n');
        Ok(lines.filter(|line| mentions(line, name.as_bytes())).find_map(|line| about(line, file)))
    }

    fn text(&self) -> Result<Vec<u8>, WalIndexError> {
        let mut text = Vec::new();
        match File::open(&self.path).and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut text))
        {
            Ok(_) if text.len() as u64 > MAX_SIZE => {
                Err(WalIndexError::TooLarge { path: self.path.clone() })
            }
            Ok(_) => {
                #[cfg(test)]
                count(|counts| counts.index_bytes += text.len() as u64);
                Ok(text)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(text),
            Err(error) => Err(StorageError::of("read", &self.path)(error).into()),
        }
    }

    fn damaged(&self, line: usize) -> WalIndexError {
        WalIndexError::Damaged { path: self.path.clone(), line }
    }
}

fn mentions(line: &[u8], name: &[u8]) -> bool {
    line.windows(name.len()).any(|word| word == name)
}

/// The record of a line, if it is about this file.
fn about(line: &[u8], file: ArchivedWal) -> Option<WalIndexRecord> {
    match decode(line) {
        Line::Known(record, _) if record.file == file => Some(*record),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
