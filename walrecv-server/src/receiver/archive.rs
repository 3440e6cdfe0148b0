//! The archive: how a segment gets into it, from a raw file in `streaming/` or as it comes.
//!
//! Each step is durable before the next begins: the packed file under its final name, its record
//! in the index, and only then the raw file goes. A crash between any two of them leaves a raw file
//! beside an archived one; then the two are compared, and what is missing is done.
//!
//! An archived file that is encrypted to somebody else cannot be compared. Its record can, as long
//! as the file is what the record says. Where there is no such record, the archived file is what
//! an interrupted attempt at this very raw file has left, and the attempt is repeated. A beginning
//! of a segment that cannot be compared is set apart and not replaced: if its record was lost, it
//! may be the longer one.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgwire_stream::{SegmentName, SegmentSize};

use super::notes::Notes;
use super::open_segment::SegmentError;
use super::recognise::{Comparison, compare, compare_with_record, fill};
use crate::catalog::judge::Judge;
use crate::catalog::{WalIndex, WalIndexError, WalIndexRecord, WalIndexWriters, archived_file};
use crate::failure::{Failure, in_one_line};
use crate::hooks::{Event, HookError, Hooks, Interrupted, WalFacts};
use crate::settings::HookEvent;
use crate::storage::durable::{self, AtomicFile, Put};
use crate::storage::{
    ArchivedWal, ArchivedWriter, Codec, DecryptionError, Form, KeyFile, LockError, LockKind,
    Packing, Plain, ServerDir, ServerLock, Sha256Sum, StorageError, Stored, compression,
    encryption,
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
    /// What is archived already is encrypted, and cannot be decrypted.
    #[error(transparent)]
    Decryption(#[from] DecryptionError),
    /// The index cannot be used.
    #[error(transparent)]
    Index(#[from] WalIndexError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A script of the operator's does not allow it.
    #[error(transparent)]
    Hook(#[from] HookError),
}

impl Failure for ArchiveError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::WrongSize { .. } => None,
            Self::Differs { raw, .. } => Some(format!(
                "`{}` stays where it is; one of the two is not what the server sent",
                raw.display()
            )),
            Self::Decryption(error) => error.hint(),
            Self::Index(error) => error.hint(),
            Self::Storage(error) => error.hint(),
            Self::Hook(error) => error.hint(),
        }
    }
}

/// The archive of one server, held for as long as this lives.
pub(crate) struct Archive {
    dir: ServerDir,
    segment_size: SegmentSize,
    packing: Packing,
    /// How those are packed that are compressed as they come: by all processors.
    direct: Packing,
    keys: Option<KeyFile>,
    /// Whether it is found out what is in segments.
    validates: bool,
    indexes: Mutex<WalIndexWriters>,
    notes: Notes,
    hooks: Hooks,
}

/// A segment that is being packed into a file without a name.
pub(crate) struct Storing<F: Write> {
    file: ArchivedWal,
    target: PathBuf,
    writer: ArchivedWriter<F>,
}

/// A segment that is packed, in a file without a name.
pub(crate) struct Packed {
    file: ArchivedWal,
    temporary: AtomicFile,
    plain: Plain,
    stored: Stored,
}

impl Archive {
    /// Takes the archive's lock. The keys are to read what is archived already; nothing else needs
    /// any.
    pub(crate) fn open(
        dir: ServerDir,
        segment_size: SegmentSize,
        packing: Packing,
        keys: Option<KeyFile>,
    ) -> Result<Self, LockError> {
        let lock = Arc::new(ServerLock::try_acquire(&dir, LockKind::Archive)?);
        let indexes = WalIndexWriters::new(&dir, segment_size, lock).with_keys(keys.clone());
        let packing = packing.with_method(packing.method().with_frame_size(FRAME));
        let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let direct = packing.with_method(packing.method().with_workers(workers));
        let (indexes, notes) = (Mutex::new(indexes), Notes::default());
        let hooks = Hooks::none(dir.name());
        Ok(Self {
            dir,
            segment_size,
            packing,
            direct,
            keys,
            validates: true,
            indexes,
            notes,
            hooks,
        })
    }

    /// Says which scripts run around the archiving of a file.
    pub(crate) fn with_hooks(mut self, hooks: Hooks) -> Self {
        self.hooks = hooks;
        self
    }

    /// Says whether it is to be found out what is in segments.
    pub(crate) fn with_validation(mut self, validates: bool) -> Self {
        self.validates = validates;
        self
    }

    /// Whether segments are kept as they come.
    pub(super) fn keeps_them_as_they_come(&self) -> bool {
        self.packing.form() == Form::plain(Codec::None)
    }

    pub(super) fn dir(&self) -> &ServerDir {
        &self.dir
    }

    pub(super) fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    /// What is known of its segments.
    pub(super) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Records what has become known since the last record.
    pub(super) fn record_rest(&self) -> Result<(), ArchiveError> {
        self.append(None)
    }

    /// Archives one file by `work`, between the scripts around that. They may take as long as they
    /// like: whoever waits for this must be nobody but the archiver.
    pub(super) fn between_scripts(
        &self,
        segment: SegmentName,
        partial: bool,
        interrupted: Interrupted<'_>,
        work: impl FnOnce() -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        if !self.hooks.has(HookEvent::Archive) {
            return work();
        }
        let Some(raw) = WalFacts::raw(segment, partial, &self.raw(segment, partial)) else {
            return work();
        };
        self.hooks.before(&Event::Archive(raw.clone()), interrupted)?;
        let outcome = work();
        let error = outcome.as_ref().err().map(|error| in_one_line(error));
        let archived = archived_file(&self.dir, segment, partial).ok().flatten();
        let archived = archived.and_then(|file| WalFacts::archived(&self.dir, file));
        let event = Event::Archive(archived.unwrap_or(raw));
        self.hooks.after(&event, error.as_deref(), interrupted);
        outcome
    }

    fn raw(&self, segment: SegmentName, partial: bool) -> PathBuf {
        match partial {
            true => self.dir.streaming_partial(segment),
            false => self.dir.streaming_segment(segment),
        }
    }

    /// Archives one file, whatever an earlier attempt has left undone.
    pub(super) fn archive(&self, segment: SegmentName, partial: bool) -> Result<(), ArchiveError> {
        let raw = self.raw(segment, partial);
        let Some(found) = durable::file_size(&raw)? else { return Ok(()) };
        let expected = u64::from(self.segment_size.bytes());
        if !partial && found != expected {
            return Err(ArchiveError::WrongSize { path: raw, found, expected });
        }
        // A timeline that was left before anything was written: nothing to keep.
        if found > 0 {
            match archived_file(&self.dir, segment, partial)? {
                Some(file) => self.complete(&raw, file)?,
                None if !partial && self.keeps_them_as_they_come() => {
                    return self.take_over(&raw, segment);
                }
                None => self.store(&raw, segment, partial)?,
            }
        }
        Ok(durable::remove_file(&raw)?)
    }

    /// Packs a raw file, and keeps the result.
    fn store(&self, raw: &Path, segment: SegmentName, partial: bool) -> Result<(), ArchiveError> {
        let mut storing = self.begin(segment, partial, &self.packing, |file| file)?;
        self.read_raw(raw, segment, |bytes| storing.write(bytes))?;
        self.keep(storing.finish(|file| file)?)
    }

    /// Moves a raw segment that is to be kept as it came. Its record comes first: an archived file
    /// that has none would never get one.
    fn take_over(&self, raw: &Path, segment: SegmentName) -> Result<(), ArchiveError> {
        let file = ArchivedWal { segment, partial: false, form: self.packing.form() };
        let sum = self.notes.take_sum(segment).filter(|_| !self.is_to_be_judged(segment));
        let plain = match sum {
            Some(plain) => plain,
            None => {
                let mut plain = Plain::default();
                self.read_raw(raw, segment, |bytes| {
                    plain.add(bytes);
                    Ok(())
                })?;
                plain
            }
        };
        let target = self.dir.archived_file(file);
        durable::create_dir(&self.dir.wal_dir(segment), self.dir.access())?;
        self.record(WalIndexRecord::raw(file, plain))?;
        match durable::rename_file(raw, &target)? {
            Put::Stored => Ok(()),
            Put::Exists => Err(ArchiveError::Differs { raw: raw.to_owned(), archived: target }),
        }
    }

    /// Reads a raw file, and notes what is found in it where nobody else does.
    fn read_raw(
        &self,
        raw: &Path,
        segment: SegmentName,
        mut take: impl FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut judge = self.judge(segment);
        let mut source = File::open(raw).map_err(StorageError::of("open", raw))?;
        let mut chunk = vec![0; CHUNK];
        loop {
            match fill(&mut source, &mut chunk).map_err(StorageError::of("read", raw))? {
                [] => break,
                bytes => {
                    take(bytes)?;
                    if let Some(judge) = &mut judge {
                        judge.feed(bytes);
                    }
                }
            }
        }
        let Some(mut judge) = judge else { return Ok(()) };
        judge.read_on(&self.dir, self.keys.as_ref(), segment);
        if let Some(findings) = judge.findings(segment, true) {
            self.notes.note_unseen(segment, findings);
        }
        Ok(())
    }

    /// Whether nobody else finds out what is in a segment, and somebody shall.
    fn is_to_be_judged(&self, segment: SegmentName) -> bool {
        self.validates && self.notes.is_unseen(segment)
    }

    /// Who finds out what nobody notes.
    fn judge(&self, segment: SegmentName) -> Option<Judge> {
        if !self.is_to_be_judged(segment) {
            return None;
        }
        let number = segment.number(self.segment_size).ok()?;
        Some(Judge::new(self.segment_size, segment.timeline(), number))
    }

    fn begin<F: Write>(
        &self,
        segment: SegmentName,
        partial: bool,
        packing: &Packing,
        sink: impl FnOnce(AtomicFile) -> F,
    ) -> Result<Storing<F>, StorageError> {
        let file = ArchivedWal { segment, partial, form: packing.form() };
        let target = self.dir.archived_file(file);
        durable::create_dir(&self.dir.wal_dir(segment), self.dir.access())?;
        let writer = ArchivedWriter::create(&target, self.dir.access(), packing, sink)?;
        Ok(Storing { file, target, writer })
    }

    /// Begins to compress a segment that is about to come, with all processors; `None` if that
    /// would not be quicker than to write it raw first, or some of it is archived already.
    ///
    /// `None` as well if it is to be encrypted: it may have to be [read
    /// back](Packed::read_back), and the keys for that are elsewhere. And if scripts run around the
    /// archiving: reception waits for none.
    pub(super) fn begin_direct<F: Write>(
        &self,
        segment: SegmentName,
        sink: impl FnOnce(AtomicFile) -> F,
    ) -> Result<Option<Storing<F>>, StorageError> {
        let method = self.packing.method();
        let quick = match method.codec {
            Codec::Zstd => method.level <= QUICK_LEVEL,
            Codec::Lz4 => true,
            // One thread alone, or nothing to do.
            Codec::Gzip | Codec::None => false,
        };
        let is_archived = || {
            let whole = archived_file(&self.dir, segment, false)?;
            Ok::<_, StorageError>(whole.or(archived_file(&self.dir, segment, true)?).is_some())
        };
        if !quick
            || self.packing.form().encrypted
            || self.hooks.has(HookEvent::Archive)
            || is_archived()?
            || durable::file_size(&self.dir.streaming_segment(segment))?.is_some()
        {
            return Ok(None);
        }
        self.begin(segment, false, &self.direct, sink).map(Some)
    }

    /// Gives a packed segment its name, and records it. Durable on return.
    pub(super) fn keep(&self, packed: Packed) -> Result<(), ArchiveError> {
        let Packed { file, temporary, plain, stored } = packed;
        temporary.commit()?;
        self.record(WalIndexRecord::new(file, plain, stored))
    }

    /// Records a segment with what is known of it by now.
    fn record(&self, record: WalIndexRecord) -> Result<(), ArchiveError> {
        let record = self.notes.complete(record);
        self.append(Some(record))
    }

    fn indexes(&self) -> MutexGuard<'_, WalIndexWriters> {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, record: Option<WalIndexRecord>) -> Result<(), ArchiveError> {
        let mut indexes = self.indexes();
        let mut records = self.notes.take_finished();
        records.extend(record);
        if records.is_empty() { Ok(()) } else { Ok(indexes.append(&records)?) }
    }

    /// The file is archived already. Its record may be missing, and a cut tail may have grown.
    fn complete(&self, raw: &Path, file: ArchivedWal) -> Result<(), ArchiveError> {
        let archived = self.dir.archived_file(file);
        let compared = match compare(raw, &archived, file.form, self.keys.as_ref()) {
            Err(error) if error.is_for_want_of_keys() => match self.record_of(file)? {
                None => {
                    if file.partial {
                        self.set_apart(&archived, &error)?;
                    }
                    return self.store(raw, file.segment, file.partial);
                }
                Some(record) => match compare_with_record(raw, &record)? {
                    Some(compared) => compared,
                    None => return self.set_apart(raw, &error),
                },
            },
            compared => compared?,
        };
        match compared {
            Comparison::Same => {}
            Comparison::ArchivedIsLonger if file.partial => {}
            Comparison::RawIsLonger if file.partial => {
                self.store(raw, file.segment, true)?;
                // It may have been stored in another form, and then still be there.
                if file.form != self.packing.form() {
                    durable::remove_file(&archived)?;
                }
                return Ok(());
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
        let plain = Plain::of_reader(encryption::open(&archived, file.form, self.keys.as_ref())?)
            .map_err(StorageError::of("read", &archived))?;
        self.record(WalIndexRecord::new(file, plain, stored(&archived)?))
    }

    /// The record of a file, if the file is still what the record says.
    fn record_of(&self, file: ArchivedWal) -> Result<Option<WalIndexRecord>, ArchiveError> {
        let Some(record) = self.indexes().find(file)? else { return Ok(None) };
        let stored = stored(&self.dir.archived_file(file))?;
        Ok((record.stored_sha256 == Some(stored.sha256)).then_some(record))
    }

    /// Moves a file to where an operator looks at it; nothing is lost.
    fn set_apart(&self, path: &Path, reason: &DecryptionError) -> Result<(), ArchiveError> {
        let errors = self.dir.errors();
        durable::create_dir(&errors, self.dir.access())?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        for number in 1u64.. {
            let apart = errors.join(format!("{name}.{number}"));
            if durable::rename_file(path, &apart)? == Put::Stored {
                let (path, apart) = (path.display(), apart.display());
                tracing::error!(%path, %apart, %reason, "set apart: it cannot be compared");
                break;
            }
        }
        Ok(())
    }
}

/// Size and checksum of a file as it is stored.
fn stored(path: &Path) -> Result<Stored, StorageError> {
    File::open(path).and_then(Sha256Sum::of_reader).map_err(StorageError::of("read", path))
}

impl<F: Write> Storing<F> {
    pub(super) fn write(&mut self, plain: &[u8]) -> Result<(), StorageError> {
        self.writer.write_all(plain).map_err(StorageError::of("write", &self.target))
    }

    /// Packs what is left.
    pub(super) fn finish(self, file: impl FnOnce(F) -> AtomicFile) -> Result<Packed, StorageError> {
        let finished = self.writer.finish().map_err(StorageError::of("write", &self.target));
        let (plain, stored, sink) = finished?;
        Ok(Packed { file: self.file, temporary: file(sink), plain, stored })
    }
}

impl Packed {
    /// Gives back what was compressed, in pieces; what is encrypted, nobody gets back.
    pub(super) fn read_back(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), SegmentError>,
    ) -> Result<(), SegmentError> {
        let path = self.temporary.target();
        let open = || -> io::Result<_> {
            let mut file = self.temporary.file().try_clone()?;
            file.rewind()?;
            compression::reader(file, self.file.form.codec)
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
