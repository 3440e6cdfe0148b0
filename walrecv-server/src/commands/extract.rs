//! `extract`: one file out of a base backup.

use std::path::{Path, PathBuf};

use crate::catalog::{BackupError, Catalog};
use crate::failure::{Class, Failure};
use crate::restore::{ExtractFileError, extract_file};
use crate::settings::ServerName;
use crate::storage::{BackupId, KeyFile, ServerDir};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct ExtractOptions {
    /// The backup.
    pub backup: String,
    /// The file, by its path in the data directory.
    pub path: String,
    /// Where it goes; by its own name into the current directory, if nobody says.
    pub destination: Option<PathBuf>,
    /// What opens what is encrypted.
    pub keys: Option<KeyFile>,
}

/// What was extracted.
#[derive(Clone, Debug)]
pub struct ExtractOutcome {
    /// The server.
    pub server: ServerName,
    /// The backup.
    pub backup: BackupId,
    /// The file.
    pub path: String,
    /// Where it is now.
    pub destination: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

/// Why nothing was extracted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractFailure {
    /// There is no such backup, or its record is damaged.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The file cannot be had.
    #[error(transparent)]
    File(#[from] ExtractFileError),
}

impl Failure for ExtractFailure {
    fn class(&self) -> Class {
        match self {
            Self::Backup(error) => error.class(),
            Self::File(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Backup(error) => error.hint(),
            Self::File(error) => error.hint(),
        }
    }
}

/// Extracts one file. Blocks for as long as it takes.
pub fn extract(
    server: &ServerDir,
    options: ExtractOptions,
) -> Result<ExtractOutcome, ExtractFailure> {
    let ExtractOptions { backup, path, destination, keys } = options;
    let catalog = Catalog::new(server);
    let record = catalog.resolve(&backup)?;
    let ancestors = catalog.ancestors(&record)?;
    let ancestors = ancestors.ok_or(ExtractFileError::BrokenChain { backup: record.id })?;
    let destination = destination
        .unwrap_or_else(|| Path::new(&path).file_name().map(PathBuf::from).unwrap_or_default());
    let size = extract_file(server, &record, &ancestors, &path, &destination, keys.as_ref())?;
    let server = server.name().clone();
    Ok(ExtractOutcome { server, backup: record.id, path, destination, size })
}
