//! `wals/<dir>/index`: what is known of the segments in a directory of the archive.
//!
//! One line per segment: the CRC-32C of the rest of the line in eight hexadecimal digits, a
//! space, and the record as JSON. A line is appended and made durable before the raw segment
//! is dropped, so a line that is not whole is the last one and nobody relied on it.
//!
//! A line whose checksum holds but whose record is not understood comes from a later version of
//! this program and is left alone.
//!
//! The files are the truth: the index only tells their checksums, and what was seen in them when
//! they were received. It can be made again from them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use pgwire_stream::{Lsn, PgTimestamp, SegmentName};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::storage::{
    Access, ArchivedWal, DecryptionError, KeyFile, ServerDir, ServerLock, Sha256Sum, StorageError,
    Stored, durable, durable::AtomicFile, encryption,
};

/// A directory has at most 4096 segments; this is enough for 16 kB about each.
const MAX_SIZE: u64 = 64 << 20;

/// What is known of a file of the WAL archive. What nobody filled in is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalIndexRecord {
    /// The file.
    pub file: ArchivedWal,
    /// How much WAL is in it: the segment size, or less in a partial one.
    pub plain_size: u64,
    /// The checksum of the WAL in it.
    pub plain_sha256: Sha256Sum,
    /// The size of the file.
    pub stored_size: u64,
    /// The checksum of the file.
    pub stored_sha256: Sha256Sum,
    /// What the validator thought of it when it was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity: Option<Validity>,
    /// When the first commit in it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_commit: Option<PgTimestamp>,
    /// When the last commit in it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_commit: Option<PgTimestamp>,
    /// The restore points in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restore_points: Vec<RestorePoint>,
    /// The transactions that ended in it: lowest and highest id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xids: Option<(u32, u32)>,
}

impl WalIndexRecord {
    /// What is known of a file by reading it.
    pub fn new(file: ArchivedWal, plain: Stored, stored: Stored) -> Self {
        Self {
            file,
            plain_size: plain.size,
            plain_sha256: plain.sha256,
            stored_size: stored.size,
            stored_sha256: stored.sha256,
            validity: None,
            first_commit: None,
            last_commit: None,
            restore_points: Vec::new(),
            xids: None,
        }
    }
}

/// Whether what was received looked like WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validity {
    /// Every page and record was in order.
    Validated,
    /// Something was not.
    Suspect,
    /// A later version of this program knows.
    #[serde(other)]
    Unknown,
}

/// A named point that recovery can stop at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    /// Its name.
    pub name: String,
    /// The end of its record.
    pub lsn: Lsn,
    /// When it was made.
    pub at: PgTimestamp,
}

/// The index of one directory of the archive.
#[derive(Clone, Debug)]
pub struct WalIndex {
    path: PathBuf,
    directory: PathBuf,
    access: Access,
}

/// Why an index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WalIndexError {
    /// A line that was once durable is not any more.
    #[error("line {line} of `{}` is damaged", path.display())]
    Damaged {
        /// The index.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
    /// It is too large to be an index.
    #[error("`{}` is damaged: it is too large", path.display())]
    TooLarge {
        /// The index.
        path: PathBuf,
    },
    /// A file is encrypted, and cannot be decrypted.
    #[error(transparent)]
    Decryption(#[from] DecryptionError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Failure for WalIndexError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged { path, .. } | Self::TooLarge { path } => Some(format!(
                "check the disk; the segments beside `{}` are read without it",
                path.display()
            )),
            Self::Decryption(error) => error.hint(),
            Self::Storage(error) => error.hint(),
        }
    }
}

/// What is in an index, and how much of the file it is.
struct Content {
    records: Vec<WalIndexRecord>,
    /// The length of the whole lines; what follows was never acknowledged.
    whole: usize,
}

impl WalIndex {
    /// The index of the directory that holds this segment.
    pub fn of(server: &ServerDir, segment: SegmentName) -> Self {
        Self {
            path: server.wal_index(segment),
            directory: server.wal_dir(segment),
            access: server.access(),
        }
    }

    /// Adds a record. Durable on return, with all that are in the index.
    ///
    /// What a crash left of an earlier attempt is cut off first; only the holder of the archive's
    /// lock may do that.
    ///
    /// # Errors
    /// If the index is damaged or cannot be written.
    pub fn append(
        &self,
        record: &WalIndexRecord,
        _archive: &ServerLock,
    ) -> Result<(), WalIndexError> {
        let text = self.text()?;
        let whole = parse(&text).map_err(|line| self.damaged(line))?.whole;
        let line = encode(record).map_err(StorageError::of("encode a record of", &self.path))?;
        match self.append_at(&text, whole, &line) {
            Ok(()) => Ok(()),
            // What a failed sync left behind in the file may not be believed. A new file with
            // the same lines, which were durable before, takes its place.
            Err(_) => {
                let mut file = AtomicFile::create(&self.path, self.access)?;
                let lines = text.get(..whole).unwrap_or_default();
                file.write_all(lines)
                    .and_then(|()| file.write_all(&line))
                    .map_err(StorageError::of("write", &self.path))?;
                Ok(file.commit()?)
            }
        }
    }

    /// What is in the index, in the order in which it was added; nothing if there is none.
    ///
    /// # Errors
    /// If it cannot be read, or a line other than the last is damaged.
    pub fn records(&self) -> Result<Vec<WalIndexRecord>, WalIndexError> {
        Ok(parse(&self.text()?).map_err(|line| self.damaged(line))?.records)
    }

    /// The newest record about a file.
    ///
    /// # Errors
    /// As [`records`](Self::records).
    pub fn find(&self, file: ArchivedWal) -> Result<Option<WalIndexRecord>, WalIndexError> {
        Ok(self.records()?.into_iter().rev().find(|record| record.file == file))
    }

    /// Makes the index again from the files in its directory, which are read for it. Whatever
    /// can be read of the old one is kept for files that are as it says. A file that is encrypted,
    /// and that no key opens, is left out if the old one does not know it: it is read without.
    ///
    /// # Errors
    /// If a file cannot be read or decompressed, or the index cannot be written. The old one is
    /// left as it was then.
    pub fn rebuild(
        &self,
        keys: Option<&KeyFile>,
        _archive: &ServerLock,
    ) -> Result<Vec<WalIndexRecord>, WalIndexError> {
        let known = parse_leniently(&self.text()?);
        let mut files: Vec<ArchivedWal> = durable::list_dir(&self.directory)?
            .iter()
            .filter_map(|name| name.to_str()?.parse().ok())
            .collect();
        files.sort();
        let mut records = Vec::new();
        for file in files {
            let stored = self.stored(file)?;
            let same =
                |old: &&WalIndexRecord| old.file == file && old.stored_sha256 == stored.sha256;
            match known.iter().rev().find(same) {
                Some(record) => records.push(record.clone()),
                None => match self.plain(file, keys) {
                    Ok(plain) => records.push(WalIndexRecord::new(file, plain, stored)),
                    Err(WalIndexError::Decryption(error)) if error.is_for_want_of_keys() => {
                        tracing::warn!(%file, "its WAL cannot be summed up without its key");
                    }
                    Err(error) => return Err(error),
                },
            }
        }
        let text =
            encode_all(&records).map_err(StorageError::of("encode a record of", &self.path))?;
        durable::write_file(&self.path, &text, self.access)?;
        Ok(records)
    }

    /// Size and checksum of a file of the archive, as it is stored.
    fn stored(&self, file: ArchivedWal) -> Result<Stored, StorageError> {
        let path = self.directory.join(file.to_string());
        let stored = File::open(&path).and_then(Sha256Sum::of_reader);
        stored.map_err(StorageError::of("read", &path))
    }

    /// Size and checksum of the WAL in a file of the archive.
    fn plain(&self, file: ArchivedWal, keys: Option<&KeyFile>) -> Result<Stored, WalIndexError> {
        let path = self.directory.join(file.to_string());
        let plain = Sha256Sum::of_reader(encryption::open(&path, file.form, keys)?);
        Ok(plain.map_err(StorageError::of("read", &path))?)
    }

    fn append_at(&self, text: &[u8], whole: usize, line: &[u8]) -> Result<(), StorageError> {
        let fail = |source| StorageError { action: "write", path: self.path.clone(), source };
        let (file, new) = self.open_for_writing().map_err(fail)?;
        if whole < text.len() {
            file.set_len(whole as u64).map_err(fail)?;
        }
        file.write_all_at(line, whole as u64).map_err(fail)?;
        file.sync_all().map_err(StorageError::of("make durable", &self.path))?;
        // The name of a new file is durable only with its directory.
        if new { durable::sync_dir(&self.directory) } else { Ok(()) }
    }

    fn open_for_writing(&self) -> io::Result<(File, bool)> {
        match OpenOptions::new().write(true).open(&self.path) {
            Ok(file) => Ok((file, false)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mode = self.access.file_mode();
                let file =
                    OpenOptions::new().write(true).create_new(true).mode(mode).open(&self.path)?;
                file.set_permissions(self.access.file_permissions())?;
                Ok((file, true))
            }
            Err(error) => Err(error),
        }
    }

    fn text(&self) -> Result<Vec<u8>, WalIndexError> {
        let mut text = Vec::new();
        match File::open(&self.path).and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut text))
        {
            Ok(_) if text.len() as u64 > MAX_SIZE => {
                Err(WalIndexError::TooLarge { path: self.path.clone() })
            }
            Ok(_) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(text),
            Err(error) => Err(StorageError::of("read", &self.path)(error).into()),
        }
    }

    fn damaged(&self, line: usize) -> WalIndexError {
        WalIndexError::Damaged { path: self.path.clone(), line }
    }
}

/// The line of a record.
fn encode(record: &WalIndexRecord) -> io::Result<Vec<u8>> {
    let json = serde_json::to_string(record)?;
    Ok(format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes())).into_bytes())
}

fn encode_all(records: &[WalIndexRecord]) -> io::Result<Vec<u8>> {
    let lines: io::Result<Vec<_>> = records.iter().map(encode).collect();
    Ok(lines?.concat())
}

/// What a line of an index is.
enum Line {
    Known(WalIndexRecord),
    /// Whole, and written by a later version.
    Foreign,
    Damaged,
}

fn decode(line: &[u8]) -> Line {
    let Some((crc, rest)) = line.split_at_checked(8) else { return Line::Damaged };
    let Some(json) = rest.strip_prefix(b" ") else { return Line::Damaged };
    if crc != format!("{:08x}", crc32c::crc32c(json)).as_bytes() {
        return Line::Damaged;
    }
    serde_json::from_slice(json).map_or(Line::Foreign, Line::Known)
}

/// The records of an index, or the number of a line that is damaged though others follow it.
fn parse(text: &[u8]) -> Result<Content, usize> {
    let mut content = Content { records: Vec::new(), whole: 0 };
    let mut lines = text.split_inclusive(|&b| b == b'\n').enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        match line.strip_suffix(b"\n").map_or(Line::Damaged, decode) {
            Line::Known(record) => content.records.push(record),
            Line::Foreign => {}
            // A crash may have left any part of the last line, in any order of its blocks.
            Line::Damaged if lines.peek().is_none() => break,
            Line::Damaged => return Err(index + 1),
        }
        content.whole += line.len();
    }
    Ok(content)
}

/// The records of the lines that are whole, whatever is between them.
fn parse_leniently(text: &[u8]) -> Vec<WalIndexRecord> {
    let known = |line| match decode(line) {
        Line::Known(record) => Some(record),
        Line::Foreign | Line::Damaged => None,
    };
    text.split(|&b| b == b'\n').filter_map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Form, Home, LockKind};
    use proptest::prelude::*;

    fn record(number: u32) -> WalIndexRecord {
        let segment: SegmentName = format!("0000000100000000{number:08X}").parse().unwrap();
        WalIndexRecord {
            file: ArchivedWal {
                segment,
                partial: false,
                form: Form::from(crate::storage::Codec::None),
            },
            plain_size: 4,
            plain_sha256: Sha256Sum::of(&number.to_be_bytes()),
            stored_size: 4,
            stored_sha256: Sha256Sum::of(&number.to_be_bytes()),
            validity: number.is_multiple_of(2).then_some(Validity::Validated),
            first_commit: None,
            last_commit: Some(PgTimestamp::from_micros(i64::from(number))),
            restore_points: vec![RestorePoint {
                name: "a\nb".to_owned(),
                lsn: Lsn::from_u64(u64::from(number)),
                at: PgTimestamp::from_micros(0),
            }],
            xids: Some((number, number + 1)),
        }
    }

    fn store() -> (tempfile::TempDir, ServerDir, ServerLock, WalIndex) {
        let dir = tempfile::tempdir().unwrap();
        let server = Home::new(dir.path(), Access::Private).server(&"main".parse().unwrap());
        let lock = ServerLock::try_acquire(&server, LockKind::Archive).unwrap();
        let segment = record(0).file.segment;
        durable::create_dir(&server.wal_dir(segment), Access::Private).unwrap();
        let index = WalIndex::of(&server, segment);
        (dir, server, lock, index)
    }

    #[test]
    fn a_torn_tail_is_cut_off_by_the_next_append() {
        let (_dir, _server, lock, index) = store();
        assert_eq!(index.records().unwrap(), []);
        index.append(&record(1), &lock).unwrap();
        index.append(&record(2), &lock).unwrap();
        let whole = std::fs::read(&index.path).unwrap();
        for torn in [&whole[..whole.len() - 1], &whole[..whole.len() - 40]] {
            std::fs::write(&index.path, torn).unwrap();
            assert_eq!(index.records().unwrap(), [record(1)]);
            index.append(&record(3), &lock).unwrap();
            assert_eq!(index.records().unwrap(), [record(1), record(3)]);
        }
        assert_eq!(index.find(record(3).file).unwrap(), Some(record(3)));
        assert_eq!(index.find(record(2).file).unwrap(), None);
    }

    #[test]
    fn damage_in_the_middle_is_reported_and_rebuilding_repairs_it() {
        let (_dir, server, lock, index) = store();
        for number in 1..=3 {
            let path = server.archived_file(record(number).file);
            std::fs::write(path, number.to_be_bytes()).unwrap();
            index.append(&record(number), &lock).unwrap();
        }
        let mut text = std::fs::read(&index.path).unwrap();
        text[20] ^= 1;
        std::fs::write(&index.path, &text).unwrap();
        let error = index.records().unwrap_err();
        assert!(matches!(error, WalIndexError::Damaged { line: 1, .. }), "{error}");
        assert!(index.append(&record(4), &lock).is_err());

        let rebuilt = index.rebuild(None, &lock).unwrap();
        assert_eq!(rebuilt[0].plain_sha256, record(1).plain_sha256);
        assert_eq!(rebuilt[0].last_commit, None);
        assert_eq!(rebuilt[1..], [record(2), record(3)]);
        assert_eq!(index.records().unwrap(), rebuilt);
    }

    #[test]
    fn lines_of_a_later_version_are_left_alone() {
        let (_dir, _server, lock, index) = store();
        let foreign = "{\"file\":\"000000010000000000000001.zst.pgp\"}";
        let line = format!("{:08x} {foreign}\n", crc32c::crc32c(foreign.as_bytes()));
        std::fs::write(&index.path, &line).unwrap();
        index.append(&record(2), &lock).unwrap();
        assert_eq!(index.records().unwrap(), [record(2)]);
        assert!(std::fs::read_to_string(&index.path).unwrap().starts_with(&line));
    }

    proptest! {
        #[test]
        fn whatever_happens_to_the_file_no_wrong_record_is_believed(
            count in 1u32..6,
            cut in any::<prop::sample::Index>(),
            flip in prop::option::of((any::<prop::sample::Index>(), 0u8..8)),
        ) {
            let records: Vec<_> = (0..count).map(record).collect();
            let mut text = encode_all(&records).unwrap();
            text.truncate(cut.index(text.len() + 1));
            if let Some((at, bit)) = flip
                && !text.is_empty()
            {
                let at = at.index(text.len());
                text[at] ^= 1 << bit;
            } else {
                // Cut only: never "damaged", and what was whole before is there.
                prop_assert!(parse(&text).is_ok());
            }
            if let Ok(content) = parse(&text) {
                prop_assert!(records.starts_with(&content.records));
                let again = encode_all(&content.records).unwrap();
                prop_assert_eq!(&text[..content.whole], &again[..]);
            }
            for record in parse_leniently(&text) {
                prop_assert!(records.contains(&record));
            }
        }
    }
}
