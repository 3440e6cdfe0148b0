//! Which timeline leads to which, and when one was left. Knows no files.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use pgwire_stream::{Lsn, TimelineHistory, TimelineId};

use crate::catalog::Position;

/// How the timelines of a server's WAL and backups hang together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lineage {
    histories: BTreeMap<TimelineId, TimelineHistory>,
    /// Those of which WAL is there.
    held: BTreeSet<TimelineId>,
    left: BTreeMap<TimelineId, Leaving>,
}

/// When a timeline was left for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Then.
    At(Timestamp),
    /// It was, and was come back to.
    CameBack,
    /// That was not noted.
    Unknown,
}

impl Lineage {
    /// The timelines with these histories; of those in `held`, WAL is there.
    pub(super) fn new(
        histories: impl IntoIterator<Item = TimelineHistory>,
        held: BTreeSet<TimelineId>,
        left: BTreeMap<TimelineId, Leaving>,
    ) -> Self {
        let histories = histories.into_iter().map(|history| (history.timeline(), history));
        Self { histories: histories.collect(), held, left }
    }

    /// The timelines of which WAL is there.
    pub(super) fn held(&self) -> impl Iterator<Item = TimelineId> + '_ {
        self.held.iter().copied()
    }

    /// The newest of them.
    pub(super) fn newest_held(&self) -> Option<TimelineId> {
        self.held.last().copied()
    }

    /// How a timeline came to be; one of which nothing is known has no ancestors.
    pub(super) fn history(&self, timeline: TimelineId) -> TimelineHistory {
        self.histories.get(&timeline).cloned().unwrap_or_else(|| TimelineHistory::root(timeline))
    }

    /// When a timeline was left.
    pub(super) fn leaving(&self, timeline: TimelineId) -> Leaving {
        self.left.get(&timeline).copied().unwrap_or(Leaving::Unknown)
    }

    /// Where a timeline's WAL ends that belongs to the history of another: nowhere for that itself.
    /// `None` if it does not belong to it.
    pub(super) fn end_on(&self, timeline: TimelineId, history: TimelineId) -> Option<Lsn> {
        if timeline == history {
            return Some(Lsn::from_u64(u64::MAX));
        }
        self.histories.get(&history)?.fork_from(timeline)
    }

    /// Whether the WAL of a timeline goes on from this position.
    pub(super) fn leads_to(&self, from: Position, timeline: TimelineId) -> bool {
        self.end_on(from.timeline, timeline).is_some_and(|end| from.lsn <= end)
    }
}
