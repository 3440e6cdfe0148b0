//! The segment that is being received: `streaming/<segment>.partial`.
//!
//! At rest, the file is as long as what was received, so its length tells how far it is. While
//! commits wait for every sync, zeros are put ahead of what is received, because a sync that also
//! has to make a new length durable takes up to twice as long. Then the length is a multiple of
//! [`AHEAD`], and what was received ends with the last byte that is not zero, or a few behind it.
//!
//! Zeros that are received, by which a server fills up a segment that it leaves early, are not
//! written: a file that is made longer has them.
//!
//! What a former run left in the file is compared with what the server sends again, and never
//! written over, with one exception that cannot hold acknowledged bytes: a hole of zeros, see
//! [`OpenSegment::take`].
//!
//! While a segment in front of it is yet to be made durable, a new one has a hidden name: nobody
//! must take it for what comes next.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError};

use bytes::Bytes;
use pgwire_stream::{Lsn, SegmentName, SegmentSize, WalFileName};

use super::archive::ArchiveError;
use crate::catalog::{AHEAD, received_length};
use crate::storage::durable::{self, AtomicFile, Put};
use crate::storage::{ServerDir, StorageError, is_out_of_space, is_zero};

/// How much of a file a file system may lose apart from the rest: its block.
const BLOCK: u64 = 4096;

/// How much is read back at a time for comparing.
const COMPARED_AT_ONCE: usize = 64 << 10;

/// How much may be appended while zeros are put behind it.
const RUNWAY: u64 = 64 << 10;

/// How many pieces a call may have (`IOV_MAX`).
const MOST_PIECES: usize = 1024;

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
    /// It could not be put into the archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
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
        matches!(self, Self::Storage(StorageError { source, .. }) if is_out_of_space(source))
    }
}

/// The file of the segment that is being received.
pub(crate) struct OpenSegment {
    file: File,
    name: SegmentName,
    size: SegmentSize,
    /// Position of the segment's first byte.
    start: Lsn,
    /// Its name, as long as that is a hidden one.
    hidden: Option<AtomicFile>,
    dir: ServerDir,
    /// How much was received, or found in the file.
    stored: u64,
    /// The file's length: `stored`, or more by zeros.
    length: u64,
    /// Zeros are being put behind this offset, and how long the file is then.
    extending: Option<(u64, mpsc::Receiver<io::Result<u64>>)>,
    unsynced: Unsynced,
    sync_data: SyncData,
}

/// What became of a file since the last sync.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unsynced {
    Nothing,
    /// It was made longer.
    Length,
    /// It was written to.
    Bytes,
}

impl OpenSegment {
    /// Opens the segment's file, or creates it. Its name is durable when this returns, and so is
    /// what a former run left in it.
    pub(crate) fn open(
        dir: &ServerDir,
        name: SegmentName,
        start: Lsn,
        size: SegmentSize,
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
        let mut segment = Self::of(file, dir, name, start, size, sync_data);
        (segment.stored, segment.length) = (stored, stored);
        if found {
            segment.unsynced = Unsynced::Bytes;
            // Nobody knows how far its creator came.
            segment.sync()?;
            durable::sync_dir(&dir.streaming())?;
        }
        Ok(segment)
    }

    /// Creates the file of a segment of which nothing is stored, under a hidden name. It gets its
    /// own with the first sync, or when it is complete; dropped before, it vanishes.
    pub(crate) fn create_ahead(
        dir: &ServerDir,
        name: SegmentName,
        start: Lsn,
        size: SegmentSize,
        sync_data: SyncData,
    ) -> Result<Self, SegmentError> {
        let partial = dir.streaming_partial(name);
        let hidden = AtomicFile::create(&partial, dir.access())?;
        let file = hidden.file().try_clone().map_err(StorageError::of("open", &partial))?;
        Ok(Self { hidden: Some(hidden), ..Self::of(file, dir, name, start, size, sync_data) })
    }

    /// A segment of which nothing is stored.
    fn of(
        file: File,
        dir: &ServerDir,
        name: SegmentName,
        start: Lsn,
        size: SegmentSize,
        sync_data: SyncData,
    ) -> Self {
        Self {
            file,
            name,
            size,
            start,
            hidden: None,
            dir: dir.clone(),
            stored: 0,
            length: 0,
            extending: None,
            unsynced: Unsynced::Nothing,
            sync_data,
        }
    }

    /// Which segment it is.
    pub(crate) fn name(&self) -> SegmentName {
        self.name
    }

    /// The position behind the last byte that is stored.
    pub(crate) fn end(&self) -> Lsn {
        self.start.saturating_add(self.stored)
    }

    fn partial(&self) -> PathBuf {
        self.dir.streaming_partial(self.name)
    }

    /// Takes the bytes received for this segment from `offset` on: what is stored already is
    /// compared, the rest is appended.
    ///
    /// A difference means that the source was rolled back, unless the stored bytes are zeros from
    /// the difference to the end of their block: then a power cut came before the block was
    /// synced, while later blocks may already have reached the disk. Bytes that were acknowledged
    /// had been synced, so nothing from such a hole on was acknowledged, and it is received anew.
    pub(crate) fn take(&mut self, mut offset: u64, pieces: &[Bytes]) -> Result<(), SegmentError> {
        let mut pieces = pieces.iter();
        while offset < self.stored {
            let Some(piece) = pieces.next() else { return Ok(()) };
            let equal = self.compare(offset, piece)?;
            offset += equal as u64;
            let new = piece.get(equal..).unwrap_or_default();
            if !new.is_empty() {
                if offset < self.stored {
                    self.cut(offset)?;
                }
                self.append(&[IoSlice::new(new)])?;
                break;
            }
        }
        let rest: Vec<_> = pieces.map(|piece| IoSlice::new(piece)).collect();
        if rest.is_empty() { Ok(()) } else { self.append(&rest) }
    }

    /// Forgets what is stored from an offset on.
    fn cut(&mut self, at: u64) -> Result<(), SegmentError> {
        self.file.set_len(at).map_err(StorageError::of("cut", &self.partial()))?;
        (self.stored, self.length) = (at, at);
        Ok(())
    }

    /// Writes behind what is stored.
    fn append(&mut self, pieces: &[IoSlice<'_>]) -> Result<(), SegmentError> {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let end = self.stored + length as u64;
        self.make_way(end)?;
        let bytes = match self.extending {
            Some(_) => pieces,
            None => without_zeros(pieces),
        };
        if !bytes.is_empty() {
            self.unsynced = Unsynced::Bytes;
            write_all_vectored_at(&self.file, bytes, self.stored)
                .map_err(|error| StorageError::of("write", &self.partial())(error))?;
        }
        // Behind these there is nothing yet, or what an attempt on a full disk left of the same.
        if bytes.len() < pieces.len() && end > self.length {
            self.lengthen(end)?;
        }
        self.stored = end;
        self.length = self.length.max(end);
        Ok(())
    }

    /// Has the file end with zeros. What is in front of them is durable before: of a file that a power
    /// cut left with its new length and without that, one would believe that zeros were received.
    fn lengthen(&mut self, end: u64) -> Result<(), SegmentError> {
        if self.unsynced == Unsynced::Bytes {
            self.sync_bytes()?;
        }
        self.unsynced = Unsynced::Length;
        self.file.set_len(end).map_err(StorageError::of("extend", &self.partial()))?;
        Ok(())
    }

    /// Waits for zeros that are just being written where bytes are to be.
    fn make_way(&mut self, end: u64) -> Result<(), SegmentError> {
        let Some((from, done)) = &self.extending else { return Ok(()) };
        let length = match done.try_recv() {
            Err(TryRecvError::Empty) if end <= *from => return Ok(()),
            Err(TryRecvError::Empty) => done.recv().ok(),
            Ok(length) => Some(length),
            Err(TryRecvError::Disconnected) => None,
        };
        self.extending = None;
        match length {
            Some(Ok(length)) => {
                self.length = self.length.max(length);
                Ok(())
            }
            Some(Err(error)) if is_out_of_space(&error) => {
                let length = self.file.metadata().map(|metadata| metadata.len());
                self.length = length.map_err(StorageError::of("look at", &self.partial()))?;
                Ok(())
            }
            Some(Err(error)) => {
                Err(SegmentError::Sync(StorageError::of("make durable", &self.partial())(error)))
            }
            None => Err(SegmentError::Sync(StorageError::of("extend", &self.partial())(
                io::Error::other("the work was lost"),
            ))),
        }
    }

    /// Puts zeros behind what is stored, unless there are enough, on another thread. To be called
    /// after a sync.
    pub(crate) fn prepare(&mut self) {
        let size = u64::from(self.size.bytes());
        if self.extending.is_some() || self.length >= size || self.length > self.stored + AHEAD / 2
        {
            return;
        }
        // What comes next need not wait: it has the room before that.
        let from = self.length.max(self.stored.next_multiple_of(BLOCK) + RUNWAY);
        let to = (from + AHEAD).next_multiple_of(AHEAD).min(size);
        if from >= to {
            return;
        }
        // A description of its own: a failed write-back is told once to each, and that of what was
        // received must be told to the one that it is synced by.
        let Ok(file) = OpenOptions::new().write(true).open(self.partial()) else { return };
        let (tell, done) = mpsc::channel();
        let sync_data = Arc::clone(&self.sync_data);
        let extend = move || {
            let result = extend(&file, from, to).and_then(|()| sync_data(&file)).map(|()| to);
            // Nobody waits for it if the segment was given up.
            let _ = tell.send(result);
        };
        // Without a runtime there is no hurry either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(extend);
            self.extending = Some((from, done));
        }
    }

    /// Whether the file is longer than what was received.
    pub(crate) fn is_ahead_of_its_content(&self) -> bool {
        self.extending.is_some() || self.length > self.stored
    }

    /// Makes the file as long as what was received. Not durable: zeros that come back mean nothing.
    pub(crate) fn settle(&mut self) -> Result<(), SegmentError> {
        self.make_way(u64::MAX)?;
        if self.length > self.stored {
            self.cut(self.stored)?;
        }
        Ok(())
    }

    /// How many bytes of `data` are stored at `offset` already: all that the file has, or those up
    /// to a hole.
    fn compare(&self, offset: u64, data: &[u8]) -> Result<usize, SegmentError> {
        let known = usize::try_from(self.stored.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut equal = 0;
        let data = data.get(..known).unwrap_or(data);
        // Not on the stack, or every thread that ever writes would keep as much.
        let mut buffer = vec![0; data.len().min(COMPARED_AT_ONCE)];
        for expected in data.chunks(COMPARED_AT_ONCE) {
            let at = offset + equal as u64;
            let stored = buffer.get_mut(..expected.len()).unwrap_or_default();
            self.file
                .read_exact_at(stored, at)
                .map_err(StorageError::of("read", &self.partial()))?;
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
        self.file.read_exact_at(rest, offset).map_err(StorageError::of("read", &self.partial()))?;
        Ok(is_zero(rest))
    }

    /// Makes durable what was taken, under the segment's own name.
    pub(crate) fn sync(&mut self) -> Result<(), SegmentError> {
        self.sync_bytes()?;
        if let Some(hidden) = self.hidden.take() {
            let partial = self.partial();
            must_be_new(hidden.name_durable(&partial)?, &partial)?;
        }
        Ok(())
    }

    fn sync_bytes(&mut self) -> Result<(), SegmentError> {
        if self.unsynced != Unsynced::Nothing {
            (self.sync_data)(&self.file)
                .map_err(|error| StorageError::of("make durable", &self.partial())(error))
                .map_err(SegmentError::Sync)?;
            self.unsynced = Unsynced::Nothing;
        }
        Ok(())
    }

    /// The segment is full: makes it durable and gives it its final name.
    pub(crate) fn complete(mut self) -> Result<(), SegmentError> {
        self.make_way(u64::MAX)?;
        self.sync_bytes()?;
        let complete = self.dir.streaming_segment(self.name);
        let put = match self.hidden.take() {
            Some(hidden) => hidden.name_durable(&complete)?,
            None => durable::rename_file(&self.partial(), &complete)?,
        };
        must_be_new(put, &complete)
    }
}

fn must_be_new(put: Put, path: &Path) -> Result<(), SegmentError> {
    match put {
        Put::Stored => Ok(()),
        Put::Exists => {
            let source = io::ErrorKind::AlreadyExists.into();
            Err(StorageError { action: "rename to", path: path.to_owned(), source }.into())
        }
    }
}

/// What is in front of the zeros by which a server fills up a segment that it leaves early.
fn without_zeros<'a, 'b>(pieces: &'a [IoSlice<'b>]) -> &'a [IoSlice<'b>] {
    let end = pieces.iter().rposition(|piece| !is_zero(piece)).map_or(0, |last| last + 1);
    pieces.get(..end).unwrap_or(pieces)
}

/// Writes all pieces, one behind the other.
fn write_all_vectored_at(file: &File, pieces: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    let mut pieces = pieces.to_vec();
    let mut left = pieces.as_mut_slice();
    while !left.is_empty() {
        let now = left.get(..left.len().min(MOST_PIECES)).unwrap_or_default();
        match rustix::io::pwritev(file, now, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut left, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes zeros, which as opposed to a hole need no further place on the disk when they are
/// written over.
fn extend(file: &File, from: u64, to: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = from;
    while at < to {
        let step = ZEROS.get(..(to - at).min(ZEROS.len() as u64) as usize).unwrap_or(&ZEROS);
        file.write_all_at(step, at)?;
        at += step.len() as u64;
    }
    Ok(())
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

/// Puts a new file in the place of each `.partial` that an earlier process has left, with what it
/// had received. To be called once, before anything of it is relied on.
///
/// That process may have ended *because* a sync failed. Then the page cache still holds what the
/// disk does not: it could be read back, would compare equal with what is received again, and a
/// sync of the old file would "succeed".
pub(crate) fn renew_inherited(dir: &ServerDir, size: SegmentSize) -> Result<(), StorageError> {
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
            let received = received_length(&partial, u64::from(size.bytes()))?;
            replace(dir, segment, received.unwrap_or(0))?;
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

    fn store() -> (tempfile::TempDir, ServerDir) {
        let home = tempfile::tempdir().unwrap();
        let dir = Home::new(home.path(), Access::Private).server(&"main".parse().unwrap());
        dir.create().unwrap();
        (home, dir)
    }

    fn open(dir: &ServerDir) -> OpenSegment {
        open_with(dir, fdatasync())
    }

    fn open_with(dir: &ServerDir, sync_data: SyncData) -> OpenSegment {
        let name = "000000010000000000000001".parse().unwrap();
        let start = Lsn::from_u64(16 << 20);
        OpenSegment::open(dir, name, start, SegmentSize::DEFAULT, sync_data).unwrap()
    }

    #[test]
    fn what_a_server_fills_up_takes_no_place() {
        let (_home, dir) = store();
        let mut wal = vec![0; 16 << 20];
        // A record that ends within a page, and one behind zeros.
        wal[..10_001].fill(7);
        wal[1_000_000..1_000_003].fill(9);
        let wal = Bytes::from(wal);
        let pieces = |from: usize| -> Vec<Bytes> {
            let ends = (from..wal.len()).step_by(70_001);
            ends.map(|at| wal.slice(at..wal.len().min(at + 70_001))).collect()
        };
        let mut segment = open(&dir);
        segment.take(0, &pieces(0)[..30]).unwrap();
        let begun = 30 * 70_001;
        assert_eq!(segment.length, begun);
        // It comes again, and is as it was.
        drop(segment);
        let mut segment = open(&dir);
        for (number, piece) in pieces(0).into_iter().enumerate() {
            segment.take(number as u64 * 70_001, &[piece]).unwrap();
        }
        segment.complete().unwrap();
        let complete = dir.streaming_segment("000000010000000000000001".parse().unwrap());
        assert!(fs::read(&complete).unwrap() == wal);
        let blocks = fs::metadata(&complete).unwrap().blocks();
        assert!(blocks * 512 < 8 << 20, "{blocks}");
    }

    #[test]
    fn what_is_in_front_of_zeros_is_durable_before_the_file_is_as_long() {
        let (_home, dir) = store();
        let (synced, lengths) = mpsc::channel();
        let sync_data = move |file: &File| {
            synced.send(file.metadata()?.len()).unwrap();
            file.sync_data()
        };
        let mut segment = open_with(&dir, Arc::new(sync_data));
        let zeros = Bytes::from(vec![0; 1000]);
        segment.take(0, &[Bytes::from_static(b"record"), zeros.clone()]).unwrap();
        segment.take(1006, &[zeros.clone(), zeros]).unwrap();
        assert_eq!(segment.stored, 3006);
        assert_eq!(lengths.try_iter().collect::<Vec<_>>(), [6]);
        segment.sync().unwrap();
        segment.sync().unwrap();
        assert_eq!(lengths.try_iter().collect::<Vec<_>>(), [3006]);
    }

    #[test]
    fn zeros_are_taken_where_zeros_were_put() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _entered = runtime.enter();
        let (_home, dir) = store();
        let mut segment = open(&dir);
        segment.take(0, &[Bytes::from_static(b"record")]).unwrap();
        segment.prepare();
        // Written, because others are being put behind it.
        segment.take(6, &[vec![0; 100].into()]).unwrap();
        segment.make_way(u64::MAX).unwrap();
        assert_eq!((segment.stored, segment.length), (106, 2 * AHEAD));
        segment.take(106, &[vec![0; 200].into()]).unwrap();
        segment.take(306, &[Bytes::from_static(b"record")]).unwrap();
        assert_eq!((segment.stored, segment.length), (312, 2 * AHEAD));
        let beyond = vec![0; 3 * AHEAD as usize];
        segment.take(312, &[beyond.into()]).unwrap();
        assert_eq!((segment.stored, segment.length), (312 + 3 * AHEAD, 312 + 3 * AHEAD));
        segment.settle().unwrap();
        let stored = fs::read(segment.partial()).unwrap();
        assert_eq!(stored.len() as u64, 312 + 3 * AHEAD);
        assert_eq!((&stored[..6], &stored[306..312]), (&b"record"[..], &b"record"[..]));
        let others = [&stored[6..306], &stored[312..]].concat();
        assert!(is_zero(&others));
    }

    #[test]
    fn what_an_earlier_process_left_is_written_anew() {
        let (_home, dir) = store();
        let one: SegmentName = "000000010000000000000001".parse().unwrap();
        let two: SegmentName = "000000010000000000000002".parse().unwrap();
        fs::write(dir.streaming_segment(one), b"whole").unwrap();
        fs::hard_link(dir.streaming_segment(one), dir.streaming_partial(one)).unwrap();
        fs::write(dir.streaming_partial(two), b"begun").unwrap();
        // Kept open, so that its number is not used again.
        let old = File::open(dir.streaming_partial(two)).unwrap();

        renew_inherited(&dir, SegmentSize::DEFAULT).unwrap();

        let renewed = fs::metadata(dir.streaming_partial(two)).unwrap();
        assert_ne!(renewed.ino(), old.metadata().unwrap().ino());
        assert_eq!(fs::read(dir.streaming_partial(two)).unwrap(), b"begun");
        assert!(!dir.streaming_partial(one).exists());
        assert_eq!(fs::read(dir.streaming_segment(one)).unwrap(), b"whole");
        assert_eq!(fs::read_dir(dir.streaming()).unwrap().count(), 2);
    }
}
