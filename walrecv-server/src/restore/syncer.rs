//! Makes many files durable at once while the next ones are being written.
//!
//! A backup has thousands of small files, and each `fsync` waits for the disk: a few threads wait
//! together, and the file system commits for all of them at once.

use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::storage::StorageError;

const THREADS: usize = 8;
/// How many files may wait, open, to become durable.
const WAITING: usize = 64;

/// Takes written files and makes them durable.
pub(super) struct Syncer {
    files: SyncSender<(File, PathBuf)>,
}

impl Syncer {
    /// Hands a file over. It is durable when [`with_syncer`] returns, not before.
    pub(super) fn sync(&self, file: File, path: PathBuf) {
        // The threads listen until the sender is dropped.
        let _ = self.files.send((file, path));
    }
}

/// Does `work` with a syncer. On return every file handed to it is durable.
///
/// # Errors
/// What `work` returned, else the first failure of a sync. Such a failure is final: the file is
/// not synced again.
pub(super) fn with_syncer<T, E>(work: impl FnOnce(&Syncer) -> Result<T, E>) -> Result<T, E>
where
    E: From<StorageError>,
{
    let (files, waiting) = sync_channel(WAITING);
    let waiting = Mutex::new(waiting);
    let failure = Mutex::new(None);
    let done = thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| sync_all(&waiting, &failure));
        }
        let syncer = Syncer { files };
        work(&syncer)
    })?;
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(failure) => Err(E::from(failure)),
        None => Ok(done),
    }
}

fn sync_all(waiting: &Mutex<Receiver<(File, PathBuf)>>, failure: &Mutex<Option<StorageError>>) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((file, path)) = next else { return };
        if let Err(source) = file.sync_all() {
            let error = StorageError { action: "make durable", path, source };
            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_file_is_taken_and_the_result_handed_on() {
        let dir = tempfile::tempdir().unwrap();
        let done: Result<u32, StorageError> = with_syncer(|syncer| {
            for number in 0..300 {
                let path = dir.path().join(number.to_string());
                syncer.sync(File::create(&path).unwrap(), path);
            }
            Ok(7)
        });
        assert_eq!(done.unwrap(), 7);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 300);
    }

    #[test]
    fn a_sync_that_fails_is_not_passed_over() {
        // A pipe cannot be made durable.
        let (reader, _writer) = std::io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        let done: Result<(), StorageError> = with_syncer(|syncer| {
            syncer.sync(file, PathBuf::from("pipe"));
            Ok(())
        });
        assert_eq!(done.unwrap_err().path, PathBuf::from("pipe"));
    }
}
