use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::sync::Arc;

use super::*;
use crate::catalog::{SuspectRange, Validity, WalFindings};
use crate::storage::DecryptionError;
use crate::storage::counted::counted;
use crate::storage::{
    Access, ArchivedWriter, CompressedWriter, Home, LockKind, Method, Packing, Plain, ServerLock,
    Sha256Sum, Stored,
};
use pgwire_stream::TimelineId;

use super::super::wal_index::{WalIndexRecord, WalIndexWriters};

const MIB: usize = 1 << 20;

struct Store {
    _home: tempfile::TempDir,
    server: ServerDir,
    wal: WalStore,
}

fn store() -> Store {
    let home = tempfile::tempdir().unwrap();
    let server = Home::new(home.path(), Access::Private).server(&"main".parse().unwrap());
    server.create().unwrap();
    let wal = WalStore::new(&server, SegmentSize::new(MIB as u64).unwrap());
    Store { _home: home, server, wal }
}

fn segment(timeline: u32, number: u64) -> SegmentName {
    let size = SegmentSize::new(MIB as u64).unwrap();
    SegmentName::new(TimelineId::new(timeline).unwrap(), SegmentNumber::from_u64(number), size)
}

fn lsn(mib: f64) -> Lsn {
    Lsn::from_u64((mib * MIB as f64) as u64)
}

impl Store {
    fn archive(&self, file: ArchivedWal, plain: &[u8]) -> Vec<u8> {
        fs::create_dir_all(self.server.wal_dir(file.segment)).unwrap();
        let mut writer =
            CompressedWriter::new(Vec::new(), Method::new(file.form.codec, 1)).unwrap();
        writer.write_all(plain).unwrap();
        let (stored, _) = writer.finish().unwrap();
        fs::write(self.server.archived_file(file), &stored).unwrap();
        stored
    }

    fn archive_whole(&self, timeline: u32, number: u64, codec: Codec) {
        let file =
            ArchivedWal { segment: segment(timeline, number), partial: false, form: codec.into() };
        self.archive(file, &vec![number as u8; MIB]);
    }

    fn read(&self, segment: SegmentName) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.wal.open(segment).unwrap().unwrap().read_to_end(&mut content)?;
        Ok(content)
    }
}

#[test]
fn a_segment_is_found_wherever_it_is() {
    let store = store();
    for (number, codec) in (1..).zip(Codec::ALL) {
        assert_eq!(store.wal.find(segment(1, number)).unwrap(), None);
        store.archive_whole(1, number, codec);
        let path = store.server.archived(segment(1, number), codec);
        assert_eq!(
            store.wal.find(segment(1, number)).unwrap(),
            Some(Held::Archived { path, form: codec.into() })
        );
        assert!(store.read(segment(1, number)).unwrap() == vec![number as u8; MIB]);
    }

    let path = store.server.streaming_partial(segment(1, 9));
    fs::write(&path, b"received").unwrap();
    let held = store.wal.find(segment(1, 9)).unwrap().unwrap();
    assert_eq!(held, Held::Partial { path: path.clone(), form: RAW, length: 8 });
    // What comes after it was found is for the next look.
    let mut reader = store.wal.open_held(&held).unwrap();
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b" and more").unwrap();
    let mut content = String::new();
    reader.read_to_string(&mut content).unwrap();
    assert_eq!(content, "received");

    let whole = store.server.streaming_segment(segment(1, 9));
    fs::write(&whole, vec![9; MIB]).unwrap();
    assert_eq!(store.wal.find(segment(1, 9)).unwrap(), Some(Held::Streaming { path: whole }));
}

#[test]
fn a_file_of_the_wrong_size_is_not_taken_for_a_segment() {
    let store = store();
    for (number, length) in [(1, MIB - 1), (2, MIB + 1), (3, 0)] {
        for codec in Codec::ALL {
            let file =
                ArchivedWal { segment: segment(1, number), partial: false, form: codec.into() };
            store.archive(file, &vec![1; length]);
            let error = store.read(segment(1, number)).unwrap_err();
            assert!(error.to_string().contains("bytes of WAL instead of"), "{codec} {error}");
            fs::remove_file(store.server.archived_file(file)).unwrap();
        }
    }
}

#[test]
fn a_cut_tail_counts_as_far_as_it_goes() {
    let store = store();
    let file = ArchivedWal { segment: segment(1, 3), partial: true, form: Codec::Zstd.into() };
    let stored = store.archive(file, &vec![7; MIB / 2]);
    let held = store.wal.find(segment(1, 3)).unwrap().unwrap();
    assert!(matches!(held, Held::Partial { length, .. } if length == MIB as u64 / 2), "{held:?}");
    assert!(store.read(segment(1, 3)).unwrap() == vec![7; MIB / 2]);
    assert_eq!(store.wal.coverage().unwrap().end_of(TimelineId::FIRST), Some(lsn(3.5)));

    // With a record the file need not be read.
    let lock = Arc::new(ServerLock::try_acquire(&store.server, LockKind::Archive).unwrap());
    let index = WalIndex::of(&store.server, file.segment);
    let record = WalIndexRecord {
        plain_size: MIB as u64 / 4,
        ..index.rebuild(store.wal.segment_size(), None, &lock).unwrap().remove(0)
    };
    assert_eq!(record.stored_sha256, Some(Sha256Sum::of(&stored)));
    WalIndexWriters::new(&store.server, store.wal.segment_size(), lock).append(&[record]).unwrap();
    assert_eq!(store.wal.coverage().unwrap().end_of(TimelineId::FIRST), Some(lsn(3.25)));
}

#[test]
fn encrypted_wal_is_held_without_the_key_and_read_with_it() {
    use age::secrecy::ExposeSecret;
    use std::os::unix::fs::PermissionsExt;

    let store = store();
    let secret = age::x25519::Identity::generate();
    let key_file = store._home.path().join("identity");
    fs::write(&key_file, secret.to_string().expose_secret()).unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let encrypt = |number, partial, length| {
        let packing = Packing::new(Method::new(Codec::Zstd, 1), &[secret.to_public().into()]);
        let file = ArchivedWal { segment: segment(1, number), partial, form: packing.form() };
        fs::create_dir_all(store.server.wal_dir(file.segment)).unwrap();
        let path = store.server.archived_file(file);
        let mut writer =
            ArchivedWriter::create(&path, Access::Private, &packing, |file| file).unwrap();
        writer.write_all(&vec![number as u8; length]).unwrap();
        let (plain, stored, file_of) = writer.finish().unwrap();
        file_of.commit().unwrap();
        WalIndexRecord::new(file, plain, stored)
    };
    let whole = encrypt(1, false, MIB);
    let cut = encrypt(2, true, MIB / 2);

    let keys = KeyFile::new(&key_file);
    let with_keys = store.wal.clone().with_keys(Some(&keys));
    let error = store.wal.open(segment(1, 1)).err().unwrap();
    assert!(matches!(error, WalError::Decryption(DecryptionError::NoKeys { .. })), "{error}");
    let mut content = Vec::new();
    with_keys.open(segment(1, 1)).unwrap().unwrap().read_to_end(&mut content).unwrap();
    assert!(content == vec![1; MIB]);

    // Whoever cannot know how much is in a cut tail says so where it matters, and otherwise
    // counts what must be in it.
    let end = |wal: &WalStore| wal.coverage().unwrap().end_of(TimelineId::FIRST).unwrap();
    assert!(matches!(store.wal.find(segment(1, 2)), Err(WalError::Decryption(_))));
    assert_eq!(end(&store.wal), Lsn::from_u64(2 * MIB as u64 + 1));
    assert_eq!(end(&with_keys), lsn(2.5));

    // Without the key an index keeps what it knows, and makes up nothing.
    let lock = Arc::new(ServerLock::try_acquire(&store.server, LockKind::Archive).unwrap());
    let (index, size) = (WalIndex::of(&store.server, cut.file.segment), store.wal.segment_size());
    assert_eq!(index.rebuild(size, None, &lock).unwrap(), []);
    let mut indexes = WalIndexWriters::new(&store.server, size, Arc::clone(&lock));
    indexes.append(std::slice::from_ref(&cut)).unwrap();
    assert_eq!(end(&store.wal), lsn(2.5));
    assert_eq!(index.rebuild(size, None, &lock).unwrap(), std::slice::from_ref(&cut));
    let mut rebuilt = index.rebuild(size, Some(&keys), &lock).unwrap();
    // With the key it is seen that it is no WAL.
    assert!(rebuilt[0].findings.validity.is_some());
    rebuilt[0].findings = WalFindings::default();
    assert_eq!(rebuilt, [whole, cut]);

    let root = TimelineHistory::root(TimelineId::FIRST);
    let between = |from, to| store.wal.encrypted_between(&root, lsn(from), lsn(to)).unwrap().len();
    assert_eq!((between(1.0, 2.0), between(1.5, 3.0), between(3.0, 9.0)), (1, 2, 0));
    // Where the timeline was left, what it went on with is not on the way.
    let left = |at: f64| {
        let text = format!("1\t{}\tr\n", lsn(at));
        TimelineHistory::parse(TimelineId::new(2).unwrap(), text.as_bytes()).unwrap()
    };
    let between = |left| store.wal.encrypted_between(&left, lsn(1.0), lsn(9.0)).unwrap().len();
    assert_eq!((between(left(2.5)), between(left(2.0))), (2, 1));
    // In the directory of others it is found by nobody.
    let stray = store.server.wal_dir(segment(1, 1)).join(format!("{}.age", segment(1, 4097)));
    fs::write(stray, b"").unwrap();
    assert_eq!(store.wal.encrypted_between(&root, lsn(1.0), lsn(9000.0)).unwrap().len(), 2);
}

#[test]
fn zeros_ahead_of_what_is_received_do_not_count() {
    let store = store();
    let root = TimelineHistory::root(TimelineId::FIRST);
    let mut content = vec![7; MIB / 4];
    content.resize(MIB, 0);
    fs::write(store.server.streaming_partial(segment(1, 3)), content).unwrap();
    let held = store.wal.find(segment(1, 3)).unwrap().unwrap();
    assert!(matches!(held, Held::Partial { length, .. } if length == MIB as u64 / 4), "{held:?}");
    assert_eq!(store.wal.coverage().unwrap().end_of(TimelineId::FIRST), Some(lsn(3.25)));
    assert_eq!(store.wal.end_of(TimelineId::FIRST).unwrap(), Some(lsn(3.25)));
    for reach in [WalStore::reach, WalStore::durable_reach] {
        let Reach::Missing(gap) = reach(&store.wal, &root, lsn(3.0), lsn(4.0)).unwrap() else {
            panic!("a quarter is held");
        };
        assert_eq!(gap.from, lsn(3.25));
    }
}

#[test]
fn the_longer_of_two_forms_of_a_cut_tail_counts() {
    let store = store();
    for (codec, length) in [(Codec::Zstd, 1000), (Codec::None, 3000), (Codec::Gzip, 2000)] {
        let file = ArchivedWal { segment: segment(1, 3), partial: true, form: codec.into() };
        store.archive(file, &vec![7; length]);
    }
    let held = store.wal.find(segment(1, 3)).unwrap().unwrap();
    assert!(matches!(held, Held::Partial { length: 3000, .. }), "{held:?}");
}

#[test]
fn reach_goes_through_archive_and_streaming() {
    let store = store();
    let root = TimelineHistory::root(TimelineId::FIRST);
    // 4095 and 4096 lie in two directories of the archive.
    store.archive_whole(1, 4095, Codec::Zstd);
    store.archive_whole(1, 4096, Codec::None);
    fs::write(store.server.streaming_segment(segment(1, 4097)), vec![1; MIB]).unwrap();
    fs::write(store.server.streaming_partial(segment(1, 4098)), vec![1; MIB / 2]).unwrap();
    fs::write(store.server.wals().join("stray"), b"").unwrap();
    for reach in [WalStore::reach, WalStore::durable_reach] {
        let covered = reach(&store.wal, &root, lsn(4095.25), lsn(4098.5)).unwrap();
        assert_eq!(covered, Reach::Covered);
        let Reach::Missing(gap) = reach(&store.wal, &root, lsn(4095.25), lsn(4098.75)).unwrap()
        else {
            panic!("half a segment is missing");
        };
        assert_eq!((gap.from, gap.segment, gap.passed), (lsn(4098.5), segment(1, 4098), false));
        let Reach::Missing(gap) = reach(&store.wal, &root, lsn(4000.5), lsn(4001.5)).unwrap()
        else {
            panic!("nothing is held there");
        };
        assert_eq!((gap.from, gap.segment, gap.passed), (lsn(4000.5), segment(1, 4000), true));
    }
    // Only the directories and segments in question are looked at.
    let part = store.wal.coverage_between(&root, lsn(4095.25), lsn(4097.0)).unwrap().spans();
    assert_eq!(part.len(), 1);
    assert_eq!((part[0].start, part[0].end), (lsn(4095.0), lsn(4097.0)));
    let spans = store.wal.coverage().unwrap().spans();
    assert_eq!(spans.len(), 1);
    assert_eq!((spans[0].start, spans[0].end), (lsn(4095.0), lsn(4098.5)));

    assert_eq!(store.wal.end_of(TimelineId::FIRST).unwrap(), Some(lsn(4098.5)));
    assert_eq!(store.wal.end_of(TimelineId::new(2).unwrap()).unwrap(), None);

    let sizes = store.wal.stored_sizes(&BTreeSet::new()).unwrap();
    assert_eq!(sizes.keys().copied().collect::<Vec<_>>(), [segment(1, 4095), segment(1, 4096)]);
    assert_eq!(sizes[&segment(1, 4096)], MIB as u64);
}

#[test]
fn what_is_not_held_is_looked_for_where_it_is_likely() {
    let store = store();
    let root = TimelineHistory::root(TimelineId::FIRST);
    // A directory each.
    for number in (0..100).map(|log| log * 4096) {
        store.archive_whole(1, number, Codec::None);
    }
    fs::write(store.server.streaming_partial(segment(1, 99 * 4096 + 1)), vec![1; MIB / 2]).unwrap();
    let missing = |from: f64, to: f64| {
        let (reach, counts) = counted(|| store.wal.reach(&root, lsn(from), lsn(to)).unwrap());
        let Reach::Missing(gap) = reach else { panic!("{from}") };
        (gap.from, gap.passed, counts)
    };
    // Whether WAL lies behind a gap is told by the newest directory.
    let (from, passed, counts) = missing(4096.5, 4097.5);
    assert_eq!((from, passed), (lsn(4097.0), true));
    assert!(counts.directories < 6, "{counts:?}");
    let tail = 99.0 * 4096.0 + 1.5;
    let (from, passed, counts) = missing(tail - 1.0, tail + 1.0);
    assert_eq!((from, passed), (lsn(tail), false));
    assert!(counts.directories < 6, "{counts:?}");
    let (end, counts) = counted(|| store.wal.end_of(TimelineId::FIRST).unwrap());
    assert_eq!(end, Some(lsn(tail)));
    assert!(counts.directories < 4, "{counts:?}");

    fs::remove_file(store.server.streaming_partial(segment(1, 99 * 4096 + 1))).unwrap();
    for number in (1..99).map(|log| log * 4096) {
        fs::remove_file(store.server.archived(segment(1, number), Codec::None)).unwrap();
    }
    let (_, passed, counts) = missing(0.5, 1.5);
    assert!(passed && counts.directories < 6, "{counts:?}");

    // A file in the directory of others is found by nobody, and so is not counted.
    let stray = store.server.wal_dir(segment(1, 0)).join(segment(1, 4097).to_string());
    fs::write(stray, vec![0; MIB]).unwrap();
    assert_eq!(
        store.wal.coverage().unwrap().length(TimelineId::FIRST, SegmentNumber::from_u64(4097)),
        0
    );
}

#[test]
fn gaps_say_why_they_are_there() {
    let store = store();
    let root = TimelineHistory::root(TimelineId::FIRST);
    for number in [2, 5, 9] {
        store.archive_whole(1, number, Codec::None);
    }
    let lock = ServerLock::try_acquire(&store.server, LockKind::Archive).unwrap();
    let one = TimelineId::FIRST;
    journal::record_retired(&store.server, one, lsn(0.0), lsn(2.0), &lock).unwrap();
    journal::record_gap(&store.server, one, lsn(3.0), lsn(5.0)).unwrap();
    let absence = |from| match store.wal.reach(&root, lsn(from), lsn(20.0)).unwrap() {
        Reach::Missing(gap) => (gap.absence, gap.passed),
        Reach::Covered => panic!("{from}"),
    };
    assert_eq!(absence(0.5), (Absence::Retired, true));
    assert_eq!(absence(2.0), (Absence::LeftOut, true));
    assert_eq!(absence(5.0), (Absence::Missing, true));
    assert_eq!(absence(9.0), (Absence::Missing, false));
}

#[test]
fn the_indexes_tell_what_the_validator_thought() {
    let store = store();
    let lock = Arc::new(ServerLock::try_acquire(&store.server, LockKind::Archive).unwrap());
    let mut indexes = WalIndexWriters::new(&store.server, store.wal.segment_size(), lock);
    let record = |timeline, number, partial, validity, length: u64| {
        let file =
            ArchivedWal { segment: segment(timeline, number), partial, form: Codec::Zstd.into() };
        fs::create_dir_all(store.server.wal_dir(file.segment)).unwrap();
        let plain = Plain { size: length, ..Plain::default() };
        let stored = Stored { size: 1, sha256: Sha256Sum::of(b"") };
        let mut findings = WalFindings { validity, ..WalFindings::default() };
        if validity == Some(Validity::Suspect) {
            let from = file.segment.start(store.wal.segment_size()).unwrap();
            let (to, what) = (from.saturating_add(8), "broken".to_owned());
            findings.suspect.push(SuspectRange { from, to, what });
        }
        WalIndexRecord::new(file, plain, stored).with(findings)
    };
    let (good, bad) = (Some(Validity::Validated), Some(Validity::Suspect));
    let whole = MIB as u64;
    let segments = [(1, good), (2, good), (3, bad), (4, None), (5, bad), (6, good)];
    let mut records: Vec<_> =
        segments.map(|(number, validity)| record(1, number, false, validity, whole)).into();
    records.push(record(1, 7, true, good, 100));
    // Later on it was found that it is in order.
    records.push(record(1, 5, false, good, whole));
    // A directory that is complete, and one of which nobody knows anything.
    records.extend((4096..2 * 4096).map(|number| record(2, number, false, good, whole)));
    records.push(record(3, 1, false, None, whole));
    indexes.append(&records).unwrap();
    let (verdicts, counts) = counted(|| store.wal.verdicts().unwrap());
    let spans: Vec<_> =
        verdicts.validated.spans().map(|s| (s.timeline.get(), s.start, s.end)).collect();
    let tail = lsn(7.0).saturating_add(100);
    let expected =
        [(1, lsn(1.0), lsn(3.0)), (1, lsn(5.0), tail), (2, lsn(4096.0), lsn(2.0 * 4096.0))];
    assert_eq!(spans, expected);
    let suspect: Vec<_> = verdicts.suspect.iter().map(|s| (s.segment, s.range.from)).collect();
    assert_eq!(suspect, [(segment(1, 3), lsn(3.0))]);
    // The index of the complete one is not read.
    assert!(counts.index_bytes < 20_000, "{counts:?}");
}
