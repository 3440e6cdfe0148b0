//! What WAL is held, and reading it.
//!
//! A segment moves from `streaming/<segment>.partial` to `streaming/<segment>` to `wals/`, and is
//! dropped from one place only when it is in the next. Whoever looks in this order while another
//! process moves it finds it in one place or another.

mod error;

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pgwire_stream::{
    Lsn, SegmentName, SegmentNumber, SegmentSize, TimelineHistory, TimelineId, WalFileName,
};

pub use self::error::WalError;
use super::coverage::{Absence, Coverage, Gap, Reach};
use super::journal;
use super::partial::received_length;
use super::wal_index::WalIndex;
use crate::storage::{
    ArchivedWal, Codec, Form, KeyFile, ServerDir, StorageError, durable, encryption,
};

/// The WAL that is held for one server.
#[derive(Clone, Debug)]
pub struct WalStore {
    server: ServerDir,
    segment_size: SegmentSize,
    keys: Option<KeyFile>,
}

/// How WAL lies where it is received.
const RAW: Form = Form::plain(Codec::None);

/// Where a segment is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Whole, in the archive.
    Archived {
        /// The file.
        path: PathBuf,
        /// How it is stored.
        form: Form,
    },
    /// Whole and raw, not archived yet.
    Streaming {
        /// The file.
        path: PathBuf,
    },
    /// Only its beginning: it is being received, or its timeline was left within it.
    Partial {
        /// The file.
        path: PathBuf,
        /// How it is stored: as it is, unless it is in the archive.
        form: Form,
        /// How much WAL is in it. Of one that is being received, it may be more by now.
        length: u64,
    },
}

/// As many directories are looked for by their names; if there may be more, they are listed.
const FEW: u64 = 64;

/// The segments that somebody asks about.
pub(super) struct Wanted<'a> {
    /// Of the timelines in this history; of every timeline without one.
    pub(super) history: Option<&'a TimelineHistory>,
    pub(super) first: SegmentNumber,
    pub(super) last: SegmentNumber,
}

impl Wanted<'_> {
    fn has(&self, segment: SegmentName, size: SegmentSize) -> bool {
        self.has_timeline(segment)
            && segment.number(size).is_ok_and(|n| (self.first..=self.last).contains(&n))
    }

    /// Whether it may have a segment of the directory whose first segment this is.
    fn has_some_of(&self, folder: SegmentName, size: SegmentSize) -> bool {
        let others = segments_per_folder(size) - 1;
        self.has_timeline(folder)
            && folder.number(size).is_ok_and(|first| {
                first <= self.last && first.as_u64().saturating_add(others) >= self.first.as_u64()
            })
    }

    fn has_timeline(&self, segment: SegmentName) -> bool {
        self.history.is_none_or(|history| history.contains(segment.timeline()))
    }
}

/// How many segments a directory of the archive has.
pub(super) fn segments_per_folder(size: SegmentSize) -> u64 {
    (1 << 32) / u64::from(size.bytes())
}

impl WalStore {
    /// The WAL of a server whose segments have this size.
    pub fn new(server: &ServerDir, segment_size: SegmentSize) -> Self {
        Self { server: server.clone(), segment_size, keys: None }
    }

    /// The same, where these keys open what is encrypted.
    #[must_use]
    pub fn with_keys(self, keys: Option<&KeyFile>) -> Self {
        Self { keys: keys.cloned(), ..self }
    }

    pub(crate) fn server(&self) -> &ServerDir {
        &self.server
    }

    /// The size of its segments.
    pub fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    /// Where a segment is held; whole if it is whole anywhere.
    ///
    /// # Errors
    /// If a directory or an index cannot be read.
    pub fn find(&self, segment: SegmentName) -> Result<Option<Held>, WalError> {
        let partial = self.streaming_partial(segment)?;
        let path = self.server.streaming_segment(segment);
        if durable::file_size(&path)? == Some(self.segment_size.bytes().into()) {
            return Ok(Some(Held::Streaming { path }));
        }
        if let Some(file) = archived_file(&self.server, segment, false)? {
            let path = self.server.archived_file(file);
            return Ok(Some(Held::Archived { path, form: file.form }));
        }
        // Of two beginnings the longer one: a timeline may be left, and come back to.
        let cut = self.archived_partial(segment)?;
        Ok([partial, cut].into_iter().flatten().max_by_key(Held::length_of_partial))
    }

    /// Reads a segment, decrypted and decompressed; `None` if nothing of it is held.
    ///
    /// A whole segment ends with an error if it does not have the size of one. A partial one ends
    /// where it ended when it was found, although more may have been received since.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(&self, segment: SegmentName) -> Result<Option<WalReader>, WalError> {
        loop {
            let Some(held) = self.find(segment)? else { return Ok(None) };
            match self.open_held(&held) {
                Ok(reader) => return Ok(Some(reader)),
                // It moved on while we looked. It moves twice at most, so this ends.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads a segment from where it was found.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open_held(&self, held: &Held) -> Result<WalReader, WalError> {
        let whole = u64::from(self.segment_size.bytes());
        let (path, form, length) = match held {
            Held::Archived { path, form } => (path, *form, whole),
            Held::Streaming { path } => (path, RAW, whole),
            Held::Partial { path, form, length } => (path, *form, *length),
        };
        let source = encryption::open(path, form, self.keys.as_ref())?;
        let growing = matches!(held, Held::Partial { form: RAW, .. });
        Ok(WalReader { source, path: path.clone(), length, read: 0, growing })
    }

    /// All that is held. Reads every directory of the archive; prefer
    /// [`coverage_between`](Self::coverage_between) where the question is about a part.
    ///
    /// # Errors
    /// If a directory or an index cannot be read.
    pub fn coverage(&self) -> Result<Coverage, WalError> {
        let all = (SegmentNumber::from_u64(0), SegmentNumber::from_u64(u64::MAX));
        self.scan(&Wanted { history: None, first: all.0, last: all.1 })
    }

    /// The timelines newer than this one of which WAL is held.
    ///
    /// # Errors
    /// If a directory or an index cannot be read.
    pub fn timelines_after(&self, timeline: TimelineId) -> Result<BTreeSet<TimelineId>, WalError> {
        let all = (SegmentNumber::from_u64(0), SegmentNumber::from_u64(u64::MAX));
        let wanted = Wanted { history: None, first: all.0, last: all.1 };
        let mut coverage = Coverage::new(self.segment_size);
        self.scan_streaming(&wanted, &mut coverage)?;
        for folder in self.folders()?.into_iter().filter(|folder| folder.timeline() > timeline) {
            self.scan_folder(folder, &wanted, &mut coverage)?;
        }
        let held = coverage.spans().into_iter().map(|span| span.timeline);
        Ok(held.filter(|&held| held > timeline).collect())
    }

    /// Why a byte is not held, if it is not.
    ///
    /// # Errors
    /// If what is recorded of it cannot be read.
    pub fn absence(&self, timeline: TimelineId, lsn: Lsn) -> Result<Absence, WalError> {
        Ok(self.nothing()?.absence(timeline, lsn))
    }

    /// What is held of a history's WAL from `from` to `to`.
    ///
    /// # Errors
    /// If a directory or an index cannot be read.
    pub fn coverage_between(
        &self,
        history: &TimelineHistory,
        from: Lsn,
        to: Lsn,
    ) -> Result<Coverage, WalError> {
        let first = self.segment_size.segment_of(from);
        let last = self.segment_size.last_byte_segment_of(to);
        self.scan(&Wanted { history: Some(history), first, last })
    }

    /// The files of the archive that hold a history's WAL from `from` to `to` and are encrypted.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub fn encrypted_between(
        &self,
        history: &TimelineHistory,
        from: Lsn,
        to: Lsn,
    ) -> Result<Vec<ArchivedWal>, WalError> {
        let first = self.segment_size.segment_of(from);
        let last = self.segment_size.last_byte_segment_of(to);
        let wanted = Wanted { history: Some(history), first, last };
        let size = self.segment_size;
        // A timeline may have gone on where it was left.
        let is_on_the_way = |segment: SegmentName| {
            segment.number(size).is_ok_and(|number| {
                let timelines =
                    history.timelines_between(size.start_of(number), size.end_of(number));
                timelines.contains(&segment.timeline())
            })
        };
        let mut encrypted = Vec::new();
        for folder in self.folders_of(&wanted)? {
            self.for_each_file(folder, &wanted, |file| {
                if file.form.encrypted && is_on_the_way(file.segment) {
                    encrypted.push(file);
                }
            })?;
        }
        encrypted.sort();
        Ok(encrypted)
    }

    /// Whether the WAL of a history is held from `from` to `to`: something to show, but not to
    /// promise anything on, because it may not be durable yet.
    ///
    /// # Errors
    /// If a directory or an index cannot be read.
    pub fn reach(&self, history: &TimelineHistory, from: Lsn, to: Lsn) -> Result<Reach, WalError> {
        let mut coverage = self.coverage_between(history, from, to)?;
        match self.reach_in(&mut coverage, history, from, to)? {
            // Nothing behind the part was looked at.
            Reach::Missing(gap) if !gap.passed => {
                let passed = self.resumes(history, self.segment_size.segment_of(gap.from))?;
                Ok(Reach::Missing(Gap { passed, ..gap }))
            }
            reach => Ok(reach),
        }
    }

    /// The same, as far as this coverage goes. What a second look finds is added to it: a file may
    /// be missed in a directory in which another process renames it, but is found by its name.
    ///
    /// # Errors
    /// If a directory or an index cannot be read.
    pub fn reach_in(
        &self,
        coverage: &mut Coverage,
        history: &TimelineHistory,
        from: Lsn,
        to: Lsn,
    ) -> Result<Reach, WalError> {
        loop {
            let reach = coverage.reach(history, from, to);
            match reach {
                Reach::Missing(gap) if self.look_again(coverage, history, &gap)? => {}
                _ => return Ok(reach),
            }
        }
    }

    /// Whether the WAL of a history is held from `from` to `to`, and will be after a power cut.
    ///
    /// The receiver, usually another process, appends to a `.partial` segment and syncs it when
    /// it sees fit, so its length alone promises nothing. We sync ourselves what the answer rests
    /// on, after we have looked at the lengths: `fsync` writes back what is in a file, whoever
    /// wrote it. Zeros that lie ahead of what is received do not count as its length. The
    /// directories are synced too, for the names: a segment may just have been renamed. What moves
    /// on meanwhile is durable where it goes before it leaves.
    ///
    /// # Errors
    /// If a directory or an index cannot be read, or something cannot be made durable.
    pub fn durable_reach(
        &self,
        history: &TimelineHistory,
        from: Lsn,
        to: Lsn,
    ) -> Result<Reach, WalError> {
        let reach = self.reach(history, from, to)?;
        if reach != Reach::Covered {
            return Ok(reach);
        }
        let first = self.segment_size.segment_of(from).as_u64();
        let last = self.segment_size.last_byte_segment_of(to).as_u64();
        let coverage = Coverage::new(self.segment_size);
        let mut directories = BTreeSet::from([self.server.streaming(), self.server.wals()]);
        for number in (first..=last).map(SegmentNumber::from_u64) {
            for timeline in coverage.candidates(history, number) {
                let segment = SegmentName::new(timeline, number, self.segment_size);
                for path in
                    [self.server.streaming_partial(segment), self.server.streaming_segment(segment)]
                {
                    sync_if_there(|| durable::sync_file(&path).map(drop))?;
                }
                directories.insert(self.server.wal_dir(segment));
            }
        }
        for directory in directories {
            sync_if_there(|| durable::sync_dir(&directory))?;
        }
        // What was looked at before may have been replaced while it was synced: look again.
        self.reach(history, from, to)
    }

    /// Whether WAL of a history is held behind a segment. The newest directories are looked at first:
    /// nearly always the first one tells.
    fn resumes(&self, history: &TimelineHistory, number: SegmentNumber) -> Result<bool, WalError> {
        let last = SegmentNumber::from_u64(u64::MAX);
        let behind = Wanted { history: Some(history), first: number.next(), last };
        let mut coverage = Coverage::new(self.segment_size);
        self.scan_streaming(&behind, &mut coverage)?;
        for folder in self.folders_of(&behind)?.into_iter().rev() {
            if coverage.resumes(history, number).is_some() {
                break;
            }
            self.scan_folder(folder, &behind, &mut coverage)?;
        }
        Ok(coverage.resumes(history, number).is_some())
    }

    /// The newest position that is held of a timeline.
    ///
    /// # Errors
    /// If a directory or an index cannot be read.
    pub fn end_of(&self, timeline: TimelineId) -> Result<Option<Lsn>, WalError> {
        let history = TimelineHistory::root(timeline);
        let all = Wanted {
            history: Some(&history),
            first: SegmentNumber::from_u64(0),
            last: SegmentNumber::from_u64(u64::MAX),
        };
        // What is received goes ahead of what is archived, but for what was left behind there.
        let mut streaming = Coverage::new(self.segment_size);
        self.scan_streaming(&all, &mut streaming)?;
        let mut archived = None;
        for folder in self.folders_of(&all)?.into_iter().rev() {
            let mut coverage = Coverage::new(self.segment_size);
            self.scan_folder(folder, &all, &mut coverage)?;
            archived = coverage.end_of(timeline);
            if archived.is_some() {
                break;
            }
        }
        Ok(archived.max(streaming.end_of(timeline)))
    }

    /// The archive's directories, `wals/<16 digits>`, each as the name of its first segment.
    pub(super) fn folders(&self) -> Result<Vec<SegmentName>, WalError> {
        let mut folders: Vec<SegmentName> = Vec::new();
        durable::for_each_name(&self.server.wals(), |name| {
            if name.len() == 16 {
                folders.extend(format!("{name}00000000").parse::<SegmentName>());
            }
        })?;
        folders.sort_unstable();
        Ok(folders)
    }

    /// The directories that may have something of this.
    fn folders_of(&self, wanted: &Wanted<'_>) -> Result<Vec<SegmentName>, WalError> {
        let size = self.segment_size;
        let per_folder = segments_per_folder(size);
        let folder = |number: SegmentNumber| number.as_u64() / per_folder;
        let (first, last) = (folder(wanted.first), folder(wanted.last));
        if let Some(history) = wanted.history
            && last - first < FEW
        {
            let (start, end) = (size.start_of(wanted.first), size.end_of(wanted.last));
            let timelines = history.timelines_between(start, end);
            let of = |timeline| {
                (first..=last).map(move |folder| {
                    let number = SegmentNumber::from_u64(folder * per_folder);
                    SegmentName::new(timeline, number, size)
                })
            };
            return Ok(timelines.into_iter().flat_map(of).collect());
        }
        let mut folders = self.folders()?;
        folders.retain(|folder| wanted.has_some_of(*folder, size));
        Ok(folders)
    }

    /// No WAL, but what is known of WAL that is not held.
    pub(super) fn nothing(&self) -> Result<Coverage, WalError> {
        let retired = journal::set_of(&journal::retired(&self.server)?);
        let left_out = journal::set_of(&journal::gaps(&self.server)?);
        Ok(Coverage::new(self.segment_size).knowing(retired, left_out))
    }

    fn scan(&self, wanted: &Wanted<'_>) -> Result<Coverage, WalError> {
        let mut coverage = self.nothing()?;
        // First where segments come from, then where they go to.
        self.scan_streaming(wanted, &mut coverage)?;
        for folder in self.folders_of(wanted)? {
            self.scan_folder(folder, wanted, &mut coverage)?;
        }
        Ok(coverage)
    }

    pub(super) fn scan_streaming(
        &self,
        wanted: &Wanted<'_>,
        coverage: &mut Coverage,
    ) -> Result<(), WalError> {
        for name in durable::list_dir(&self.server.streaming())? {
            match name.to_str().map(str::parse) {
                Some(Ok(WalFileName::Segment(segment)))
                    if wanted.has(segment, self.segment_size) =>
                {
                    let path = self.server.streaming().join(&name);
                    coverage.add(segment, durable::file_size(&path)?.unwrap_or(0));
                }
                Some(Ok(WalFileName::Partial(segment)))
                    if wanted.has(segment, self.segment_size) =>
                {
                    let path = self.server.streaming().join(&name);
                    let length = received_length(&path, self.segment_size.bytes().into())?;
                    coverage.add(segment, length.unwrap_or(0));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads the names in a directory, and no more but for the tails of timelines.
    pub(super) fn scan_folder(
        &self,
        folder: SegmentName,
        wanted: &Wanted<'_>,
        coverage: &mut Coverage,
    ) -> Result<(), WalError> {
        let size = self.segment_size;
        let mut whole: Vec<SegmentNumber> = Vec::new();
        let mut tails: Vec<ArchivedWal> = Vec::new();
        self.for_each_file(folder, wanted, |file| {
            if file.partial {
                tails.push(file);
            } else {
                whole.extend(file.segment.number(size));
            }
        })?;
        whole.sort_unstable();
        for run in whole.chunk_by(|a, b| a.next() == *b || a == b) {
            if let (Some(first), Some(last)) = (run.first(), run.last()) {
                coverage.add_all(folder.timeline(), *first, *last);
            }
        }
        for file in tails {
            coverage.add(file.segment, self.least_length_of_archived_partial(file)?);
        }
        Ok(())
    }

    /// The wanted files in a directory, in no order. Those that lie in the directory of others are
    /// found by nobody.
    fn for_each_file(
        &self,
        folder: SegmentName,
        wanted: &Wanted<'_>,
        mut take: impl FnMut(ArchivedWal),
    ) -> Result<(), StorageError> {
        let size = self.segment_size;
        let Ok(first) = folder.number(size) else { return Ok(()) };
        let numbers = first.as_u64()..first.as_u64() + segments_per_folder(size);
        let belongs = |file: ArchivedWal| {
            file.segment.timeline() == folder.timeline()
                && file.segment.number(size).is_ok_and(|number| numbers.contains(&number.as_u64()))
        };
        durable::for_each_name(&self.server.wal_dir(folder), |name| {
            match name.parse::<ArchivedWal>() {
                Ok(file) if wanted.has(file.segment, size) && belongs(file) => take(file),
                _ => {}
            }
        })
    }

    fn streaming_partial(&self, segment: SegmentName) -> Result<Option<Held>, WalError> {
        let path = self.server.streaming_partial(segment);
        let length = received_length(&path, self.segment_size.bytes().into())?;
        Ok(length.map(|length| Held::Partial { path, form: RAW, length }))
    }

    fn archived_partial(&self, segment: SegmentName) -> Result<Option<Held>, WalError> {
        let mut found = Vec::new();
        // One that grew may be there in its old form, too.
        for form in Form::ALL {
            let file = ArchivedWal { segment, partial: true, form };
            let path = self.server.archived_file(file);
            if durable::file_size(&path)?.is_some() {
                let length = self.length_of_archived_partial(file)?;
                found.push(Held::Partial { path, form, length });
            }
        }
        Ok(found.into_iter().max_by_key(Held::length_of_partial))
    }

    /// The index knows; without it the file must be read, for which an encrypted one needs a key.
    fn length_of_archived_partial(&self, file: ArchivedWal) -> Result<u64, WalError> {
        if let Ok(Some(record)) = WalIndex::of(&self.server, file.segment).find(file) {
            return Ok(record.plain_size);
        }
        let path = self.server.archived_file(file);
        let limit = u64::from(self.segment_size.bytes());
        let mut plain = encryption::open(&path, file.form, self.keys.as_ref())?.take(limit);
        Ok(io::copy(&mut plain, &mut io::sink()).map_err(StorageError::of("read", &path))?)
    }

    /// The same where a wrong answer must only never be too much: no empty one is archived.
    fn least_length_of_archived_partial(&self, file: ArchivedWal) -> Result<u64, WalError> {
        match self.length_of_archived_partial(file) {
            Err(WalError::Decryption(error)) if error.is_for_want_of_keys() => {
                tracing::warn!(%file, "how much WAL is in it is not known without its key");
                Ok(1)
            }
            length => length,
        }
    }

    /// Looks for the missing segment by its names; whether something was found that helps.
    fn look_again(
        &self,
        coverage: &mut Coverage,
        history: &TimelineHistory,
        gap: &Gap,
    ) -> Result<bool, WalError> {
        let number = self.segment_size.segment_of(gap.from);
        let mut found = false;
        for timeline in coverage.candidates(history, number) {
            let segment = SegmentName::new(timeline, number, self.segment_size);
            let length = match self.find(segment)? {
                Some(Held::Partial { length, .. }) => length,
                Some(_) => self.segment_size.bytes().into(),
                None => 0,
            };
            let before = coverage.length(timeline, number);
            coverage.add(segment, length);
            found |= coverage.length(timeline, number) > before;
        }
        Ok(found)
    }
}

/// The file of the archive that holds a segment or its beginning, whatever its form.
///
/// By its names and not by listing the directory, because a list may miss a file while another
/// process renames it; the usual forms are tried first.
///
/// # Errors
/// If the operating system does not tell.
pub fn archived_file(
    server: &ServerDir,
    segment: SegmentName,
    partial: bool,
) -> Result<Option<ArchivedWal>, StorageError> {
    for form in Form::ALL {
        let file = ArchivedWal { segment, partial, form };
        if durable::file_size(&server.archived_file(file))?.is_some() {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

fn sync_if_there(sync: impl FnOnce() -> Result<(), StorageError>) -> Result<(), StorageError> {
    match sync() {
        Err(error) if error.is_not_found() => Ok(()),
        result => result,
    }
}

impl Held {
    /// The file.
    pub fn path(&self) -> &PathBuf {
        match self {
            Self::Archived { path, .. } | Self::Streaming { path } | Self::Partial { path, .. } => {
                path
            }
        }
    }

    fn length_of_partial(&self) -> u64 {
        match self {
            Self::Partial { length, .. } => *length,
            Self::Archived { .. } | Self::Streaming { .. } => u64::MAX,
        }
    }
}

/// The WAL of a segment, decrypted and decompressed. Ends with an error if it is not as long as it
/// must be.
pub struct WalReader {
    source: Box<dyn Read + Send>,
    path: PathBuf,
    length: u64,
    read: u64,
    growing: bool,
}

impl WalReader {
    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes it gives.
    pub fn length(&self) -> u64 {
        self.length
    }

    fn wrong_size(&self, found: u64) -> io::Error {
        let error = WalError::WrongSize { path: self.path.clone(), expected: self.length, found };
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

impl Read for WalReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let left = self.length - self.read;
        if left == 0 {
            // Reading on makes the codec check its checksums, and shows what does not belong here.
            let extra = if self.growing { 0 } else { self.source.read(&mut [0])? };
            return if extra == 0 { Ok(0) } else { Err(self.wrong_size(self.length + 1)) };
        }
        let limit = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let taken = self.source.read(buffer.get_mut(..limit).unwrap_or_default())?;
        if taken == 0 {
            return Err(self.wrong_size(self.read));
        }
        self.read += taken as u64;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
