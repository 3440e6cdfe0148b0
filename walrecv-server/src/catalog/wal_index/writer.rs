//! Adding to the indexes: each is read once, then a record costs one write and one sync.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;

use pgwire_stream::{SegmentName, SegmentSize};

use super::line::{Content, encode, parse};
use super::totals::Tally;
use super::{MAX_SIZE, WalIndex, WalIndexError, WalIndexRecord};
use crate::storage::{
    ArchivedWal, KeyFile, ServerDir, ServerLock, StorageError,
    durable::{self, AtomicFile},
};

/// How many indexes are kept open. Segments come in order, so they are those of one directory or
/// two; more only while tails of timelines that were left are archived.
const OPEN: usize = 4;

/// An index that is open for adding to. Only the holder of the archive's lock has one, and one
/// for each directory.
///
/// What is in the file up to `length` is durable, or was read and found whole; nothing is believed
/// of what lies behind. A sync that fails is final for the file: a new one with the same lines
/// takes its place, and if that cannot be made, the next attempt begins with making it.
#[derive(Debug)]
pub struct WalIndexWriter {
    index: WalIndex,
    _archive: Arc<ServerLock>,
    /// `None` until there is a file.
    file: Option<File>,
    length: u64,
    /// The records that are in it, added up; and perhaps some that could not be added.
    tally: Tally,
    /// Whether a write or a sync of the file has failed.
    in_doubt: bool,
}

impl WalIndexWriter {
    /// Opens the index of the directory that holds this segment. What a crash left of an earlier
    /// attempt to add to it is cut off.
    ///
    /// # Errors
    /// If the index is damaged, or cannot be read or cut.
    pub fn open(
        server: &ServerDir,
        segment: SegmentName,
        archive: Arc<ServerLock>,
    ) -> Result<Self, WalIndexError> {
        let index = WalIndex::of(server, segment);
        let text = index.text()?;
        let Content { records, foreign, whole, .. } =
            parse(&text).map_err(|line| index.damaged(line))?;
        let tally = Tally::of(&records, foreign);
        let file = match OpenOptions::new().write(true).open(&index.path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StorageError::of("open", &index.path)(error).into()),
        };
        let mut in_doubt = false;
        if let Some(file) = &file {
            if whole < text.len() {
                file.set_len(whole as u64).map_err(StorageError::of("cut", &index.path))?;
            }
            // Whoever wrote it may have died before it was durable.
            in_doubt = file.sync_all().is_err();
        }
        Ok(Self { index, _archive: archive, file, length: whole as u64, tally, in_doubt })
    }

    /// Adds records, all of one directory. Durable on return, with all that are in the index.
    ///
    /// # Errors
    /// If the index cannot be written. The records may be in it nevertheless.
    pub fn append(&mut self, records: &[WalIndexRecord]) -> Result<(), WalIndexError> {
        let lines = self.encode(records)?;
        if !self.in_doubt {
            match self.write(&lines) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.in_doubt = true;
                    tracing::warn!(
                        error = %error, cause = %error.source,
                        "writing the index anew, which cannot be added to"
                    );
                }
            }
        }
        self.replace(&lines)
    }

    /// The lines of records. However much was found in the segments of a directory, its index does
    /// not become too large to be read.
    fn encode(&mut self, records: &[WalIndexRecord]) -> Result<Vec<u8>, WalIndexError> {
        let path = &self.index.path;
        let mut lines = Vec::new();
        for record in records {
            let mut line = encode(record, &mut self.tally)
                .map_err(StorageError::of("encode a record of", path))?;
            if self.length + (lines.len() + line.len()) as u64 > MAX_SIZE / 2 {
                let mut short = record.clone();
                short.findings.shorten();
                line = encode(&short, &mut self.tally)
                    .map_err(StorageError::of("encode a record of", path))?;
            }
            lines.append(&mut line);
        }
        if self.length + lines.len() as u64 > MAX_SIZE {
            return Err(WalIndexError::TooLarge { path: path.clone() });
        }
        Ok(lines)
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), StorageError> {
        let path = &self.index.path;
        let (file, new) = match &self.file {
            Some(file) => (file, false),
            None => (
                &*self.file.insert(self.index.create().map_err(StorageError::of("create", path))?),
                true,
            ),
        };
        file.write_all_at(lines, self.length).map_err(StorageError::of("write", path))?;
        let fail = StorageError::of("make durable", path);
        if new {
            file.sync_all().map_err(fail)?;
            // The name of a new file is durable only with its directory.
            durable::sync_dir(&self.index.directory)?;
        } else {
            // The size of the file is among what makes its bytes readable, so this is enough.
            file.sync_data().map_err(fail)?;
        }
        self.length += lines.len() as u64;
        Ok(())
    }

    /// Writes a new file with the lines that are there and these. What is read for it may come
    /// from pages that never reached the disk, but it is what was written: every line carries its
    /// checksum.
    fn replace(&mut self, lines: &[u8]) -> Result<(), WalIndexError> {
        let path = self.index.path.clone();
        let mut text = Vec::new();
        if self.length > 0 {
            File::open(&path)
                .and_then(|file| file.take(self.length).read_to_end(&mut text))
                .map_err(StorageError::of("read", &path))?;
        }
        let whole = parse(&text).map_err(|line| self.index.damaged(line))?;
        if whole.whole as u64 != self.length {
            return Err(self.index.damaged(whole.lines + 1));
        }
        let mut file = AtomicFile::create(&path, self.index.server.access())?;
        file.write_all(&text)
            .and_then(|()| file.write_all(lines))
            .map_err(StorageError::of("write", &path))?;
        file.commit()?;
        self.length += lines.len() as u64;
        self.file = None;
        let opened = OpenOptions::new().write(true).open(&path);
        self.file = Some(opened.map_err(StorageError::of("open", &path))?);
        self.in_doubt = false;
        Ok(())
    }
}

#[cfg(test)]
impl WalIndexWriter {
    /// From now on the file can be neither written nor synced.
    pub(super) fn break_file(&mut self) {
        self.file = Some(File::open("/dev/full").unwrap());
    }

    /// The file can be written again, as after a failed sync.
    pub(super) fn heal_file(&mut self) {
        self.file = Some(OpenOptions::new().write(true).open(&self.index.path).unwrap());
    }
}

impl WalIndex {
    fn create(&self) -> io::Result<File> {
        let mode = self.server.access().file_mode();
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&self.path)?;
        file.set_permissions(self.server.access().file_permissions())?;
        Ok(file)
    }
}

/// The indexes of one server's archive, open for adding to: one owner for all threads that
/// archive.
#[derive(Debug)]
pub struct WalIndexWriters {
    server: ServerDir,
    segment_size: SegmentSize,
    keys: Option<KeyFile>,
    archive: Arc<ServerLock>,
    /// By the name of the directory, the one that was used last at the end.
    open: Vec<(String, WalIndexWriter)>,
}

impl WalIndexWriters {
    /// The indexes of a server whose archive is locked.
    pub fn new(server: &ServerDir, segment_size: SegmentSize, archive: Arc<ServerLock>) -> Self {
        Self { server: server.clone(), segment_size, keys: None, archive, open: Vec::new() }
    }

    /// The same, where these keys open what an index is made again from.
    #[must_use]
    pub fn with_keys(self, keys: Option<KeyFile>) -> Self {
        Self { keys, ..self }
    }

    /// The newest record about a file. An index that is damaged is made again from the segments
    /// first.
    ///
    /// # Errors
    /// If the index cannot be read, or not be made again.
    pub fn find(&mut self, file: ArchivedWal) -> Result<Option<WalIndexRecord>, WalIndexError> {
        let index = WalIndex::of(&self.server, file.segment);
        match index.find(file) {
            Err(error @ (WalIndexError::Damaged { .. } | WalIndexError::TooLarge { .. })) => {
                // A new file takes the place of the one that is open.
                self.open.retain(|(folder, _)| *folder != file.segment.folder());
                self.make_again(&index, &error)?;
                index.find(file)
            }
            found => found,
        }
    }

    /// Adds records, each to the index of its directory: one sync for those of a directory that
    /// follow each other. Durable on return. The segments are there already: an index that is
    /// damaged is made again from them first.
    ///
    /// # Errors
    /// If an index cannot be written.
    pub fn append(&mut self, records: &[WalIndexRecord]) -> Result<(), WalIndexError> {
        for group in records.chunk_by(|a, b| a.file.segment.folder() == b.file.segment.folder()) {
            if let Some(first) = group.first() {
                self.append_in(first.file.segment, group)?;
            }
        }
        Ok(())
    }

    fn append_in(
        &mut self,
        segment: SegmentName,
        records: &[WalIndexRecord],
    ) -> Result<(), WalIndexError> {
        let folder = segment.folder();
        let place = self.open.iter().position(|(other, _)| *other == folder);
        let (_, mut writer) = match place {
            Some(place) => self.open.remove(place),
            None => (folder.clone(), self.open_writer(segment)?),
        };
        let appended = writer.append(records);
        if matches!(appended, Err(WalIndexError::Damaged { .. } | WalIndexError::TooLarge { .. })) {
            // Opened again, it is made again.
            return appended;
        }
        if self.open.len() >= OPEN {
            self.open.remove(0);
        }
        self.open.push((folder, writer));
        appended
    }

    fn open_writer(&self, segment: SegmentName) -> Result<WalIndexWriter, WalIndexError> {
        match WalIndexWriter::open(&self.server, segment, Arc::clone(&self.archive)) {
            // Nothing may wait for a file that can be made again.
            Err(error @ (WalIndexError::Damaged { .. } | WalIndexError::TooLarge { .. })) => {
                self.make_again(&WalIndex::of(&self.server, segment), &error)?;
                WalIndexWriter::open(&self.server, segment, Arc::clone(&self.archive))
            }
            opened => opened,
        }
    }

    fn make_again(&self, index: &WalIndex, why: &WalIndexError) -> Result<(), WalIndexError> {
        tracing::error!(error = %why, "making the index again from the segments");
        index.rebuild(self.segment_size, self.keys.as_ref(), &self.archive).map(drop)
    }
}
