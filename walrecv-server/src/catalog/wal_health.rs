//! Whether the backups can be recovered to all the WAL behind them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use pgwire_stream::{Lsn, SegmentSize, TimelineHistory, TimelineId};

use super::backup_record::{BackupOutcome, BackupRecord};
use super::backups::{BackupError, Catalog};
use super::coverage::{Absence, Gap, Reach};
use super::history::{HistoryStore, HistoryStoreError};
use super::verdicts::SuspectWal;
use super::wal::WalStore;

/// What is in the way of a recovery to the end of WAL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalHealth {
    /// The first WAL behind a backup that is missing or was left out, though WAL behind it is
    /// held.
    pub gaps: Vec<LostWal>,
    /// Archived WAL that PostgreSQL could not replay.
    pub suspect: Vec<SuspectWal>,
    /// Whether there are backups, and from none of them does WAL lead to the end of what is held.
    pub none_leads_on: bool,
}

/// WAL that is not held, between WAL that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostWal {
    /// Where it begins, and why it is not held.
    pub gap: Gap,
    /// Where WAL is held again.
    pub resumes: Lsn,
    /// How many segments it lies in.
    pub segments: u64,
}

impl fmt::Display for LostWal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gap: Gap { from, segment, .. }, resumes, segments } = self;
        match segments {
            0 | 1 => write!(f, "{from} to {resumes} in segment {segment}"),
            _ => write!(f, "{from} to {resumes} in {segments} segments from {segment} on"),
        }
    }
}

impl Catalog {
    /// Looks at all WAL from the oldest of these backups on; without any, at what is suspect in
    /// the archive. Lists every directory.
    ///
    /// # Errors
    /// If the WAL or the timeline histories cannot be read.
    pub fn wal_health(
        &self,
        segment_size: SegmentSize,
        records: &[&BackupRecord],
    ) -> Result<WalHealth, BackupError> {
        let copied = records.iter().filter(|record| record.outcome == BackupOutcome::Copied);
        let positions: Vec<_> =
            copied.filter_map(|record| Some((record.begin?, record.end?))).collect();
        let store = WalStore::new(self.server(), segment_size);
        let mut suspect = store.verdicts()?.suspect;
        let mut gaps: Vec<LostWal> = Vec::new();
        let mut leads_on = positions.is_empty();
        if let Some(oldest) = positions.iter().map(|(begin, _)| begin.lsn).min() {
            suspect.retain(|suspect| suspect.range.to > oldest);
            let mut histories: BTreeMap<TimelineId, TimelineHistory> = BTreeMap::new();
            let mut coverage = store.coverage()?;
            for (_, end) in positions {
                let history = match histories.entry(end.timeline) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(unknown) => unknown.insert(self.newest_history(end.timeline)?),
                };
                let last = Lsn::from_u64(u64::MAX);
                let reach = store.reach_in(&mut coverage, history, end.lsn, last)?;
                let Reach::Missing(gap) = reach else {
                    leads_on = true;
                    continue;
                };
                let number = segment_size.segment_of(gap.from);
                let Some(resumes) = coverage.resumes(history, number) else {
                    leads_on = true;
                    continue;
                };
                let is_it =
                    |lost: &LostWal| (lost.gap.timeline, lost.gap.from) == (gap.timeline, gap.from);
                if gap.absence != Absence::Retired && !gaps.iter().any(is_it) {
                    let behind = segment_size.segment_of(resumes).as_u64();
                    let segments = behind.saturating_sub(number.as_u64());
                    gaps.push(LostWal { gap, resumes, segments });
                }
            }
        }
        Ok(WalHealth { gaps, suspect, none_leads_on: !leads_on })
    }

    /// The history of the newest timeline that descends from this one; if nobody knows how that
    /// came to be, of this one alone.
    fn newest_history(&self, timeline: TimelineId) -> Result<TimelineHistory, HistoryStoreError> {
        let store = HistoryStore::new(self.server());
        let ancestry = store.newest_descendant(timeline).and_then(|newest| store.ancestry(newest));
        match ancestry {
            Err(HistoryStoreError::Missing { .. }) => Ok(TimelineHistory::root(timeline)),
            ancestry => ancestry,
        }
    }
}
