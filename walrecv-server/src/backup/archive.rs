//! One tar archive: looked into while it is compressed and stored, in a single pass.

use std::io::Write;
use std::path::PathBuf;

use bytes::Bytes;
use pgwire_stream::manifest::ChecksumAlgorithm;
use pgwire_stream::{Archive, CompressionMethod, Lsn};

use super::BackupError;
use super::look::{Findings, Look, Looked};
use super::unpacking::Unpacking;
use crate::catalog::{self, IndexWriter};
use crate::storage::compression::{CompressedWriter, Frame, Method};
use crate::storage::durable::AtomicFile;
use crate::storage::tar::TERMINATOR;
use crate::storage::{
    BackupDir, Codec, Commits, EncryptedWriter, FingerprintWriter, Form, Packing, StorageError,
};

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
/// What comes goes two ways: its plain bytes are looked into; and it goes through compression and
/// encryption into a file whose fingerprint is taken. What the server has compressed is stored as
/// it comes, and unpacked only to be looked into. All files have hidden names until
/// [`finish`](Self::finish).
pub(super) struct ArchiveWriter {
    tablespace: Option<u32>,
    /// The name that it is stored under, made by us.
    name: String,
    form: Form,
    inside: Inside,
    stored: CompressedWriter<EncryptedWriter<FingerprintWriter<AtomicFile>>>,
    target: PathBuf,
    /// How many bytes came.
    received: u64,
}

/// Who looks into it.
enum Inside {
    /// The thread that stores it.
    Here(Box<Look>),
    /// A thread that unpacks it.
    Beside(Unpacking),
}

impl ArchiveWriter {
    pub(super) fn new(
        directory: &BackupDir,
        archive: Archive,
        options: ArchiveOptions,
        findings: Findings,
    ) -> Result<Self, BackupError> {
        // What the server calls it never becomes a path.
        let name = match archive.tablespace {
            None => "base.tar".to_owned(),
            Some(oid) => format!("{oid}.tar"),
        };
        let compressed = archive.compression.map(codec_of).transpose()?;
        let has_checksums = options.checksums.is_some();
        let packing = match compressed {
            // Whoever reads it compares the files in it with theirs.
            None if has_checksums => {
                let method = options.packing.method().without_checksums();
                options.packing.with_method(method)
            }
            None => options.packing.clone(),
            Some(_) => options.packing.with_method(Method::new(Codec::None, 0)),
        };
        let form = Form { codec: compressed.unwrap_or(packing.form().codec), ..packing.form() };
        let target = directory.archive(&name, form);
        let file = AtomicFile::create(&target, directory.access())?;
        let file = FingerprintWriter::of_archive(file, form, has_checksums);
        let stored = packing.writer(file).map_err(StorageError::of("write", &target))?;
        let index = AtomicFile::create(&directory.archive_index(&name), directory.access())?;
        let tablespace = archive.tablespace;
        let look = Look::new(archive, &name, options, IndexWriter::new(index)?, findings);
        let inside = match compressed {
            None => Inside::Here(Box::new(look)),
            Some(codec) => Inside::Beside(Unpacking::start(look, codec, &name)?),
        };
        Ok(Self { tablespace, name, form, inside, stored, target, received: 0 })
    }

    /// Takes the next bytes of the archive as it comes.
    pub(super) fn write(&mut self, bytes: &Bytes) -> Result<(), BackupError> {
        self.stored.write_all(bytes).map_err(StorageError::of("write", &self.target))?;
        self.received += bytes.len() as u64;
        let frames = self.stored.take_frames();
        match &mut self.inside {
            Inside::Here(look) => {
                look.feed(bytes)?;
                Ok(note(look.index(), frames)?)
            }
            // Why nobody takes it any more is told at the end.
            Inside::Beside(unpacking) => unpacking
                .feed(bytes.clone())
                .map_err(|()| BackupError::Disorder { what: "an archive that cannot be unpacked" }),
        }
    }

    /// Why no more could be taken.
    pub(super) fn failure(self, error: BackupError) -> BackupError {
        match self.inside {
            Inside::Here(_) => error,
            Inside::Beside(unpacking) => unpacking.finish().err().unwrap_or(error),
        }
    }

    /// The archive is complete: it and its index are on their way to be durable.
    pub(super) fn finish(
        mut self,
        commits: &mut Commits,
    ) -> Result<(catalog::Archive, Findings), BackupError> {
        let by_server = matches!(self.inside, Inside::Beside(_));
        let Looked { mut index, findings, files, size, terminated } = match self.inside {
            Inside::Here(look) => look.finish()?,
            Inside::Beside(unpacking) => unpacking.finish()?,
        };
        let failed = |source| StorageError::of("write", &self.target)(source);
        let mut plain_size = size;
        if !terminated {
            self.stored.write_all(&TERMINATOR).map_err(failed)?;
            plain_size += TERMINATOR.len() as u64;
        }
        let (file, frames) = self.stored.finish().map_err(failed)?;
        if by_server {
            // All of it is one.
            let (plain_length, stored_length) = (plain_size, self.received);
            index.frame(Frame { plain_length, stored_length, ..Frame::default() })?;
        } else {
            note(&mut index, frames)?;
        }
        let (file, stored) = file.finish().map_err(failed)?.finish();
        commits.begin(file)?;
        let (file, index) = index.finish()?;
        commits.begin(file)?;
        let archive = catalog::Archive {
            name: self.name,
            tablespace: self.tablespace,
            codec: self.form.codec,
            encrypted: self.form.encrypted,
            by_server,
            plain_size,
            stored_size: stored.size(),
            stored_sha256: stored.sha256(),
            stored_crc32c: stored.crc32c(),
            files,
            index: Some(index),
        };
        Ok((archive, findings))
    }
}

fn note(index: &mut IndexWriter, frames: Vec<Frame>) -> Result<(), StorageError> {
    frames.into_iter().try_for_each(|frame| index.frame(frame))
}

fn codec_of(method: CompressionMethod) -> Result<Codec, BackupError> {
    match method {
        CompressionMethod::Gzip => Ok(Codec::Gzip),
        CompressionMethod::Lz4 => Ok(Codec::Lz4),
        CompressionMethod::Zstd => Ok(Codec::Zstd),
        _ => Err(BackupError::Disorder { what: "an archive in a compression that is not known" }),
    }
}
