//! `state/gaps.json`, `state/retired.json` and `state/switches.json`: what happened to a server's
//! WAL that cannot be seen from the files alone.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use pgwire_stream::{Lsn, PgTimestamp, TimelineId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ranges::Ranges;
use crate::storage::{ServerDir, ServerLock, StorageError, durable};

const FORMAT: u64 = 1;

/// Thousands of entries; what is larger was not written by this program.
const MAX_SIZE: u64 = 16 << 20;

/// WAL that is not held, and why that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedRange {
    /// The timeline.
    pub timeline: TimelineId,
    /// Its first byte.
    pub from: Lsn,
    /// The byte behind its last.
    pub to: Lsn,
    /// When it was recorded.
    pub at: PgTimestamp,
}

/// A change of timelines that was followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedSwitch {
    /// The timeline that was left.
    pub left: TimelineId,
    /// The timeline that was entered.
    pub entered: TimelineId,
    /// Where the old one was left by the new one.
    pub fork: Lsn,
    /// How far the old one was received; what lies behind the fork is a dead branch.
    pub held_to: Lsn,
    /// When it was recorded.
    pub at: PgTimestamp,
}

/// A file that holds a list of entries.
#[derive(Serialize, Deserialize)]
struct Journal<T> {
    format: u64,
    entries: Vec<T>,
}

/// The WAL that was given up on because the operator said so, oldest first. Each ends where WAL is
/// held again, on whatever timeline the server was then.
///
/// # Errors
/// If the file cannot be read.
pub fn gaps(dir: &ServerDir) -> Result<Vec<RecordedRange>, StorageError> {
    read(&dir.gaps())
}

/// The WAL that was removed because no backup needed it any more, in the order of removal.
///
/// # Errors
/// If the file cannot be read.
pub fn retired(dir: &ServerDir) -> Result<Vec<RecordedRange>, StorageError> {
    read(&dir.retired())
}

/// The changes of timelines that were followed, oldest first.
///
/// # Errors
/// If the file cannot be read.
pub fn switches(dir: &ServerDir) -> Result<Vec<RecordedSwitch>, StorageError> {
    read(&dir.switches())
}

/// Notes WAL that is given up on. Durable on return; a gap that is noted already is not noted
/// again.
///
/// # Errors
/// If the file cannot be read or written.
pub fn record_gap(
    dir: &ServerDir,
    timeline: TimelineId,
    from: Lsn,
    to: Lsn,
) -> Result<(), StorageError> {
    let at = SystemTime::now().into();
    let gap = RecordedRange { timeline, from, to, at };
    let same = |old: &RecordedRange| (old.timeline, old.from, old.to) == (timeline, from, to);
    append(dir, &dir.gaps(), gap, same)
}

/// Notes a switch. Durable on return; one that is noted already is not noted again.
///
/// # Errors
/// If the file cannot be read or written.
pub fn record_switch(dir: &ServerDir, switch: RecordedSwitch) -> Result<(), StorageError> {
    let key = |switch: &RecordedSwitch| (switch.left, switch.entered, switch.fork);
    let new = key(&switch);
    append(dir, &dir.switches(), switch, |old| key(old) == new)
}

/// Notes WAL that is about to be removed. Durable on return, and to be called before anything is
/// removed: what is gone then is known to be retired, and what is still there is held. One entry
/// is enough for all that is removed from the same place on. Only the holder of the lock on backups
/// removes WAL; who archives it meanwhile never writes this.
///
/// # Errors
/// If the file cannot be read or written.
pub fn record_retired(
    dir: &ServerDir,
    timeline: TimelineId,
    from: Lsn,
    to: Lsn,
    _backup: &ServerLock,
) -> Result<(), StorageError> {
    let path = dir.retired();
    let mut entries: Vec<RecordedRange> = read(&path)?;
    let mut retired = RecordedRange { timeline, from, to, at: SystemTime::now().into() };
    entries.retain(|old| {
        let touches = old.timeline == timeline && old.from <= retired.to && retired.from <= old.to;
        if touches {
            (retired.from, retired.to) = (old.from.min(retired.from), old.to.max(retired.to));
        }
        !touches
    });
    entries.push(retired);
    write(dir, &path, entries)
}

/// The ranges as a set.
pub(super) fn set_of(recorded: &[RecordedRange]) -> Ranges {
    let mut ranges = Ranges::default();
    for range in recorded {
        ranges.add(range.timeline, range.from, range.to);
    }
    ranges
}

fn append<T: Serialize + DeserializeOwned>(
    dir: &ServerDir,
    path: &Path,
    entry: T,
    same: impl Fn(&T) -> bool,
) -> Result<(), StorageError> {
    let mut entries: Vec<T> = read(path)?;
    if entries.iter().any(same) {
        return Ok(());
    }
    entries.push(entry);
    write(dir, path, entries)
}

fn write<T: Serialize>(dir: &ServerDir, path: &Path, entries: Vec<T>) -> Result<(), StorageError> {
    let mut text = serde_json::to_vec_pretty(&Journal { format: FORMAT, entries })
        .map_err(io::Error::from)
        .map_err(StorageError::of("write", path))?;
    text.push(b'\n');
    durable::write_file(path, &text, dir.access())
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, StorageError> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StorageError::of("read", path)(error)),
    }
    let damaged = |reason: String| {
        StorageError::of("understand", path)(io::Error::new(io::ErrorKind::InvalidData, reason))
    };
    if text.len() as u64 > MAX_SIZE {
        return Err(damaged("it is too large".to_owned()));
    }
    let journal: Journal<T> =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    if journal.format == FORMAT {
        Ok(journal.entries)
    } else {
        Err(damaged(format!("it has format {}, not {FORMAT}", journal.format)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Access, Home, LockKind};

    #[test]
    fn entries_are_added_once() {
        let home = tempfile::tempdir().unwrap();
        let dir = Home::new(home.path(), Access::Private).server(&"main".parse().unwrap());
        dir.create().unwrap();
        assert!(gaps(&dir).unwrap().is_empty());
        let lsn = Lsn::from_u64;
        record_gap(&dir, TimelineId::FIRST, lsn(1), lsn(2)).unwrap();
        record_gap(&dir, TimelineId::FIRST, lsn(1), lsn(2)).unwrap();
        record_gap(&dir, TimelineId::FIRST, lsn(5), lsn(9)).unwrap();
        let gaps = gaps(&dir).unwrap();
        assert_eq!(gaps.iter().map(|gap| gap.to).collect::<Vec<_>>(), [lsn(2), lsn(9)]);
        let two = TimelineId::new(2).unwrap();
        let switch = RecordedSwitch {
            left: TimelineId::FIRST,
            entered: two,
            fork: lsn(7),
            held_to: lsn(8),
            at: PgTimestamp::from_micros(0),
        };
        record_switch(&dir, switch.clone()).unwrap();
        record_switch(&dir, RecordedSwitch { held_to: lsn(9), ..switch.clone() }).unwrap();
        assert_eq!(switches(&dir).unwrap(), [switch]);
        std::fs::write(dir.gaps(), "{\"format\":2,\"entries\":[]}").unwrap();
        assert!(super::gaps(&dir).is_err());
    }

    #[test]
    fn what_is_retired_piece_by_piece_is_one_entry() {
        let home = tempfile::tempdir().unwrap();
        let dir = Home::new(home.path(), Access::Private).server(&"main".parse().unwrap());
        dir.create().unwrap();
        let lock = ServerLock::try_acquire(&dir, LockKind::Archive).unwrap();
        let two = TimelineId::new(2).unwrap();
        for (timeline, from, to) in [
            (TimelineId::FIRST, 0, 5),
            (two, 2, 4),
            (TimelineId::FIRST, 5, 9),
            (two, 7, 8),
            (two, 3, 7),
        ] {
            record_retired(&dir, timeline, Lsn::from_u64(from), Lsn::from_u64(to), &lock).unwrap();
        }
        let retired = retired(&dir).unwrap();
        let ranges: Vec<_> =
            retired.iter().map(|r| (r.timeline, r.from.as_u64(), r.to.as_u64())).collect();
        assert_eq!(ranges, [(TimelineId::FIRST, 0, 9), (two, 2, 8)]);
        assert_eq!(set_of(&retired).end_at(two, Lsn::from_u64(2)), Some(Lsn::from_u64(8)));
    }
}
