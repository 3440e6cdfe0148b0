//! The archive: how a segment gets into it, from a raw file in `streaming/` or as it comes.
//!
//! Each step is durable before the next begins: the compressed file under its final name, its
//! record in the index, and only then the raw file goes. A crash between any two of them leaves a
//! raw file beside an archived one; then the two are compared, and what is missing is done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgwire_stream::{SegmentName, SegmentSize};

use super::open_segment::SegmentError;
use crate::catalog::judge::Judge;
use crate::catalog::{WalFindings, WalIndex, WalIndexError, WalIndexRecord, WalIndexWriters};
use crate::failure::Failure;
use crate::storage::compression::{self, CompressedWriter, Method};
use crate::storage::durable::{self, AtomicFile};
use crate::storage::{
    ArchivedWal, Codec, Crc32cWriter, HashingWriter, LockError, LockKind, Plain, ServerDir,
    ServerLock, Sha256Sum, StorageError, Stored,
};

/// How much is read at a time.
const CHUNK: usize = 256 << 10;

/// How much WAL is compressed together. Larger frames are hardly smaller when they are stored, and
/// take their memory twice for each thread that compresses.
const FRAME: usize = 256 << 10;

/// The most effort with which WAL is compressed as it comes. More takes longer than writing it raw,
/// which makes it durable sooner.
const QUICK_LEVEL: i32 = 6;

/// Why a segment could not be archived. It stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The raw file is no whole segment.
    #[error("`{}` has {found} bytes instead of {expected}", path.display())]
    WrongSize {
        /// The raw file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The size of a segment.
        expected: u64,
    },
    /// Another file of this segment is archived.
    #[error("`{}` differs from `{}`, which is archived already", raw.display(), archived.display())]
    Differs {
        /// The raw file.
        raw: PathBuf,
        /// The archived one.
        archived: PathBuf,
    },
    /// The index cannot be used.
    #[error(transparent)]
    Index(#[from] WalIndexError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Failure for ArchiveError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::WrongSize { .. } => None,
            Self::Differs { raw, .. } => Some(format!(
                "`{}` stays where it is; one of the two is not what the server sent",
                raw.display()
            )),
            Self::Index(error) => error.hint(),
            Self::Storage(error) => error.hint(),
        }
    }
}

/// The archive of one server, held for as long as this lives.
pub(crate) struct Archive {
    dir: ServerDir,
    segment_size: SegmentSize,
    method: Method,
    indexes: Mutex<WalIndexWriters>,
    notes: Mutex<Notes>,
}

/// What is known of segments before they are archived, and records that wait for it.
#[derive(Default)]
struct Notes {
    /// The stream notes what it finds in segments from this one on, of its timeline.
    expected: Option<SegmentName>,
    findings: BTreeMap<SegmentName, WalFindings>,
    /// Records of segments that were archived before all was known of them.
    unfinished: BTreeMap<SegmentName, WalIndexRecord>,
    /// Records to be added with the next one.
    finished: Vec<WalIndexRecord>,
    /// Segments that must not be archived yet.
    held: BTreeSet<SegmentName>,
    /// Segments that are not any more what the stream has seen, and are looked at again.
    mended: BTreeSet<SegmentName>,
}

/// How many segments notes are kept of.
const MOST_NOTES: usize = 64;

impl Notes {
    fn is_expected(&self, segment: SegmentName) -> bool {
        let noted = |from: SegmentName| from <= segment && from.timeline() == segment.timeline();
        self.expected.is_some_and(noted) && !self.mended.contains(&segment)
    }
}

fn keep_some<T>(notes: &mut BTreeMap<SegmentName, T>) {
    while notes.len() > MOST_NOTES {
        notes.pop_first();
    }
}

/// A segment that is being compressed into a file without a name.
pub(crate) struct Storing<F: Write> {
    file: ArchivedWal,
    target: PathBuf,
    writer: Crc32cWriter<CompressedWriter<HashingWriter<F>>>,
}

/// A segment that is compressed, in a file without a name.
pub(crate) struct Compressed {
    file: ArchivedWal,
    temporary: AtomicFile,
    plain: Plain,
    stored: Stored,
}

/// How two files with WAL of the same segment compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Same,
    /// The raw one goes on where the archived one ends.
    RawIsLonger,
    ArchivedIsLonger,
    Different,
}

impl Archive {
    /// Takes the archive's lock.
    pub(crate) fn open(
        dir: ServerDir,
        segment_size: SegmentSize,
        method: Method,
    ) -> Result<Self, LockError> {
        let lock = Arc::new(ServerLock::try_acquire(&dir, LockKind::Archive)?);
        let indexes = Mutex::new(WalIndexWriters::new(&dir, segment_size, lock));
        let method = method.with_frame_size(FRAME);
        Ok(Self { dir, segment_size, method, indexes, notes: Mutex::default() })
    }

    pub(super) fn dir(&self) -> &ServerDir {
        &self.dir
    }

    pub(super) fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that what is found in segments from this one on will be noted.
    pub(super) fn expect_notes(&self, from: SegmentName) {
        self.notes().expected = Some(from);
    }

    /// Notes what was found in a segment, archived or not.
    pub(super) fn note(&self, segment: SegmentName, findings: WalFindings) {
        let mut notes = self.notes();
        if notes.mended.contains(&segment) {
            return;
        }
        if let Some(record) = notes.unfinished.remove(&segment) {
            notes.finished.push(record.with(findings));
        } else {
            notes.findings.insert(segment, findings);
            keep_some(&mut notes.findings);
        }
    }

    /// Keeps a segment from being archived, or no longer. What was found in it must be found anew
    /// if it was `mended`.
    pub(super) fn hold(&self, segment: SegmentName, held: bool, mended: bool) {
        let mut notes = self.notes();
        if held {
            notes.held.insert(segment);
        } else {
            notes.held.remove(&segment);
        }
        if mended {
            notes.findings.remove(&segment);
            notes.mended.insert(segment);
        }
    }

    pub(super) fn is_held(&self, segment: SegmentName) -> bool {
        self.notes().held.contains(&segment)
    }

    /// Records what has become known since the last record.
    pub(super) fn record_rest(&self) -> Result<(), ArchiveError> {
        self.append(None)
    }

    /// Archives one file, whatever an earlier attempt has left undone.
    pub(super) fn archive(&self, segment: SegmentName, partial: bool) -> Result<(), ArchiveError> {
        let raw = if partial {
            self.dir.streaming_partial(segment)
        } else {
            self.dir.streaming_segment(segment)
        };
        let Some(found) = durable::file_size(&raw)? else { return Ok(()) };
        let expected = u64::from(self.segment_size.bytes());
        if !partial && found != expected {
            return Err(ArchiveError::WrongSize { path: raw, found, expected });
        }
        // A timeline that was left before anything was written: nothing to keep.
        if found > 0 {
            match self.archived_before(segment, partial)? {
                Some(file) => self.complete(&raw, file)?,
                None => self.store(&raw, segment, partial)?,
            }
        }
        Ok(durable::remove_file(&raw)?)
    }

    fn archived_before(
        &self,
        segment: SegmentName,
        partial: bool,
    ) -> Result<Option<ArchivedWal>, StorageError> {
        for codec in Codec::ALL {
            let file = ArchivedWal { segment, partial, codec };
            if durable::file_size(&self.dir.archived_file(file))?.is_some() {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Compresses a raw file, and keeps the result.
    fn store(&self, raw: &Path, segment: SegmentName, partial: bool) -> Result<(), ArchiveError> {
        let mut judge = self.judge(segment);
        let mut storing = self.begin(segment, partial, self.method, |file| file)?;
        let mut source = File::open(raw).map_err(StorageError::of("open", raw))?;
        let mut chunk = vec![0; CHUNK];
        loop {
            match fill(&mut source, &mut chunk).map_err(StorageError::of("read", raw))? {
                [] => break,
                bytes => {
                    storing.write(bytes)?;
                    if let Some(judge) = &mut judge {
                        judge.feed(bytes);
                    }
                }
            }
        }
        if let Some(mut judge) = judge {
            judge.read_on(&self.dir, segment);
            if let Some(findings) = judge.findings(segment, true) {
                let mut notes = self.notes();
                notes.mended.remove(&segment);
                notes.findings.insert(segment, findings);
            }
        }
        self.keep(storing.finish(|file| file)?)
    }

    /// Who finds out what nobody notes.
    fn judge(&self, segment: SegmentName) -> Option<Judge> {
        let notes = self.notes();
        if notes.findings.contains_key(&segment) || notes.is_expected(segment) {
            return None;
        }
        let number = segment.number(self.segment_size).ok()?;
        Some(Judge::new(self.segment_size, segment.timeline(), number))
    }

    fn begin<F: Write>(
        &self,
        segment: SegmentName,
        partial: bool,
        method: Method,
        sink: impl FnOnce(AtomicFile) -> F,
    ) -> Result<Storing<F>, StorageError> {
        let file = ArchivedWal { segment, partial, codec: method.codec };
        let target = self.dir.archived_file(file);
        durable::create_dir(&self.dir.wal_dir(segment), self.dir.access())?;
        let sink = HashingWriter::new(sink(AtomicFile::create(&target, self.dir.access())?));
        let compressor = CompressedWriter::new(sink, method);
        let compressor = compressor.map_err(StorageError::of("compress into", &target))?;
        Ok(Storing { file, target, writer: Crc32cWriter::new(compressor) })
    }

    /// Begins to compress a segment that is about to come, with all processors; `None` if that
    /// would not be quicker than to write it raw first, or some of it is archived already.
    pub(super) fn begin_direct<F: Write>(
        &self,
        segment: SegmentName,
        sink: impl FnOnce(AtomicFile) -> F,
    ) -> Result<Option<Storing<F>>, StorageError> {
        let Method { codec, level, .. } = self.method;
        let quick = match codec {
            Codec::Zstd => level <= QUICK_LEVEL,
            Codec::Lz4 => true,
            // One thread alone, or nothing to do.
            Codec::Gzip | Codec::None => false,
        };
        let is_archived = || {
            let whole = self.archived_before(segment, false)?;
            Ok::<_, StorageError>(whole.or(self.archived_before(segment, true)?).is_some())
        };
        if !quick
            || is_archived()?
            || durable::file_size(&self.dir.streaming_segment(segment))?.is_some()
        {
            return Ok(None);
        }
        let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.begin(segment, false, self.method.with_workers(workers), sink).map(Some)
    }

    /// Gives a compressed segment its name, and records it. Durable on return.
    pub(super) fn keep(&self, compressed: Compressed) -> Result<(), ArchiveError> {
        let Compressed { file, temporary, plain, stored } = compressed;
        temporary.commit()?;
        self.record(WalIndexRecord::new(file, plain, stored))
    }

    /// Records a segment with what is known of it by now.
    fn record(&self, record: WalIndexRecord) -> Result<(), ArchiveError> {
        let segment = record.file.segment;
        let mut notes = self.notes();
        let expected = notes.is_expected(segment);
        let record = match notes.findings.remove(&segment) {
            Some(findings) => record.with(findings),
            None => {
                if expected {
                    notes.unfinished.insert(segment, record.clone());
                    keep_some(&mut notes.unfinished);
                }
                record
            }
        };
        drop(notes);
        self.append(Some(record))
    }

    fn append(&self, record: Option<WalIndexRecord>) -> Result<(), ArchiveError> {
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut records = std::mem::take(&mut self.notes().finished);
        records.extend(record);
        if records.is_empty() { Ok(()) } else { Ok(indexes.append(&records)?) }
    }

    /// The file is archived already. Its record may be missing, and a cut tail may have grown.
    fn complete(&self, raw: &Path, file: ArchivedWal) -> Result<(), ArchiveError> {
        let archived = self.dir.archived_file(file);
        match compare(raw, &archived, file.codec)? {
            Comparison::Same => {}
            Comparison::ArchivedIsLonger if file.partial => {}
            Comparison::RawIsLonger if file.partial => {
                return self.store(raw, file.segment, true);
            }
            _ => return Err(ArchiveError::Differs { raw: raw.to_owned(), archived }),
        }
        // Whoever gave it its name may not have come so far as to make that durable.
        durable::sync_dir(&self.dir.wal_dir(file.segment))?;
        // One that is damaged is made again when the record is added.
        if let Ok(Some(_)) = WalIndex::of(&self.dir, file.segment).find(file) {
            durable::sync_file(&self.dir.wal_index(file.segment))?;
            return Ok(());
        }
        let plain = Plain::of_reader(compression::open(&archived, file.codec)?)
            .map_err(StorageError::of("read", &archived))?;
        let stored = Sha256Sum::of_reader(compression::open(&archived, Codec::None)?)
            .map_err(StorageError::of("read", &archived))?;
        self.record(WalIndexRecord::new(file, plain, stored))
    }
}

impl<F: Write> Storing<F> {
    pub(super) fn write(&mut self, plain: &[u8]) -> Result<(), StorageError> {
        self.writer.write_all(plain).map_err(StorageError::of("compress into", &self.target))
    }

    /// Compresses what is left.
    pub(super) fn finish(
        self,
        file: impl FnOnce(F) -> AtomicFile,
    ) -> Result<Compressed, StorageError> {
        let (compressor, plain) = self.writer.finish();
        let finished = compressor.finish().map_err(StorageError::of("compress into", &self.target));
        let (sink, stored) = finished?.0.finish();
        Ok(Compressed { file: self.file, temporary: file(sink), plain, stored })
    }
}

impl Compressed {
    /// Gives back what was compressed, in pieces.
    pub(super) fn read_back(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), SegmentError>,
    ) -> Result<(), SegmentError> {
        let path = self.temporary.target();
        let open = || -> io::Result<_> {
            let mut file = self.temporary.file().try_clone()?;
            file.rewind()?;
            compression::reader(file, self.file.codec)
        };
        let mut source = open().map_err(StorageError::of("read", path))?;
        let mut chunk = vec![0; CHUNK];
        loop {
            match fill(&mut source, &mut chunk).map_err(StorageError::of("read", path))? {
                [] => return Ok(()),
                bytes => take(bytes)?,
            }
        }
    }
}

fn compare(raw: &Path, archived: &Path, codec: Codec) -> Result<Comparison, StorageError> {
    let mut left = File::open(raw).map_err(StorageError::of("open", raw))?;
    let mut right = compression::open(archived, codec)?;
    let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let a = fill(&mut left, &mut a).map_err(StorageError::of("read", raw))?;
        let b = fill(&mut right, &mut b).map_err(StorageError::of("read", archived))?;
        if a == b {
            if a.is_empty() {
                return Ok(Comparison::Same);
            }
        } else if a.starts_with(b) {
            return Ok(Comparison::RawIsLonger);
        } else if b.starts_with(a) {
            return Ok(Comparison::ArchivedIsLonger);
        } else {
            return Ok(Comparison::Different);
        }
    }
}

/// Fills the buffer as far as the source goes.
fn fill<'a>(source: &mut impl Read, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(buffer.get(..filled).unwrap_or_default())
}
