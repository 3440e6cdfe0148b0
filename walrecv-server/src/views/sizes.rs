//! How much room the backups and the WAL of each server take, and when the disk is full.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use jiff::Timestamp;
use serde::Serialize;

use super::backups::ListedBackup;
use super::disk::{self, Disk};
use crate::catalog::WalOutline;
use crate::storage::ServerDir;

const DAY: f64 = 86_400.0;

/// The room that a server's backups and WAL take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sizes {
    /// What is stored of the backups.
    pub backup_bytes: u64,
    /// What is stored of the archived WAL.
    pub wal_bytes: u64,
    /// How much both grow by in a day; absent until there is enough to tell.
    pub growth_per_day: Option<f64>,
    /// The disk.
    pub disk: Option<Room>,
}

/// The disk that a server's store lies on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Room {
    /// Its size.
    pub size_bytes: u64,
    /// What may still be written.
    pub free_bytes: u64,
    /// In how many seconds it is full, if all servers on it go on as they do; absent if it does not
    /// fill up, or nobody can tell.
    pub full_in_seconds: Option<u64>,
    /// Which one it is, to tell it from others.
    #[serde(skip)]
    pub device: u64,
}

/// How much room what is stored for a server takes. When the disk is full is for
/// [`forecast`] to say, who knows the other servers.
pub fn sizes(
    server: &ServerDir,
    outline: Option<&WalOutline>,
    backups: &[ListedBackup],
    now: Timestamp,
) -> Sizes {
    let stored = |backup: &ListedBackup| match backup {
        ListedBackup::Known { record, .. } => record.stored_size(),
        ListedBackup::Unreadable { .. } => 0,
    };
    let folders = outline.map(|outline| outline.folders.as_slice()).unwrap_or_default();
    Sizes {
        backup_bytes: backups.iter().map(stored).sum(),
        wal_bytes: folders.iter().map(|folder| folder.stored_size).sum(),
        growth_per_day: disk::growth(server, now),
        disk: room(server),
    }
}

/// Says when each disk is full, from what all servers on it add.
pub fn forecast<'a>(servers: impl IntoIterator<Item = &'a mut Sizes>) {
    let mut servers: Vec<&mut Sizes> = servers.into_iter().collect();
    let mut growth: BTreeMap<u64, f64> = BTreeMap::new();
    for sizes in &servers {
        if let (Some(disk), Some(bytes)) = (sizes.disk, sizes.growth_per_day) {
            *growth.entry(disk.device).or_default() += bytes;
        }
    }
    for room in servers.iter_mut().filter_map(|sizes| sizes.disk.as_mut()) {
        let growth = growth.get(&room.device).copied();
        let disk = Disk { total: room.size_bytes, free: room.free_bytes, growth };
        room.full_in_seconds = disk.days_left().map(|days| (days * DAY) as u64);
    }
}

fn room(server: &ServerDir) -> Option<Room> {
    let (size_bytes, free_bytes) = disk::room(server.path()).ok()?;
    let existing = server.path().ancestors().find_map(|path| path.metadata().ok())?;
    Some(Room { size_bytes, free_bytes, full_in_seconds: None, device: existing.dev() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(growth: f64, device: u64) -> Sizes {
        let disk = Room { size_bytes: 1000, free_bytes: 100, full_in_seconds: None, device };
        Sizes { growth_per_day: Some(growth), disk: Some(disk), ..Sizes::default() }
    }

    #[test]
    fn a_disk_is_filled_by_all_servers_on_it() {
        let mut servers = [of(20.0, 1), of(30.0, 1), of(0.0, 2)];
        forecast(&mut servers);
        let full_in = servers.map(|sizes| sizes.disk.and_then(|disk| disk.full_in_seconds));
        assert_eq!(full_in, [Some(172_800), Some(172_800), None]);
    }
}
