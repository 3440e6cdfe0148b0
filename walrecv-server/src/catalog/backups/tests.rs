use std::fs;

use super::super::backup_record::tests::record;
use super::*;
use crate::catalog::{Keep, KeepTarget, Leases, NoNewLeases, RemovalError};
use crate::storage::{Access, Home, LockKind};
use pgwire_stream::{Lsn, SegmentSize};

pub(in crate::catalog) const MIB: u64 = 1 << 20;

pub(in crate::catalog) struct Store {
    _home: tempfile::TempDir,
    pub(in crate::catalog) server: ServerDir,
    pub(in crate::catalog) lock: ServerLock,
    pub(in crate::catalog) catalog: Catalog,
}

pub(in crate::catalog) fn store() -> Store {
    let home = tempfile::tempdir().unwrap();
    let server = Home::new(home.path(), Access::Private).server(&"main".parse().unwrap());
    server.create().unwrap();
    let lock = ServerLock::try_acquire(&server, LockKind::Backup).unwrap();
    let catalog = Catalog::new(&server);
    Store { _home: home, server, lock, catalog }
}

pub(in crate::catalog) fn position(address: u64) -> Option<Position> {
    Some(Position { lsn: Lsn::from_u64(address), timeline: pgwire_stream::TimelineId::FIRST })
}

pub(in crate::catalog) fn segment(number: u64) -> SegmentName {
    let size = SegmentSize::new(MIB).unwrap();
    SegmentName::new(pgwire_stream::TimelineId::FIRST, SegmentNumber::from_u64(number), size)
}

impl Store {
    pub(in crate::catalog) fn begin(&self, time: &str) -> BackupRecord {
        let now = time.parse().unwrap();
        let begun = self.catalog.begin(now, &self.lock, |id| record(&id.to_string(), time));
        begun.unwrap().1
    }

    fn copy(&self, time: &str, begin: u64, end: u64) -> BackupRecord {
        let mut record = self.begin(time);
        record.outcome = BackupOutcome::Copied;
        (record.begin, record.end) = (position(begin), position(end));
        self.catalog.save(&record).unwrap();
        record
    }

    pub(in crate::catalog) fn receive(&self, number: u64, length: u64) {
        let (partial, whole) = (
            self.server.streaming_partial(segment(number)),
            self.server.streaming_segment(segment(number)),
        );
        fs::write(if length == MIB { whole } else { partial }, vec![0; length as usize]).unwrap();
    }
}

#[test]
fn ids_are_unique_and_lists_go_by_time() {
    let store = store();
    let first = store.begin("2026-03-05T15:11:33Z");
    let second = store.begin("2026-03-05T15:11:33.5Z");
    let third = store.begin("2026-03-05T15:11:33.1Z");
    assert_eq!(second.id.to_string(), "20260305T151134");
    assert_eq!(third.id.to_string(), "20260305T151135");
    // Neither a broken record nor something else in the directory hides the others.
    fs::create_dir(store.server.base().join("20260305T151130")).unwrap();
    fs::write(store.server.base().join("notes"), b"").unwrap();
    fs::write(store.server.backup(second.id).record(), b"{").unwrap();
    let listed = store.catalog.list().unwrap();
    let ids: Vec<_> = listed.iter().map(|entry| entry.id.to_string()).collect();
    assert_eq!(ids, ["20260305T151130", "20260305T151133", "20260305T151135", "20260305T151134"]);
    assert!(matches!(listed[0].record, Err(BackupError::NoRecord { .. })));
    assert_eq!(listed[1].record.as_ref().unwrap(), &first);
    assert!(matches!(listed[3].record, Err(BackupError::Document(_))));
    // One that was deleted since its name was read is not shown as damaged.
    fs::remove_dir_all(store.server.backup(first.id).path()).unwrap();
    assert!(store.catalog.entry(first.id).is_none());
}

#[test]
fn a_renamed_directory_is_not_written_to_another() {
    let store = store();
    let record = store.begin("2026-03-05T15:11:33Z");
    let other: BackupId = "20260305T151200".parse().unwrap();
    fs::rename(store.server.backup(record.id).path(), store.server.backup(other).path()).unwrap();
    let error = store.catalog.load(other).unwrap_err();
    assert!(matches!(error, BackupError::Misplaced { says, .. } if says == record.id), "{error}");
    assert!(store.catalog.fail_interrupted(&store.lock).unwrap().is_empty());
}

#[test]
fn shortcuts_mean_complete_backups() {
    let store = store();
    let error = store.catalog.resolve("latest").unwrap_err();
    assert!(matches!(error, BackupError::NoneComplete { .. }), "{error}");
    let old = store.copy("2026-03-05T15:00:00Z", MIB, MIB + 1);
    let mut new = store.copy("2026-03-06T15:00:00Z", MIB, MIB + 1);
    new.parent = Some(old.id);
    new.name = Some("before the upgrade".into());
    store.catalog.save(&new).unwrap();
    let begun = store.begin("2026-03-07T15:00:00Z");
    for (wanted, expected) in [
        ("latest", &new),
        ("last", &new),
        ("first", &old),
        ("oldest", &old),
        ("latest-full", &old),
        ("last-full", &old),
        ("20260307T150000", &begun),
        ("before the upgrade", &new),
    ] {
        assert_eq!(&store.catalog.resolve(wanted).unwrap(), expected, "{wanted}");
    }
    for wanted in ["20260308T150000", "", "../main", "newest"] {
        let error = store.catalog.resolve(wanted).unwrap_err();
        assert!(matches!(error, BackupError::Unknown { .. }), "{error}");
    }
}

#[test]
fn a_backup_that_nobody_takes_any_more_has_failed() {
    let store = store();
    let mut record = store.begin("2026-03-05T14:00:00Z");
    let Store { lock, catalog, _home, .. } = store;
    drop(lock);
    let standing = catalog.standing(&record).unwrap();
    assert_eq!(standing.status, BackupStatus::Failed);
    assert_eq!(standing.error(&record), Some("it was interrupted"));
    // It came to its end between the look at its record and that at the lock.
    record.outcome = BackupOutcome::Failed { error: "lost".to_owned() };
    catalog.save(&record).unwrap();
    let before = BackupRecord { outcome: BackupOutcome::Started, ..record };
    assert_eq!(catalog.standing(&before).unwrap().status, BackupStatus::Failed);
}

#[test]
fn a_backup_is_done_when_wal_reaches_its_end_and_broken_when_it_is_lost() {
    let store = store();
    let standing = |record: &BackupRecord| store.catalog.standing(record).unwrap();
    let started = store.begin("2026-03-05T14:00:00Z");
    assert_eq!(standing(&started).status, BackupStatus::Started);

    let mut record = store.copy("2026-03-05T15:00:00Z", MIB + 40, 2 * MIB + 100);
    assert_eq!(standing(&record).status, BackupStatus::WaitingForWals);
    store.receive(1, MIB);
    store.receive(2, 99);
    let waiting = store.catalog.settle(&mut record, &store.lock).unwrap();
    assert_eq!(waiting.status, BackupStatus::WaitingForWals);
    assert_eq!(waiting.missing.unwrap().from, Lsn::from_u64(2 * MIB + 99));
    assert_eq!(record.done_at, None);

    // The last byte of a partial segment is enough; no switch is waited for.
    store.receive(2, 100);
    assert_eq!(standing(&record).status, BackupStatus::Done);
    assert_eq!(store.catalog.settle(&mut record, &store.lock).unwrap().status, BackupStatus::Done);
    assert!(record.done_at.is_some());
    assert_eq!(store.catalog.load(record.id).unwrap(), record);

    fs::remove_file(store.server.streaming_segment(segment(1))).unwrap();
    let broken = standing(&record);
    assert_eq!(broken.status, BackupStatus::Broken);
    assert_eq!(broken.missing.unwrap().segment, segment(1));
    // WAL behind the hole is there, so it would never have become complete either.
    record.done_at = None;
    assert_eq!(standing(&record).status, BackupStatus::Broken);
}

#[test]
fn a_restore_prefers_a_backup_whose_wal_is_there() {
    let store = store();
    let restorable = |wanted: &str| store.catalog.resolve_restorable(wanted).unwrap().id;
    let lost = store.copy("2026-03-04T15:00:00Z", MIB, MIB + 1);
    let old = store.copy("2026-03-05T15:00:00Z", 2 * MIB, 2 * MIB + 1);
    let new = store.copy("2026-03-06T15:00:00Z", 3 * MIB, 3 * MIB + 1);
    let waiting = store.copy("2026-03-07T15:00:00Z", 4 * MIB, 4 * MIB + 1);
    store.begin("2026-03-08T15:00:00Z");
    // None is better than the others: then the newest says what it lacks.
    assert_eq!((restorable("latest"), restorable("first")), (waiting.id, lost.id));
    store.receive(2, MIB);
    store.receive(3, MIB);
    assert_eq!((restorable("latest"), restorable("first")), (new.id, old.id));
    assert_eq!(restorable(&waiting.id.to_string()), waiting.id);
    assert!(store.catalog.resolve_restorable("newest").is_err());
}

#[test]
fn what_was_interrupted_is_failed_by_the_next() {
    let store = store();
    let started = store.begin("2026-03-05T14:00:00Z");
    let copied = store.copy("2026-03-05T15:00:00Z", MIB, MIB + 1);
    assert_eq!(store.catalog.fail_interrupted(&store.lock).unwrap(), [started.id]);
    assert_eq!(store.catalog.fail_interrupted(&store.lock).unwrap(), []);
    let failed = store.catalog.load(started.id).unwrap();
    assert_eq!(store.catalog.standing(&failed).unwrap().status, BackupStatus::Failed);
    assert_eq!(store.catalog.load(copied.id).unwrap(), copied);
}

#[test]
fn wal_belongs_to_the_backup_before_it() {
    let store = store();
    fs::create_dir_all(store.server.wal_dir(segment(1))).unwrap();
    for number in 1..=9u64 {
        let path = store.server.archived(segment(number), crate::storage::Codec::Zstd);
        fs::write(path, vec![0; number as usize]).unwrap();
    }
    let one = store.copy("2026-03-05T15:00:00Z", 2 * MIB + 1, 3 * MIB);
    let two = store.copy("2026-03-06T15:00:00Z", 5 * MIB, 6 * MIB);
    let started = store.begin("2026-03-07T15:00:00Z");
    let sizes = store.catalog.wal_sizes(&[&one, &two, &started]).unwrap();
    assert_eq!(sizes, [2 + 3 + 4, 5 + 6 + 7 + 8 + 9, 0]);
}

/// Three backups, each on the one before, whose clock went backwards; the full one is the first.
fn chain(store: &Store) -> [BackupRecord; 3] {
    let mut records = ["2026-03-05T15:00:00Z", "2026-03-05T14:00:00Z", "2026-03-05T13:00:00Z"]
        .map(|time| store.copy(time, MIB, MIB + 100));
    store.receive(1, MIB);
    for index in 1..records.len() {
        records[index].parent = Some(records[index - 1].id);
        store.catalog.save(&records[index]).unwrap();
    }
    records
}

fn ids(records: &[BackupRecord]) -> Vec<BackupId> {
    records.iter().map(|record| record.id).collect()
}

#[test]
fn what_builds_on_what_does_not_depend_on_clocks() {
    let store = store();
    let [full, first, second] = chain(&store);
    let ancestors = store.catalog.ancestors(&second).unwrap().unwrap();
    assert_eq!(ids(&ancestors), [first.id, full.id]);
    assert_eq!(store.catalog.standing(&second).unwrap().status, BackupStatus::Done);

    let refused = store.catalog.plan_removal(first.clone(), false, Leases::default()).unwrap_err();
    let named = |children: &[BackupId]| children == [second.id];
    assert!(matches!(&refused, RemovalError::Children { children, .. } if named(children)));
    let removal = store.catalog.plan_removal(full.clone(), true, Leases::default()).unwrap();
    assert_eq!(ids(removal.backups()), [second.id, first.id, full.id]);
    let leases = NoNewLeases::hold(store.catalog.server()).unwrap();
    store.catalog.remove(&removal, &store.lock, &leases).unwrap();
    assert!(store.catalog.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(store.server.base()).unwrap().count(), 0);
}

#[test]
fn a_chain_that_lost_a_member_or_bites_its_tail_is_broken() {
    let store = store();
    let [mut full, first, second] = chain(&store);
    full.parent = Some(second.id);
    store.catalog.save(&full).unwrap();
    assert_eq!(store.catalog.ancestors(&second).unwrap(), None);
    full.parent = None;
    full.outcome = BackupOutcome::Failed { error: "lost".to_owned() };
    store.catalog.save(&full).unwrap();
    for record in [&first, &second] {
        assert_eq!(store.catalog.standing(record).unwrap().status, BackupStatus::Broken);
    }
}

#[test]
fn nothing_is_removed_that_may_be_needed_or_is_kept() {
    let store = store();
    let [full, first, second] = chain(&store);
    let path = store.server.backup(second.id).record();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, b"{").unwrap();
    let refused = store.catalog.plan_removal(full.clone(), true, Leases::default()).unwrap_err();
    assert!(matches!(refused, RemovalError::Unknown { unreadable, .. } if unreadable == second.id));
    fs::write(&path, whole).unwrap();

    let mark = store.server.backup(first.id);
    let target = KeepTarget::Standalone;
    Keep { target, since: Timestamp::now() }.save(&mark).unwrap();
    let refused = store.catalog.plan_removal(full.clone(), true, Leases::default()).unwrap_err();
    assert!(matches!(refused, RemovalError::Kept { backup, .. } if backup == first.id));
    fs::write(mark.keep(), b"{").unwrap();
    let refused = store.catalog.plan_removal(full.clone(), true, Leases::default()).unwrap_err();
    assert!(matches!(refused, RemovalError::Mark { backup, .. } if backup == first.id));
    Keep::release(&mark).unwrap();
    store.catalog.plan_removal(full, true, Leases::default()).unwrap();
}

#[test]
fn a_removal_that_was_interrupted_is_completed() {
    let store = store();
    let record = store.copy("2026-03-05T15:00:00Z", MIB, MIB + 100);
    let path = store.server.backup(record.id).path().to_owned();
    durable::hide_dir(&path).unwrap();
    assert!(store.catalog.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(store.server.base()).unwrap().count(), 1);
    store.catalog.collect_removed(&store.lock);
    assert_eq!(fs::read_dir(store.server.base()).unwrap().count(), 0);
}

#[test]
fn a_backup_that_cannot_be_begun_leaves_nothing() {
    let store = store();
    let time = "2026-03-05T15:11:33Z";
    let begun = store.catalog.begin(time.parse().unwrap(), &store.lock, |id| {
        // Something else has the backup's name by then.
        fs::create_dir_all(store.server.backup(id).path().join("else")).unwrap();
        record(&id.to_string(), time)
    });
    begun.unwrap_err();
    let left = fs::read_dir(store.server.base()).unwrap().count();
    assert_eq!(left, 1, "what somebody put there stays");
    let directory = store.server.base().join("20260305T151133");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "and nothing else");
}
