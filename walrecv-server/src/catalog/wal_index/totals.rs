//! What an index says of its directory as a whole.
//!
//! Each line carries it for all lines up to its own, so that it is told by the last one, which is
//! found from the end of the file. So a question about a million segments is one about their few
//! thousand directories.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use super::line::{Line, decode};
use super::{MAX_SIZE, WalIndex, WalIndexRecord};
use crate::catalog::wal_findings::Validity;
#[cfg(test)]
use crate::storage::counted::count;
use crate::storage::{ArchivedWal, StorageError};

/// How much is read from the end of an index at first: nearly every last line is shorter.
const TAIL: u64 = 4 << 10;

/// What an index says of all files of its directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalTotals {
    /// How many there are.
    pub files: u32,
    /// Their stored size.
    pub stored_size: u64,
    /// How many of them are only the beginning of a segment.
    pub tails: u32,
    /// How many of them were validated and found in order.
    pub validated: u32,
    /// How many of them hold something suspect.
    pub suspect: u32,
}

/// Adds up the records of an index; of several about a file the last one counts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    files: BTreeMap<ArchivedWal, (u64, Option<Validity>)>,
    totals: WalTotals,
    /// Lines of a later version: nobody knows what is in them.
    foreign: bool,
}

impl Tally {
    pub(super) fn of(records: &[WalIndexRecord], foreign: bool) -> Self {
        let mut tally = Self { foreign, ..Self::default() };
        records.iter().for_each(|record| tally.add(record));
        tally
    }

    pub(super) fn add(&mut self, record: &WalIndexRecord) {
        let (size, validity) = (record.stored_size, record.findings.validity);
        let before = self.files.insert(record.file, (size, validity));
        let totals = &mut self.totals;
        totals.tails += u32::from(record.file.partial && before.is_none());
        if let Some((size, validity)) = before {
            totals.stored_size = totals.stored_size.saturating_sub(size);
            totals.validated -= u32::from(validity == Some(Validity::Validated));
            totals.suspect -= u32::from(validity == Some(Validity::Suspect));
        }
        totals.files = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        totals.stored_size = totals.stored_size.saturating_add(size);
        totals.validated += u32::from(validity == Some(Validity::Validated));
        totals.suspect += u32::from(validity == Some(Validity::Suspect));
    }

    pub(super) fn totals(&self) -> Option<WalTotals> {
        (!self.foreign).then_some(self.totals)
    }
}

impl WalIndex {
    /// What the index says of all files of its directory; `None` if it cannot say, because there
    /// is none, its last line was not completed, or a later version wrote in it. Reads the last
    /// line only.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn totals(&self) -> Result<Option<WalTotals>, StorageError> {
        Ok(self.last()?.and_then(|(_, totals)| totals))
    }

    /// The last record, and what the index says of all files of its directory. Reads the last line
    /// only; `None` as for [`totals`](Self::totals).
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn last(&self) -> Result<Option<(WalIndexRecord, Option<WalTotals>)>, StorageError> {
        let fail = StorageError::of("read", &self.path);
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        let line = last_line(&file).map_err(fail)?;
        Ok(line.and_then(|line| match decode(&line) {
            Line::Known(record, totals) => Some((*record, totals)),
            Line::Foreign | Line::Damaged => None,
        }))
    }
}

/// The last line, without its end; `None` if it is not completed.
fn last_line(file: &File) -> io::Result<Option<Vec<u8>>> {
    let size = file.metadata()?.len().min(MAX_SIZE);
    let mut wanted = TAIL;
    loop {
        let length = wanted.min(size);
        let mut tail = vec![0; length as usize];
        #[cfg(test)]
        count(|counts| counts.index_bytes += length);
        file.read_exact_at(&mut tail, size - length)?;
        let Some(lines) = tail.strip_suffix(b"\n") else { return Ok(None) };
        match lines.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => return Ok(lines.get(end + 1..).map(<[u8]>::to_vec)),
            None if length == size => return Ok(Some(lines.to_vec())),
            None => wanted *= 8,
        }
    }
}
