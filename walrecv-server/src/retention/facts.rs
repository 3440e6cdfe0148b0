//! What there is to decide about, read from the store.

use std::collections::BTreeSet;

use jiff::Timestamp;
use pgwire_stream::{SegmentSize, TimelineHistory, TimelineId, WalFileName};

use super::error::RetentionError;
use super::lineage::{Leaving, Lineage};
use super::reason::Reason;
use crate::catalog::{
    BackupRecord, BackupStatus, Catalog, HistoryStore, Keep, KeepTarget, Lease, Leases, Position,
    RecordedSwitch, Standing, WalStore, journal,
};
use crate::storage::{BackupId, ServerDir, durable};
use crate::units::moment;

/// What is known of a server's backups and timelines.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The backups, in the order in which they began.
    pub(super) backups: Vec<KnownBackup>,
    /// How their timelines hang together.
    pub(super) lineage: Lineage,
}

/// What a decision about a backup needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownBackup {
    /// The backup.
    pub id: BackupId,
    /// What it builds on.
    pub parent: Option<BackupId>,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What it is worth.
    pub status: BackupStatus,
    /// Whether it is known to be damaged.
    pub damaged: bool,
    /// Whether it could be restored once.
    pub was_done: bool,
    /// Where recovery begins.
    pub begin: Option<Position>,
    /// Up to where recovery must get at least.
    pub end: Option<Position>,
    /// The mark on it.
    pub keep: Option<KeepTarget>,
    /// The restores that need it.
    pub restores: Vec<Reason>,
    /// The room that it takes.
    pub size: u64,
}

impl KnownBackup {
    pub(super) fn new(
        record: &BackupRecord,
        standing: &Standing,
        keep: Option<KeepTarget>,
        leases: &Leases,
    ) -> Self {
        Self {
            id: record.id,
            parent: record.parent,
            began_at: record.began_at,
            ended_at: record.ended_at,
            status: standing.status,
            damaged: standing.damaged,
            was_done: record.done_at.is_some(),
            begin: record.begin,
            end: record.end,
            keep,
            restores: leases.of(record.id).map(restore).collect(),
            size: record.stored_size(),
        }
    }
}

fn restore(lease: &Lease) -> Reason {
    let until = (!lease.restoring).then_some(lease.expires);
    Reason::Restore { destination: lease.destination.clone(), until }
}

impl Facts {
    /// Whether a backup's begin comes before another's in the WAL that leads to that.
    pub(super) fn is_before(&self, one: &KnownBackup, other: &KnownBackup) -> bool {
        let (Some(one), Some(other)) = (one.begin, other.begin) else { return false };
        one.lsn < other.lsn && self.lineage.leads_to(one, other.timeline)
    }

    /// The backups that can be restored, in the order of their WAL, and of our clock where WAL does
    /// not tell: it may have been set back.
    pub(super) fn in_order_of_wal(&self) -> Vec<&KnownBackup> {
        let mut left: Vec<_> =
            self.backups.iter().filter(|backup| backup.status == BackupStatus::Done).collect();
        left.sort_by_key(|backup| (backup.began_at, backup.id));
        let mut ordered = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let is_first =
                |backup: &&KnownBackup| !left.iter().any(|other| self.is_before(other, backup));
            // What comes before another has the smaller position, so there is always a first.
            let place = left.iter().position(is_first).unwrap_or_default();
            ordered.push(left.remove(place));
        }
        ordered
    }

    /// What the store tells of these backups.
    pub(super) fn of(
        server: &ServerDir,
        segment_size: SegmentSize,
        backups: Vec<KnownBackup>,
    ) -> Result<Self, RetentionError> {
        let lineage = lineage(server, segment_size, &backups)?;
        Ok(Self { backups, lineage })
    }
}

/// Every backup as it is known, and the leases.
///
/// # Errors
/// If anything about one of them cannot be read.
pub(super) fn backups(
    server: &ServerDir,
    leases: &Leases,
) -> Result<Vec<(BackupRecord, KnownBackup)>, RetentionError> {
    let catalog = Catalog::new(server);
    let mut known = Vec::new();
    for entry in catalog.list()? {
        let backup = entry.id;
        let failed = |source| RetentionError::Backup { backup, source };
        let record = entry.record.map_err(failed)?;
        let standing = catalog.standing(&record).map_err(failed)?;
        let keep = Keep::load(&server.backup(backup))
            .map_err(|source| RetentionError::Mark { backup, source })?;
        let facts = KnownBackup::new(&record, &standing, keep.map(|keep| keep.target), leases);
        known.push((record, facts));
    }
    Ok(known)
}

fn lineage(
    server: &ServerDir,
    segment_size: SegmentSize,
    backups: &[KnownBackup],
) -> Result<Lineage, RetentionError> {
    let held = held_timelines(server, segment_size)?;
    let positions = backups.iter().flat_map(|backup| [backup.begin, backup.end]).flatten();
    let mut timelines: BTreeSet<TimelineId> = positions.map(|at| at.timeline).collect();
    timelines.extend(&held);
    let mut histories = Vec::new();
    if timelines.len() > 1 {
        let store = HistoryStore::new(server);
        for &timeline in &timelines {
            let history =
                store.ancestry(timeline).map_err(|source| RetentionError::History { source })?;
            histories.push(history);
        }
    } else {
        // It leads nowhere, and where it comes from changes nothing.
        histories.extend(timelines.iter().map(|&only| TimelineHistory::root(only)));
    }
    let switches =
        journal::switches(server).map_err(|source| RetentionError::Journal { source })?;
    let left = timelines.iter().map(|&timeline| (timeline, leaving(timeline, &switches)));
    Ok(Lineage::new(histories, held, left.collect()))
}

/// The timelines of which WAL is there. Costs a look at names of directories.
fn held_timelines(
    server: &ServerDir,
    segment_size: SegmentSize,
) -> Result<BTreeSet<TimelineId>, RetentionError> {
    let store = WalStore::new(server, segment_size);
    let mut held: BTreeSet<_> = store.directories()?.iter().map(|name| name.timeline()).collect();
    durable::for_each_name(&server.streaming(), |name| {
        if let Ok(WalFileName::Segment(segment) | WalFileName::Partial(segment)) = name.parse() {
            held.insert(segment.timeline());
        }
    })?;
    Ok(held)
}

fn leaving(timeline: TimelineId, switches: &[RecordedSwitch]) -> Leaving {
    let last = |is_it: &dyn Fn(&&RecordedSwitch) -> bool| {
        switches.iter().filter(is_it).filter_map(|switch| moment(switch.at)).max()
    };
    let left = last(&|switch| switch.left == timeline);
    let entered = last(&|switch| switch.entered == timeline);
    match left {
        Some(_) if entered > left => Leaving::CameBack,
        Some(left) => Leaving::At(left),
        None => Leaving::Unknown,
    }
}
