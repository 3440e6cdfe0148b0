//! Removing archived WAL, segment by segment, and directories of which nothing is left.
//!
//! The index of a directory is left alone as long as the directory is there: whoever archives may be
//! about to add to it, and nobody asks an index whether a file is there. It goes with its directory.

use std::fs;
use std::io;

use pgwire_stream::SegmentName;

use super::leases::NoNewLeases;
use super::wal::{WalError, WalStore};
use crate::storage::{ArchivedWal, ServerLock, StorageError, durable};

impl WalStore {
    /// The archive's directories, each as the name of its first segment; in order.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn directories(&self) -> Result<Vec<SegmentName>, WalError> {
        self.folders()
    }

    /// The files of one of them, in the order of their segments.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn files_in(&self, directory: SegmentName) -> Result<Vec<ArchivedWal>, StorageError> {
        let mut files = Vec::new();
        durable::for_each_name(&self.server().wal_dir(directory), |name| {
            if let Ok(file) = name.parse::<ArchivedWal>()
                && file.segment.folder() == directory.folder()
            {
                files.push(file);
            }
        })?;
        files.sort_unstable();
        Ok(files)
    }

    /// The stored size of a file; nothing if it is gone.
    ///
    /// # Errors
    /// If the operating system does not tell.
    pub fn size_of(&self, file: ArchivedWal) -> Result<u64, StorageError> {
        Ok(durable::file_size(&self.server().archived_file(file))?.unwrap_or(0))
    }

    /// Removes a file that is known to be retired. Nothing is synced: one that comes back after a
    /// power cut is held again, and removed another time.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove_file(
        &self,
        file: ArchivedWal,
        _backup: &ServerLock,
        _leases: &NoNewLeases,
    ) -> Result<(), StorageError> {
        let path = self.server().archived_file(file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StorageError::of("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes a directory with its index if no WAL is left in it, and none is on its way there.
    /// Whether it did.
    ///
    /// # Errors
    /// If it cannot be looked at or removed.
    pub fn remove_directory_if_empty(
        &self,
        directory: SegmentName,
        _backup: &ServerLock,
    ) -> Result<bool, StorageError> {
        let path = self.server().wal_dir(directory);
        let index = self.server().wal_index(directory);
        durable::collect_leftovers(&path)?;
        let mut others = 0;
        durable::for_each_name(&path, |name| {
            others += usize::from(index.file_name().is_none_or(|index| index != name));
        })?;
        let mut coming = false;
        durable::for_each_name(&self.server().streaming(), |name| {
            coming |= name.starts_with(&directory.folder());
        })?;
        if others > 0 || coming || !path.is_dir() {
            return Ok(false);
        }
        durable::hide_dir(&path)?;
        Ok(true)
    }

    /// Frees the space of directories that were removed, also by a run that was interrupted. What cannot
    /// be freed now is in nobody's way, and is freed another time.
    pub fn collect_removed(&self, _backup: &ServerLock) {
        if let Err(error) = durable::collect_hidden_dirs(&self.server().wals()) {
            let cause = error.source.to_string();
            tracing::warn!(%error, cause, "a removed directory of WAL still takes space");
        }
    }
}
