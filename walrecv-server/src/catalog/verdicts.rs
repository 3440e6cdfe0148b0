//! What the validator thought of the archive: which WAL is in order, and which is suspect.

use std::collections::BTreeMap;

use pgwire_stream::SegmentName;

use super::journal;
use super::ranges::Ranges;
use super::wal::{WalError, WalStore, segments_per_folder};
use super::wal_findings::{SuspectRange, Validity};
use super::wal_index::{WalIndex, WalIndexRecord};
use crate::storage::ArchivedWal;

/// What the validator thought of archived WAL. What is in neither was not validated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// What is in order.
    pub validated: Ranges,
    /// What PostgreSQL could not replay, although it is what the server sent; in the order of
    /// timelines and positions.
    pub suspect: Vec<SuspectWal>,
}

/// Archived WAL that PostgreSQL could not replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuspectWal {
    /// The segment.
    pub segment: SegmentName,
    /// Where in it, and what is wrong.
    pub range: SuspectRange,
}

impl WalStore {
    /// What the validator thought of the archive, as the indexes tell it. Costs the last line of
    /// an index for each directory; only those are read that lack something, or in which
    /// something is suspect.
    ///
    /// # Errors
    /// If a directory or an index cannot be read.
    pub fn verdicts(&self) -> Result<Verdicts, WalError> {
        let size = self.segment_size();
        let segments = segments_per_folder(size);
        let mut verdicts = Verdicts::default();
        for folder in self.folders()? {
            let Ok(first) = folder.start(size) else { continue };
            let index = WalIndex::of(self.server(), folder);
            match index.totals()? {
                Some(totals) if totals.validated == 0 && totals.suspect == 0 => {}
                // A tail may stand in for a segment that is not there: then the records tell.
                Some(totals)
                    if totals.validated == totals.files
                        && u64::from(totals.files) == segments
                        && totals.tails == 0 =>
                {
                    verdicts.validated.add(folder.timeline(), first, first.saturating_add(1 << 32));
                }
                _ => verdicts.add(index.records()?, self),
            }
        }
        // An index goes on to tell of what was removed from its directory.
        let retired = journal::set_of(&journal::retired(self.server())?);
        verdicts.suspect.retain(|SuspectWal { segment, range }| {
            retired.end_at(segment.timeline(), range.from).is_none()
        });
        Ok(verdicts)
    }
}

impl Verdicts {
    fn add(&mut self, records: Vec<WalIndexRecord>, store: &WalStore) {
        // The last record about a file counts.
        let newest: BTreeMap<ArchivedWal, WalIndexRecord> =
            records.into_iter().map(|record| (record.file, record)).collect();
        for (file, record) in newest {
            let Ok(start) = file.segment.start(store.segment_size()) else { continue };
            match record.findings.validity {
                Some(Validity::Validated) => {
                    let end = start.saturating_add(record.plain_size);
                    self.validated.add(file.segment.timeline(), start, end);
                }
                Some(Validity::Suspect) => {
                    let segment = file.segment;
                    let suspect = record.findings.suspect.into_iter();
                    self.suspect.extend(suspect.map(|range| SuspectWal { segment, range }));
                }
                Some(Validity::Unknown) | None => {}
            }
        }
    }
}
