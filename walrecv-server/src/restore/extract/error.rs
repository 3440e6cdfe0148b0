//! Why an archive did not become files.

use std::io;
use std::path::PathBuf;

use pgwire_stream::backup_label::BackupLabelError;
use pgwire_stream::incremental::IncrementalError;
use pgwire_stream::manifest::ManifestError;

use crate::catalog::ManifestFilesError;
use crate::failure::Failure;
use crate::storage::tar::TarError;
use crate::storage::{BackupId, StorageError};

/// Why an archive did not become files.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// A file cannot be written, or the store not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The stored archive cannot be read or decompressed.
    #[error("cannot read the stored archive `{archive}` of backup `{backup}`")]
    Read {
        /// The backup.
        backup: BackupId,
        /// The archive's name in it.
        archive: String,
        /// What reading said.
        source: io::Error,
    },
    /// The stored archive is not what was stored.
    #[error("the stored archive `{archive}` of backup `{backup}` does not match its checksum")]
    Altered {
        /// The backup.
        backup: BackupId,
        /// The archive's name in it.
        archive: String,
    },
    /// The stored archive is not a tar as PostgreSQL sends it.
    #[error("the stored archive `{archive}` of backup `{backup}` is damaged")]
    Tar {
        /// The backup.
        backup: BackupId,
        /// The archive's name in it.
        archive: String,
        /// What is wrong with it.
        source: TarError,
    },
    /// The stored manifest is not what the server wrote.
    #[error("the stored manifest `{}` is damaged", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The archive holds a file where the manifest has another, or none.
    #[error(
        "`{path}` is in the stored archive of backup `{backup}`, where the manifest has {expected}"
    )]
    Unexpected {
        /// The backup.
        backup: BackupId,
        /// The file in the archive.
        path: String,
        /// What the manifest has.
        expected: String,
    },
    /// A file is not what was backed up.
    #[error("`{path}` in the stored backup `{backup}` does not match its {what} in the manifest")]
    Mismatch {
        /// The backup.
        backup: BackupId,
        /// The file.
        path: String,
        /// What does not match.
        what: &'static str,
    },
    /// The manifest has a file that no archive holds.
    #[error("`{path}` is in the manifest of backup `{backup}`, but in no stored archive")]
    Missing {
        /// The backup.
        backup: BackupId,
        /// The file.
        path: String,
    },
    /// An incremental file is none.
    #[error("`{path}` in the stored backup `{backup}` is no incremental file")]
    Incremental {
        /// The backup.
        backup: BackupId,
        /// The file.
        path: String,
        /// What is wrong with it.
        source: IncrementalError,
    },
    /// The `backup_label` of an incremental backup does not say what it is the difference to.
    #[error("the `backup_label` of backup `{backup}` is damaged")]
    Label {
        /// The backup.
        backup: BackupId,
        /// What is wrong with it.
        source: BackupLabelError,
    },
    /// A backup does not build on the one that its record names.
    #[error("backup `{backup}` does not build on backup `{parent}`, as its record says")]
    NotItsParent {
        /// The backup.
        backup: BackupId,
        /// Its parent, as the record says.
        parent: BackupId,
    },
    /// No backup of a chain has a file in full.
    #[error("none of the backups of the chain has `{path}` in full")]
    NoFullFile {
        /// The file.
        path: String,
    },
    /// The cluster has blocks of another size than every packaged server.
    #[error(
        "the cluster has blocks of {block_size} bytes, {blocks} to a file: a chain of such backups \
         cannot be put together"
    )]
    BlockSize {
        /// The size of its blocks.
        block_size: u32,
        /// How many of them a file has.
        blocks: u32,
    },
    /// The user does not want it any more.
    #[error("interrupted")]
    Interrupted,
}

impl ExtractError {
    /// The backup that is certainly not any more what was stored.
    pub fn damaged(&self) -> Option<BackupId> {
        match self {
            Self::Altered { backup, .. }
            | Self::Tar { backup, .. }
            | Self::Unexpected { backup, .. }
            | Self::Mismatch { backup, .. }
            | Self::Missing { backup, .. }
            | Self::Incremental { backup, .. }
            | Self::Label { backup, .. } => Some(*backup),
            Self::Storage(_)
            | Self::Read { .. }
            | Self::Manifest { .. }
            | Self::NotItsParent { .. }
            | Self::NoFullFile { .. }
            | Self::BlockSize { .. }
            | Self::Interrupted => None,
        }
    }

    /// The archive that cannot be read, though the disk has nothing to say about it. It may be
    /// damaged, or there was no memory for it.
    pub fn unreadable(&self) -> Option<(BackupId, &str)> {
        match self {
            Self::Read { backup, archive, source } if source.raw_os_error().is_none() => {
                Some((*backup, archive))
            }
            _ => None,
        }
    }
}

impl Failure for ExtractError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Storage(error) => error.hint(),
            Self::BlockSize { .. } => Some(
                "unpack the backups and put them together with PostgreSQL's pg_combinebackup, or \
                 restore a full backup"
                    .to_owned(),
            ),
            _ => Some(
                "the stored backup cannot be trusted any more; remove what was restored and \
                 restore another backup"
                    .to_owned(),
            ),
        }
    }
}

impl From<ManifestFilesError> for ExtractError {
    fn from(error: ManifestFilesError) -> Self {
        match error {
            ManifestFilesError::Storage(error) => Self::Storage(error),
            ManifestFilesError::Damaged { path, source } => Self::Manifest { path, source },
        }
    }
}
