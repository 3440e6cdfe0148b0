//! A manifest for servers that send none: PostgreSQL before 13.
//!
//! It is made of what was received, so that it tells later whether the backup is still what it
//! was, though not whether it was what the server had. The record of the backup says that it is
//! of our making.

use std::io::{BufWriter, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use pgwire_stream::TimelineHistory;
use pgwire_stream::manifest::{ChecksumAlgorithm, ManifestFile, ManifestWriter, WalRange};

use super::spool::SpoolReader;
use crate::catalog::Position;
use crate::storage::durable::AtomicFile;
use crate::storage::{HashingWriter, StorageError, Stored};

/// Writes the manifest of the files that were received. Durable on return.
pub(super) fn write(
    into: AtomicFile,
    mut received: SpoolReader,
    checksums: Option<ChecksumAlgorithm>,
    wal: &[WalRange],
) -> Result<Stored, StorageError> {
    let target = into.target().to_owned();
    let fail = || StorageError::of("write", &target);
    let hashing = HashingWriter::new(BufWriter::new(into));
    let mut manifest = ManifestWriter::version_1(hashing).map_err(fail())?;
    while let Some(file) = received.next()? {
        let listed = ManifestFile {
            path: file.path,
            size: file.size,
            modified: modified(file.modified),
            checksum: checksums.map(|algorithm| (algorithm, file.digest)),
        };
        manifest.file(&listed).map_err(fail())?;
    }
    let mut hashing = manifest.finish(wal).map_err(fail())?;
    hashing.flush().map_err(fail())?;
    let (buffered, stored) = hashing.finish();
    let file = buffered.into_inner().map_err(|error| error.into_error()).map_err(fail())?;
    file.commit()?;
    Ok(stored)
}

/// The WAL between begin and end along a history, the newest timeline first; `None` if the begin
/// does not lie on it.
pub(crate) fn wal_ranges(
    history: &TimelineHistory,
    begin: Position,
    end: Position,
) -> Option<Vec<WalRange>> {
    let mut ranges = Vec::new();
    let mut upper = end;
    for switch in history.switches().iter().rev() {
        if upper.timeline == begin.timeline {
            break;
        }
        let (timeline, start, end) = (upper.timeline, switch.switch_point, upper.lsn);
        // Nothing of a timeline that was left before it began.
        if start <= end {
            ranges.push(WalRange { timeline, start, end });
        }
        upper = Position { timeline: switch.timeline, lsn: start.min(end) };
    }
    ranges.push(WalRange { timeline: begin.timeline, start: begin.lsn, end: upper.lsn });
    (upper.timeline == begin.timeline).then_some(ranges)
}

/// A time as manifests have it.
pub(crate) fn modified(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|s| Timestamp::from_second(s).ok());
    let time = TimeZone::UTC.to_datetime(time.unwrap_or(Timestamp::UNIX_EPOCH));
    time.strftime("%Y-%m-%d %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::spool::{ReceivedFile, SpoolWriter};
    use crate::storage::{Access, Sha256Sum};
    use pgwire_stream::manifest::{ManifestItem, ManifestReader};
    use pgwire_stream::{Lsn, TimelineId};

    #[test]
    fn it_lists_what_was_received() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = SpoolWriter::new(directory.path()).unwrap();
        for name in ["backup_label", "global/pg_control"] {
            let received = ReceivedFile {
                path: name.as_bytes().to_vec(),
                size: 3,
                modified: 1_772_723_493,
                digest: vec![1, 2, 3, 4],
            };
            spool.push(&received).unwrap();
        }
        let path = directory.path().join("backup_manifest");
        let file = AtomicFile::create(&path, Access::Private).unwrap();
        let wal = WalRange {
            timeline: TimelineId::FIRST,
            start: Lsn::from_u64(1),
            end: Lsn::from_u64(2),
        };
        let crc = Some(ChecksumAlgorithm::Crc32c);
        let stored = write(file, spool.into_reader().unwrap(), crc, &[wal]).unwrap();

        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(stored, Stored { size: bytes.len() as u64, sha256: Sha256Sum::of(&bytes) });
        let mut reader = ManifestReader::new();
        let items = reader.feed(&bytes).unwrap();
        reader.finish().unwrap();
        assert_eq!(items.len(), 4);
        assert_eq!(
            items[2],
            ManifestItem::File(ManifestFile {
                path: b"global/pg_control".to_vec(),
                size: 3,
                modified: "2026-03-05 15:11:33 GMT".to_owned(),
                checksum: Some((ChecksumAlgorithm::Crc32c, vec![1, 2, 3, 4])),
            })
        );
        assert_eq!(items[3], ManifestItem::WalRange(wal));
    }

    #[test]
    fn the_wal_of_a_backup_may_lie_on_several_timelines() {
        let timeline = |number| TimelineId::new(number).unwrap();
        let at = |number, lsn| Position { timeline: timeline(number), lsn: Lsn::from_u64(lsn) };
        let range = |number, start, end| WalRange {
            timeline: timeline(number),
            start: Lsn::from_u64(start),
            end: Lsn::from_u64(end),
        };
        let text = b"1\t0/10\tno recovery target specified\n2\t0/20\t\n4\t0/30\t\n";
        let history = TimelineHistory::parse(timeline(5), text).unwrap();
        let ranges = |begin, end| wal_ranges(&history, begin, end);
        assert_eq!(
            ranges(at(2, 0x18), at(5, 0x40)),
            Some(vec![range(5, 0x30, 0x40), range(4, 0x20, 0x30), range(2, 0x18, 0x20)])
        );
        assert_eq!(ranges(at(5, 0x31), at(5, 0x40)), Some(vec![range(5, 0x31, 0x40)]));
        assert_eq!(ranges(at(3, 0x18), at(5, 0x40)), None);

        let text = b"1\t0/20\t\n2\t0/10\t\n";
        let history = TimelineHistory::parse(timeline(3), text).unwrap();
        assert_eq!(
            wal_ranges(&history, at(1, 0x8), at(3, 0x30)),
            Some(vec![range(3, 0x10, 0x30), range(1, 0x8, 0x10)])
        );
    }
}
