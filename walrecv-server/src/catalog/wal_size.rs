//! How much room archived WAL takes.

use std::collections::{BTreeMap, BTreeSet};

use pgwire_stream::SegmentName;

use super::journal;
use super::wal::{WalError, WalStore};
use super::wal_index::WalIndex;
use crate::storage::{ArchivedWal, durable};

impl WalStore {
    /// The stored size of archived WAL, as the indexes tell it: for each directory under the name
    /// of its first segment, or if one of the `borders` lies in it, for each of its segments. So
    /// what lies between two borders is the sum of what lies between their names, and costs the
    /// last line of an index for each directory. An index goes on to tell of what was removed from
    /// its directory, so where that begins and ends every segment is looked at.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub fn stored_sizes(
        &self,
        borders: &BTreeSet<SegmentName>,
    ) -> Result<BTreeMap<SegmentName, u64>, WalError> {
        let mut sizes = BTreeMap::new();
        let mut divided: BTreeSet<String> = borders.iter().map(|border| border.folder()).collect();
        for retired in journal::retired(self.server())? {
            let (first, last) = (retired.from, retired.to);
            let numbers =
                [self.segment_size().segment_of(first), self.segment_size().segment_of(last)];
            divided.extend(numbers.map(|number| {
                SegmentName::new(retired.timeline, number, self.segment_size()).folder()
            }));
        }
        for folder in self.folders()? {
            let totals = if divided.contains(&folder.folder()) {
                None
            } else {
                WalIndex::of(self.server(), folder).totals()?
            };
            match totals {
                Some(totals) => {
                    sizes.insert(folder, totals.stored_size);
                }
                None => self.sizes_in(folder, &mut sizes)?,
            }
        }
        Ok(sizes)
    }

    /// The stored size of what is in a directory whose index does not tell it.
    pub(super) fn stored_size_of(&self, folder: SegmentName) -> Result<u64, WalError> {
        let mut sizes = BTreeMap::new();
        self.sizes_in(folder, &mut sizes)?;
        Ok(sizes.values().sum())
    }

    /// Each segment of a directory. Only a file that the index does not know is looked at.
    fn sizes_in(
        &self,
        folder: SegmentName,
        sizes: &mut BTreeMap<SegmentName, u64>,
    ) -> Result<(), WalError> {
        let directory = self.server().wal_dir(folder);
        // A damaged index is somebody else's business here.
        let known = WalIndex::of(self.server(), folder).stored_sizes().unwrap_or_default();
        for name in durable::list_dir(&directory)? {
            let Some(Ok(file)) = name.to_str().map(str::parse::<ArchivedWal>) else {
                continue;
            };
            let size = match known.get(&file) {
                Some(&size) => size,
                None => durable::file_size(&directory.join(&name))?.unwrap_or(0),
            };
            *sizes.entry(file.segment).or_default() += size;
        }
        Ok(())
    }
}
