//! `state/gaps.json` and `state/switches.json`: what happened to a server's WAL that cannot be
//! seen from the files alone.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use pgwire_stream::{Lsn, PgTimestamp, TimelineId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::start::Switch;
use crate::storage::{ServerDir, StorageError, durable};

const FORMAT: u64 = 1;

/// Thousands of entries; what is larger was not written by this program.
const MAX_SIZE: u64 = 16 << 20;

/// WAL that was given up on, because the operator said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedGap {
    /// The timeline on which it was missed.
    pub timeline: TimelineId,
    /// The first byte that is missing.
    pub from: Lsn,
    /// The first byte behind it that is held, on whatever timeline the server was then.
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

/// The gaps that the operator accepted, oldest first.
///
/// # Errors
/// If the file cannot be read.
pub fn gaps(dir: &ServerDir) -> Result<Vec<RecordedGap>, StorageError> {
    read(&dir.state().join("gaps.json"))
}

/// The changes of timelines that were followed, oldest first.
///
/// # Errors
/// If the file cannot be read.
pub fn switches(dir: &ServerDir) -> Result<Vec<RecordedSwitch>, StorageError> {
    read(&dir.state().join("switches.json"))
}

/// Notes a gap. Durable on return; a gap that is noted already is not noted again.
pub(super) fn record_gap(
    dir: &ServerDir,
    timeline: TimelineId,
    from: Lsn,
    to: Lsn,
) -> Result<(), StorageError> {
    let at = std::time::SystemTime::now().into();
    let gap = RecordedGap { timeline, from, to, at };
    let same = |old: &RecordedGap| (old.timeline, old.from, old.to) == (timeline, from, to);
    append(dir, "gaps.json", gap, same)
}

/// Notes a switch. Durable on return; one that is noted already is not noted again.
pub(super) fn record_switch(dir: &ServerDir, switch: &Switch) -> Result<(), StorageError> {
    let Switch { left, entered, fork, held_to } = *switch;
    let at = std::time::SystemTime::now().into();
    let record = RecordedSwitch { left, entered, fork, held_to, at };
    let same = |old: &RecordedSwitch| (old.left, old.entered, old.fork) == (left, entered, fork);
    append(dir, "switches.json", record, same)
}

fn append<T: Serialize + DeserializeOwned>(
    dir: &ServerDir,
    name: &str,
    entry: T,
    same: impl Fn(&T) -> bool,
) -> Result<(), StorageError> {
    let path = dir.state().join(name);
    let mut entries: Vec<T> = read(&path)?;
    if entries.iter().any(same) {
        return Ok(());
    }
    entries.push(entry);
    let mut text = serde_json::to_vec_pretty(&Journal { format: FORMAT, entries })
        .map_err(io::Error::from)
        .map_err(StorageError::of("write", &path))?;
    text.push(b'\n');
    durable::write_file(&path, &text, dir.access())
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
    use crate::storage::{Access, Home};

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
        let switch =
            Switch { left: TimelineId::FIRST, entered: two, fork: lsn(7), held_to: lsn(8) };
        record_switch(&dir, &switch).unwrap();
        assert_eq!(switches(&dir).unwrap()[0].entered, two);
        std::fs::write(dir.state().join("gaps.json"), "{\"format\":2,\"entries\":[]}").unwrap();
        assert!(super::gaps(&dir).is_err());
    }
}
