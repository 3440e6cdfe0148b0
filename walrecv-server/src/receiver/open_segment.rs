//! The segment that is being received: `streaming/<segment>.partial`.
//!
//! The file is appended to and never longer than what was received, so its length tells how far
//! it is. What a former run left in it is compared with what the server sends again, and never
//! written over, with one exception that cannot hold acknowledged bytes: a hole of zeros, see
//! [`OpenSegment::take`].

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgwire_stream::{Lsn, SegmentName, WalFileName};

use crate::storage::durable::{self, AtomicFile, Put};
use crate::storage::{ServerDir, StorageError};

/// How much of a file a file system may lose apart from the rest: its block.
const BLOCK: u64 = 4096;

/// How much is read back at a time for comparing.
const COMPARED_AT_ONCE: usize = 64 << 10;

/// How a file's data is made durable. Always `fdatasync`, except in tests of its failure.
pub(crate) type SyncData = Arc<dyn Fn(&File) -> io::Result<()> + Send + Sync>;

/// `fdatasync`: the data, and the length without which it cannot be read.
pub(crate) fn fdatasync() -> SyncData {
    Arc::new(File::sync_data)
}

/// What went wrong with the open segment.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// A file or directory could not be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What was written could not be made durable.
    #[error(transparent)]
    Sync(StorageError),
    /// What the server sends now is not what it sent before.
    #[error("the server sends other WAL at {at} than it sent before for segment {segment}")]
    Diverged {
        /// The first byte that differs.
        at: Lsn,
        /// The segment.
        segment: SegmentName,
    },
}

impl SegmentError {
    /// Whether waiting may help: the file system is full, and nothing was lost by it. A sync that
    /// fails for that reason has lost something.
    pub(crate) fn is_out_of_space(&self) -> bool {
        matches!(self, Self::Storage(StorageError { source, .. }) if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ))
    }
}

/// The file of the segment that is being received.
pub(crate) struct OpenSegment {
    file: File,
    name: SegmentName,
    /// Position of the segment's first byte.
    start: Lsn,
    partial: PathBuf,
    complete: PathBuf,
    /// The file's length.
    stored: u64,
    /// Something was written since the last sync.
    dirty: bool,
    sync_data: SyncData,
}

impl OpenSegment {
    /// Opens the segment's file, or creates it. Its name is durable when this returns, and so is
    /// what a former run left in it.
    pub(crate) fn open(
        dir: &ServerDir,
        name: SegmentName,
        start: Lsn,
        sync_data: SyncData,
    ) -> Result<Self, SegmentError> {
        let partial = dir.streaming_partial(name);
        let opened = OpenOptions::new().read(true).write(true).open(&partial);
        let (file, found) = match opened {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (durable::create_file_new(&partial, dir.access())?, false)
            }
            Err(error) => return Err(StorageError::of("open", &partial)(error).into()),
        };
        let stored = file.metadata().map_err(StorageError::of("look at", &partial))?.len();
        let complete = dir.streaming_segment(name);
        let mut segment =
            Self { file, name, start, partial, complete, stored, dirty: found, sync_data };
        if found {
            // Nobody knows how far its creator came.
            segment.sync()?;
            durable::sync_dir(&dir.streaming())?;
        }
        Ok(segment)
    }

    /// Which segment it is.
    pub(crate) fn name(&self) -> SegmentName {
        self.name
    }

    /// The position behind the last byte that is stored.
    pub(crate) fn end(&self) -> Lsn {
        self.start.saturating_add(self.stored)
    }

    /// Takes the bytes received for this segment from `offset` on: what is stored already is
    /// compared, the rest is appended.
    ///
    /// A difference means that the source was rolled back, unless the stored bytes are zeros from
    /// the difference to the end of their block: then a power cut came before the block was
    /// synced, while later blocks may already have reached the disk. Bytes that were acknowledged
    /// had been synced, so nothing from such a hole on was acknowledged, and it is received anew.
    pub(crate) fn take(&mut self, offset: u64, data: &[u8]) -> Result<(), SegmentError> {
        let equal = self.compare(offset, data)?;
        let new = data.get(equal..).unwrap_or_default();
        if new.is_empty() {
            return Ok(());
        }
        let at = offset + equal as u64;
        if at < self.stored {
            self.file.set_len(at).map_err(StorageError::of("cut", &self.partial))?;
            self.stored = at;
        }
        self.dirty = true;
        self.file.write_all_at(new, at).map_err(StorageError::of("write", &self.partial))?;
        self.stored = at + new.len() as u64;
        Ok(())
    }

    /// How many bytes of `data` are stored at `offset` already: all that the file has, or those up
    /// to a hole.
    fn compare(&self, offset: u64, data: &[u8]) -> Result<usize, SegmentError> {
        let known = usize::try_from(self.stored.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut equal = 0;
        let mut buffer = [0; COMPARED_AT_ONCE];
        for expected in data.get(..known.min(data.len())).unwrap_or(data).chunks(COMPARED_AT_ONCE) {
            let at = offset + equal as u64;
            let stored = buffer.get_mut(..expected.len()).unwrap_or_default();
            self.file.read_exact_at(stored, at).map_err(StorageError::of("read", &self.partial))?;
            if let Some(differs) = stored.iter().zip(expected).position(|(a, b)| a != b) {
                return if self.is_hole(at + differs as u64)? {
                    Ok(equal + differs)
                } else {
                    let at = self.start.saturating_add(at + differs as u64);
                    Err(SegmentError::Diverged { at, segment: self.name })
                };
            }
            equal += expected.len();
        }
        Ok(equal)
    }

    /// Whether the stored bytes from `offset` to the end of its block, or of the file, are zeros.
    fn is_hole(&self, offset: u64) -> Result<bool, SegmentError> {
        let end = (offset / BLOCK + 1).saturating_mul(BLOCK).min(self.stored);
        let mut rest = [0; BLOCK as usize];
        let length = usize::try_from(end.saturating_sub(offset)).unwrap_or_default();
        let rest = rest.get_mut(..length).unwrap_or_default();
        self.file.read_exact_at(rest, offset).map_err(StorageError::of("read", &self.partial))?;
        Ok(rest.iter().all(|&byte| byte == 0))
    }

    /// Makes durable what was taken.
    pub(crate) fn sync(&mut self) -> Result<(), SegmentError> {
        if self.dirty {
            (self.sync_data)(&self.file)
                .map_err(StorageError::of("make durable", &self.partial))
                .map_err(SegmentError::Sync)?;
            self.dirty = false;
        }
        Ok(())
    }

    /// The segment is full: makes it durable and gives it its final name.
    pub(crate) fn complete(mut self) -> Result<(), SegmentError> {
        self.sync()?;
        match durable::rename_file(&self.partial, &self.complete)? {
            Put::Stored => Ok(()),
            Put::Exists => Err(StorageError {
                action: "rename to",
                path: self.complete,
                source: io::ErrorKind::AlreadyExists.into(),
            }
            .into()),
        }
    }
}

/// After a failed sync: replaces the segment's file by a new one with its first `believed` bytes,
/// those that an earlier sync has made durable.
///
/// The old file cannot be used any more: the kernel reports a failed write-back once and then
/// takes the lost pages for clean, so a second sync would "succeed". The rename removes it in the
/// same instant in which the new, durable one takes its place.
pub(crate) fn replace(
    dir: &ServerDir,
    name: SegmentName,
    believed: u64,
) -> Result<(), StorageError> {
    let partial = dir.streaming_partial(name);
    let old = match File::open(&partial) {
        Ok(old) => old,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StorageError::of("open", &partial)(error)),
    };
    let mut new = AtomicFile::create(&partial, dir.access())?;
    io::copy(&mut old.take(believed), &mut new).map_err(StorageError::of("copy", &partial))?;
    new.commit()
}

/// Puts a new file in the place of each `.partial` that an earlier process has left, with the same
/// bytes. To be called once, before anything of it is relied on.
///
/// That process may have ended *because* a sync failed. Then the page cache still holds what the
/// disk does not: it could be read back, would compare equal with what is received again, and a
/// sync of the old file would "succeed".
pub(crate) fn renew_inherited(dir: &ServerDir) -> Result<(), StorageError> {
    for name in durable::list_dir(&dir.streaming())? {
        let Some(WalFileName::Partial(segment)) = name.to_str().and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let partial = dir.streaming_partial(segment);
        if is_same_file(&partial, &dir.streaming_segment(segment))? {
            // The renaming was a link, and came no further.
            durable::remove_file(&partial)?;
        } else {
            replace(dir, segment, u64::MAX)?;
        }
    }
    Ok(())
}

fn is_same_file(one: &Path, other: &Path) -> Result<bool, StorageError> {
    let look = |path: &Path| match std::fs::metadata(path) {
        Ok(found) => Ok(Some((found.dev(), found.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::of("look at", path)(error)),
    };
    Ok(look(other)?.is_some_and(|other| look(one).is_ok_and(|one| one == Some(other))))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::storage::{Access, Home};

    #[test]
    fn what_an_earlier_process_left_is_written_anew() {
        let home = tempfile::tempdir().unwrap();
        let dir = Home::new(home.path(), Access::Private).server(&"main".parse().unwrap());
        dir.create().unwrap();
        let one: SegmentName = "000000010000000000000001".parse().unwrap();
        let two: SegmentName = "000000010000000000000002".parse().unwrap();
        fs::write(dir.streaming_segment(one), b"whole").unwrap();
        fs::hard_link(dir.streaming_segment(one), dir.streaming_partial(one)).unwrap();
        fs::write(dir.streaming_partial(two), b"begun").unwrap();
        // Kept open, so that its number is not used again.
        let old = File::open(dir.streaming_partial(two)).unwrap();

        renew_inherited(&dir).unwrap();

        let renewed = fs::metadata(dir.streaming_partial(two)).unwrap();
        assert_ne!(renewed.ino(), old.metadata().unwrap().ino());
        assert_eq!(fs::read(dir.streaming_partial(two)).unwrap(), b"begun");
        assert!(!dir.streaming_partial(one).exists());
        assert_eq!(fs::read(dir.streaming_segment(one)).unwrap(), b"whole");
        assert_eq!(fs::read_dir(dir.streaming()).unwrap().count(), 2);
    }
}
