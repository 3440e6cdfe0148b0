use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use pgwire_stream::{Lsn, PgTimestamp, SegmentNumber, SegmentSize, TimelineId};

use super::line::{encode_all, parse, parse_leniently};
use super::*;
use crate::catalog::test_wal::TestWal;
use crate::catalog::{RestorePoint, Validity};
use crate::storage::{
    Access, Codec, CompressedWriter, Home, LockKind, Method, ServerLock, durable,
};
use proptest::prelude::*;

fn findings(number: u32) -> WalFindings {
    let restore_point = RestorePoint {
        name: "a\nb".to_owned(),
        lsn: Lsn::from_u64(u64::from(number)),
        at: PgTimestamp::from_micros(0),
    };
    WalFindings {
        validity: number.is_multiple_of(2).then_some(Validity::Validated),
        last_commit: Some(PgTimestamp::from_micros(i64::from(number))),
        restore_points: vec![restore_point],
        xids: Some((number, number + 1)),
        ..WalFindings::default()
    }
}

fn record(number: u32) -> WalIndexRecord {
    let segment: SegmentName = format!("0000000100000000{number:08X}").parse().unwrap();
    WalIndexRecord {
        file: ArchivedWal { segment, partial: false, form: Codec::None.into() },
        plain_size: 4,
        plain_crc32c: Crc32c::of(&number.to_be_bytes()),
        stored_size: 4,
        stored_sha256: Some(Sha256Sum::of(&number.to_be_bytes())),
        findings: findings(number),
    }
}

fn store() -> (tempfile::TempDir, ServerDir, Arc<ServerLock>, WalIndex) {
    let dir = tempfile::tempdir().unwrap();
    let server = Home::new(dir.path(), Access::Private).server(&"main".parse().unwrap());
    let lock = ServerLock::try_acquire(&server, LockKind::Archive).unwrap();
    let lock = Arc::new(lock);
    let segment = record(0).file.segment;
    durable::create_dir(&server.wal_dir(segment), Access::Private).unwrap();
    let index = WalIndex::of(&server, segment);
    (dir, server, lock, index)
}

fn open(server: &ServerDir, lock: &Arc<ServerLock>) -> Result<WalIndexWriter, WalIndexError> {
    WalIndexWriter::open(server, record(0).file.segment, Arc::clone(lock))
}

fn append(server: &ServerDir, lock: &Arc<ServerLock>, number: u32) {
    open(server, lock).unwrap().append(&[record(number)]).unwrap();
}

#[test]
fn a_torn_tail_is_cut_off_by_the_next_append() {
    let (_dir, server, lock, index) = store();
    assert_eq!(index.records().unwrap(), []);
    append(&server, &lock, 1);
    append(&server, &lock, 2);
    let whole = std::fs::read(&index.path).unwrap();
    for torn in [&whole[..whole.len() - 1], &whole[..whole.len() - 40]] {
        std::fs::write(&index.path, torn).unwrap();
        assert_eq!(index.records().unwrap(), [record(1)]);
        append(&server, &lock, 3);
        assert_eq!(index.records().unwrap(), [record(1), record(3)]);
    }
    assert_eq!(index.find(record(3).file).unwrap(), Some(record(3)));
    assert_eq!(index.find(record(2).file).unwrap(), None);
    assert_eq!(index.glance(record(3).file).unwrap(), Some(record(3)));
    assert_eq!(index.glance(record(2).file).unwrap(), None);
}

#[test]
fn damage_in_the_middle_is_reported_and_rebuilding_repairs_it() {
    let (_dir, server, lock, index) = store();
    for number in 1..=3 {
        let path = server.archived_file(record(number).file);
        std::fs::write(path, number.to_be_bytes()).unwrap();
        append(&server, &lock, number);
    }
    let mut text = std::fs::read(&index.path).unwrap();
    text[20] ^= 1;
    std::fs::write(&index.path, &text).unwrap();
    let error = index.records().unwrap_err();
    assert!(matches!(error, WalIndexError::Damaged { line: 1, .. }), "{error}");
    assert!(matches!(open(&server, &lock), Err(WalIndexError::Damaged { line: 1, .. })));

    let rebuilt = index.rebuild(SegmentSize::DEFAULT, None, &lock).unwrap();
    assert_eq!(rebuilt[0].plain_crc32c, record(1).plain_crc32c);
    assert_eq!(rebuilt[0].findings.last_commit, None);
    assert_eq!(rebuilt[1..], [record(2), record(3)]);
    assert_eq!(index.records().unwrap(), rebuilt);
}

#[test]
fn rebuilding_validates_the_segments_and_what_lies_on_their_borders() {
    const MIB: u64 = 1 << 20;
    let (_dir, server, lock, _) = store();
    let size = SegmentSize::new(MIB).unwrap();
    let name = |number| SegmentName::new(TimelineId::FIRST, SegmentNumber::from_u64(number), size);
    let mut wal = TestWal::new(size, 4092 * MIB);
    let begins: Vec<Lsn> = (1..=5u32)
        .map(|number| {
            let begin = wal.commit(number, i64::from(number));
            wal.cross_into_next_segment();
            begin
        })
        .collect();
    let mut bytes = wal.bytes().to_vec();
    // In the end of the record that begins in 4093.
    bytes[2 * MIB as usize + 50] ^= 1;
    let part = |number: u64| {
        let from = (number - 4092) * MIB;
        &bytes[from as usize..bytes.len().min((from + MIB) as usize)]
    };
    let put = |number, codec: Codec, partial| {
        let file = ArchivedWal { segment: name(number), partial, form: codec.into() };
        durable::create_dir(&server.wal_dir(file.segment), Access::Private).unwrap();
        let mut writer = CompressedWriter::new(Vec::new(), Method::new(codec, 1)).unwrap();
        writer.write_all(part(number)).unwrap();
        let stored = writer.finish().unwrap().0;
        std::fs::write(server.archived_file(file), stored).unwrap();
    };
    for (number, codec) in (4092..=4096).zip([Codec::None, Codec::Zstd, Codec::Lz4].iter().cycle())
    {
        put(number, *codec, false);
    }
    put(4097, Codec::Zstd, true);
    let index = WalIndex::of(&server, name(4092));
    let records = index.rebuild(size, None, &lock).unwrap();
    let found: Vec<_> =
        records.iter().map(|record| (record.findings.validity, record.findings.xids)).collect();
    let (good, bad) = (Some(Validity::Validated), Some(Validity::Suspect));
    let expected = [(good, 1), (bad, 2), (bad, 3), (good, 4)];
    assert_eq!(found, expected.map(|(validity, xid)| (validity, Some((xid, xid)))));
    assert_eq!(records[0].findings.first_record, Some(begins[0]));
    assert_eq!(records[1].findings.suspect[0].to, size.start_of(SegmentNumber::from_u64(4094)));

    // The next directory: its last segment goes on in a tail.
    let next = WalIndex::of(&server, name(4096)).rebuild(size, None, &lock).unwrap();
    let tail = &next[1];
    assert_eq!(tail.plain_size, part(4097).len() as u64);
    assert_eq!((next[0].findings.validity, tail.findings.validity), (good, None));

    // What was known of a file that is damaged is kept; the one before it is not done then.
    let path = server.archived_file(records[1].file);
    let stored = std::fs::read(&path).unwrap();
    std::fs::write(&path, &stored[..stored.len() / 2]).unwrap();
    assert_eq!(index.rebuild(size, None, &lock).unwrap(), records);
    std::fs::remove_file(server.wal_index(name(4092))).unwrap();
    let without = index.rebuild(size, None, &lock).unwrap();
    let files: Vec<_> = without.iter().map(|record| record.file).collect();
    assert_eq!(files, [records[0].file, records[2].file, records[3].file]);
}

#[test]
fn the_last_line_tells_of_the_whole_directory() {
    let (_dir, server, lock, index) = store();
    assert_eq!(index.totals().unwrap(), None);
    let of = |number: u32, size: u64, validity| {
        let findings = WalFindings { validity, ..findings(number) };
        WalIndexRecord { stored_size: size, ..record(number) }.with(findings)
    };
    let tail = |size| {
        let mut tail = of(9, size, None);
        tail.file.partial = true;
        tail
    };
    let mut writer = open(&server, &lock).unwrap();
    writer.append(&[of(1, 10, Some(Validity::Validated)), of(2, 20, None)]).unwrap();
    let totals = |files, stored_size, tails, validated, suspect| {
        Some(WalTotals { files, stored_size, tails, validated, suspect })
    };
    assert_eq!(index.totals().unwrap(), totals(2, 30, 0, 1, 0));
    // Of several records about a file the last one counts, whoever added them.
    writer.append(&[of(1, 11, Some(Validity::Suspect)), tail(100)]).unwrap();
    drop(writer);
    let mut writer = open(&server, &lock).unwrap();
    writer.append(&[tail(200), of(2, 20, Some(Validity::Validated))]).unwrap();
    assert_eq!(index.totals().unwrap(), totals(3, 231, 1, 1, 1));
    assert_eq!(index.records().unwrap().len(), 6);

    // A line may be longer than what is read at first.
    for points in [1, 30, 60, 1000] {
        let long = RestorePoint { name: "x".repeat(63), ..findings(1).restore_points.remove(0) };
        let many = WalFindings { restore_points: vec![long; points], ..findings(1) };
        writer.append(&[of(2, 20 + points as u64, None).with(many)]).unwrap();
        assert_eq!(index.totals().unwrap(), totals(3, 231 + points as u64, 1, 0, 1));
    }
    std::fs::write(&index.path, encode_all(&[of(1, 5, None)]).unwrap()).unwrap();
    assert_eq!(index.totals().unwrap(), totals(1, 5, 0, 0, 0));

    // What is not completed says nothing, and neither does one in which a later version wrote.
    let whole = std::fs::read(&index.path).unwrap();
    std::fs::write(&index.path, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(index.totals().unwrap(), None);
    std::fs::write(&index.path, [&whole[..], &whole[..9]].concat()).unwrap();
    assert_eq!(index.totals().unwrap(), None);
    let foreign = format!("{:08x} {{}}\n", crc32c::crc32c(b"{}"));
    std::fs::write(&index.path, &foreign).unwrap();
    append(&server, &lock, 1);
    assert_eq!(index.totals().unwrap(), None);
    assert_eq!(index.records().unwrap(), [record(1)]);
}

#[test]
fn an_index_does_not_grow_beyond_what_is_read() {
    let (_dir, server, lock, index) = store();
    let long = RestorePoint { name: "\u{1}".repeat(64), ..findings(1).restore_points.remove(0) };
    let many = WalFindings { restore_points: vec![long; 1000], ..findings(1) };
    let records: Vec<_> = (0..100).map(|number| record(number).with(many.clone())).collect();
    let mut writer = open(&server, &lock).unwrap();
    for records in records.chunks(8) {
        writer.append(records).unwrap();
    }
    let found = index.records().unwrap();
    assert_eq!(found.len(), 100);
    assert_eq!(found[0], records[0]);
    let last = &found[99].findings;
    assert!(last.restore_points.is_empty() && last.more_restore_points);
    assert_eq!(last.xids, many.xids);
}

#[test]
fn lines_of_a_later_version_are_left_alone() {
    let (_dir, server, lock, index) = store();
    let foreign = "{\"file\":\"000000010000000000000001.zst.pgp\"}";
    let line = format!("{:08x} {foreign}\n", crc32c::crc32c(foreign.as_bytes()));
    std::fs::write(&index.path, &line).unwrap();
    append(&server, &lock, 2);
    assert_eq!(index.records().unwrap(), [record(2)]);
    assert!(std::fs::read_to_string(&index.path).unwrap().starts_with(&line));
}

#[test]
fn records_of_several_directories_are_added_by_one_owner() {
    let (_dir, server, lock, index) = store();
    let far = |number: u32, log: u32| {
        let segment = format!("00000001{log:08X}{number:08X}").parse().unwrap();
        let file = ArchivedWal { segment, ..record(number).file };
        durable::create_dir(&server.wal_dir(segment), Access::Private).unwrap();
        WalIndexRecord { file, ..record(number) }
    };
    let mut writers = WalIndexWriters::new(&server, SegmentSize::DEFAULT, Arc::clone(&lock));
    // More directories than are kept open, and each comes twice.
    for round in 0..2 {
        for log in 0..6 {
            let records = [far(round * 2, log), far(round * 2 + 1, log), far(round, 7)];
            writers.append(&records).unwrap();
        }
    }
    for log in 0..6 {
        let expected: Vec<_> = (0..4).map(|number| far(number, log)).collect();
        let index = WalIndex::of(&server, expected[0].file.segment);
        assert_eq!(index.records().unwrap(), expected);
    }
    assert_eq!(WalIndex::of(&server, far(0, 7).file.segment).records().unwrap().len(), 12);

    // One that is damaged is made again from the segments; none is there.
    drop(writers);
    std::fs::write(&index.path, "x\n\n").unwrap();
    let mut writers = WalIndexWriters::new(&server, SegmentSize::DEFAULT, lock);
    writers.append(&[record(9)]).unwrap();
    assert_eq!(index.records().unwrap(), [record(9)]);
}

#[test]
fn what_is_there_is_not_read_again_for_a_record() {
    let (_dir, server, lock, index) = store();
    append(&server, &lock, 1);
    let mut writer = open(&server, &lock).unwrap();
    let away = index.directory.join("away");
    std::fs::rename(&index.path, &away).unwrap();
    for number in 2..10 {
        writer.append(&[record(number)]).unwrap();
    }
    std::fs::rename(&away, &index.path).unwrap();
    assert_eq!(index.records().unwrap(), (1..10).map(record).collect::<Vec<_>>());
}

#[test]
fn a_file_that_cannot_be_written_is_given_up_and_written_anew() {
    let (_dir, server, lock, index) = store();
    append(&server, &lock, 1);
    let mut writer = open(&server, &lock).unwrap();
    let before = std::fs::metadata(&index.path).unwrap().ino();
    writer.append(&[record(2)]).unwrap();
    assert_eq!(std::fs::metadata(&index.path).unwrap().ino(), before);

    // Not even what a write left behind in it is believed: the lines are those known before.
    std::fs::write(&index.path, [std::fs::read(&index.path).unwrap(), b"half".to_vec()].concat())
        .unwrap();
    writer.break_file();
    writer.append(&[record(3), record(4)]).unwrap();
    assert_ne!(std::fs::metadata(&index.path).unwrap().ino(), before);
    assert_eq!(index.records().unwrap(), [record(1), record(2), record(3), record(4)]);
    writer.append(&[record(5)]).unwrap();
    assert_eq!(index.records().unwrap().len(), 5);

    // As long as no new file can be made, nothing more is put into the old one.
    writer.break_file();
    let temporary = index.directory.join(".index.tmp");
    std::fs::create_dir(&temporary).unwrap();
    for _ in 0..2 {
        assert!(writer.append(&[record(6)]).is_err());
        assert_eq!(index.records().unwrap().len(), 5);
    }
    std::fs::remove_dir(&temporary).unwrap();
    writer.heal_file();
    let before = std::fs::metadata(&index.path).unwrap().ino();
    writer.append(&[record(7)]).unwrap();
    assert_ne!(std::fs::metadata(&index.path).unwrap().ino(), before);
    assert_eq!(index.records().unwrap()[5..], [record(7)]);
}

proptest! {
    #[test]
    fn whatever_happens_to_the_file_no_wrong_record_is_believed(
        count in 1u32..6,
        cut in any::<prop::sample::Index>(),
        flip in prop::option::of((any::<prop::sample::Index>(), 0u8..8)),
    ) {
        let records: Vec<_> = (0..count).map(record).collect();
        let mut text = encode_all(&records).unwrap();
        text.truncate(cut.index(text.len() + 1));
        if let Some((at, bit)) = flip
            && !text.is_empty()
        {
            let at = at.index(text.len());
            text[at] ^= 1 << bit;
        } else {
            // Cut only: never "damaged", and what was whole before is there.
            prop_assert!(parse(&text).is_ok());
        }
        if let Ok(content) = parse(&text) {
            prop_assert!(records.starts_with(&content.records));
            let again = encode_all(&content.records).unwrap();
            prop_assert_eq!(&text[..content.whole], &again[..]);
        }
        for record in parse_leniently(&text) {
            prop_assert!(records.contains(&record));
        }
    }
}
