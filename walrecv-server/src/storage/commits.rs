//! Files that become durable while something else goes on.

use std::collections::VecDeque;
use std::panic;
use std::path::Path;
use std::sync::mpsc::{SendError, sync_channel};
use std::thread::{Builder, JoinHandle};

use super::StorageError;
use super::durable::{self, AtomicFile};

/// How many files may be on their way.
const MOST: usize = 8;

/// Files of one directory on their way to be durable, and to their names. They wait for the disk at
/// once, and a file system commits for all of them together.
///
/// Dropped, it waits for them, too: whoever removes what was written finds all of it.
#[derive(Debug, Default)]
pub struct Commits {
    under_way: VecDeque<JoinHandle<Result<(), StorageError>>>,
}

impl Commits {
    /// Begins to commit a file, as [`AtomicFile::commit_bytes`] does.
    ///
    /// # Errors
    /// If one of those that were begun before is known to have failed.
    pub fn begin(&mut self, file: AtomicFile) -> Result<(), StorageError> {
        while self.under_way.len() >= MOST || self.knows_of_oldest() {
            self.end_oldest()?;
        }
        let (hand_over, handed_over) = sync_channel::<AtomicFile>(1);
        let commit = move || handed_over.recv().map_or(Ok(()), AtomicFile::commit_bytes);
        match Builder::new().name("commit".to_owned()).spawn(commit) {
            Ok(thread) => {
                self.under_way.push_back(thread);
                // Nobody gives it back: the thread takes it before it ends.
                hand_over.send(file).or_else(|SendError(file)| file.commit_bytes())
            }
            // There is no thread to be had.
            Err(_) => file.commit_bytes(),
        }
    }

    /// Waits until all are committed, and makes their names in the directory durable.
    ///
    /// # Errors
    /// If one of them has failed, or the directory cannot be synced.
    pub fn finish(mut self, directory: &Path) -> Result<(), StorageError> {
        while !self.under_way.is_empty() {
            self.end_oldest()?;
        }
        durable::sync_dir(directory)
    }

    fn knows_of_oldest(&self) -> bool {
        self.under_way.front().is_some_and(JoinHandle::is_finished)
    }

    fn end_oldest(&mut self) -> Result<(), StorageError> {
        let Some(oldest) = self.under_way.pop_front() else { return Ok(()) };
        oldest.join().unwrap_or_else(|lost| panic::resume_unwind(lost))
    }
}

impl Drop for Commits {
    fn drop(&mut self) {
        for left in self.under_way.drain(..) {
            // Nobody wants to know any more.
            let _ = left.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;

    use super::*;
    use crate::storage::Access;

    fn begin(commits: &mut Commits, target: &Path) {
        let mut file = AtomicFile::create(target, Access::Private).unwrap();
        file.write_all(b"content").unwrap();
        commits.begin(file).unwrap();
    }

    #[test]
    fn all_have_their_names_when_it_is_finished_or_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let all = || (0..3 * MOST).map(|number| dir.path().join(number.to_string()));
        for is_finished in [true, false] {
            let mut commits = Commits::default();
            all().for_each(|target| begin(&mut commits, &target));
            if is_finished {
                commits.finish(dir.path()).unwrap();
            } else {
                drop(commits);
            }
            for target in all() {
                assert_eq!(fs::read(&target).unwrap(), b"content");
                fs::remove_file(target).unwrap();
            }
        }
    }

    /// What is under way will fail.
    fn one_whose_name_is_taken() -> (tempfile::TempDir, PathBuf, Commits) {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).unwrap();
        let mut commits = Commits::default();
        begin(&mut commits, &taken);
        (dir, taken, commits)
    }

    #[test]
    fn one_that_fails_is_not_passed_over_and_keeps_no_others() {
        let (dir, taken, mut commits) = one_whose_name_is_taken();
        begin(&mut commits, &dir.path().join("free"));
        assert_eq!(commits.finish(dir.path()).unwrap_err().path, taken);
        assert!(dir.path().join("free").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn the_next_file_is_told_that_one_has_failed() {
        let (dir, taken, mut commits) = one_whose_name_is_taken();
        while !commits.knows_of_oldest() {
            std::thread::yield_now();
        }
        let next = AtomicFile::create(&dir.path().join("next"), Access::Private).unwrap();
        assert_eq!(commits.begin(next).unwrap_err().path, taken);
    }
}
