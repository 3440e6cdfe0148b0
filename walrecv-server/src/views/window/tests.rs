use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::ToSpan;
use pgwire_stream::{
    HistoryFile, PgTimestamp, SegmentName, SegmentNumber, ServerVersion, SystemId,
};

use super::*;
use crate::catalog::{
    BackupOutcome, BackupRecord, Identity, Position, SuspectRange, Validity, WalFindings,
    WalIndexRecord, WalIndexWriters, journal,
};
use crate::storage::{
    Access, ArchivedWal, Codec, Home, LockKind, Plain, ServerLock, Sha256Sum, Stored, durable,
};
use crate::views::backups::list_backups;

const SIZE: SegmentSize = SegmentSize::DEFAULT;

/// A store in which segment number n was written in minute n of a day.
struct Store {
    _home: tempfile::TempDir,
    server: ServerDir,
}

fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn name(timeline: u32, number: u64) -> SegmentName {
    SegmentName::new(tli(timeline), SegmentNumber::from_u64(number), SIZE)
}

fn start(number: u64) -> Lsn {
    SIZE.start_of(SegmentNumber::from_u64(number))
}

fn minute(number: u64) -> Timestamp {
    let midnight: Timestamp = "2026-03-05T00:00:00Z".parse().unwrap();
    midnight + (number as i64).minutes()
}

fn file(timeline: u32, number: u64) -> ArchivedWal {
    ArchivedWal { segment: name(timeline, number), partial: false, form: Codec::Zstd.into() }
}

impl Store {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let server = Home::new(home.path(), Access::Private).server(&"main".parse().unwrap());
        let (system_id, server_version) = (SystemId::from_u64(7), ServerVersion::from_num(180_000));
        Identity { system_id, segment_size: SIZE, server_version, data_checksums: None }
            .establish(&server)
            .unwrap();
        Self { _home: home, server }
    }

    fn archive(&self, timeline: u32, numbers: std::ops::Range<u64>) {
        self.archive_with(timeline, numbers, &WalFindings::default());
    }

    fn archive_with(&self, timeline: u32, numbers: std::ops::Range<u64>, findings: &WalFindings) {
        self.archive_as(timeline, numbers, findings, |_| true);
    }

    /// The same, where not everything has a commit in it.
    fn archive_as(
        &self,
        timeline: u32,
        numbers: std::ops::Range<u64>,
        findings: &WalFindings,
        committed: impl Fn(u64) -> bool,
    ) {
        let lock = ServerLock::try_acquire(&self.server, LockKind::Archive).unwrap();
        let mut indexes = WalIndexWriters::new(&self.server, SIZE, Arc::new(lock));
        let stored = Stored { size: 100, sha256: Sha256Sum::of(b"x") };
        let plain = Plain { size: SIZE.bytes().into(), ..Plain::of(b"x") };
        let at = |number, seconds: i64| {
            let time = minute(number) + seconds.seconds();
            Some(PgTimestamp::from_unix_micros(time.as_microsecond()))
        };
        let records: Vec<_> = numbers
            .map(|number| {
                let file = file(timeline, number);
                let folder = self.server.wal_dir(file.segment);
                durable::create_dir(&folder, Access::Private).unwrap();
                fs::write(self.server.archived_file(file), b"x").unwrap();
                WalIndexRecord::new(file, plain, stored).with(WalFindings {
                    first_commit: at(number, 0).filter(|_| committed(number)),
                    last_commit: at(number, 59).filter(|_| committed(number)),
                    ..findings.clone()
                })
            })
            .collect();
        indexes.append(&records).unwrap();
    }

    /// A full backup that begins in one segment and ends in the next.
    fn back_up(&self, timeline: u32, number: u64) {
        let position = |number| {
            let lsn = start(number).saturating_add(1000);
            Some(Position { lsn, timeline: tli(timeline) })
        };
        let record = BackupRecord {
            id: BackupId::at(minute(number)),
            server: self.server.name().clone(),
            outcome: BackupOutcome::Copied,
            name: None,
            label: "walrecv-server".to_owned(),
            parent: None,
            system_id: SystemId::from_u64(7),
            segment_size: SIZE,
            server_version: ServerVersion::from_num(180_000),
            data_checksums: None,
            program_version: "0.1.0".to_owned(),
            began_at: minute(number),
            ended_at: Some(minute(number + 1)),
            done_at: Some(minute(number + 1)),
            begin: position(number),
            end: position(number + 1),
            tablespaces: Vec::new(),
            archives: Vec::new(),
            manifest: None,
            config_files: None,
            damaged_pages: None,
        };
        let backup = self.server.backup(record.id);
        durable::create_dir(&self.server.base(), Access::Private).unwrap();
        durable::create_dir(backup.path(), Access::Private).unwrap();
        record.save(&backup).unwrap();
    }

    fn lose(&self, timeline: u32, number: u64) {
        fs::remove_file(self.server.archived_file(file(timeline, number))).unwrap();
    }

    fn window(&self, now: u64) -> Window {
        let backups = list_backups(&self.server).unwrap().backups;
        let outline = WalStore::new(&self.server, SIZE).outline().unwrap();
        window(&self.server, SIZE, &outline, &backups, minute(now)).unwrap()
    }
}

fn ends(window: &Window) -> Vec<(Timestamp, Timestamp, Ending)> {
    window.recoverable.iter().map(|stretch| (stretch.from, stretch.to, stretch.ends)).collect()
}

fn last_second(number: u64) -> Timestamp {
    minute(number) + 59.seconds()
}

#[test]
fn a_backup_leads_to_the_end_of_wal() {
    let store = Store::new();
    store.archive(1, 10..20);
    assert!(store.window(20).summary.contains("there is no backup"));
    store.back_up(1, 11);
    store.back_up(1, 14);
    let window = store.window(20);
    assert_eq!(ends(&window), [(minute(12), last_second(19), Ending::EndOfWal)]);
    assert_eq!(window.recoverable_seconds(), 7.0 * 60.0 + 59.0);
    assert_eq!(
        window.summary,
        "recoverable to any moment from 2026-03-05T00:12:00Z to 2026-03-05T00:19:59Z (7 min), \
         without a gap"
    );
    let wal: Vec<_> = window.wal.iter().map(|wal| (wal.from, wal.to)).collect();
    assert_eq!(wal, [(Some(minute(10)), Some(last_second(19)))]);
    assert!(store.window(30).summary.ends_with("nothing came for 10 min"));

    // A server that says that there is no more is recoverable until then.
    let mut window = store.window(40);
    window.reaches(tli(1), start(20), minute(40), minute(40));
    assert_eq!(ends(&window), [(minute(12), minute(40), Ending::EndOfWal)]);
    assert!(window.summary.ends_with("without a gap"), "{}", window.summary);
}

#[test]
fn a_gap_ends_what_can_be_reached_until_the_next_backup() {
    let store = Store::new();
    store.archive(1, 10..30);
    store.back_up(1, 11);
    store.lose(1, 20);
    let window = store.window(30);
    assert_eq!(ends(&window), [(minute(12), last_second(19), Ending::Missing)]);
    assert!(window.summary.ends_with("WAL is missing: take a backup"), "{}", window.summary);
    let gap = &window.interruptions[0];
    assert_eq!((gap.kind, gap.from_lsn, gap.to_lsn), (Ending::Missing, start(20), start(21)));
    assert_eq!((gap.from, gap.to), (Some(last_second(19)), Some(minute(21))));

    store.back_up(1, 24);
    let window = store.window(30);
    let behind = (minute(25), last_second(29), Ending::EndOfWal);
    assert_eq!(ends(&window), [(minute(12), last_second(19), Ending::Missing), behind]);
    assert!(
        window
            .summary
            .contains("not to those between 2026-03-05T00:19:59Z and 2026-03-05T00:25:00Z"),
        "{}",
        window.summary
    );
    // What the operator left out is no surprise.
    journal::record_gap(&store.server, tli(1), start(20), start(21)).unwrap();
    assert_eq!(store.window(30).interruptions[0].kind, Ending::LeftOut);
}

#[test]
fn a_backup_that_was_kept_without_what_follows_is_no_gap() {
    let store = Store::new();
    store.archive(1, 10..30);
    store.back_up(1, 11);
    store.back_up(1, 20);
    let lock = ServerLock::try_acquire(&store.server, LockKind::Backup).unwrap();
    journal::record_retired(&store.server, tli(1), start(13), start(20), &lock).unwrap();
    (13..20).for_each(|number| store.lose(1, number));
    let window = store.window(30);
    let kept = (minute(12), last_second(12), Ending::Retired);
    let behind = (minute(21), last_second(29), Ending::EndOfWal);
    assert_eq!(ends(&window), [kept, behind]);
    assert!(
        window.summary.contains("from 2026-03-05T00:21:00Z")
            && window.summary.ends_with("without a gap"),
        "{}",
        window.summary
    );
}

#[test]
fn wal_that_nobody_committed_in_reaches_as_far_as_its_backups() {
    let store = Store::new();
    store.archive_as(1, 10..20, &WalFindings::default(), |number| number >= 18);
    store.back_up(1, 11);
    let wal: Vec<_> = store.window(20).wal.iter().map(|wal| (wal.from, wal.to)).collect();
    assert_eq!(wal, [(Some(minute(11)), Some(last_second(19)))]);
}

#[test]
fn recovery_stops_at_wal_that_could_not_be_replayed() {
    let store = Store::new();
    store.archive(1, 10..20);
    let range = SuspectRange {
        from: start(20).saturating_add(100),
        to: start(20).saturating_add(200),
        what: "a record has a wrong checksum".to_owned(),
    };
    let findings = WalFindings {
        validity: Some(Validity::Suspect),
        suspect: vec![range.clone()],
        ..WalFindings::default()
    };
    store.archive_with(1, 20..21, &findings);
    store.archive(1, 21..30);
    store.back_up(1, 11);
    let window = store.window(30);
    assert_eq!(ends(&window), [(minute(12), last_second(20), Ending::Suspect)]);
    assert_eq!(window.recoverable[0].to_lsn, range.from);
    assert_eq!(window.count(Ending::Suspect), 1);
    assert_eq!(window.interruptions[0].what.as_deref(), Some("a record has a wrong checksum"));
    // A backup behind it does not meet it.
    store.back_up(1, 24);
    assert_eq!(ends(&store.window(30))[1], (minute(25), last_second(29), Ending::EndOfWal));
}

#[test]
fn the_newest_timeline_is_followed_and_what_it_left_is_shown() {
    let store = Store::new();
    // Timeline 1 was left in segment 15, and went on to the end of segment 17 by itself.
    store.archive(1, 10..18);
    store.archive(2, 15..25);
    let fork = start(15).saturating_add(4096);
    let content = format!("1\t{fork}\tno recovery target specified\n").into_bytes();
    HistoryStore::new(&store.server)
        .put(&HistoryFile { timeline: tli(2), content: content.into() })
        .unwrap();
    store.back_up(1, 11);
    let window = store.window(25);
    assert_eq!(ends(&window), [(minute(12), last_second(24), Ending::EndOfWal)]);
    assert_eq!(window.recoverable[0].timeline, tli(2));
    assert!(window.interruptions.is_empty(), "{:?}", window.interruptions);
    let [one, two] = &window.timelines[..] else { panic!("{:?}", window.timelines) };
    assert_eq!((one.parent, one.current), (None, true));
    assert_eq!((two.parent, two.fork_lsn, two.current), (Some(tli(1)), Some(fork), true));
    assert_eq!(two.forked_at, Some(minute(15)));

    // A backup that was taken behind the fork leads nowhere else.
    store.back_up(1, 16);
    let dead = store.window(25).recoverable.pop().unwrap();
    assert_eq!((dead.timeline, dead.to), (tli(1), last_second(17)));
}

#[test]
fn a_timeline_that_was_left_reaches_to_where_the_next_begins() {
    let store = Store::new();
    store.archive_as(1, 10..15, &WalFindings::default(), |number| number < 12);
    store.archive(2, 15..20);
    let content = format!("1\t{}\tno recovery target specified\n", start(15)).into_bytes();
    HistoryStore::new(&store.server)
        .put(&HistoryFile { timeline: tli(2), content: content.into() })
        .unwrap();
    let ends: Vec<_> = store.window(20).wal.iter().map(|wal| wal.to).collect();
    assert_eq!(ends, [Some(minute(15)), Some(last_second(19))]);
}

#[test]
fn a_full_directory_is_believed_until_something_in_it_changes() {
    let store = Store::new();
    store.archive(1, 0..256);
    let wal = WalStore::new(&store.server, SIZE);
    let set = |path, ago| {
        let at = SystemTime::now() - Duration::from_secs(ago);
        fs::File::open(path).unwrap().set_modified(at).unwrap();
    };
    let spans = || {
        let outline = wal.outline().unwrap();
        assert_eq!(outline.folders[0].stored_size, 25_600);
        outline.coverage.spans().len()
    };
    let first = name(1, 0);
    set(store.server.wal_dir(first), 20);
    set(store.server.wal_index(first), 10);
    let (found, counts) = crate::storage::counted::counted(spans);
    assert_eq!(found, 1);
    assert!(counts.names < 10, "{counts:?}");
    store.lose(1, 100);
    assert_eq!(spans(), 2);
}

#[test]
fn a_directory_that_something_was_removed_from_is_looked_at_whatever_the_clock_said() {
    let store = Store::new();
    store.archive(1, 0..256);
    let first = name(1, 0);
    let lock = ServerLock::try_acquire(&store.server, LockKind::Backup).unwrap();
    let at = |segment| SIZE.start_of(SegmentNumber::from_u64(segment));
    journal::record_retired(&store.server, first.timeline(), at(0), at(1), &lock).unwrap();
    store.lose(1, 0);
    let before = SystemTime::now() - Duration::from_secs(3600);
    fs::File::open(store.server.wal_dir(first)).unwrap().set_modified(before).unwrap();
    let outline = WalStore::new(&store.server, SIZE).outline().unwrap();
    assert_eq!(outline.coverage.spans()[0].start, at(1));
}
