//! How much room backups and WAL take, how quickly that grows, and when the disk is full.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Serialize;

use super::backups::ListedBackup;
use crate::catalog::{BackupStatus, WalOutline};
use crate::settings::RetentionPolicy;

/// How far back growth is looked at.
const LOOK_BACK: Duration = Duration::from_secs(7 * 86_400);

/// Less than this says nothing about a day.
const LEAST: Duration = Duration::from_secs(3600);

const DAY: f64 = 86_400.0;

/// The room that a server's backups and WAL take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sizes {
    /// What is stored of the backups.
    pub backup_bytes: u64,
    /// What is stored of the archived WAL.
    pub wal_bytes: u64,
    /// What came each day lately, in backups and in WAL; absent until there is enough to tell.
    pub bytes_per_day: Option<u64>,
    /// How much of that stays, because the retention policy does not yet remove as much.
    pub growth_per_day: Option<u64>,
    /// The file system.
    pub disk: Option<Disk>,
}

/// A file system.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Disk {
    /// Its size.
    pub size_bytes: u64,
    /// What may still be written.
    pub free_bytes: u64,
    /// In how many seconds it is full, if all servers in it go on as they do; absent if it does not
    /// fill up, or that is not known.
    pub full_in_seconds: Option<u64>,
    /// Which one it is, to tell it from others.
    #[serde(skip)]
    pub id: u64,
}

/// How much room what is stored for a server takes. The forecast is for
/// [`forecast`] to make, who knows the other servers.
pub fn sizes(
    path: &Path,
    outline: Option<&WalOutline>,
    backups: &[ListedBackup],
    policy: Option<&RetentionPolicy>,
    now: Timestamp,
) -> Sizes {
    let stored: Vec<(Timestamp, u64)> = backups
        .iter()
        .filter_map(|backup| match backup {
            ListedBackup::Known { record, .. } => Some((record.began_at, record.stored_size())),
            ListedBackup::Unreadable { .. } => None,
        })
        .collect();
    let folders = outline.map(|outline| outline.folders.as_slice()).unwrap_or_default();
    let written: Vec<(Timestamp, u64)> = folders
        .iter()
        .filter_map(|folder| Some((moment(folder.written_at?)?, folder.stored_size)))
        .collect();
    // What a directory holds came since the one before it was written.
    let since = now - LOOK_BACK;
    let oldest_backup = stored.iter().map(|(began_at, _)| *began_at).min();
    let before = written.iter().map(|(at, _)| *at).filter(|at| *at < since).max();
    let wal = per_day(&written, before.or(oldest_backup), since, now);
    let backup = per_day(&stored, oldest_backup.map(|oldest| oldest.max(since)), since, now);
    let bytes_per_day = match (backup, wal) {
        (None, None) => None,
        (backup, wal) => Some(backup.unwrap_or(0) + wal.unwrap_or(0)),
    };
    let settled = policy.is_some_and(|policy| is_settled(policy, oldest_backup, backups, now));
    Sizes {
        backup_bytes: stored.iter().map(|(_, size)| size).sum(),
        wal_bytes: folders.iter().map(|folder| folder.stored_size).sum(),
        bytes_per_day,
        growth_per_day: bytes_per_day.map(|bytes| if settled { 0 } else { bytes }),
        disk: disk(path),
    }
}

/// Says when each disk is full, from what all servers on it add.
pub fn forecast<'a>(servers: impl IntoIterator<Item = &'a mut Sizes>) {
    let mut servers: Vec<&mut Sizes> = servers.into_iter().collect();
    let mut growth: BTreeMap<u64, u64> = BTreeMap::new();
    for sizes in &servers {
        if let (Some(disk), Some(bytes)) = (sizes.disk, sizes.growth_per_day) {
            let sum = growth.entry(disk.id).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }
    for disk in servers.iter_mut().filter_map(|sizes| sizes.disk.as_mut()) {
        let per_day = growth.get(&disk.id).copied().filter(|bytes| *bytes > 0);
        disk.full_in_seconds =
            per_day.map(|bytes| (disk.free_bytes as f64 / bytes as f64 * DAY) as u64);
    }
}

/// What was added per day, from `from` on, by what came `since` then.
fn per_day(
    added: &[(Timestamp, u64)],
    from: Option<Timestamp>,
    since: Timestamp,
    now: Timestamp,
) -> Option<u64> {
    let passed = now.duration_since(from?).as_secs_f64();
    if passed < LEAST.as_secs_f64() {
        return None;
    }
    let bytes: u64 = added.iter().filter(|(at, _)| *at >= since).map(|(_, size)| size).sum();
    Some((bytes as f64 / passed.max(1.0) * DAY) as u64)
}

/// Whether the policy removes as much as comes: then there is as much as it keeps.
fn is_settled(
    policy: &RetentionPolicy,
    oldest: Option<Timestamp>,
    backups: &[ListedBackup],
    now: Timestamp,
) -> bool {
    match policy {
        RetentionPolicy::RecoveryWindow(window) => {
            oldest.is_some_and(|oldest| oldest <= window.before(now))
        }
        RetentionPolicy::Redundancy(count) => {
            let full = |backup: &&ListedBackup| {
                matches!(backup, ListedBackup::Known { record, standing, .. }
                    if record.parent.is_none() && standing.status == BackupStatus::Done)
            };
            backups.iter().filter(full).count() >= *count as usize
        }
        // The months and years still fill up.
        RetentionPolicy::Generations(_) => false,
    }
}

/// The file system of a path, or of what is above it until it is made.
fn disk(path: &Path) -> Option<Disk> {
    let existing = path.ancestors().find(|path| path.exists())?;
    let found = rustix::fs::statvfs(existing).ok()?;
    Some(Disk {
        size_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        full_in_seconds: None,
        id: found.f_fsid,
    })
}

fn moment(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(growth: u64, id: u64) -> Sizes {
        let disk = Disk { size_bytes: 1000, free_bytes: 100, full_in_seconds: None, id };
        Sizes { growth_per_day: Some(growth), disk: Some(disk), ..Sizes::default() }
    }

    #[test]
    fn a_disk_is_filled_by_all_servers_on_it() {
        let mut servers = [of(20, 1), of(30, 1), of(0, 2)];
        forecast(&mut servers);
        let full_in = servers.map(|sizes| sizes.disk.and_then(|disk| disk.full_in_seconds));
        assert_eq!(full_in, [Some(172_800), Some(172_800), None]);
    }

    #[test]
    fn an_hour_is_needed_to_tell_what_a_day_brings() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-03-10T12:00:00Z");
        let since = at("2026-03-03T12:00:00Z");
        let added = [(at("2026-03-01T00:00:00Z"), 1000), (at("2026-03-10T00:00:00Z"), 50)];
        let of = |from: &str| per_day(&added, Some(at(from)), since, now);
        assert_eq!(of("2026-03-10T11:30:00Z"), None);
        assert_eq!(of("2026-03-09T12:00:00Z"), Some(50));
        assert_eq!(of("2026-03-05T12:00:00Z"), Some(10));
        assert_eq!(per_day(&added, None, since, now), None);
    }
}
