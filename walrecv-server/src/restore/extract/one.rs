//! One file out of a backup, without the rest of it.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use pgwire_stream::RelationFiles;
use pgwire_stream::backup_label;
use pgwire_stream::incremental::{FILE_NAME_PREFIX, IncrementalError};
use pgwire_stream::manifest::{FileHasher, ManifestFile};

use super::super::compare_stored;
use super::assembly::Assembly;
use super::blocks::{BlockError, BlockWriter};
use super::{ExtractError, LABEL_LIMIT, check_label, shown};
use crate::catalog::{BackupRecord, ManifestFiles, open_member};
use crate::failure::{Class, Failure};
use crate::storage::durable::{AtomicFile, Put};
use crate::storage::{Access, BackupId, DecryptionError, KeyFile, ServerDir, StorageError};

const CHUNK: usize = 256 << 10;

/// Why a file was not extracted.
#[derive(Debug, thiserror::Error)]
pub enum ExtractFileError {
    /// The backup has no such file.
    #[error("backup `{backup}` has no file `{path}`")]
    NoSuchFile {
        /// The backup.
        backup: BackupId,
        /// The path in the data directory.
        path: String,
    },
    /// A backup that this one builds on is not there.
    #[error("backup `{backup}` is broken: a backup that it builds on is gone or not complete")]
    BrokenChain {
        /// The backup.
        backup: BackupId,
    },
    /// Nobody can tell where in the archive it lies.
    #[error(
        "`{path}` is in backup `{backup}`, but the index that tells where is damaged or missing"
    )]
    NoIndex {
        /// The backup.
        backup: BackupId,
        /// The path in the data directory.
        path: String,
    },
    /// There is something at the destination.
    #[error("`{path}` exists already")]
    Exists {
        /// The destination.
        path: String,
    },
    /// The archive cannot be decrypted.
    #[error(transparent)]
    Decryption(#[from] DecryptionError),
    /// The file is not what was backed up.
    #[error(transparent)]
    Extract(#[from] ExtractError),
}

impl Failure for ExtractFileError {
    fn class(&self) -> Class {
        match self {
            Self::Exists { .. } => Class::Refused,
            Self::NoSuchFile { .. } | Self::BrokenChain { .. } | Self::NoIndex { .. } => {
                Class::Failed
            }
            Self::Decryption(error) => error.class(),
            Self::Extract(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSuchFile { .. } => {
                "name it as `backup_manifest` of the backup does, such as `postgresql.conf` or \
                 `base/5/1259`"
                    .to_owned()
            }
            Self::BrokenChain { .. } => {
                "choose another backup; `list-backups` shows those that are DONE".to_owned()
            }
            Self::NoIndex { .. } => {
                "restore the whole backup, which needs no index, or unpack its archive with stock \
                 programs"
                    .to_owned()
            }
            Self::Exists { .. } => "name another destination".to_owned(),
            Self::Decryption(error) => return error.hint(),
            Self::Extract(error) => return error.hint(),
        })
    }
}

impl From<StorageError> for ExtractFileError {
    fn from(error: StorageError) -> Self {
        Self::Extract(error.into())
    }
}

/// Extracts one file of a backup to `destination`, which must not exist, and compares it with the
/// manifest. `ancestors` are the backups that it builds on: its parent first. Its size.
///
/// # Errors
/// If it is not there, not what was backed up, or cannot be written. Nothing is at the destination
/// then.
pub fn extract_file(
    server: &ServerDir,
    record: &BackupRecord,
    ancestors: &[BackupRecord],
    path: &str,
    destination: &Path,
    keys: Option<&KeyFile>,
) -> Result<u64, ExtractFileError> {
    let exists = || ExtractFileError::Exists { path: destination.display().to_string() };
    if destination.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let target = AtomicFile::create(destination, Access::Private)?;
    let failed = |error| StorageError::of("write", destination)(error);
    let mut assembly = Assembly::new(RelationFiles::DEFAULT);
    let mut chain = [record].into_iter().chain(ancestors).peekable();
    let mut newest = true;
    while let Some(record) = chain.next() {
        if let Some(parent) = chain.peek() {
            let content = label(server, record, keys, failed)?;
            check_label(record.id, Some((parent.id, parent.begin)), &content)?;
        }
        let mut part = Part::find(server, record, path, chain.peek().is_some(), keys)?;
        let mut whole = target.file().try_clone().map_err(failed)?;
        if newest && !part.incremental {
            part.read(|bytes| whole.write_all(bytes).map_err(BlockError::Write), failed)?;
            break;
        }
        let (relation, place) = (path.as_bytes().to_vec(), destination.to_owned());
        let mut writer = if part.incremental {
            BlockWriter::incremental(relation, whole, place, newest, &mut assembly)
        } else {
            BlockWriter::whole(relation, whole, place, part.listed.size, &mut assembly)
        };
        part.read(|bytes| writer.take(bytes, &mut assembly).map(drop), failed)?;
        writer.finish(&assembly).map_err(|source| part.not_incremental(source))?;
        if !assembly.wants(path.as_bytes()) {
            break;
        }
        newest = false;
    }
    if assembly.wants(path.as_bytes()) {
        return Err(ExtractError::NoFullFile { path: path.to_owned() }.into());
    }
    let size = target.file().metadata().map_err(failed)?.len();
    match target.commit_new()? {
        Put::Stored => Ok(size),
        Put::Exists => Err(exists()),
    }
}

/// The `backup_label` of a backup.
fn label(
    server: &ServerDir,
    record: &BackupRecord,
    keys: Option<&KeyFile>,
    failed: impl Fn(io::Error) -> StorageError,
) -> Result<Vec<u8>, ExtractFileError> {
    let mut part = Part::find(server, record, backup_label::FILE_NAME, false, keys)?;
    let mut content = Vec::new();
    let limit = usize::try_from(LABEL_LIMIT).unwrap_or(usize::MAX);
    part.read(
        |bytes| {
            let room = limit.saturating_sub(content.len());
            content.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
            Ok(())
        },
        failed,
    )?;
    Ok(content)
}

/// What one backup has of a file.
struct Part {
    backup: BackupId,
    listed: ManifestFile,
    incremental: bool,
    content: Box<dyn Read + Send>,
    stored: PathBuf,
}

impl Part {
    /// Finds the file, or the incremental one that stands for it.
    fn find(
        server: &ServerDir,
        record: &BackupRecord,
        path: &str,
        may_be_incremental: bool,
        keys: Option<&KeyFile>,
    ) -> Result<Self, ExtractFileError> {
        let backup = server.backup(record.id);
        let (directory, name) = match path.rsplit_once('/') {
            Some((directory, name)) => (format!("{directory}/"), name),
            None => (String::new(), path),
        };
        let part = may_be_incremental.then(|| format!("{directory}{FILE_NAME_PREFIX}{name}"));
        let is_part = |path: &[u8]| part.as_ref().is_some_and(|part| part.as_bytes() == path);
        let mut files = ManifestFiles::open(&backup.manifest())?;
        let listed = loop {
            match files.next_file().map_err(ExtractError::from)? {
                Some(file) if file.path == path.as_bytes() || is_part(&file.path) => break file,
                Some(_) => {}
                None => {
                    let (backup, path) = (record.id, path.to_owned());
                    return Err(ExtractFileError::NoSuchFile { backup, path });
                }
            }
        };
        let no_index = || ExtractFileError::NoIndex { backup: record.id, path: path.to_owned() };
        let archives = record.archives.iter();
        let archive = archives
            .filter(|archive| listed.path.starts_with(archive.prefix().as_bytes()))
            .max_by_key(|archive| archive.prefix().len())
            .ok_or_else(no_index)?;
        if listed.checksum.is_none() {
            let stored = backup.archive(&archive.name, archive.form());
            compare_stored(record, archive, &stored)?;
        }
        let inner = listed.path.get(archive.prefix().len()..).unwrap_or_default();
        let content = open_member(&backup, archive, inner, keys)?.ok_or_else(no_index)?;
        Ok(Self {
            backup: record.id,
            incremental: is_part(&listed.path),
            listed,
            content,
            stored: backup.archive(&archive.name, archive.form()),
        })
    }

    /// Reads all of it, and compares it with the manifest.
    fn read(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(), BlockError>,
        failed: impl Fn(io::Error) -> StorageError,
    ) -> Result<(), ExtractFileError> {
        let checksum = self.listed.checksum.as_ref();
        let mut hasher = checksum.map(|(algorithm, _)| algorithm.hasher());
        let (mut chunk, mut size) = (vec![0; CHUNK], 0);
        loop {
            let read =
                self.content.read(&mut chunk).map_err(StorageError::of("read", &self.stored))?;
            let bytes = chunk.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            size += bytes.len() as u64;
            if let Some(hasher) = &mut hasher {
                hasher.update(bytes);
            }
            take(bytes).map_err(|error| match error {
                BlockError::Write(source) => ExtractFileError::from(failed(source)),
                BlockError::Incremental(source) => self.not_incremental(source),
            })?;
        }
        let found = hasher.map(FileHasher::finish);
        let what = if size != self.listed.size {
            "size"
        } else if found.as_ref() != self.listed.checksum.as_ref().map(|(_, digest)| digest) {
            "checksum"
        } else {
            return Ok(());
        };
        let (backup, path) = (self.backup, shown(&self.listed.path));
        Err(ExtractError::Mismatch { backup, path, what }.into())
    }

    fn not_incremental(&self, source: IncrementalError) -> ExtractFileError {
        let (backup, path) = (self.backup, shown(&self.listed.path));
        ExtractError::Incremental { backup, path, source }.into()
    }
}
