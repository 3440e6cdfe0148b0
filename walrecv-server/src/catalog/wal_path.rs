//! WAL along a history of timelines, in the order in which a recovery replays it.
//!
//! What the index notes of a segment answers most questions; where it says nothing, or not enough,
//! the records themselves do.

use std::collections::BTreeMap;

use pgwire_stream::wal::{Finding, Record, Start, WalOptions, WalValidator, WalWarning};
use pgwire_stream::{Lsn, SegmentName, SegmentNumber, TimelineHistory};

use super::judge::read_all;
use super::wal::{WalError, WalReader, WalStore};
use super::wal_findings::WalFindings;
use super::wal_index::WalIndex;
use crate::storage::StorageError;

/// The WAL of a history, up to where it is held without a gap.
#[derive(Debug)]
pub struct WalPath<'a> {
    store: &'a WalStore,
    history: &'a TimelineHistory,
    end: Lsn,
    /// What the index of the last directory that was asked about notes, by segments.
    noted: Option<(String, BTreeMap<SegmentName, WalFindings>)>,
}

impl<'a> WalPath<'a> {
    /// The way along a history, which ends at `end`.
    pub fn new(store: &'a WalStore, history: &'a TimelineHistory, end: Lsn) -> Self {
        Self { store, history, end, noted: None }
    }

    /// What is noted of the records that begin in a segment; `None` if nothing is, or it may be
    /// about records that are not on the way.
    ///
    /// # Errors
    /// If an index cannot be read. One that is damaged notes nothing.
    pub fn noted(&mut self, number: SegmentNumber) -> Result<Option<&WalFindings>, WalError> {
        let size = self.store.segment_size();
        let (start, end) = (size.start_of(number), size.end_of(number));
        let timelines = self.history.timelines_between(start, end);
        let &[timeline] = timelines.as_slice() else { return Ok(None) };
        let segment = SegmentName::new(timeline, number, size);
        let folder = segment.folder();
        if self.noted.as_ref().is_none_or(|(of, _)| *of != folder) {
            let records = match WalIndex::of(self.store.server(), segment).records() {
                Ok(records) => records,
                Err(super::WalIndexError::Storage(error)) => return Err(error.into()),
                Err(_) => Vec::new(),
            };
            // The last record about a file counts.
            let whole = records.into_iter().filter(|record| !record.file.partial);
            let noted = whole.map(|record| (record.file.segment, record.findings)).collect();
            self.noted = Some((folder, noted));
        }
        let noted = self.noted.as_ref().and_then(|(_, noted)| noted.get(&segment));
        // Earlier versions of this program noted only some of the transactions' ends.
        let all = |findings: &&WalFindings| {
            findings.validity.is_some()
                && (findings.latest_end.is_some()
                    || findings.last_commit.is_none() && findings.xids.is_none())
        };
        Ok(noted.filter(all))
    }

    /// Shows every record that begins at `from` or later and before `below`, in order and as long
    /// as `see` wants more. What cannot be replayed is passed over. Whether all of it could be
    /// understood: it may be damaged, or WAL of a server of the future.
    ///
    /// # Errors
    /// If WAL on the way cannot be read.
    pub fn records(
        &self,
        from: Lsn,
        below: Lsn,
        mut see: impl FnMut(&Record) -> bool,
    ) -> Result<bool, WalError> {
        let size = self.store.segment_size();
        let mut number = size.segment_of(from);
        let options = WalOptions::new(size);
        let mut validator = WalValidator::new(options, Start::Anywhere(size.start_of(number)));
        let (mut more, mut understood) = (true, true);
        while more && size.start_of(number) < self.end {
            let Some((reader, length)) = self.open(number)? else { break };
            let path = reader.path().to_owned();
            let mut left = length.min(self.end.bytes_since(size.start_of(number)));
            let read = read_all(reader, |bytes| {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                left -= taken as u64;
                let bytes = bytes.get(..taken).unwrap_or_default();
                validator.feed(bytes, |finding| match finding {
                    Finding::Record(record) if more && record.start >= from => {
                        more = record.start < below && see(&record);
                    }
                    Finding::Damage { .. }
                    | Finding::Warning {
                        what: WalWarning::Magic { .. } | WalWarning::ByteOrder,
                        ..
                    } => understood = false,
                    _ => {}
                });
                more && left > 0
            });
            // What the operating system did not say, a codec or a checksum did.
            read.map_err(|source| match source.raw_os_error() {
                Some(_) => StorageError::of("read", &path)(source).into(),
                None => WalError::Damaged { path: path.clone(), source },
            })?;
            if length < u64::from(size.bytes()) {
                break;
            }
            number = number.next();
        }
        Ok(!more || understood)
    }

    /// A segment as the timeline has it that holds the most of it on the way, and how much that
    /// is: a newer one begins with a copy of what the older one had.
    fn open(&self, number: SegmentNumber) -> Result<Option<(WalReader, u64)>, WalError> {
        let size = self.store.segment_size();
        let (start, end) = (size.start_of(number), size.end_of(number));
        let mut best: Option<(WalReader, u64)> = None;
        for timeline in self.history.timelines_between(start, end).into_iter().rev() {
            let Some(reader) = self.store.open(SegmentName::new(timeline, number, size))? else {
                continue;
            };
            let left = self.history.fork_from(timeline).unwrap_or(end).min(end);
            let usable = reader.length().min(left.bytes_since(start));
            if best.as_ref().is_none_or(|(_, most)| usable > *most) {
                best = Some((reader, usable));
            }
        }
        Ok(best)
    }
}
