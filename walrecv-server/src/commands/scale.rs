//! What commands cost where many segments are archived. `WALRECV_TEST_SEGMENTS` makes it more of
//! them, and with `--nocapture` the times are seen; what is asserted does not depend on them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use jiff::{Timestamp, ToSpan};
use pgwire_stream::wal::WalOptions;
use pgwire_stream::{
    Lsn, PgTimestamp, SegmentName, SegmentNumber, SegmentSize, ServerVersion, SystemId, TimelineId,
};

use super::show_backup::show_backup;
use crate::catalog::{
    BackupOutcome, BackupRecord, BackupStatus, Identity, Position, Validity, WalFindings,
    WalIndexRecord, WalIndexWriters, WalStore,
};
use crate::receiver::newest_held;
use crate::restore::target::{RecoveryTarget, TargetAction, TimelineChoice};
use crate::restore::{Owner, Request, Served, WalDelivery, plan};
use crate::retention::Rules;
use crate::storage::counted::{Counts, counted};
use crate::storage::{
    Access, ArchivedWal, BackupId, Codec, Home, LockKind, Plain, ServerDir, ServerLock, Sha256Sum,
    Stored, durable,
};
use crate::views::backups::{ListedBackup, list_backups};
use crate::views::check::backups;
use crate::views::stored::stored;

const BACKUPS: u64 = 10;
const PER_FOLDER: u64 = 256;
/// The first segment: that of the third directory.
const FIRST: u64 = 2 * PER_FOLDER;
/// How many segments a backup takes.
const BACKUP_SPAN: u64 = 3;
const SIZE: SegmentSize = SegmentSize::DEFAULT;

struct Store {
    directory: tempfile::TempDir,
    home: Home,
    server: ServerDir,
    segments: u64,
}

fn segment(number: u64) -> SegmentName {
    SegmentName::new(TimelineId::FIRST, SegmentNumber::from_u64(number), SIZE)
}

fn start_of(number: u64) -> Lsn {
    SIZE.start_of(SegmentNumber::from_u64(number))
}

impl Store {
    /// So many archived segments with their indexes, one that is being received, and backups all
    /// along the way.
    fn new(segments: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path().join("home"), Access::Private);
        let server = home.server(&"main".parse().unwrap());
        let (system_id, server_version) = (SystemId::from_u64(7), ServerVersion::from_num(180_000));
        Identity { system_id, segment_size: SIZE, server_version, data_checksums: None }
            .establish(&server)
            .unwrap();
        let store = Self { directory, home, server, segments };
        store.archive();
        let open = store.server.streaming_partial(segment(FIRST + segments));
        fs::write(open, [1; 1000]).unwrap();
        for number in 0..BACKUPS {
            store.back_up(number);
        }
        store
    }

    fn archive(&self) {
        let lock = ServerLock::try_acquire(&self.server, LockKind::Archive).unwrap();
        let mut indexes = WalIndexWriters::new(&self.server, SIZE, Arc::new(lock));
        let content = b"not much";
        let stored = Stored { size: content.len() as u64, sha256: Sha256Sum::of(content) };
        let plain = Plain { size: SIZE.bytes().into(), ..Plain::of(content) };
        let all: Vec<u64> = (FIRST..FIRST + self.segments).collect();
        for numbers in all.chunks(PER_FOLDER as usize) {
            durable::create_dir(&self.server.wal_dir(segment(numbers[0])), Access::Private)
                .unwrap();
            let records: Vec<_> = numbers
                .iter()
                .map(|&number| {
                    let form = Codec::Zstd.into();
                    let file = ArchivedWal { segment: segment(number), partial: false, form };
                    fs::write(self.server.archived_file(file), content).unwrap();
                    let commit = |add| Some(PgTimestamp::from_micros(number as i64 * 1000 + add));
                    WalIndexRecord::new(file, plain, stored).with(WalFindings {
                        validity: Some(Validity::Validated),
                        first_record: Some(start_of(number).saturating_add(40)),
                        first_commit: commit(0),
                        last_commit: commit(999),
                        latest_end: commit(999),
                        xids: Some((number as u32, number as u32 + 1)),
                        ..WalFindings::default()
                    })
                })
                .collect();
            indexes.append(&records).unwrap();
        }
    }

    /// The segment in which a backup begins.
    fn begins_in(&self, number: u64) -> u64 {
        FIRST + number * (self.segments / BACKUPS)
    }

    fn id(number: u64) -> BackupId {
        BackupId::at(Self::time(number))
    }

    fn time(number: u64) -> Timestamp {
        let first: Timestamp = "2026-03-05T15:11:33Z".parse().unwrap();
        first + (number as i64).hours()
    }

    fn back_up(&self, number: u64) {
        let first = self.begins_in(number);
        let position = |segment: u64| {
            let lsn = start_of(segment).saturating_add(1000);
            Some(Position { lsn, timeline: TimelineId::FIRST })
        };
        let record = BackupRecord {
            id: Self::id(number),
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
            began_at: Self::time(number),
            ended_at: Some(Self::time(number) + 10.minutes()),
            done_at: Some(Self::time(number) + 10.minutes()),
            begin: position(first),
            end: position(first + BACKUP_SPAN - 1),
            tablespaces: Vec::new(),
            archives: Vec::new(),
            manifest: None,
            config_files: None,
            damaged_pages: None,
        };
        let backup = self.server.backup(record.id);
        durable::create_dir(backup.path(), Access::Private).unwrap();
        record.save(&backup).unwrap();
    }

    fn plan(&self, number: u64) -> Lsn {
        let request = Request {
            backup: Self::id(number).to_string(),
            destination: self.directory.path().join("data"),
            target: RecoveryTarget::Latest,
            timeline: TimelineChoice::Latest,
            inclusive: true,
            action: TargetAction::Promote,
            tablespaces: Vec::new(),
            owner: Owner::current().is_root().then(|| "nobody".to_owned()),
            wal: WalDelivery::GetWal,
            program: PathBuf::from("/bin/sh"),
            suspect_wal: false,
            keys: None,
            lease: None,
            jobs: super::store::jobs(),
            standby: None,
            config: true,
        };
        let planned = plan(&self.home, self.server.name(), &request, &|_, _| Served {
            wal: true,
            decrypts: false,
        });
        planned.unwrap().wal.held_to
    }
}

/// How long this thread has had a processor, in milliseconds: a busy machine does not change that.
fn processor_ms() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse::<u64>().ok());
    nanoseconds.unwrap_or(0) / 1_000_000
}

fn measured<T>(what: &str, work: impl FnOnce() -> T) -> (T, Counts) {
    let (began, before) = (Instant::now(), processor_ms());
    let (result, counts) = counted(work);
    let (took, processor) = (began.elapsed(), processor_ms() - before);
    println!("{what}: {took:.1?}, {processor} ms of a processor, {counts:?}");
    (result, counts)
}

#[test]
fn questions_cost_what_they_must() {
    let segments =
        std::env::var("WALRECV_TEST_SEGMENTS").map_or(20_000, |segments| segments.parse().unwrap());
    let store = Store::new(segments);
    let folders = segments.div_ceil(PER_FOLDER);
    let end = start_of(FIRST + segments).saturating_add(1000);
    // What a look at a few directories costs, and the tail of each index.
    let few = 8 * PER_FOLDER;
    let tails = folders * 4096;
    let index = PER_FOLDER * 1000;

    let newest = || newest_held(&store.server, SIZE, Some(&WalOptions::new(SIZE)));
    let (held, counts) = measured("start of the receiver", newest);
    assert_eq!(held.unwrap().unwrap().end, end);
    assert!(counts.names < 2 * folders + few && counts.index_bytes == 0, "{counts:?}");
    assert!(counts.directories < 10 && counts.sizes < 10, "{counts:?}");

    let (listed, counts) = measured("list-backups", || list_backups(&store.server).unwrap());
    assert_eq!(listed.backups.len() as u64, BACKUPS);
    for (number, backup) in (0..BACKUPS).rev().zip(&listed.backups) {
        let ListedBackup::Known { standing, wal_size, .. } = backup else { panic!("{backup:?}") };
        assert_eq!(standing.status, BackupStatus::Done);
        let behind =
            if number + 1 < BACKUPS { store.begins_in(number + 1) } else { FIRST + segments };
        assert_eq!(*wal_size, (behind - store.begins_in(number)) * 8, "{number}");
    }
    assert!(counts.names < 8 * folders + BACKUPS * few, "{counts:?}");
    assert!(counts.directories < 10 * BACKUPS && counts.sizes < 10 * BACKUPS, "{counts:?}");
    assert!(counts.index_bytes < tails + BACKUPS * index, "{counts:?}");

    for (what, number, behind) in [("first", 0, segments), ("last", BACKUPS - 1, segments / 10)] {
        let id = Store::id(number).to_string();
        let show = || show_backup(&store.server, &id, &Rules::default()).unwrap();
        let (shown, counts) = measured(&format!("show-backup of the {what}"), show);
        assert_eq!(shown.wal.unwrap().end, end);
        assert!(counts.names < behind + 8 * folders + BACKUPS * few, "{counts:?}");
        assert!(counts.index_bytes < tails + BACKUPS * index, "{counts:?}");

        let plan = || store.plan(number);
        let (held_to, counts) = measured(&format!("plan to restore the {what}"), plan);
        assert_eq!(held_to, end);
        // Once for what is held, and once for what of it is encrypted; of the indexes, the last lines,
        // which tell whether anything is suspect.
        assert!(counts.names < 2 * behind + 9 * folders + few, "{counts:?}");
        assert!(counts.sizes < 100 && counts.index_bytes < tails + index, "{counts:?}");
    }

    let now = Store::time(BACKUPS);
    let (drawn, counts) = measured("window", || stored(&store.server, now));
    assert_eq!(drawn.window.wal.len(), 1);
    assert_eq!(drawn.window.backups.len() as u64, BACKUPS);
    assert_eq!(drawn.sizes.wal_bytes, segments * 8);
    assert!(drawn.problems.is_empty(), "{:?}", drawn.problems);
    assert!(counts.names < 12 * folders + BACKUPS * few, "{counts:?}");
    assert!(counts.index_bytes < 3 * tails + (BACKUPS + 4) * index, "{counts:?}");

    let (rows, counts) = measured("check", || backups(&store.server));
    assert!(rows.iter().all(|row| row.remark.as_deref().is_none_or(|r| !r.contains("WAL"))));
    assert!(counts.names < segments + 6 * folders + BACKUPS * few, "{counts:?}");
    assert!(counts.sizes < 20 * BACKUPS, "{counts:?}");
    assert!(counts.index_bytes < 2 * tails + BACKUPS * index + index, "{counts:?}");

    let verdicts = WalStore::new(&store.server, SIZE).verdicts().unwrap();
    let validated: Vec<_> = verdicts.validated.spans().map(|s| (s.start, s.end)).collect();
    assert_eq!(validated, [(start_of(FIRST), start_of(FIRST + segments))]);
}
