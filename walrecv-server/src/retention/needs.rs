//! Which WAL the backups that stay need, and which nobody does. Knows no files.
//!
//! A segment goes only if it is known that nothing needs it: it lies before a backup that stays and
//! can be restored, on the way that leads there; or it lies on a branch that was left before the
//! policy begins to count. What is neither needed nor known to be old stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use pgwire_stream::{Lsn, SegmentName, SegmentSize, TimelineId};

use super::facts::{Facts, KnownBackup};
use super::lineage::{Leaving, Lineage};
use super::policy::{Decision, Verdict, WalNeed};
use crate::catalog::{BackupStatus, Leases, Position};
use crate::storage::BackupId;

/// What becomes of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A backup needs it.
    Backup {
        /// The backup.
        id: BackupId,
        /// Whether it needs all WAL from its begin on.
        onward: bool,
    },
    /// A restore needs it.
    Restore {
        /// The new data directory.
        destination: String,
    },
    /// No backup that stays can be restored: nobody knows what this is worth.
    NoBackup,
    /// No backup that stays is as new as its timeline.
    NewTimeline,
    /// The timeline was left too short a time ago, or nobody knows when.
    Branch(Option<Timestamp>),
    /// It goes.
    Goes,
}

impl Fate {
    /// Its name for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Backup { .. } => "backup",
            Self::Restore { .. } => "restore",
            Self::NoBackup => "no_backup",
            Self::NewTimeline => "new_timeline",
            Self::Branch(_) => "branch",
            Self::Goes => "goes",
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backup { id, onward: true } => write!(f, "backup {id} begins there"),
            Self::Backup { id, onward: false } => write!(f, "backup {id} needs it"),
            Self::Restore { destination } => {
                write!(f, "the restore into `{destination}` needs it")
            }
            Self::NoBackup => f.write_str("no WAL goes while no backup can be restored"),
            Self::NewTimeline => f.write_str("no backup is as new as this timeline"),
            Self::Branch(Some(left)) => {
                write!(f, "the timeline was left on {}", super::reason::moment(*left))
            }
            Self::Branch(None) => f.write_str("nobody knows when the timeline was left"),
            Self::Goes => f.write_str("nothing needs it"),
        }
    }
}

/// WAL of a timeline that a backup needs.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    timeline: TimelineId,
    from: Lsn,
    to: Lsn,
    backup: BackupId,
}

/// Which WAL the backups that stay need.
#[derive(Debug)]
pub(super) struct WalNeeds {
    size: SegmentSize,
    lineage: Lineage,
    /// From where on which backup needs all of a timeline's WAL.
    onward: BTreeMap<TimelineId, (Lsn, BackupId)>,
    own: Vec<Stretch>,
    /// Up to where a timeline's WAL leads to backups that stay, and from there to no other.
    behind: BTreeMap<TimelineId, Lsn>,
    /// The newest timeline with a backup that stays and can be restored.
    newest: Option<TimelineId>,
    /// The timelines whose branches may go.
    left_behind: BTreeSet<TimelineId>,
}

impl WalNeeds {
    /// What is needed after a decision.
    pub(super) fn new(facts: &Facts, decision: &Decision, size: SegmentSize) -> Self {
        let (lineage, left_behind) = (facts.lineage.clone(), decision.left_behind.clone());
        let backups = facts.backups.iter().zip(&decision.verdicts);
        Self::of(backups, lineage, left_behind, size)
    }

    /// What is needed when something else becomes of the same backups.
    pub(super) fn revised(&self, backups: &[(KnownBackup, Verdict)]) -> Self {
        let backups = backups.iter().map(|(backup, verdict)| (backup, verdict));
        Self::of(backups, self.lineage.clone(), self.left_behind.clone(), self.size)
    }

    fn of<'a>(
        backups: impl Iterator<Item = (&'a KnownBackup, &'a Verdict)>,
        lineage: Lineage,
        left_behind: BTreeSet<TimelineId>,
        size: SegmentSize,
    ) -> Self {
        let mut needs = Self {
            size,
            lineage,
            onward: BTreeMap::new(),
            own: Vec::new(),
            behind: BTreeMap::new(),
            newest: None,
            left_behind,
        };
        for (backup, verdict) in backups {
            let (true, Some(begin)) = (verdict.stays, backup.begin) else { continue };
            if let Some(end) = backup.end {
                needs.add_own(backup.id, begin, end);
            }
            if verdict.wal == WalNeed::Onward {
                needs.add_onward(backup.id, begin);
            }
            if verdict.wal == WalNeed::Onward && backup.status == BackupStatus::Done {
                needs.add_anchor(begin);
            }
        }
        needs
    }

    fn timelines(&self) -> Vec<TimelineId> {
        self.lineage.held().collect()
    }

    fn add_own(&mut self, backup: BackupId, begin: Position, end: Position) {
        let history = self.lineage.history(end.timeline);
        let older = history.switches().iter().map(|switch| switch.timeline);
        for timeline in older.chain([end.timeline]) {
            let Some(left) = self.lineage.end_on(timeline, end.timeline) else { continue };
            let (from, to) = (begin.lsn, end.lsn.min(left));
            if timeline >= begin.timeline && from < to {
                self.own.push(Stretch { timeline, from, to, backup });
            }
        }
    }

    fn add_onward(&mut self, backup: BackupId, begin: Position) {
        for timeline in self.timelines() {
            if !self.lineage.leads_to(begin, timeline) {
                continue;
            }
            // A timeline's own WAL begins where it left another, which is behind.
            let from = if timeline == begin.timeline { begin.lsn } else { Lsn::ZERO };
            let needed = self.onward.entry(timeline).or_insert((from, backup));
            *needed = (*needed).min((from, backup));
        }
    }

    fn add_anchor(&mut self, begin: Position) {
        self.newest = self.newest.max(Some(begin.timeline));
        for timeline in self.timelines() {
            if let Some(end) = self.lineage.end_on(timeline, begin.timeline) {
                let behind = end.min(begin.lsn);
                let known = self.behind.entry(timeline).or_insert(behind);
                *known = (*known).max(behind);
            }
        }
    }

    /// What becomes of a timeline's WAL from `start` to `end`, of one segment or of several.
    pub(super) fn fate(&self, timeline: TimelineId, start: Lsn, end: Lsn, leases: &Leases) -> Fate {
        if let Some(&(from, id)) = self.onward.get(&timeline)
            && end > from
        {
            return Fate::Backup { id, onward: true };
        }
        let needed = |own: &&Stretch| own.timeline == timeline && own.from < end && start < own.to;
        if let Some(own) = self.own.iter().find(needed) {
            return Fate::Backup { id: own.backup, onward: false };
        }
        if leases.first_needed(timeline).is_some_and(|from| end > from) {
            let lease = leases.live().iter().find(|lease| lease.timeline <= timeline);
            let destination = lease.map(|lease| lease.destination.clone()).unwrap_or_default();
            return Fate::Restore { destination };
        }
        if self.behind.get(&timeline).is_some_and(|behind| end <= *behind) {
            return Fate::Goes;
        }
        match self.newest {
            None => Fate::NoBackup,
            Some(newest) if timeline >= newest => Fate::NewTimeline,
            Some(_) if self.left_behind.contains(&timeline) => Fate::Goes,
            Some(_) => Fate::Branch(match self.lineage.leaving(timeline) {
                Leaving::At(left) => Some(left),
                Leaving::CameBack | Leaving::Unknown => None,
            }),
        }
    }

    /// What becomes of a segment.
    pub(super) fn fate_of(&self, segment: SegmentName, leases: &Leases) -> Fate {
        match segment.number(self.size) {
            Ok(number) => self.fate(
                segment.timeline(),
                self.size.start_of(number),
                self.size.end_of(number),
                leases,
            ),
            // No segment of this cluster: nobody knows what it is.
            Err(_) => Fate::NoBackup,
        }
    }

    /// What becomes of all segments that a directory can have, where they share it.
    pub(super) fn fate_of_directory(
        &self,
        directory: SegmentName,
        leases: &Leases,
    ) -> Option<Fate> {
        let start = directory.start(self.size).ok()?;
        let timeline = directory.timeline();
        let end = start.saturating_add(1 << 32);
        let one = start.saturating_add(self.size.bytes().into());
        match self.fate(timeline, start, one, leases) {
            // What one needs onward, or all of it being old, is true of all of them.
            fate @ Fate::Backup { onward: true, .. } => Some(fate),
            Fate::Goes => {
                Some(Fate::Goes).filter(|goes| *goes == self.fate(timeline, start, end, leases))
            }
            _ => None,
        }
    }
}
