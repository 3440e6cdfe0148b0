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

mod filling;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use pgwire_stream::{SegmentName, SegmentSize};

pub use filling::Filling;

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
        Filling::begin(&self.directory, || self.segment_size())
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
