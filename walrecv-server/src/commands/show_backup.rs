//! `show-backup`: everything about a base backup.

use jiff::Timestamp;
use pgwire_stream::{Lsn, SegmentName, TimelineHistory};

use crate::catalog::{BackupError, BackupRecord, Catalog, Keep, Lease, Leases, Standing, WalStore};
use crate::retention::{Label, Rules};
use crate::storage::{BackupId, ServerDir};
use crate::views::backups::{ListedBackup, list_backups_under};

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
    /// What the retention policy says of it.
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
    let listed = list_backups_under(server, rules, Timestamp::now())?;
    let retention = listed.backups.iter().find_map(|listed| match listed {
        ListedBackup::Known { record: other, retention, .. } if other.id == record.id => {
            Some(*retention)
        }
        _ => None,
    });
    let neighbour = |index: Option<usize>| Some(entries.get(index?)?.id);
    Ok(ShowBackupOutcome {
        wal: held_wal(server, &record)?,
        previous: neighbour(position.and_then(|position| position.checked_sub(1))),
        next: neighbour(position.map(|position| position + 1)),
        keep: Keep::load(&server.backup(record.id))?,
        retention: retention.unwrap_or(Label::None),
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
