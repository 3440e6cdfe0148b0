//! What is held, as stretches, for pictures: what a look costs depends on the directories of the
//! archive, and not on the segments in them.

use pgwire_stream::{SegmentName, SegmentNumber};

use super::coverage::Coverage;
use super::journal;
use super::wal::{WalError, WalStore, Wanted, segments_per_folder};
use super::wal_index::WalIndex;
use crate::storage::durable;

/// All WAL that is held, and the room that it takes.
#[derive(Clone, Debug)]
pub struct WalOutline {
    /// What is held.
    pub coverage: Coverage,
    /// The directories of the archive, in the order of timelines and positions.
    pub folders: Vec<FolderOutline>,
}

/// A directory of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderOutline {
    /// Its first segment, whether that is held or not.
    pub first: SegmentName,
    /// The stored size of what is in it.
    pub stored_size: u64,
}

impl WalStore {
    /// All that is held. A directory that is full, as its index says, is believed to be if nothing
    /// was added to it or removed from it since the index was written; the names in others are
    /// listed. Good for showing, and for nothing that is promised.
    ///
    /// # Errors
    /// If a directory or an index cannot be read.
    pub fn outline(&self) -> Result<WalOutline, WalError> {
        let size = self.segment_size();
        let per_folder = segments_per_folder(size);
        let all = Wanted {
            history: None,
            first: SegmentNumber::from_u64(0),
            last: SegmentNumber::from_u64(u64::MAX),
        };
        let mut coverage = self.nothing()?;
        self.scan_streaming(&all, &mut coverage)?;
        let retired = journal::retired(self.server())?;
        let mut folders = Vec::new();
        for folder in self.folders()? {
            let Ok(first) = folder.number(size) else { continue };
            let totals = WalIndex::of(self.server(), folder).totals()?;
            let changed_at = durable::modified(&self.server().wal_dir(folder))?;
            let written_at = durable::modified(&self.server().wal_index(folder))?;
            let is_full = totals
                .is_some_and(|totals| u64::from(totals.files) == per_folder && totals.tails == 0);
            let last = SegmentNumber::from_u64(first.as_u64() + per_folder - 1);
            // Where something was removed, times tell nothing: the clock may have been set back.
            let is_whole = !retired.iter().any(|range| {
                range.timeline == folder.timeline()
                    && range.from < size.end_of(last)
                    && size.start_of(first) < range.to
            });
            if is_full && is_whole && changed_at <= written_at {
                coverage.add_all(folder.timeline(), first, last);
            } else {
                self.scan_folder(folder, &all, &mut coverage)?;
            }
            let stored_size = match totals {
                Some(totals) => totals.stored_size,
                None => self.stored_size_of(folder)?,
            };
            folders.push(FolderOutline { first: folder, stored_size });
        }
        Ok(WalOutline { coverage, folders })
    }
}
