//! How fast archived WAL grows, as the indexes tell it.

use std::time::{Duration, SystemTime};

use pgwire_stream::PgTimestamp;

use super::wal::{WalError, WalStore};
use super::wal_index::{WalIndex, WalIndexRecord};
use crate::storage::durable;

/// The most directories that are looked at: a terabyte of WAL.
const MOST_FOLDERS: usize = 256;

/// WAL that was archived within some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalGrowth {
    /// When its first transaction ended, by the server's clock.
    pub from: PgTimestamp,
    /// When its last one did.
    pub to: PgTimestamp,
    /// How much WAL it is.
    pub plain: u64,
    /// How much room it takes.
    pub stored: u64,
}

impl WalStore {
    /// The WAL of about the last so much time; `None` where the archive holds too little to tell.
    /// Reads the last line of each index, and one index whole.
    ///
    /// # Errors
    /// If a directory or an index cannot be read.
    pub fn growth(&self, within: Duration) -> Result<Option<WalGrowth>, WalError> {
        let (mut plain, mut stored) = (0_u64, 0_u64);
        let mut end: Option<PgTimestamp> = None;
        let mut oldest: Option<WalIndex> = None;
        for folder in self.folders()?.into_iter().rev().take(MOST_FOLDERS) {
            let index = WalIndex::of(self.server(), folder);
            let Some((record, Some(totals))) = index.last()? else { continue };
            let Some(at) = last_moment(&record) else { continue };
            let to = *end.get_or_insert(at);
            if to.as_micros().saturating_sub(at.as_micros()) > micros(within) {
                // What lies before its end is older than what was asked for.
                return Ok(growth(at, to, plain, stored));
            }
            let segments = u64::from(totals.files.saturating_sub(totals.tails));
            plain = plain.saturating_add(segments * u64::from(self.segment_size().bytes()));
            stored = stored.saturating_add(totals.stored_size);
            oldest = Some(index);
        }
        let (Some(to), Some(oldest)) = (end, oldest) else { return Ok(None) };
        // A damaged index is somebody else's business here.
        let records = oldest.records().unwrap_or_default();
        let from = records.iter().find_map(|record| record.findings.first_commit);
        Ok(from.and_then(|from| growth(from, to, plain, stored)))
    }

    /// When something was archived last; `None` if nothing is.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn archived_at(&self) -> Result<Option<SystemTime>, WalError> {
        let Some(folder) = self.folders()?.into_iter().next_back() else { return Ok(None) };
        let index = self.server().wal_index(folder);
        match durable::modified(&index)? {
            Some(at) => Ok(Some(at)),
            None => Ok(durable::modified(&self.server().wal_dir(folder))?),
        }
    }
}

fn last_moment(record: &WalIndexRecord) -> Option<PgTimestamp> {
    record.findings.latest_end.or(record.findings.last_commit)
}

fn growth(from: PgTimestamp, to: PgTimestamp, plain: u64, stored: u64) -> Option<WalGrowth> {
    (from < to && plain > 0).then_some(WalGrowth { from, to, plain, stored })
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pgwire_stream::{SegmentName, SegmentNumber, SegmentSize, TimelineId};

    use super::*;
    use crate::catalog::{WalFindings, WalIndexWriters};
    use crate::storage::{
        Access, ArchivedWal, Codec, Home, LockKind, Plain, ServerLock, Sha256Sum, Stored, durable,
    };

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    #[test]
    fn the_last_days_tell_how_fast_wal_grows() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path(), Access::Private);
        let server = home.server(&"main".parse().unwrap());
        let store = WalStore::new(&server, SIZE);
        let week = Duration::from_secs(7 * 86_400);
        assert_eq!(store.growth(week).unwrap(), None);
        assert_eq!(store.archived_at().unwrap(), None);

        let hour = |number: u64| PgTimestamp::from_micros(number as i64 * 3_600_000_000);
        let lock = ServerLock::try_acquire(&server, LockKind::Archive).unwrap();
        let mut indexes = WalIndexWriters::new(&server, SIZE, Arc::new(lock));
        // A segment each hour, for 32 days.
        for number in 0..3 * 256 {
            let segment =
                SegmentName::new(TimelineId::FIRST, SegmentNumber::from_u64(number), SIZE);
            durable::create_dir(&server.wal_dir(segment), Access::Private).unwrap();
            let file = ArchivedWal { segment, partial: false, form: Codec::Zstd.into() };
            let plain = Plain { size: SIZE.bytes().into(), ..Plain::of(b"") };
            let stored = Stored { size: 1000, sha256: Sha256Sum::of(b"") };
            let findings = WalFindings {
                first_commit: Some(hour(number)),
                last_commit: Some(hour(number + 1)),
                ..WalFindings::default()
            };
            indexes.append(&[WalIndexRecord::new(file, plain, stored).with(findings)]).unwrap();
        }

        // The newest directory reaches back far enough, and ends where the one before does.
        let growth = store.growth(week).unwrap().unwrap();
        let expected = WalGrowth {
            from: hour(512),
            to: hour(768),
            plain: 256 * u64::from(SIZE.bytes()),
            stored: 256_000,
        };
        assert_eq!(growth, expected);
        // All of them do not reach back so far.
        let growth = store.growth(100 * week).unwrap().unwrap();
        assert_eq!((growth.from, growth.stored), (hour(0), 768_000));
        assert!(store.archived_at().unwrap().is_some());
    }
}
