//! What the store holds of the newest timeline, looked up without reading all of it.

use std::fs::File;
use std::io::Read;

use pgwire_stream::wal::{Start as WalStart, WalOptions, WalValidator};
use pgwire_stream::{Lsn, SegmentName, SegmentNumber, SegmentSize, TimelineId, WalFileName};

use super::ReceiverError;
use super::start::Held;
use crate::catalog::partial::length_without_zeros;
use crate::catalog::{HistoryStore, HistoryStoreError, WalIndex, WalIndexError, archived_file};
use crate::storage::{ArchivedWal, ServerDir, StorageError, durable};

/// How much is read at a time.
const CHUNK: usize = 256 << 10;

/// Where the store ends on the newest timeline it holds; `None` if it holds no WAL. What is there
/// of a segment that is not complete is validated, if it is said what WAL looks like.
pub(crate) fn newest(
    dir: &ServerDir,
    size: SegmentSize,
    wal: Option<&WalOptions>,
) -> Result<Option<Held>, ReceiverError> {
    let streaming = in_streaming(dir, size)?;
    let archived = in_archive(dir, size)?;
    let newest = streaming.into_iter().chain(archived).max_by_key(|held| (held.timeline, held.end));
    let Some(mut held) = newest else { return Ok(None) };
    if held.partial {
        held.follows = segment_before_is_held(dir, size, &held)?;
        held.last_record = match wal {
            Some(wal) => last_record(dir, wal.clone(), &held)?,
            None => None,
        };
    }
    held.history = match HistoryStore::new(dir).ancestry(held.timeline) {
        Ok(history) => Some(history),
        Err(HistoryStoreError::Missing { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Some(held))
}

fn held(timeline: TimelineId, end: Lsn, partial: bool) -> Held {
    Held { timeline, end, partial, last_record: None, follows: false, history: None }
}

/// The last valid record of the `.partial` file, and where it ends.
fn last_record(
    dir: &ServerDir,
    mut wal: WalOptions,
    held: &Held,
) -> Result<Option<(Lsn, Lsn)>, StorageError> {
    let size = wal.segment_size;
    let number = size.last_byte_segment_of(held.end);
    let path = dir.streaming_partial(SegmentName::new(held.timeline, number, size));
    wal.timeline = Some(held.timeline);
    let mut validator = WalValidator::new(wal, WalStart::Anywhere(size.start_of(number)));
    let mut content = File::open(&path)
        .map_err(StorageError::of("open", &path))?
        .take(held.end.bytes_since(size.start_of(number)));
    let mut chunk = vec![0; CHUNK];
    loop {
        match content.read(&mut chunk).map_err(StorageError::of("read", &path))? {
            0 => break,
            read => validator.feed(chunk.get(..read).unwrap_or_default(), |_| {}),
        }
    }
    let position = validator.position();
    Ok(position.last_record.zip(position.valid_to))
}

fn segment_before_is_held(
    dir: &ServerDir,
    size: SegmentSize,
    held: &Held,
) -> Result<bool, StorageError> {
    let open = size.last_byte_segment_of(held.end);
    let Some(before) = open.as_u64().checked_sub(1).map(SegmentNumber::from_u64) else {
        return Ok(false);
    };
    let before = SegmentName::new(held.timeline, before, size);
    // While it is archived it is in both places, so this order never misses it.
    let streaming = durable::file_size(&dir.streaming_segment(before))?;
    Ok(streaming.is_some() || archived_file(dir, before, false)?.is_some())
}

fn in_streaming(dir: &ServerDir, size: SegmentSize) -> Result<Vec<Held>, StorageError> {
    let mut found = Vec::new();
    for name in durable::list_dir(&dir.streaming())? {
        match name.to_str().and_then(|name| name.parse().ok()) {
            Some(WalFileName::Segment(segment)) => {
                if let Ok(number) = segment.number(size) {
                    found.push(held(segment.timeline(), size.end_of(number), false));
                }
            }
            Some(WalFileName::Partial(segment)) => {
                if let Ok(start) = segment.start(size) {
                    let length = length_without_zeros(&dir.streaming_partial(segment))?;
                    let end = start.saturating_add(length.min(size.bytes().into()));
                    found.push(held(segment.timeline(), end, length > 0));
                }
            }
            Some(WalFileName::History(_)) | None => {}
        }
    }
    Ok(found)
}

/// The newest file of the archive; only the newest directory that has one is read.
fn in_archive(dir: &ServerDir, size: SegmentSize) -> Result<Option<Held>, ReceiverError> {
    let mut folders: Vec<_> = durable::list_dir(&dir.wals())?
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit()))
        .collect();
    folders.sort();
    for folder in folders.iter().rev() {
        let newest = durable::list_dir(&dir.wals().join(folder))?
            .iter()
            .filter_map(|name| name.to_str()?.parse::<ArchivedWal>().ok())
            // A complete segment goes further than a partial one of the same name.
            .max_by_key(|file| (file.segment, !file.partial));
        if let Some(file) = newest {
            return archived_end(dir, size, file);
        }
    }
    Ok(None)
}

fn archived_end(
    dir: &ServerDir,
    size: SegmentSize,
    file: ArchivedWal,
) -> Result<Option<Held>, ReceiverError> {
    let segment: SegmentName = file.segment;
    let Ok(number) = segment.number(size) else { return Ok(None) };
    let end = if file.partial {
        // Not in the index, or that is damaged: from its start, which costs receiving it again.
        let record = match WalIndex::of(dir, segment).find(file) {
            Err(error @ WalIndexError::Storage(_)) => return Err(error.into()),
            found => found.unwrap_or_default(),
        };
        let length = record.map_or(0, |record| record.plain_size).min(size.bytes().into());
        size.start_of(number).saturating_add(length)
    } else {
        size.end_of(number)
    };
    Ok(Some(held(segment.timeline(), end, false)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::storage::{Access, Codec, Home};

    const SEGMENT: u64 = 1 << 20;

    fn store() -> (tempfile::TempDir, ServerDir, SegmentSize) {
        let home = tempfile::tempdir().unwrap();
        let dir = Home::new(home.path(), Access::Private).server(&"main".parse().unwrap());
        dir.create().unwrap();
        (home, dir, SegmentSize::new(SEGMENT).unwrap())
    }

    #[test]
    fn the_newest_timeline_decides_then_the_furthest_position() {
        let (_home, dir, size) = store();
        let segment = |text: &str| text.parse::<SegmentName>().unwrap();
        let now = || {
            newest(&dir, size, None)
                .unwrap()
                .map(|held| (held.timeline.get(), held.end.as_u64(), held.partial))
        };
        assert_eq!(now(), None);

        let archived = |name: &str| {
            let path = dir.archived(segment(name), Codec::Zstd);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        };
        archived("000000010000000000000FFE");
        archived("000000010000000100000001");
        assert_eq!(now(), Some((1, 0x1002 * SEGMENT, false)));
        fs::write(dir.streaming_segment(segment("000000010000000100000002")), b"").unwrap();
        assert_eq!(now(), Some((1, 0x1003 * SEGMENT, false)));
        fs::write(dir.streaming_partial(segment("000000010000000100000003")), b"abc\0\0").unwrap();
        assert_eq!(now(), Some((1, 0x1003 * SEGMENT + 3, true)));
        assert!(newest(&dir, size, None).unwrap().unwrap().follows);
        fs::remove_file(dir.streaming_segment(segment("000000010000000100000002"))).unwrap();
        assert!(!newest(&dir, size, None).unwrap().unwrap().follows);
        // An empty file holds nothing that could be continued.
        fs::write(dir.streaming_partial(segment("000000020000000000000005")), b"").unwrap();
        assert_eq!(now(), Some((2, 5 * SEGMENT, false)));
    }
}
