//! The spool while it is filled.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgwire_stream::{SegmentName, SegmentSize};
use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, StatVfs, fstatvfs, openat, renameat, statat, unlinkat,
};

use super::super::deliver::write_whole;
use super::super::error::{GetWalError, storage_error};
use super::{ASKED, LOCK, ORIGIN, OTHERS};

/// What is left of the disk's room, which is the server's.
const LEFT: u64 = 512 << 20;
/// How often somebody looks whether the directory is gone.
const LOOK: Duration = Duration::from_millis(200);

/// The spool while it is filled: the directory that was locked, wherever its name leads meanwhile.
#[derive(Debug)]
pub struct Filling {
    path: PathBuf,
    directory: File,
    size: SegmentSize,
    _lock: File,
}

impl Filling {
    pub(super) fn begin(
        path: &Path,
        segment_size: impl FnOnce() -> Option<SegmentSize>,
    ) -> Option<Self> {
        let directory = File::open(path).ok()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let lock = File::from(openat(&directory, LOCK, flags, Mode::RUSR | Mode::WUSR).ok()?);
        lock.try_lock().ok()?;
        // Behind the lock: whoever had it may have come to the end.
        let size = segment_size()?;
        Some(Self { path: path.to_owned(), directory, size, _lock: lock })
    }

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
