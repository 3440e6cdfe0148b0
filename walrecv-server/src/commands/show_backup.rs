//! `show-backup`: everything about a base backup.

use jiff::Timestamp;
use pgwire_stream::{Lsn, SegmentName, TimelineHistory};

use crate::catalog::{
    BackupError, BackupRecord, Catalog, CatalogEntry, Keep, Lease, Leases, Standing, WalStore,
};
use crate::retention::{self, Label, Rules};
use crate::storage::{BackupId, ServerDir};

/// Everything about a base backup.
#[derive(Clone, Debug)]
pub struct ShowBackupOutcome {
    /// Its record.
    pub record: BackupRecord,
    /// What it is worth.
    pub standing: Standing,
    /// The stored size of the WAL from it to the next one.
    pub wal_size: u64,
    /// The WAL that can be replayed on its timeline.
    pub wal: Option<HeldWal>,
    /// The backup before it.
    pub previous: Option<BackupId>,
    /// The backup after it.
    pub next: Option<BackupId>,
    /// The mark on it that it is to stay.
    pub keep: Option<Keep>,
    /// Whether there is a retention policy.
    pub has_policy: bool,
    /// What it says of the backup.
    pub retention: Label,
    /// The restores that need it.
    pub leases: Vec<Lease>,
    /// The backups that build on it directly.
    pub children: Vec<BackupId>,
}

/// WAL that follows the end of a backup on its timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldWal {
    /// How many segments, the one still being received included.
    pub segments: u64,
    /// The last of them.
    pub last: SegmentName,
    /// The byte behind the last.
    pub end: Lsn,
}

/// Shows the backup that `wanted` names.
pub fn show_backup(
    server: &ServerDir,
    wanted: &str,
    rules: &Rules,
) -> Result<ShowBackupOutcome, BackupError> {
    let catalog = Catalog::new(server);
    let record = catalog.resolve(wanted)?;
    let standing = catalog.standing(&record)?;
    let entries = catalog.list()?;
    let records: Vec<_> = entries.iter().filter_map(|entry| entry.record.as_ref().ok()).collect();
    let sizes = catalog.wal_sizes(&records)?;
    let wal_size = records
        .iter()
        .zip(sizes)
        .find(|(other, _)| other.id == record.id)
        .map_or(0, |(_, size)| size);
    let position = entries.iter().position(|entry| entry.id == record.id);
    let neighbour = |index: Option<usize>| Some(entries.get(index?)?.id);
    Ok(ShowBackupOutcome {
        wal: held_wal(server, &record)?,
        previous: neighbour(position.and_then(|position| position.checked_sub(1))),
        next: neighbour(position.map(|position| position + 1)),
        keep: Keep::load(&server.backup(record.id))?,
        has_policy: rules.policy.is_some(),
        retention: label(server, &catalog, &entries, record.id, rules),
        leases: Leases::load(server).of(record.id).cloned().collect(),
        children: records
            .iter()
            .filter(|other| other.parent == Some(record.id))
            .map(|other| other.id)
            .collect(),
        record,
        standing,
        wal_size,
    })
}

/// What the policy says of a backup; nothing, while something cannot be read that it would have to
/// know.
fn label(
    server: &ServerDir,
    catalog: &Catalog,
    entries: &[CatalogEntry],
    backup: BackupId,
    rules: &Rules,
) -> Label {
    let known = || {
        let mut known = Vec::with_capacity(entries.len());
        for entry in entries {
            let record = entry.record.as_ref().ok()?;
            let keep = Keep::load(&server.backup(entry.id)).ok()?;
            let standing = catalog.standing(record).ok().filter(|_| rules.policy.is_some())?;
            known.push((record, standing, keep));
        }
        let known: Vec<_> =
            known.iter().map(|(record, known, keep)| (*record, known, *keep)).collect();
        retention::verdicts(server, &known, rules, Timestamp::now()).ok()
    };
    let verdict = known().and_then(|verdicts| verdicts.get(&backup).map(|verdict| verdict.label));
    let kept = || Some(Label::Kept(Keep::load(&server.backup(backup)).ok()??.target));
    verdict.or_else(kept).unwrap_or(Label::None)
}

fn held_wal(server: &ServerDir, record: &BackupRecord) -> Result<Option<HeldWal>, BackupError> {
    let Some(end) = record.end else { return Ok(None) };
    let size = record.segment_size;
    let timeline = TimelineHistory::root(end.timeline);
    let before_end = Lsn::from_u64(end.lsn.as_u64().saturating_sub(1));
    let behind = WalStore::new(server, size).coverage_between(
        &timeline,
        before_end,
        Lsn::from_u64(u64::MAX),
    )?;
    // The stretch that the backup's end lies in: what comes after a gap cannot be replayed.
    let span = behind.spans().into_iter().find(|span| span.start < end.lsn && end.lsn <= span.end);
    Ok(span.map(|span| {
        let first = size.last_byte_segment_of(end.lsn);
        let last = size.last_byte_segment_of(span.end);
        HeldWal {
            segments: last.as_u64().saturating_sub(first.as_u64()) + 1,
            last: SegmentName::new(end.timeline, last, size),
            end: span.end,
        }
    }))
}
