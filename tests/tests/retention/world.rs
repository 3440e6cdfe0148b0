//! A server's life, and the store that it leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use pgwire_stream::{
    HistoryFile, Lsn, PgTimestamp, SegmentName, SegmentNumber, SegmentSize, ServerVersion,
    SystemId, TimelineId,
};
use proptest::prelude::*;
use walrecv_server::catalog::{
    BackupOutcome, BackupRecord, CaughtUp, HistoryStore, Identity, Keep, KeepTarget, Lease,
    Position, RecordedSwitch, journal,
};
use walrecv_server::storage::{Access, BackupId, Home, ServerDir};

pub(crate) const SEGMENT: u64 = 1 << 20;
/// How far into a segment WAL comes that goes on.
const INTO: u64 = 0x1000;
/// Where segments of the archive begin; within reach of a border between two directories.
pub(crate) const FIRST: u64 = 4080;

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// So many segments are written, one in so many hours.
    Write { segments: u8, hours: u8 },
    /// A full backup.
    Full { long: bool },
    /// A backup on the newest, or on the newest full one.
    Incremental { on_full: bool },
    /// A backup that fails.
    Fail,
    /// A server is promoted, so many segments back. Perhaps nobody notes it.
    Switch { back: u8, noted: bool },
    /// Our clock is set back.
    ClockBack { hours: u8 },
    /// Our clock is set forwards.
    ClockForward { days: u8 },
    /// One of the full backups is marked.
    Keep { which: u8, full: bool },
    /// A restore takes a lease.
    Lease { which: u8 },
    /// A segment that a backup needs is lost.
    Lose { which: u8 },
}

pub(crate) fn event(clock_back: bool, branches: bool) -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1u8..4, 1u8..30).prop_map(|(segments, hours)| Event::Write { segments, hours }),
        6 => any::<bool>().prop_map(|long| Event::Full { long }),
        4 => any::<bool>().prop_map(|on_full| Event::Incremental { on_full }),
        1 => Just(Event::Fail),
        u32::from(branches) * 2 =>
            (0u8..4, prop::bool::weighted(0.8)).prop_map(|(back, noted)| Event::Switch { back, noted }),
        u32::from(clock_back) * 2 => (1u8..80).prop_map(|hours| Event::ClockBack { hours }),
        u32::from(clock_back) => (1u8..90).prop_map(|days| Event::ClockForward { days }),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(which, full)| Event::Keep { which, full }),
        1 => any::<u8>().prop_map(|which| Event::Lease { which }),
        1 => any::<u8>().prop_map(|which| Event::Lose { which }),
    ]
}

/// A place in the WAL, and what our clock said when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) timeline: u32,
    pub(crate) lsn: u64,
    pub(crate) stamp: Timestamp,
}

#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) id: BackupId,
    pub(crate) parent: Option<BackupId>,
    pub(crate) begin: (u32, u64),
    pub(crate) end: (u32, u64),
    pub(crate) began_at: Timestamp,
    pub(crate) ended_at: Timestamp,
    pub(crate) copied: bool,
    pub(crate) keep: Option<KeepTarget>,
}

/// What a server's life was.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) points: Vec<Point>,
    /// In the order in which they were taken.
    pub(crate) backups: Vec<Taken>,
    /// For each timeline where it left which.
    pub(crate) parents: BTreeMap<u32, (u32, u64)>,
    pub(crate) leases: Vec<(BackupId, u32, u64)>,
    pub(crate) now: Timestamp,
    /// How far our clock is ahead of the server's.
    ahead: SignedDuration,
    noted: Vec<RecordedSwitch>,
    /// How much of each segment is there.
    files: BTreeMap<(u32, u64), u64>,
    timeline: u32,
    at: u64,
}

fn start() -> Timestamp {
    "2026-03-01T00:00:00Z".parse().unwrap()
}

fn hours(count: u8) -> SignedDuration {
    SignedDuration::from_hours(count.into())
}

impl World {
    pub(crate) fn of(events: &[Event]) -> Self {
        let mut world = Self {
            points: Vec::new(),
            backups: Vec::new(),
            parents: BTreeMap::new(),
            leases: Vec::new(),
            now: start(),
            ahead: SignedDuration::ZERO,
            noted: Vec::new(),
            files: BTreeMap::new(),
            timeline: 1,
            at: FIRST * SEGMENT,
        };
        world.advance(INTO);
        for &event in events {
            world.happens(event);
        }
        world
    }

    fn advance(&mut self, bytes: u64) {
        let to = self.at + bytes;
        let mut segment = self.at / SEGMENT;
        while segment * SEGMENT < to {
            let length = (to - segment * SEGMENT).min(SEGMENT);
            let held = self.files.entry((self.timeline, segment)).or_default();
            *held = (*held).max(length);
            segment += 1;
        }
        self.at = to;
        self.points.push(Point { timeline: self.timeline, lsn: to, stamp: self.now });
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Write { segments, hours: each } => {
                for _ in 0..segments {
                    self.now += hours(each);
                    self.advance(SEGMENT);
                }
            }
            Event::Full { long } => self.take(None, long, true),
            Event::Incremental { on_full } => {
                let mut usable = self
                    .backups
                    .iter()
                    .filter(|taken| taken.copied && (!on_full || taken.parent.is_none()));
                if let Some(parent) = usable.next_back().map(|taken| taken.id) {
                    self.take(Some(parent), false, true);
                }
            }
            Event::Fail => self.take(None, false, false),
            Event::Switch { back, noted } => self.switch(back.into(), noted),
            Event::ClockBack { hours: back } => {
                self.now -= hours(back);
                self.ahead -= hours(back);
            }
            Event::ClockForward { days } => {
                self.now += SignedDuration::from_hours(24 * i64::from(days));
                self.ahead += SignedDuration::from_hours(24 * i64::from(days));
            }
            Event::Keep { which, full } => {
                let target = if full { KeepTarget::Full } else { KeepTarget::Standalone };
                let mut full: Vec<_> = self
                    .backups
                    .iter_mut()
                    .filter(|taken| taken.copied && taken.parent.is_none())
                    .collect();
                if !full.is_empty() {
                    let which = usize::from(which) % full.len();
                    full[which].keep = Some(target);
                }
            }
            Event::Lease { which } => {
                let copied: Vec<_> = self.backups.iter().filter(|taken| taken.copied).collect();
                if !copied.is_empty() {
                    let taken = copied[usize::from(which) % copied.len()];
                    self.leases.push((taken.id, taken.begin.0, taken.begin.1));
                }
            }
            Event::Lose { which } => {
                if !self.backups.is_empty() {
                    let taken = &self.backups[usize::from(which) % self.backups.len()];
                    self.files.remove(&(taken.begin.0, taken.begin.1 / SEGMENT));
                }
            }
        }
    }

    fn take(&mut self, parent: Option<BackupId>, long: bool, copied: bool) {
        let used: BTreeSet<_> = self.backups.iter().map(|taken| taken.id).collect();
        let mut id = BackupId::at(self.now);
        while used.contains(&id) {
            id = id.next();
        }
        let (begin, began_at) = ((self.timeline, self.at), self.now);
        self.now += SignedDuration::from_mins(40);
        self.advance(if long { SEGMENT + 0x100 } else { 0x100 });
        let (end, ended_at) = ((self.timeline, self.at), self.now);
        let keep = None;
        self.backups.push(Taken { id, parent, begin, end, began_at, ended_at, copied, keep });
    }

    fn switch(&mut self, back: u64, noted: bool) {
        let born = self.parents.get(&self.timeline).map_or(FIRST * SEGMENT, |(_, fork)| *fork);
        let fork = self.at.saturating_sub(back * SEGMENT).max(born + 8);
        let entered = self.timeline + 1;
        if noted {
            self.noted.push(RecordedSwitch {
                left: tli(self.timeline),
                entered: tli(entered),
                fork: Lsn::from_u64(fork),
                held_to: Lsn::from_u64(self.at),
                at: PgTimestamp::from_unix_micros(self.now.as_microsecond()),
            });
        }
        self.parents.insert(entered, (self.timeline, fork));
        (self.timeline, self.at) = (entered, fork);
        // The beginning of the segment is the older timeline's.
        self.files.insert((entered, fork / SEGMENT), fork % SEGMENT);
        self.advance(0x80);
    }

    /// Makes the store.
    pub(crate) fn build(&self) -> Store {
        let shared = PathBuf::from("/dev/shm");
        let dir = if shared.is_dir() {
            tempfile::tempdir_in(shared).unwrap()
        } else {
            tempfile::tempdir().unwrap()
        };
        let server = Home::new(dir.path(), Access::Private).server(&"main".parse().unwrap());
        let size = SegmentSize::new(SEGMENT).unwrap();
        let identity = Identity {
            system_id: SystemId::from_u64(7),
            segment_size: size,
            server_version: ServerVersion::from_num(180_000),
            data_checksums: None,
        };
        identity.establish(&server).unwrap();
        for (&(timeline, segment), &length) in &self.files {
            self.place(&server, timeline, segment, length);
        }
        for &timeline in self.parents.keys() {
            let mut lines = Vec::new();
            let mut at = timeline;
            while let Some(&(parent, fork)) = self.parents.get(&at) {
                lines.push(format!("{parent}\t{}\tr\n", Lsn::from_u64(fork)));
                at = parent;
            }
            lines.reverse();
            let content = lines.concat().into_bytes().into();
            let file = HistoryFile { timeline: tli(timeline), content };
            HistoryStore::new(&server).put(&file).unwrap();
        }
        for switch in &self.noted {
            journal::record_switch(&server, switch.clone()).unwrap();
        }
        for taken in &self.backups {
            self.record(&server, taken);
        }
        let heard = self.heard().as_microsecond();
        let at = PgTimestamp::from_unix_micros(heard);
        CaughtUp { at, lsn: Lsn::from_u64(self.at), timeline: tli(self.timeline) }
            .save(&server)
            .unwrap();
        for (number, &(backup, timeline, from)) in self.leases.iter().enumerate() {
            let created = Timestamp::now();
            let lease = Lease {
                id: format!("{number:x}").parse().unwrap(),
                backups: self.chain(backup),
                timeline: tli(timeline),
                first_needed: Lsn::from_u64(from),
                destination: "/srv/restored".to_owned(),
                holder: "somebody".to_owned(),
                created,
                expires: created + hours(20),
                restoring: false,
            };
            let mut text = serde_json::to_value(&lease).unwrap();
            text["format"] = 1.into();
            fs::create_dir_all(server.leases()).unwrap();
            fs::write(server.lease(&lease.id), text.to_string()).unwrap();
        }
        Store { _dir: dir, server }
    }

    fn place(&self, server: &ServerDir, timeline: u32, segment: u64, length: u64) {
        let size = SegmentSize::new(SEGMENT).unwrap();
        let name = SegmentName::new(tli(timeline), SegmentNumber::from_u64(segment), size);
        if length == SEGMENT {
            fs::create_dir_all(server.wal_dir(name)).unwrap();
            // Nobody looks into a whole one.
            File::create(server.wal_dir(name).join(name.to_string())).unwrap();
        } else if timeline == self.timeline {
            let file = File::create(server.streaming_partial(name)).unwrap();
            file.set_len(length).unwrap();
        } else if length > 0 {
            fs::create_dir_all(server.wal_dir(name)).unwrap();
            let file = File::create(server.wal_dir(name).join(format!("{name}.partial"))).unwrap();
            file.set_len(length).unwrap();
        }
    }

    /// What time it is by the server.
    pub(crate) fn heard(&self) -> Timestamp {
        self.now - self.ahead
    }

    /// Archives a whole segment, as if it had waited.
    pub(crate) fn archive(&self, server: &ServerDir, (timeline, segment): (u32, u64)) {
        self.place(server, timeline, segment, SEGMENT);
    }

    fn record(&self, server: &ServerDir, taken: &Taken) {
        let position = |(timeline, lsn): (u32, u64)| {
            Some(Position { lsn: Lsn::from_u64(lsn), timeline: tli(timeline) })
        };
        let failed = BackupOutcome::Failed { error: "no".to_owned() };
        let record = BackupRecord {
            id: taken.id,
            server: "main".parse().unwrap(),
            outcome: if taken.copied { BackupOutcome::Copied } else { failed },
            name: None,
            label: String::new(),
            parent: taken.parent,
            system_id: SystemId::from_u64(7),
            segment_size: SegmentSize::new(SEGMENT).unwrap(),
            server_version: ServerVersion::from_num(180_000),
            data_checksums: None,
            program_version: String::new(),
            began_at: taken.began_at,
            ended_at: Some(taken.ended_at),
            done_at: Some(taken.ended_at),
            begin: position(taken.begin),
            end: position(taken.end),
            tablespaces: Vec::new(),
            archives: Vec::new(),
            manifest: None,
            config_files: None,
            damaged_pages: None,
        };
        let backup = server.backup(taken.id);
        fs::create_dir_all(backup.path()).unwrap();
        record.save(&backup).unwrap();
        if let Some(target) = taken.keep {
            Keep { target, since: taken.ended_at }.save(&backup).unwrap();
        }
    }

    /// A backup, and what it builds on.
    pub(crate) fn chain(&self, backup: BackupId) -> Vec<BackupId> {
        let mut chain = vec![backup];
        while let Some(parent) =
            self.backups.iter().find(|taken| Some(&taken.id) == chain.last()).unwrap().parent
        {
            chain.push(parent);
        }
        chain
    }
}

pub(crate) fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// A store on disk.
pub(crate) struct Store {
    _dir: tempfile::TempDir,
    pub(crate) server: ServerDir,
}
