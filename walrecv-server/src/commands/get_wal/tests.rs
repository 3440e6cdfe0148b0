//! What is delivered does not depend on what was made ready.

use std::cell::Cell;
use std::fs;
use std::path::Path;

use pgwire_stream::{ServerVersion, SystemId};

use super::*;
use crate::catalog::Identity;
use crate::restore::get_wal::exit_code;
use crate::storage::{Access, Codec, LockKind, ServerLock};

const MIB: usize = 1 << 20;

/// A store, and the data directory of a server that recovers from it.
struct Recovery {
    dir: tempfile::TempDir,
    home: Home,
    server: ServerDir,
    prefetch: u32,
    /// How often somebody was started to make segments ready.
    started: Cell<u32>,
}

fn name(timeline: u32, number: u32) -> SegmentName {
    format!("{timeline:08X}00000000{number:08X}").parse().unwrap()
}

fn wal(segment: SegmentName) -> Vec<u8> {
    segment.to_string().repeat(MIB / 24 + 1).into_bytes()[..MIB].to_vec()
}

impl Recovery {
    fn new(prefetch: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("home"), Access::Private);
        let server = home.server(&"main".parse().unwrap());
        Identity {
            system_id: SystemId::from_u64(7),
            segment_size: SegmentSize::new(MIB as u64).unwrap(),
            server_version: ServerVersion::from_num(150_020),
            data_checksums: None,
        }
        .establish(&server)
        .unwrap();
        fs::create_dir(dir.path().join("pg_wal")).unwrap();
        Self { dir, home, server, prefetch, started: Cell::new(0) }
    }

    fn archive(&self, segment: SegmentName) {
        let path = self.server.archived(segment, Codec::Zstd);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, zstd::encode_all(&wal(segment)[..], 1).unwrap()).unwrap();
    }

    fn request(&self, file: &str) -> GetWalRequest {
        let name = if file.ends_with("history") { "RECOVERYHISTORY" } else { "RECOVERYXLOG" };
        GetWalRequest {
            file: file.to_owned(),
            destination: self.dir.path().join("pg_wal").join(name),
            partial: true,
            keys: None,
            prefetch: self.prefetch,
            lease: None,
        }
    }

    /// Asks as PostgreSQL does, and lets whoever is started do its work at once.
    fn ask(&self, file: impl ToString) -> Result<Option<Vec<u8>>, GetWalFailure> {
        let request = self.request(&file.to_string());
        let _ = fs::remove_file(&request.destination);
        let fill = || {
            self.started.set(self.started.get() + 1);
            // What goes wrong is nobody's concern.
            let _ = prefetch::fill(&self.home, &self.server, &request, |_| ());
        };
        Ok(match get_wal(&self.home, &self.server, &request, &fill)? {
            GetWalOutcome::Delivered => Some(fs::read(&request.destination).unwrap()),
            GetWalOutcome::EndOfArchive => {
                assert!(!request.destination.exists());
                None
            }
        })
    }

    fn spool(&self) -> PathBuf {
        self.dir.path().join("pg_wal/.walrecv-spool")
    }

    fn ready(&self) -> usize {
        let entries = fs::read_dir(self.spool()).into_iter().flatten();
        entries.filter(|entry| entry.as_ref().unwrap().file_name().len() == 24).count()
    }
}

#[test]
fn segments_are_ready_before_they_are_asked_for() {
    let recovery = Recovery::new(4);
    (1..=10).for_each(|number| recovery.archive(name(1, number)));
    assert_eq!(recovery.ask(name(1, 1)).unwrap(), Some(wal(name(1, 1))));
    assert_eq!(recovery.ready(), 4);
    // Gone from the archive, and delivered all the same.
    fs::remove_file(recovery.server.archived(name(1, 2), Codec::Zstd)).unwrap();
    for number in 2..=10 {
        assert_eq!(recovery.ask(name(1, number)).unwrap(), Some(wal(name(1, number))), "{number}");
        assert!(recovery.ready() <= 4);
    }
    assert!(recovery.started.get() < 10, "{}", recovery.started.get());
    assert_eq!(recovery.ask(name(1, 11)).unwrap(), None);
    assert!(!recovery.spool().exists());
}

#[test]
fn only_what_stays_as_it_is_is_made_ready() {
    let recovery = Recovery::new(8);
    (1..=2).for_each(|number| recovery.archive(name(1, number)));
    fs::write(recovery.server.streaming_segment(name(1, 3)), wal(name(1, 3))).unwrap();
    fs::write(recovery.server.streaming_partial(name(1, 4)), &wal(name(1, 4))[..1000]).unwrap();
    recovery.ask(name(1, 1)).unwrap();
    assert_eq!(recovery.ready(), 1);
    assert_eq!(recovery.ask(name(1, 2)).unwrap(), Some(wal(name(1, 2))));
    assert_eq!(recovery.ask(name(1, 3)).unwrap(), Some(wal(name(1, 3))));
    assert_eq!(recovery.ready(), 0);
    assert!(recovery.ask(name(1, 4)).unwrap().unwrap().starts_with(&wal(name(1, 4))[..1000]));
    assert_eq!(recovery.ask(name(1, 5)).unwrap(), None);
    assert!(!recovery.spool().exists());
}

#[test]
fn damage_and_gaps_are_told_when_they_are_reached() {
    let recovery = Recovery::new(8);
    for number in [1, 2, 3, 5] {
        recovery.archive(name(1, number));
    }
    fs::write(recovery.server.archived(name(1, 3), Codec::Zstd), b"nonsense").unwrap();
    assert!(recovery.ask(name(1, 1)).unwrap().is_some());
    assert!(recovery.ask(name(1, 2)).unwrap().is_some());
    assert_eq!(recovery.ask(name(1, 3)).unwrap_err().exit_code(), exit_code::CORRUPT);
    assert_eq!(recovery.ask(name(1, 4)).unwrap_err().exit_code(), exit_code::GAP);
}

#[test]
fn a_new_timeline_clears_what_was_ready_of_the_old_one() {
    let recovery = Recovery::new(4);
    for (timeline, number) in [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (2, 4)] {
        recovery.archive(name(timeline, number));
    }
    recovery.ask(name(1, 1)).unwrap();
    assert_eq!(recovery.ready(), 2);
    assert_eq!(recovery.ask(name(2, 2)).unwrap(), Some(wal(name(2, 2))));
    let left: Vec<bool> = [name(1, 2), name(1, 3), name(2, 3), name(2, 4)]
        .map(|s| recovery.spool().join(s.to_string()).exists())
        .to_vec();
    assert_eq!(left, [false, false, true, true]);
    // Recovery reached its target, and looks for the number of its own timeline.
    assert_eq!(recovery.ask("00000003.history").unwrap(), None);
    assert!(!recovery.spool().exists());
}

#[test]
fn without_prefetch_nothing_is_made_ready() {
    let recovery = Recovery::new(0);
    (1..=3).for_each(|number| recovery.archive(name(1, number)));
    for number in 1..=3 {
        assert_eq!(recovery.ask(name(1, number)).unwrap(), Some(wal(name(1, number))));
    }
    assert_eq!(recovery.started.get(), 0);
    assert!(!recovery.spool().exists());
}

#[test]
fn a_spool_that_cannot_be_used_is_as_good_as_none() {
    let recovery = Recovery::new(4);
    (1..=3).for_each(|number| recovery.archive(name(1, number)));
    fs::write(recovery.spool(), b"no directory").unwrap();
    for number in 1..=3 {
        assert_eq!(recovery.ask(name(1, number)).unwrap(), Some(wal(name(1, number))));
    }
    assert_eq!(recovery.ask(name(1, 4)).unwrap(), None);
}

#[test]
fn nothing_but_the_end_is_the_end() {
    let recovery = Recovery::new(4);
    recovery.archive(name(1, 1));
    // Those who work in the store lock nobody out.
    let _locks = [LockKind::Archive, LockKind::Backup, LockKind::Receiver]
        .map(|kind| ServerLock::try_acquire(&recovery.server, kind).unwrap());
    assert!(recovery.ask(name(1, 1)).unwrap().is_some());
    assert_eq!(recovery.ask("nonsense").unwrap_err().exit_code(), exit_code::USAGE);

    let ask = |destination: &Path| {
        let destination = destination.to_owned();
        let request = GetWalRequest { destination, ..recovery.request(&name(1, 1).to_string()) };
        get_wal(&recovery.home, &recovery.server, &request, &|| ()).unwrap_err().exit_code()
    };
    assert_eq!(ask(&recovery.dir.path().join("absent/RECOVERYXLOG")), exit_code::IO);
    let occupied = recovery.dir.path().join("occupied");
    fs::create_dir_all(occupied.join("RECOVERYXLOG/x")).unwrap();
    assert_eq!(ask(&occupied.join("RECOVERYXLOG")), exit_code::IO);
    assert_eq!(ask(Path::new("/proc/RECOVERYXLOG")), exit_code::IO);

    // A store that is not what it should be.
    fs::remove_dir_all(recovery.server.wals()).unwrap();
    fs::write(recovery.server.wals(), b"no directory").unwrap();
    assert!(recovery.ask(name(1, 2)).unwrap_err().exit_code() >= 200);
}

#[test]
fn a_lease_is_renewed_and_never_in_the_way() {
    use crate::catalog::{HeldLease, Lease, Leases};
    use jiff::{SignedDuration, Timestamp};

    let recovery = Recovery::new(0);
    recovery.archive(name(1, 1));
    let backup = "20260305T151133".parse().unwrap();
    let now = Timestamp::now();
    let lease = Lease {
        id: "a".parse().unwrap(),
        backups: vec![backup],
        timeline: pgwire_stream::TimelineId::FIRST,
        first_needed: pgwire_stream::Lsn::ZERO,
        destination: "/srv/pg".to_owned(),
        holder: "root".to_owned(),
        created: now,
        expires: now,
        restoring: true,
    };
    HeldLease::take(&recovery.server, lease).unwrap().keep().unwrap();
    let path = recovery.server.lease("a");
    let expires = || Leases::load(&recovery.server).of(backup).next().map(|lease| lease.expires);
    let first = expires().unwrap();
    let request = |id: &str| GetWalRequest {
        lease: Some(id.parse().unwrap()),
        ..recovery.request(&name(1, 1).to_string())
    };
    let get = |id| get_wal(&recovery.home, &recovery.server, &request(id), &|| ()).unwrap();
    assert_eq!(get("a"), GetWalOutcome::Delivered);
    assert_eq!(expires(), Some(first));
    // As a day later.
    let id = "a".parse().unwrap();
    let day = SignedDuration::from_hours(24);
    assert!(Lease::renew(&recovery.server, &id, now + day).unwrap());
    assert!(expires().unwrap() > first + day - SignedDuration::from_mins(1));
    // One that is gone, and one that nobody can read.
    assert_eq!(get("b"), GetWalOutcome::Delivered);
    fs::write(path, b"{").unwrap();
    assert_eq!(get("a"), GetWalOutcome::Delivered);
}
