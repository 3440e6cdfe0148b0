//! The files that a stored manifest lists, in the order in which they were sent.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use pgwire_stream::manifest::{ManifestError, ManifestFile, ManifestItem, ManifestReader};

use crate::storage::StorageError;

const READ_SIZE: usize = 64 * 1024;

/// Why they cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestFilesError {
    /// The manifest cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It is not what the server wrote.
    #[error("the stored manifest `{}` is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ManifestError,
    },
}

/// A manifest that is read while its backup is: memory does not grow with the number of files.
#[derive(Debug)]
pub struct ManifestFiles {
    path: PathBuf,
    file: File,
    reader: ManifestReader,
    ahead: VecDeque<ManifestFile>,
    at_end: bool,
}

impl ManifestFiles {
    /// Opens a stored manifest.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        Ok(Self {
            path: path.to_owned(),
            file: File::open(path).map_err(StorageError::of("open", path))?,
            reader: ManifestReader::new(),
            ahead: VecDeque::new(),
            at_end: false,
        })
    }

    /// The next file of the backup.
    ///
    /// # Errors
    /// If the manifest cannot be read or understood.
    pub fn next_file(&mut self) -> Result<Option<ManifestFile>, ManifestFilesError> {
        while self.ahead.is_empty() && !self.at_end {
            let mut buffer = vec![0; READ_SIZE];
            let length =
                self.file.read(&mut buffer).map_err(StorageError::of("read", &self.path))?;
            self.at_end = length == 0;
            let items =
                self.reader.feed(buffer.get(..length).unwrap_or_default()).map_err(|source| {
                    ManifestFilesError::Damaged { path: self.path.clone(), source }
                })?;
            self.ahead.extend(items.into_iter().filter_map(|item| match item {
                ManifestItem::File(file) => Some(file),
                _ => None,
            }));
        }
        Ok(self.ahead.pop_front())
    }

    /// Whether the manifest is what the server wrote. What is left to list is passed over.
    ///
    /// # Errors
    /// If it is not, or cannot be read.
    pub fn finish(mut self) -> Result<(), ManifestFilesError> {
        while self.next_file()?.is_some() {}
        let Self { path, reader, .. } = self;
        reader.finish().map_err(|source| ManifestFilesError::Damaged { path, source })
    }
}
