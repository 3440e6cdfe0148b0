//! How much room archived WAL takes.

use std::collections::BTreeMap;

use pgwire_stream::SegmentName;

use super::wal::{WalError, WalStore};
use super::wal_index::WalIndex;
use crate::storage::{ArchivedWal, durable};

impl WalStore {
    /// The stored size of every archived segment. The indexes tell, so that this costs a few reads
    /// for each directory of the archive; only a file that its index does not know is looked at.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub fn stored_sizes(&self) -> Result<BTreeMap<SegmentName, u64>, WalError> {
        let mut sizes: BTreeMap<SegmentName, u64> = BTreeMap::new();
        for folder in self.folders()? {
            let directory = self.server().wal_dir(folder);
            // A damaged index is somebody else's business here.
            let records = WalIndex::of(self.server(), folder).records().unwrap_or_default();
            let known: BTreeMap<ArchivedWal, u64> =
                records.into_iter().map(|record| (record.file, record.stored_size)).collect();
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
        }
        Ok(sizes)
    }
}
