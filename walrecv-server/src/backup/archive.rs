//! One tar archive: looked into while it is compressed and stored, in a single pass.

use std::io::Write;
use std::mem;
use std::path::PathBuf;

use pgwire_stream::manifest::{ChecksumAlgorithm, FileHasher};
use pgwire_stream::{Archive, Lsn};

use super::BackupError;
use super::index::IndexWriter;
use super::pages::{DamagedPage, Pages};
use super::spool::{ReceivedFile, SpoolWriter};
use crate::catalog::{self, backup_record};
use crate::storage::compression::{CompressedWriter, Frame};
use crate::storage::durable::AtomicFile;
use crate::storage::tar::{Member, MemberKind, TERMINATOR, TarError, TarEvent, TarReader};
use crate::storage::{BackupDir, EncryptedWriter, HashingWriter, Packing, StorageError};

/// How archives are stored and looked at.
#[derive(Clone, Debug)]
pub(super) struct ArchiveOptions {
    pub(super) packing: Packing,
    /// How files are hashed.
    pub(super) checksums: Option<ChecksumAlgorithm>,
    /// Where the backup begins, if its pages are to be looked at.
    pub(super) pages_before: Option<Lsn>,
}

/// Writes one archive.
///
/// The plain bytes go two ways: through the tar reader, which hashes every file for the spool and
/// notes every member in the index; and through compression and encryption into a file whose stored
/// bytes are hashed. Both files have hidden names until [`finish`](Self::finish).
pub(super) struct ArchiveWriter {
    archive: Archive,
    /// The name that it is stored under, made by us.
    name: String,
    options: ArchiveOptions,
    /// What the paths of the archive are below, in the data directory.
    prefix: String,
    tar: TarReader,
    member: Option<(Member, Option<FileHasher>)>,
    pages: Option<Pages>,
    files: u64,
    stored: CompressedWriter<EncryptedWriter<HashingWriter<AtomicFile>>>,
    target: PathBuf,
    plain_size: u64,
    index: IndexWriter,
}

impl ArchiveWriter {
    pub(super) fn new(
        directory: &BackupDir,
        archive: Archive,
        options: ArchiveOptions,
    ) -> Result<Self, BackupError> {
        // What the server calls it never becomes a path.
        let name = match archive.tablespace {
            None => "base.tar".to_owned(),
            Some(oid) => format!("{oid}.tar"),
        };
        let prefix = backup_record::prefix(archive.tablespace);
        let target = directory.archive(&name, options.packing.form());
        let file = HashingWriter::new(AtomicFile::create(&target, directory.access())?);
        let stored = options.packing.writer(file).map_err(StorageError::of("write", &target))?;
        let index = AtomicFile::create(&directory.archive_index(&name), directory.access())?;
        Ok(Self {
            archive,
            name,
            options,
            prefix,
            tar: TarReader::new(),
            member: None,
            pages: None,
            files: 0,
            stored,
            target,
            plain_size: 0,
            index: IndexWriter::new(index)?,
        })
    }

    /// Takes the next bytes of the plain archive.
    pub(super) fn write(
        &mut self,
        bytes: &[u8],
        spool: &mut SpoolWriter,
        mut damaged: impl FnMut(DamagedPage),
    ) -> Result<(), BackupError> {
        let mut rest = bytes;
        while let Some(event) = self.tar.feed(&mut rest).map_err(unusable(&self.name))? {
            match event {
                TarEvent::Member(member) => {
                    self.index.member(&member)?;
                    let hasher = self.options.checksums.map(ChecksumAlgorithm::hasher);
                    self.pages = self.options.pages_before.and_then(|begin| {
                        Pages::of(&[self.prefix.as_bytes(), &member.path].concat(), begin)
                    });
                    self.member = Some((member, hasher));
                }
                TarEvent::Content(content) => {
                    if let Some((_, Some(hasher))) = &mut self.member {
                        hasher.update(content);
                    }
                    if let Some(pages) = &mut self.pages {
                        pages.feed(content, &mut damaged);
                    }
                }
                TarEvent::MemberEnd => {
                    if let Some((member, hasher)) = self.member.take()
                        && member.kind == MemberKind::File
                    {
                        self.files += 1;
                        spool.push(&received(&self.prefix, member, hasher))?;
                    }
                }
            }
        }
        self.store(bytes)
    }

    /// The archive is complete. Durable on return.
    pub(super) fn finish(mut self) -> Result<catalog::Archive, BackupError> {
        let at = self.tar.position();
        let terminated = match (mem::take(&mut self.tar).finish(), &self.member) {
            (Ok(terminated), _) => terminated,
            (Err(_), Some((member, _))) => {
                let path = String::from_utf8_lossy(&member.path).into_owned();
                return Err(BackupError::CutFile { archive: self.name, path });
            }
            (Err(error), None) => return Err(unusable(&self.name)(error)),
        };
        if !terminated {
            // A server that ends its archives did not end this one: there was more to come.
            if self.archive.terminated {
                return Err(unusable(&self.name)(TarError::Truncated { at }));
            }
            self.store(&TERMINATOR)?;
        }
        self.commit()
    }

    /// Takes plain bytes to the disk.
    fn store(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.stored.write_all(bytes).map_err(StorageError::of("write", &self.target))?;
        self.plain_size += bytes.len() as u64;
        Ok(note(&mut self.index, self.stored.take_frames())?)
    }

    fn commit(mut self) -> Result<catalog::Archive, BackupError> {
        let failed = |source| StorageError::of("write", &self.target)(source);
        let (file, frames) = self.stored.finish().map_err(failed)?;
        note(&mut self.index, frames)?;
        let (file, stored) = file.finish().map_err(failed)?.finish();
        file.commit()?;
        let form = self.options.packing.form();
        let index = self.index.commit()?;
        Ok(catalog::Archive {
            name: self.name,
            tablespace: self.archive.tablespace,
            codec: form.codec,
            encrypted: form.encrypted,
            plain_size: self.plain_size,
            stored_size: stored.size,
            stored_sha256: stored.sha256,
            files: self.files,
            index: Some(index),
        })
    }
}

fn note(index: &mut IndexWriter, frames: Vec<Frame>) -> Result<(), StorageError> {
    frames.into_iter().try_for_each(|frame| index.frame(frame))
}

fn received(prefix: &str, member: Member, hasher: Option<FileHasher>) -> ReceivedFile {
    let mut path = prefix.as_bytes().to_vec();
    path.extend_from_slice(&member.path);
    ReceivedFile {
        path,
        size: member.size,
        modified: member.modified,
        digest: hasher.map(FileHasher::finish).unwrap_or_default(),
    }
}

fn unusable(archive: &str) -> impl FnOnce(TarError) -> BackupError {
    move |source| BackupError::Archive { archive: archive.to_owned(), source }
}
