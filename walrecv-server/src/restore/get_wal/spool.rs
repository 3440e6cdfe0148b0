//! Segments that lie ready for a recovering server, before it asks for them.
//!
//! They lie beside the file that the server wants, in a hidden directory of its `pg_wal`: so a
//! delivery is a renaming, and PostgreSQL, which goes by the names of segments there, does not see
//! them; neither do its base backups, `pg_checksums` or `pg_rewind`. Whoever makes them ready
//! holds a lock; whoever takes one needs none, because a file has its name only when it is
//! complete and verified.
//!
//! Nothing is synced. So what lies there counts only while the machine runs on which it was
//! written, and only for who asks the same archive: the file `origin` says so, and how large the
//! segments are.
//!
//! The directory goes when the server is told that the archive ends, of its WAL or of its
//! histories: whatever the target, a recovery that ends asks for the history of a timeline that is
//! not there, to give its own a number.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgwire_stream::{SegmentName, SegmentSize};
use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, StatVfs, fstatvfs, openat, renameat, statat, unlinkat,
};

use super::deliver::write_whole;
use super::error::{GetWalError, storage_error};
use crate::settings::ServerName;
use crate::storage::durable;

/// The name of the directory.
const NAME: &str = ".walrecv-spool";
const ORIGIN: &str = "origin";
const LOCK: &str = "lock";
/// The segment that was asked for last and did not lie ready: whoever fills the spool goes on
/// behind it.
const ASKED: &str = "asked";
/// What is in it beside segments.
const OTHERS: [&str; 5] = [".", "..", ORIGIN, LOCK, ASKED];
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The names under which PostgreSQL wants what it asks for while it recovers. Others, such as
/// `pg_rewind`, do not ask for one segment after the other.
const WANTED: [&str; 2] = ["RECOVERYXLOG", "RECOVERYHISTORY"];

/// The most that lies ready.
const MOST: u64 = 512 << 20;
/// What is left of the disk's room, which is the server's.
const LEFT: u64 = 512 << 20;
/// How often somebody looks whether the directory is gone.
const LOOK: Duration = Duration::from_millis(200);
/// How often the directory is removed that somebody still writes into.
const ATTEMPTS: u32 = 10;

/// The spool of a recovering server.
#[derive(Clone, Debug)]
pub struct Spool {
    directory: PathBuf,
    /// Which archive it is filled from, since when.
    source: String,
}

impl Spool {
    /// The spool for who wants its WAL at `destination`; `None` if that is no recovering server.
    pub fn beside(destination: &Path, home: &Path, server: &ServerName) -> Option<Self> {
        let wanted = destination.file_name()?;
        if !WANTED.iter().any(|name| wanted == *name) {
            return None;
        }
        let boot = fs::read_to_string(BOOT_ID).ok()?;
        let source = format!("{} {server} {home:?}", boot.trim());
        Some(Self { directory: destination.with_file_name(NAME), source })
    }

    /// Moves a segment to where it is wanted. Says how large it is; `None` if it is not ready.
    pub fn take(&self, segment: SegmentName, destination: &Path) -> Option<SegmentSize> {
        let size = self.segment_size()?;
        let path = self.directory.join(segment.to_string());
        let found = fs::symlink_metadata(&path).ok()?;
        if !found.is_file() || found.len() != u64::from(size.bytes()) {
            return None;
        }
        fs::rename(&path, destination).ok()?;
        Some(size)
    }

    /// How many segments of this size may lie ready.
    pub fn room_for(size: SegmentSize, wanted: u32) -> u32 {
        let most = MOST / u64::from(size.bytes());
        wanted.min(u32::try_from(most).unwrap_or(u32::MAX))
    }

    /// Whether a segment lies ready.
    pub fn has(&self, segment: SegmentName) -> bool {
        self.directory.join(segment.to_string()).exists()
    }

    /// Tells whoever fills it that a segment is fetched otherwise.
    pub fn passed(&self, segment: SegmentName) {
        if self.directory.join(LOCK).exists() {
            // Unsaid, it costs no more than a segment that nobody takes.
            let _ = fs::write(self.directory.join(ASKED), segment.to_string());
        }
    }

    /// Makes the directory, for whoever fills it. That one does not make it itself, so that it is
    /// not made again by one that comes late.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn prepare(&self, size: SegmentSize) -> io::Result<()> {
        if self.segment_size() == Some(size) {
            return Ok(());
        }
        self.remove();
        DirBuilder::new().mode(0o700).create(&self.directory)?;
        let mut origin = File::create_new(self.directory.join(ORIGIN))?;
        origin.write_all(self.origin(size).as_bytes())
    }

    /// Whether somebody fills it.
    pub fn is_being_filled(&self) -> bool {
        let Ok(file) = File::open(self.directory.join(LOCK)) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Begins to fill it; `None` if it is gone, is another's, or somebody is at it.
    pub fn fill(&self) -> Option<Filling> {
        let directory = File::open(&self.directory).ok()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let lock = File::from(openat(&directory, LOCK, flags, Mode::RUSR | Mode::WUSR).ok()?);
        lock.try_lock().ok()?;
        // Behind the lock: whoever had it may have come to the end.
        let size = self.segment_size()?;
        Some(Filling { path: self.directory.clone(), directory, size, _lock: lock })
    }

    /// The server of this segment comes to the end of the archive. It may only have asked for the
    /// wrong timeline: the segment of another one may be what it asks for next.
    pub fn end_at(&self, segment: SegmentName) {
        let same = |name: &str| name.len() == 24 && name.get(8..) == segment.to_string().get(8..);
        let names = durable::list_dir(&self.directory).unwrap_or_default();
        if !names.iter().filter_map(|name| name.to_str()).any(same) {
            self.remove();
        }
    }

    /// Removes it. What cannot be removed is in nobody's way.
    pub fn remove(&self) {
        for _ in 0..ATTEMPTS {
            match fs::remove_dir_all(&self.directory) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                _ => return,
            }
        }
    }

    fn origin(&self, size: SegmentSize) -> String {
        format!("{}\n{}\n", self.source, size.bytes())
    }

    /// The size of the segments in it; `None` if there is none, or it is filled from elsewhere.
    fn segment_size(&self) -> Option<SegmentSize> {
        let text = fs::read_to_string(self.directory.join(ORIGIN)).ok()?;
        let bytes = text.strip_prefix(self.source.as_str())?.strip_prefix('\n')?;
        SegmentSize::new(bytes.strip_suffix('\n')?.parse().ok()?).ok()
    }
}

/// The spool while it is filled: the directory that was locked, wherever its name leads meanwhile.
#[derive(Debug)]
pub struct Filling {
    path: PathBuf,
    directory: File,
    size: SegmentSize,
    _lock: File,
}

impl Filling {
    /// The size of the segments.
    pub fn segment_size(&self) -> SegmentSize {
        self.size
    }

    /// Removes the segments that are not among those that are wanted, and what was left half-done.
    ///
    /// # Errors
    /// If it cannot be read, or something cannot be removed.
    pub fn keep_only(&self, wanted: &[SegmentName]) -> Result<(), GetWalError> {
        let failed =
            |action, error: rustix::io::Errno| storage_error(action, &self.path, error.into());
        let wanted: Vec<String> = wanted.iter().map(SegmentName::to_string).collect();
        for entry in Dir::read_from(&self.directory).map_err(|error| failed("read", error))? {
            let entry = entry.map_err(|error| failed("read", error))?;
            let name = entry.file_name();
            let stays = name.to_str().is_ok_and(|name| {
                OTHERS.contains(&name) || wanted.iter().any(|wanted| wanted == name)
            });
            if !stays {
                unlinkat(&self.directory, name, AtFlags::empty())
                    .map_err(|error| failed("clear", error))?;
            }
        }
        Ok(())
    }

    /// Whether a segment may still be asked for, as far as is known.
    pub fn is_ahead(&self, segment: SegmentName) -> bool {
        let mut name = String::new();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let asked = openat(&self.directory, ASKED, flags, Mode::empty())
            .is_ok_and(|file| File::from(file).read_to_string(&mut name).is_ok())
            .then(|| name.parse::<SegmentName>().ok());
        asked
            .flatten()
            .is_none_or(|asked| asked.timeline() == segment.timeline() && asked < segment)
    }

    /// For another thread: blocks until the directory is gone, and nobody will take anything from it.
    ///
    /// # Errors
    /// If it cannot be opened once more.
    pub fn abandoned(&self) -> io::Result<impl FnOnce() + Send + 'static> {
        let directory = self.directory.try_clone()?;
        Ok(move || {
            while directory.metadata().is_ok_and(|directory| directory.nlink() > 0) {
                std::thread::sleep(LOOK);
            }
        })
    }

    /// Whether a segment lies ready.
    pub fn has(&self, segment: SegmentName) -> bool {
        statat(&self.directory, segment.to_string(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Whether the disk has room for another one, and enough is left for the server.
    pub fn has_room(&self) -> bool {
        let free = |disk: StatVfs| disk.f_bavail.saturating_mul(disk.f_frsize);
        fstatvfs(&self.directory)
            .is_ok_and(|disk| free(disk) >= LEFT + u64::from(self.size.bytes()))
    }

    /// Adds a segment: all of it, verified, or nothing.
    ///
    /// # Errors
    /// If it is not whole, is damaged, or cannot be written, as when the directory is gone.
    pub fn put(&self, segment: SegmentName, source: &mut dyn Read) -> Result<(), GetWalError> {
        let name = segment.to_string();
        let temporary = format!(".{name}.tmp");
        let path = self.path.join(&temporary);
        let failed = |action, error: rustix::io::Errno| storage_error(action, &path, error.into());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = openat(&self.directory, &temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed("create", error))?;
        let length = u64::from(self.size.bytes());
        write_whole(&name, source, length, File::from(file), &path)
            .and_then(|()| {
                renameat(&self.directory, &temporary, &self.directory, &name)
                    .map_err(|error| failed("rename", error))
            })
            .inspect_err(|_| {
                // The next one writes over it.
                let _ = unlinkat(&self.directory, &temporary, AtFlags::empty());
            })
    }

    /// Ends the filling. A spool with nothing in it is not left behind.
    pub fn finish(self) {
        let Ok(mut entries) = Dir::read_from(&self.directory) else { return };
        let is_segment = |name: &[u8]| !OTHERS.iter().any(|other| other.as_bytes() == name);
        if entries.any(|entry| entry.is_ok_and(|entry| is_segment(entry.file_name().to_bytes()))) {
            return;
        }
        for name in [ORIGIN, ASKED, LOCK] {
            let _ = unlinkat(&self.directory, name, AtFlags::empty());
        }
        // Should it be another one by now, then that is not empty.
        let _ = fs::remove_dir(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn size() -> SegmentSize {
        SegmentSize::new(MIB as u64).unwrap()
    }

    fn segment(timeline: u32, number: u32) -> SegmentName {
        format!("{timeline:08X}00000000{number:08X}").parse().unwrap()
    }

    fn spool(pg_wal: &Path, home: &str) -> Spool {
        let server = "main".parse().unwrap();
        Spool::beside(&pg_wal.join("RECOVERYXLOG"), Path::new(home), &server).unwrap()
    }

    fn names(spool: &Spool) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&spool.directory)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !OTHERS.contains(&name.as_str()))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn only_a_recovering_server_has_one() {
        let server = "main".parse().unwrap();
        let beside = |name| Spool::beside(Path::new(name), Path::new("/srv"), &server);
        assert!(beside("pg_wal/RECOVERYXLOG").is_some());
        assert!(beside("pg_wal/RECOVERYHISTORY").is_some());
        assert!(beside("/tmp/000000010000000000000001").is_none());
        assert!(beside("/").is_none());
    }

    #[test]
    fn what_lies_ready_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path(), "/srv");
        let destination = dir.path().join("RECOVERYXLOG");
        assert!(spool.fill().is_none(), "nobody prepared it");
        assert_eq!(spool.take(segment(1, 1), &destination), None);
        spool.prepare(size()).unwrap();
        let filling = spool.fill().unwrap();
        assert!(spool.is_being_filled() && spool.fill().is_none());
        filling.put(segment(1, 1), &mut &vec![7; MIB][..]).unwrap();
        assert!(filling.has(segment(1, 1)) && spool.has(segment(1, 1)));
        drop(filling);
        assert!(!spool.is_being_filled());
        assert_eq!(spool.take(segment(1, 1), &destination), Some(size()));
        assert_eq!(fs::read(&destination).unwrap(), vec![7; MIB]);
        assert_eq!(spool.take(segment(1, 1), &destination), None);
        assert_eq!(fs::read(&destination).unwrap(), vec![7; MIB]);
    }

    #[test]
    fn what_is_not_whole_never_lies_ready() {
        struct Damaged;
        impl Read for Damaged {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::InvalidData.into())
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path(), "/srv");
        spool.prepare(size()).unwrap();
        let filling = spool.fill().unwrap();
        for length in [0, MIB - 1, MIB + 1] {
            assert!(filling.put(segment(1, 1), &mut &vec![7; length][..]).is_err());
        }
        assert!(filling.put(segment(1, 1), &mut vec![7; MIB].chain(Damaged)).is_err());
        assert!(names(&spool).is_empty());
        // Whatever came there by another way.
        fs::write(spool.directory.join(segment(1, 1).to_string()), b"short").unwrap();
        assert_eq!(spool.take(segment(1, 1), &dir.path().join("RECOVERYXLOG")), None);
    }

    #[test]
    fn another_archive_or_another_boot_has_nothing_ready() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (spool(dir.path(), "/srv"), spool(dir.path(), "/other"));
        ours.prepare(size()).unwrap();
        ours.fill().unwrap().put(segment(1, 1), &mut &vec![7; MIB][..]).unwrap();
        let destination = dir.path().join("RECOVERYXLOG");
        let rebooted = Spool { source: ours.source.replacen('-', "+", 1), ..ours.clone() };
        for other in [&theirs, &rebooted] {
            assert_eq!(other.take(segment(1, 1), &destination), None);
            assert!(other.fill().is_none());
        }
        theirs.prepare(size()).unwrap();
        assert!(names(&theirs).is_empty());
        assert!(ours.fill().is_none());
    }

    #[test]
    fn what_is_not_wanted_any_more_goes() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path(), "/srv");
        spool.prepare(size()).unwrap();
        let filling = spool.fill().unwrap();
        for (timeline, number) in [(1, 1), (1, 3), (2, 3), (2, 4)] {
            filling.put(segment(timeline, number), &mut &vec![7; MIB][..]).unwrap();
        }
        fs::write(spool.directory.join(".000000010000000000000009.tmp"), b"half").unwrap();
        let wanted = [segment(2, 3), segment(2, 4), segment(2, 5)];
        filling.keep_only(&wanted).unwrap();
        assert_eq!(names(&spool), [segment(2, 3).to_string(), segment(2, 4).to_string()]);
        // Asked for timeline 3 first, which does not have it.
        spool.end_at(segment(3, 4));
        assert_eq!(names(&spool).len(), 2);
        spool.end_at(segment(2, 5));
        assert!(!spool.directory.exists());
        spool.remove();
    }

    #[test]
    fn whoever_fills_a_removed_spool_stops() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path(), "/srv");
        spool.prepare(size()).unwrap();
        let filling = spool.fill().unwrap();
        spool.remove();
        let put = |filling: &Filling| filling.put(segment(1, 1), &mut &vec![7; MIB][..]);
        assert!(put(&filling).is_err());
        // Not even into one that was made meanwhile.
        spool.prepare(size()).unwrap();
        assert!(put(&filling).is_err());
        assert!(names(&spool).is_empty());
        // The one that ends does not take the other with it.
        filling.finish();
        assert!(spool.directory.exists());
        spool.fill().unwrap().finish();
        assert!(!spool.directory.exists());
    }

    #[test]
    fn what_was_passed_is_not_made_ready() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path(), "/srv");
        spool.passed(segment(1, 1));
        assert!(!spool.directory.exists());
        spool.prepare(size()).unwrap();
        let filling = spool.fill().unwrap();
        assert!(filling.is_ahead(segment(1, 1)));
        spool.passed(segment(1, 4));
        let ahead = [segment(1, 3), segment(1, 4), segment(1, 5), segment(2, 5)];
        assert_eq!(ahead.map(|segment| filling.is_ahead(segment)), [false, false, true, false]);
        let abandoned = filling.abandoned().unwrap();
        let watcher = std::thread::spawn(abandoned);
        assert!(!watcher.is_finished());
        spool.remove();
        watcher.join().unwrap();
    }

    #[test]
    fn it_is_bounded() {
        assert_eq!(Spool::room_for(size(), 8), 8);
        assert_eq!(Spool::room_for(SegmentSize::new(256 << 20).unwrap(), 8), 2);
        assert_eq!(Spool::room_for(SegmentSize::new(1 << 30).unwrap(), 8), 0);
    }
}
