//! `generate-manifest`: the manifest of a base backup, made again where it is lost.

use std::num::NonZeroUsize;

use tokio::sync::watch;

use crate::catalog::{BackupError, Catalog};
use crate::failure::{Class, Failure};
use crate::progress::ProgressSink;
use crate::settings::ServerName;
use crate::storage::{BackupId, KeyFile, LockError, LockKind, ServerDir, ServerLock};
use crate::verify::{ManifestAgainError, make_manifest_again};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct ManifestOptions {
    /// The backup.
    pub backup: String,
    /// What opens what is encrypted.
    pub keys: Option<KeyFile>,
    /// How many threads decompress.
    pub jobs: NonZeroUsize,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct ManifestOutcome {
    /// The server.
    pub server: ServerName,
    /// The backup.
    pub backup: BackupId,
    /// How many files the manifest lists.
    pub files: u64,
}

/// Why no manifest was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestFailure {
    /// There is no such backup, or its record is damaged.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// It cannot be made.
    #[error(transparent)]
    Manifest(#[from] ManifestAgainError),
    /// Another process works on the backups.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl Failure for ManifestFailure {
    fn class(&self) -> Class {
        match self {
            Self::Backup(error) => error.class(),
            Self::Manifest(error) => error.class(),
            Self::Lock(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Backup(error) => error.hint(),
            Self::Manifest(error) => error.hint(),
            Self::Lock(error) => error.hint(),
        }
    }
}

/// Makes the manifest again. Blocks for as long as it takes.
pub fn generate_manifest(
    server: &ServerDir,
    options: &ManifestOptions,
    progress: &dyn ProgressSink,
    interrupted: &watch::Receiver<bool>,
) -> Result<ManifestOutcome, ManifestFailure> {
    let lock = ServerLock::try_acquire(server, LockKind::Backup)?;
    let record = Catalog::new(server).resolve(&options.backup)?;
    let backup = record.id;
    let keys = options.keys.as_ref();
    let files =
        make_manifest_again(server, record, keys, options.jobs, progress, interrupted, &lock)?;
    Ok(ManifestOutcome { server: server.name().clone(), backup, files })
}
