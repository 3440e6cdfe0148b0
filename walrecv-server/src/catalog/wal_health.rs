//! Whether the backups can be recovered to all the WAL behind them.

use std::collections::BTreeMap;

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
    pub gaps: Vec<Gap>,
    /// Archived WAL that PostgreSQL could not replay.
    pub suspect: Vec<SuspectWal>,
    /// Whether there are backups, and from none of them does WAL lead to the end of what is held.
    pub none_leads_on: bool,
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
        let mut gaps: Vec<Gap> = Vec::new();
        let mut leads_on = positions.is_empty();
        if let Some(oldest) = positions.iter().map(|(begin, _)| begin.lsn).min() {
            suspect.retain(|suspect| suspect.range.to > oldest);
            let mut histories: BTreeMap<TimelineId, TimelineHistory> = BTreeMap::new();
            let mut coverage = store.coverage()?;
            for (_, end) in positions {
                let history = match histories.get(&end.timeline) {
                    Some(history) => history.clone(),
                    None => self.newest_history(end.timeline)?,
                };
                let last = Lsn::from_u64(u64::MAX);
                let reach = store.reach_in(&mut coverage, &history, end.lsn, last)?;
                histories.insert(end.timeline, history);
                let passed = matches!(reach, Reach::Missing(gap) if gap.passed);
                leads_on |= !passed;
                if let Reach::Missing(gap) = reach
                    && passed
                    && gap.absence != Absence::Retired
                    && gaps
                        .iter()
                        .all(|other| (other.timeline, other.from) != (gap.timeline, gap.from))
                {
                    gaps.push(gap);
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
