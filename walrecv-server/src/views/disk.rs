//! The disk that the store lies on, and when it will be full.
//!
//! How fast the store grows is told by what is in it: the WAL of the last days, and the backups since
//! the oldest one. Nothing is noted for that.

use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use pgwire_stream::PgTimestamp;

use crate::catalog::{BackupOutcome, Catalog, Identity, WalStore, journal};
use crate::storage::{Home, ServerDir, StorageError};

/// The WAL of so much time tells how fast it grows.
pub(crate) const WINDOW: Duration = Duration::from_secs(7 * 86_400);

/// What is younger tells nothing of days.
const LEAST: Duration = Duration::from_secs(6 * 3600);

const DAY: f64 = 86_400.0;

/// The disk that the store lies on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disk {
    /// How many bytes there are.
    pub total: u64,
    /// How many of them can still be written.
    pub free: u64,
    /// How many bytes the store grows by in a day, all servers together; `None` where what is
    /// stored is too young to tell.
    pub growth: Option<f64>,
}

impl Disk {
    /// Looks at the disk of a store, and at what is stored there. Blocks.
    ///
    /// # Errors
    /// If the disk or the store cannot be looked at.
    pub fn look(home: &Home) -> Result<Self, StorageError> {
        let (total, free) = room(home.path())?;
        let now = Timestamp::now();
        let growths = home.servers()?.into_iter().filter_map(|name| {
            // What cannot be read has a row of its own in the check of that server.
            growth(&home.server(&name), now)
        });
        Ok(Self { total, free, growth: growths.reduce(|a, b| a + b) })
    }

    /// The part of the disk that is free, from 0 to 1.
    pub fn free_part(&self) -> f64 {
        if self.total == 0 { 0.0 } else { self.free as f64 / self.total as f64 }
    }

    /// In how many days the disk will be full, if nothing changes; `None` if it will not, or nobody
    /// can tell.
    pub fn days_left(&self) -> Option<f64> {
        let growth = self.growth.filter(|growth| *growth >= 1.0)?;
        Some(self.free as f64 / growth)
    }
}

/// The size of the disk, and what is free to us.
pub(super) fn room(path: &Path) -> Result<(u64, u64), StorageError> {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let disk = rustix::fs::statvfs(existing)
        .map_err(|error| StorageError::of("look at the disk of", existing)(error.into()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok((bytes(disk.f_blocks), bytes(disk.f_bavail)))
}

/// How many bytes a day what is stored for a server grows by; `None` if it is too young to tell.
pub(super) fn growth(store: &ServerDir, now: Timestamp) -> Option<f64> {
    if is_held(store, now) {
        return Some(0.0);
    }
    let identity = Identity::load(store).ok().flatten()?;
    let wal = WalStore::new(store, identity.segment_size).growth(WINDOW).ok().flatten();
    let wal = wal.and_then(|wal| per_day(wal.stored, wal.from, now));
    let backups = backups(store, now);
    (wal.is_some() || backups.is_some()).then(|| wal.unwrap_or(0.0) + backups.unwrap_or(0.0))
}

/// Whether what is no longer needed is removed: then as much goes as comes.
fn is_held(store: &ServerDir, now: Timestamp) -> bool {
    let retired = journal::retired(store).unwrap_or_default();
    let recently = |at: PgTimestamp| since(at, now).is_none_or(|age| age <= WINDOW);
    retired.iter().any(|range| recently(range.at))
}

/// What backups are added to the oldest one in a day.
fn backups(store: &ServerDir, now: Timestamp) -> Option<f64> {
    let entries = Catalog::new(store).list().ok()?;
    let copied = entries.into_iter().filter_map(|entry| entry.record.ok());
    let mut copied = copied.filter(|record| record.outcome == BackupOutcome::Copied);
    let oldest = copied.next()?;
    let added = copied.map(|record| record.stored_size()).sum();
    per_day(added, SystemTime::from(oldest.began_at).into(), now)
}

fn per_day(bytes: u64, from: PgTimestamp, now: Timestamp) -> Option<f64> {
    let elapsed = since(from, now)?;
    (elapsed >= LEAST).then(|| bytes as f64 / elapsed.as_secs_f64() * DAY)
}

fn since(moment: PgTimestamp, now: Timestamp) -> Option<Duration> {
    let micros = now.as_microsecond().saturating_sub(moment.as_unix_micros());
    u64::try_from(micros).ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_grows_will_be_full() {
        let disk = |growth| Disk { total: 1000, free: 500, growth };
        assert_eq!(disk(None).days_left(), None);
        assert_eq!(disk(Some(0.0)).days_left(), None);
        assert_eq!(disk(Some(50.0)).days_left(), Some(10.0));
        assert_eq!(disk(None).free_part(), 0.5);
    }

    #[test]
    fn what_is_young_tells_nothing_of_days() {
        let now: Timestamp = "2026-03-08T00:00:00Z".parse().unwrap();
        let from = |text: &str| SystemTime::from(text.parse::<Timestamp>().unwrap()).into();
        assert_eq!(per_day(700, from("2026-03-07T23:00:00Z"), now), None);
        assert_eq!(per_day(700, from("2026-03-01T00:00:00Z"), now), Some(100.0));
        // The server's clock is ahead of ours.
        assert_eq!(per_day(700, from("2026-03-09T00:00:00Z"), now), None);
    }

    #[test]
    fn a_store_that_is_not_there_yet_has_a_disk() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path().join("a/b"), crate::storage::Access::Private);
        let disk = Disk::look(&home).unwrap();
        assert!(disk.total > 0 && disk.free <= disk.total);
        assert_eq!(disk.growth, None);
    }
}
