//! `state/leases/<id>.json`: what a restore reads, and what the server that it made reads after it,
//! and what therefore is not removed meanwhile.
//!
//! While a restore runs, it holds a lock on the file of its lease, which has its name only when it
//! is locked. So that of a restore that was killed is over at once: what it left is nothing that a
//! server starts from. When the restore is done, a server that asks for its WAL with `get-wal`
//! keeps the lease for [`TERM`], and renews it as it goes on.
//!
//! Who removes something looks here before. What cannot be read holds everything.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use pgwire_stream::{Lsn, TimelineId};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::clock::Clock;
use super::document::{self, DocumentError};
use crate::storage::{Access, BackupId, ServerDir, StorageError, durable};

const FORMAT: u64 = 1;
const SUFFIX: &str = ".json";

/// How long a restored server may take until it asks for WAL again.
pub const TERM: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How old a lease is before it is renewed: recovery asks many times a second.
const RENEWAL: SignedDuration = SignedDuration::from_hours(1);

/// Names a lease, and its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId(String);

/// The text is not the name of a lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the name of a lease: up to 32 digits and lower-case letters")]
pub struct LeaseIdError {
    text: String,
}

impl LeaseId {
    /// The name of a lease that is taken now.
    pub fn at(time: Timestamp) -> Self {
        Self(format!("{:x}", time.as_nanosecond()))
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for LeaseId {
    type Err = LeaseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
        if (1..=32).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(LeaseIdError { text: text.chars().take(40).collect() })
        }
    }
}

impl Serialize for LeaseId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LeaseId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What a restore needs to stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// The backup that is restored, and those that it builds on.
    pub backups: Vec<BackupId>,
    /// The timeline on which the backup began.
    pub timeline: TimelineId,
    /// Where it began: WAL is needed from here on, of this timeline and those that left it.
    pub first_needed: Lsn,
    /// The new data directory.
    pub destination: String,
    /// Who restores.
    pub holder: String,
    /// When it was taken.
    pub created: Timestamp,
    /// When it is over, unless it is renewed.
    pub expires: Timestamp,
    /// Whether it holds only as long as the restore runs.
    pub restoring: bool,
}

impl Lease {
    fn save(&self, server: &ServerDir, access: Access) -> Result<(), DocumentError> {
        let path = server.lease(&self.id);
        document::save(&path, FORMAT, self, access)?;
        give_to_owner(server, &path)
    }

    /// Whether it is so fresh that renewing it changes little.
    fn is_fresh(&self, now: Timestamp) -> bool {
        self.expires.duration_since(now) > TERM - RENEWAL
    }

    /// Renews a lease for a server that goes on to ask for WAL, unless that was done not long ago.
    /// Says whether it was; one that is over and gone is not made again.
    ///
    /// # Errors
    /// If it cannot be read or written. Whoever wants WAL gets it all the same.
    pub fn renew(server: &ServerDir, id: &LeaseId, now: Timestamp) -> Result<bool, DocumentError> {
        let load = || document::load::<Self>(&server.lease(id), FORMAT);
        let is_due = |lease: &Self| !lease.restoring && !lease.is_fresh(now);
        if !load()?.is_some_and(|lease| is_due(&lease)) {
            return Ok(false);
        }
        // Who is about to collect it as over has not seen that it is needed.
        let _barrier = hold_shared(server)?;
        let Some(lease) = load()?.filter(is_due) else { return Ok(false) };
        // Whoever wants WAL need not know how the store is configured.
        let readable = fs::metadata(server.lease(id)).is_ok_and(|found| found.mode() & 0o040 != 0);
        let access = if readable { Access::Group } else { Access::Private };
        Self { expires: now + TERM, ..lease }.save(server, access)?;
        Ok(true)
    }
}

/// A lease while the restore runs. Dropped, it is released.
#[derive(Debug)]
pub struct HeldLease {
    lease: Lease,
    server: ServerDir,
    kept: bool,
    _lock: File,
}

impl HeldLease {
    /// Takes a lease, and collects those that are over. Durable on return.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn take(server: &ServerDir, lease: Lease) -> Result<Self, DocumentError> {
        let directory = server.leases();
        durable::create_dir(&directory, server.access())?;
        give_to_owner(server, &directory)?;
        // What cannot be told to be over stays.
        if let Ok(clock) = Clock::read(server, Timestamp::now()) {
            collect(server, clock.at_least());
        }
        // Who is about to remove something has looked at the leases before.
        let _barrier = hold_shared(server)?;
        let lease = Lease { restoring: true, ..lease };
        let path = server.lease(&lease.id);
        let lock = document::save_new_locked(&path, FORMAT, &lease, server.access())?;
        give_to_owner(server, &path)?;
        Ok(Self { lease, server: server.clone(), kept: false, _lock: lock })
    }

    /// Leaves it to the restored server, which renews it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(mut self) -> Result<(), DocumentError> {
        let expires = Timestamp::now() + TERM;
        Lease { restoring: false, expires, ..self.lease.clone() }
            .save(&self.server, self.server.access())?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        if !self.kept {
            // Over it is in any case, as soon as the lock is gone.
            let _ = durable::remove_file(&self.server.lease(&self.lease.id));
        }
    }
}

/// While this lives, nobody takes a lease: what no lease names stays so.
///
/// It is held for moments only, because a restore waits for it. Whoever takes a lease looks
/// afterwards whether all is still there that it is for.
#[derive(Debug)]
pub struct NoNewLeases {
    _barrier: File,
}

impl NoNewLeases {
    /// Waits until nobody is about to take a lease.
    ///
    /// # Errors
    /// If the directory of leases cannot be made or locked.
    pub fn hold(server: &ServerDir) -> Result<Self, StorageError> {
        let directory = server.leases();
        durable::create_dir(&directory, server.access())?;
        let barrier = File::open(&directory)
            .and_then(|barrier| barrier.lock().map(|()| barrier))
            .map_err(StorageError::of("lock", &directory))?;
        Ok(Self { _barrier: barrier })
    }
}

/// The leases that hold something now.
#[derive(Debug, Default)]
pub struct Leases {
    live: Vec<Lease>,
    unreadable: Vec<DocumentError>,
}

impl Leases {
    /// The leases of a server. What cannot be read is among them, the clock included by which they
    /// are over.
    pub fn load(server: &ServerDir) -> Self {
        match Clock::read(server, Timestamp::now()) {
            Ok(clock) => Self::at(server, clock.at_least()),
            Err(error) => Self { live: Vec::new(), unreadable: vec![error] },
        }
    }

    /// Those that hold something at a moment.
    pub fn at(server: &ServerDir, now: Timestamp) -> Self {
        let mut leases = Self::default();
        let names = durable::list_dir(&server.leases()).unwrap_or_else(|error| {
            leases.unreadable.push(error.into());
            Vec::new()
        });
        let ids = names.iter().filter_map(|name| name.to_str()?.strip_suffix(SUFFIX));
        for id in ids.filter(|id| !id.starts_with('.')) {
            match live(&server.leases().join(format!("{id}{SUFFIX}")), now) {
                Ok(lease) => leases.live.extend(lease),
                Err(error) => leases.unreadable.push(error),
            }
        }
        leases.live.sort_by_key(|lease| lease.created);
        leases
    }

    /// No leases at all, for those who want to remove something in spite of them.
    pub fn ignored() -> Self {
        Self::default()
    }

    /// Whether a backup has to stay.
    pub fn protects(&self, backup: BackupId) -> bool {
        !self.unreadable.is_empty() || self.of(backup).next().is_some()
    }

    /// The first position of a timeline's WAL that has to stay; `None` if none of it has to.
    ///
    /// A restore may follow every timeline that is newer than that of its backup.
    pub fn first_needed(&self, timeline: TimelineId) -> Option<Lsn> {
        if !self.unreadable.is_empty() {
            return Some(Lsn::ZERO);
        }
        let concerned = self.live.iter().filter(|lease| lease.timeline <= timeline);
        concerned.map(|lease| lease.first_needed).min()
    }

    /// The leases that name a backup.
    pub fn of(&self, backup: BackupId) -> impl Iterator<Item = &Lease> {
        self.live.iter().filter(move |lease| lease.backups.contains(&backup))
    }

    /// Those that can be read, the oldest first.
    pub fn live(&self) -> &[Lease] {
        &self.live
    }

    /// What is wrong with one that cannot be read.
    pub fn unreadable(&self) -> Option<&DocumentError> {
        self.unreadable.first()
    }

    /// The leases, if all of them can be read.
    ///
    /// # Errors
    /// What is wrong with one that cannot.
    pub fn into_readable(mut self) -> Result<Self, DocumentError> {
        match self.take_unreadable() {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    /// The same, for an error.
    pub(super) fn take_unreadable(&mut self) -> Option<DocumentError> {
        self.unreadable.pop()
    }
}

/// Keeps others from [removing](NoNewLeases) anything.
fn hold_shared(server: &ServerDir) -> Result<File, StorageError> {
    let directory = server.leases();
    File::open(&directory)
        .and_then(|barrier| barrier.lock_shared().map(|()| barrier))
        .map_err(StorageError::of("lock", &directory))
}

/// A lease that still holds; `None` if it is over, or gone.
fn live(path: &Path, now: Timestamp) -> Result<Option<Lease>, DocumentError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::of("open", path)(error).into()),
    };
    let load = || document::load::<Lease>(path, FORMAT);
    let lease = match load()? {
        Some(lease) if lease.restoring => match file.try_lock_shared() {
            // Either it is over, or it was kept just now: then there is another file by the time
            // that the lock is gone.
            Ok(()) => load()?.filter(|lease| !lease.restoring),
            Err(TryLockError::WouldBlock) => return Ok(Some(lease)),
            Err(TryLockError::Error(error)) => {
                return Err(StorageError::of("lock", path)(error).into());
            }
        },
        lease => lease,
    };
    Ok(lease.filter(|lease| now < lease.expires))
}

/// Removes the leases that are over, unless one may be renewed just now. One that cannot be removed is
/// over all the same.
fn collect(server: &ServerDir, now: Timestamp) {
    let Ok(barrier) = File::open(server.leases()) else { return };
    if barrier.try_lock().is_err() {
        return;
    }
    for name in durable::list_dir(&server.leases()).unwrap_or_default() {
        let path = server.leases().join(name);
        let is_lease = path.extension().is_some_and(|extension| extension == "json");
        if is_lease && matches!(live(&path, now), Ok(None)) {
            let _ = durable::remove_file(&path);
        }
    }
    // Those that nobody came to name.
    let _ = durable::collect_leftovers(&server.leases());
}

/// What root makes in somebody else's store is that user's, who must be able to read it.
fn give_to_owner(server: &ServerDir, path: &Path) -> Result<(), DocumentError> {
    if rustix::process::geteuid().is_root() {
        let failed = StorageError::of("give away", path);
        let state = fs::metadata(server.state()).map_err(StorageError::of("look at", path))?;
        // That user may have put a link there, to something that is not theirs.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let given = rustix::fs::open(path, flags, Mode::empty()).and_then(|file| {
            let (uid, gid) = (Uid::from_raw(state.uid()), Gid::from_raw(state.gid()));
            rustix::fs::fchown(file, Some(uid), Some(gid))
        });
        given.map_err(|errno| failed(errno.into()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Home;

    fn store() -> (tempfile::TempDir, ServerDir) {
        let dir = tempfile::tempdir().unwrap();
        let server = Home::new(dir.path(), Access::Private).server(&"main".parse().unwrap());
        server.create().unwrap();
        (dir, server)
    }

    fn backup(day: u32) -> BackupId {
        format!("202603{day:02}T151133").parse().unwrap()
    }

    fn lease(id: &str, timeline: u32, first_needed: u64) -> Lease {
        let now = Timestamp::now();
        Lease {
            id: id.parse().unwrap(),
            backups: vec![backup(2), backup(1)],
            timeline: TimelineId::new(timeline).unwrap(),
            first_needed: Lsn::from_u64(first_needed),
            destination: "/srv/pg".to_owned(),
            holder: "root".to_owned(),
            created: now,
            expires: now + TERM,
            restoring: false,
        }
    }

    fn files(server: &ServerDir) -> usize {
        fs::read_dir(server.leases()).unwrap().count()
    }

    #[test]
    fn a_restore_holds_what_it_reads_and_leaves_it_to_the_server() {
        let (_dir, server) = store();
        assert!(!Leases::load(&server).protects(backup(1)));
        let held = HeldLease::take(&server, lease("a", 2, 700)).unwrap();
        let leases = Leases::load(&server);
        assert!(leases.protects(backup(1)) && leases.protects(backup(2)));
        assert!(!leases.protects(backup(3)));
        let needed = |timeline| leases.first_needed(TimelineId::new(timeline).unwrap());
        assert_eq!(
            [1, 2, 3].map(needed),
            [None, Some(Lsn::from_u64(700)), Some(Lsn::from_u64(700))]
        );
        held.keep().unwrap();
        let leases = Leases::load(&server);
        assert!(leases.of(backup(1)).all(|lease| !lease.restoring));
        assert!(leases.protects(backup(1)));

        drop(HeldLease::take(&server, lease("b", 1, 5)).unwrap());
        assert_eq!(files(&server), 1);
    }

    #[test]
    fn the_lease_of_a_restore_that_was_killed_is_over() {
        let (_dir, server) = store();
        let held = HeldLease::take(&server, lease("a", 1, 7)).unwrap();
        let left = fs::read(server.lease(&held.lease.id)).unwrap();
        drop(held);
        // The file is there, and nobody holds its lock.
        fs::write(server.lease("a"), left).unwrap();
        assert!(!Leases::load(&server).protects(backup(1)));
        let _held = HeldLease::take(&server, lease("b", 1, 7)).unwrap();
        assert_eq!(files(&server), 1);
    }

    #[test]
    fn leases_are_renewed_once_an_hour_and_end() {
        let (_dir, server) = store();
        let given = lease("a", 1, 7);
        HeldLease::take(&server, given.clone()).unwrap().keep().unwrap();
        let now = Timestamp::now();
        let minutes = |minutes| now + SignedDuration::from_mins(minutes);
        assert!(!Lease::renew(&server, &given.id, minutes(59)).unwrap());
        assert!(Lease::renew(&server, &given.id, minutes(61)).unwrap());
        assert!(!Lease::renew(&server, &given.id, minutes(62)).unwrap());
        assert!(!Lease::renew(&server, &"other".parse().unwrap(), now).unwrap());
        let path = server.lease(&given.id);
        assert!(live(&path, minutes(61 + 7 * 24 * 60 - 1)).unwrap().is_some());
        assert!(live(&path, minutes(61 + 7 * 24 * 60 + 1)).unwrap().is_none());
    }

    #[test]
    fn what_may_be_renewed_just_now_is_not_collected() {
        let (_dir, server) = store();
        HeldLease::take(&server, lease("a", 1, 7)).unwrap().keep().unwrap();
        let later = Timestamp::now() + TERM + RENEWAL;
        let renewing = hold_shared(&server).unwrap();
        collect(&server, later);
        assert_eq!(files(&server), 1);
        drop(renewing);
        collect(&server, later);
        assert_eq!(files(&server), 0);
    }

    #[test]
    fn what_cannot_be_read_holds_everything() {
        let (_dir, server) = store();
        HeldLease::take(&server, lease("a", 5, 7)).unwrap().keep().unwrap();
        fs::write(server.leases().join("b.json"), b"{").unwrap();
        let mut leases = Leases::load(&server);
        assert!(leases.protects(backup(9)));
        assert_eq!(leases.first_needed(TimelineId::FIRST), Some(Lsn::ZERO));
        assert!(leases.take_unreadable().is_some());
        // It is nobody's to collect.
        drop(HeldLease::take(&server, lease("c", 1, 7)).unwrap());
        assert_eq!(files(&server), 2);
        fs::remove_dir_all(server.leases()).unwrap();
        fs::write(server.leases(), b"no directory").unwrap();
        assert!(Leases::load(&server).protects(backup(9)));
    }

    #[test]
    fn a_name_is_no_path() {
        for text in ["", "../x", "A", "a.json", "ä", &"a".repeat(33)] {
            assert!(text.parse::<LeaseId>().is_err(), "{text}");
        }
        let id = LeaseId::at(Timestamp::now());
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
