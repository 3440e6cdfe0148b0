//! What the manifest says an archive holds, file by file, in the order in which it was sent.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use pgwire_stream::manifest::{ManifestFile, ManifestItem, ManifestReader};

use super::extract::ExtractError;
use crate::storage::StorageError;

const READ_SIZE: usize = 64 * 1024;

/// A manifest that is read while its backup is extracted: memory does not grow with the number of
/// files.
#[derive(Debug)]
pub(super) struct Expected {
    path: PathBuf,
    file: File,
    reader: ManifestReader,
    ahead: VecDeque<ManifestFile>,
    at_end: bool,
}

impl Expected {
    /// Opens a stored manifest.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(super) fn open(path: &Path) -> Result<Self, StorageError> {
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
    pub(super) fn next(&mut self) -> Result<Option<ManifestFile>, ExtractError> {
        while self.ahead.is_empty() && !self.at_end {
            let mut buffer = vec![0; READ_SIZE];
            let length =
                self.file.read(&mut buffer).map_err(StorageError::of("read", &self.path))?;
            self.at_end = length == 0;
            let items = self
                .reader
                .feed(buffer.get(..length).unwrap_or_default())
                .map_err(|source| ExtractError::Manifest { path: self.path.clone(), source })?;
            self.ahead.extend(items.into_iter().filter_map(|item| match item {
                ManifestItem::File(file) => Some(file),
                _ => None,
            }));
        }
        Ok(self.ahead.pop_front())
    }

    /// Says that the backup holds no more files.
    ///
    /// # Errors
    /// If the manifest names more, or is not what the server wrote.
    pub(super) fn finish(mut self) -> Result<(), ExtractError> {
        if let Some(file) = self.next()? {
            return Err(ExtractError::Missing { path: shown(&file.path) });
        }
        let Self { path, reader, .. } = self;
        reader.finish().map_err(|source| ExtractError::Manifest { path, source })
    }
}

/// A path of an archive, for messages.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
