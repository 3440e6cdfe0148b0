//! `<archive>.idx`: what lies where in a stored archive, so that one file can be fetched alone and
//! a restore can begin in several places.
//!
//! Where a frame lies is said of the compressed archive: of an encrypted file, that is what
//! decrypting it gives, 64 KiB by 64 KiB.
//!
//! Lines of JSON, written while the archive is: first the format, then members when they begin and
//! frames when they are stored, each kind in the order of the archive. The frame that a member
//! begins in is the last one that begins at or before its header.
//!
//! ```text
//! {"format":1}
//! {"member":{"path":"backup_label","kind":"file","at":0,"size":225}}
//! {"member":{"path":"global","kind":"directory","at":1024,"size":0}}
//! {"frame":{"plain_offset":0,"plain_length":1536,"stored_offset":0,"stored_length":210}}
//! ```

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::storage::compression::Frame;
use crate::storage::durable::AtomicFile;
use crate::storage::tar::{Member, MemberKind};
use crate::storage::{HashingWriter, StorageError, Stored};

/// The version of the format that is written.
pub const FORMAT: u32 = 1;

/// A line of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexLine {
    /// Always the first.
    Format(u32),
    /// A part of the stored file that can be decompressed without those before it.
    Frame(Frame),
    /// A member of the archive.
    Member(IndexedMember),
}

/// A member of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedMember {
    /// Its path in the archive.
    #[serde(flatten)]
    pub path: IndexedPath,
    /// What it is.
    pub kind: IndexedKind,
    /// Where its header begins in the plain tar archive; the content is 512 bytes further on.
    pub at: u64,
    /// The size of its content.
    pub size: u64,
}

impl IndexedMember {
    /// The line of a member.
    pub fn of(member: &Member) -> Self {
        let path = IndexedPath::of(&member.path);
        let kind = match member.kind {
            MemberKind::File => IndexedKind::File,
            MemberKind::Directory => IndexedKind::Directory,
        };
        Self { path, kind, at: member.header_at, size: member.size }
    }
}

impl IndexedPath {
    /// A path as an index has it.
    pub fn of(path: &[u8]) -> Self {
        match std::str::from_utf8(path) {
            Ok(path) => Self::Path(path.to_owned()),
            Err(_) => Self::EncodedPath(hexadecimal(path)),
        }
    }
}

impl fmt::Display for IndexedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) | Self::EncodedPath(path) => f.write_str(path),
        }
    }
}

/// A path, in the two spellings that manifests have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexedPath {
    /// A path in UTF-8.
    Path(String),
    /// The bytes of any other path, in hexadecimal.
    EncodedPath(String),
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexedKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

/// Writes the index of one archive.
#[derive(Debug)]
pub struct IndexWriter {
    file: HashingWriter<BufWriter<AtomicFile>>,
    target: PathBuf,
}

impl IndexWriter {
    /// Begins one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(file: AtomicFile) -> Result<Self, StorageError> {
        let target = file.target().to_owned();
        let mut writer = Self { file: HashingWriter::new(BufWriter::new(file)), target };
        writer.line(&IndexLine::Format(FORMAT))?;
        Ok(writer)
    }

    /// Notes a frame.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn frame(&mut self, frame: Frame) -> Result<(), StorageError> {
        self.line(&IndexLine::Frame(frame))
    }

    /// Notes a member.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn member(&mut self, member: &Member) -> Result<(), StorageError> {
        self.line(&IndexLine::Member(IndexedMember::of(member)))
    }

    /// The index is complete: its file, which is still to be committed.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self) -> Result<(AtomicFile, Stored), StorageError> {
        let (file, stored) = self.file.finish();
        let file = file.into_inner().map_err(|error| error.into_error());
        Ok((file.map_err(StorageError::of("write", &self.target))?, stored))
    }

    fn line(&mut self, line: &IndexLine) -> Result<(), StorageError> {
        let written = serde_json::to_writer(&mut self.file, line)
            .map_err(io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"));
        written.map_err(StorageError::of("write", &self.target))
    }
}

fn hexadecimal(path: &[u8]) -> String {
    path.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Access;

    #[test]
    fn lines_are_as_documented() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("base.tar.idx");
        let file = AtomicFile::create(&path, Access::Private).unwrap();
        let mut index = IndexWriter::new(file).unwrap();
        let (plain_length, stored_length) = (1536, 210);
        index.frame(Frame { plain_length, stored_length, ..Frame::default() }).unwrap();
        let mut member = Member {
            path: b"backup_label".to_vec(),
            kind: MemberKind::File,
            size: 225,
            mode: 0o600,
            modified: 0,
            header_at: 0,
        };
        index.member(&member).unwrap();
        member.path = b"b\xff".to_vec();
        member.header_at = 1024;
        index.member(&member).unwrap();
        index.finish().unwrap().0.commit().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(
            text,
            "{\"format\":1}\n\
             {\"frame\":{\"plain_offset\":0,\"plain_length\":1536,\
              \"stored_offset\":0,\"stored_length\":210}}\n\
             {\"member\":{\"path\":\"backup_label\",\"kind\":\"file\",\"at\":0,\"size\":225}}\n\
             {\"member\":{\"encoded_path\":\"62ff\",\"kind\":\"file\",\"at\":1024,\"size\":225}}\n"
        );
        let last: IndexLine = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert!(matches!(last, IndexLine::Member(member) if member.at == 1024));
    }
}
