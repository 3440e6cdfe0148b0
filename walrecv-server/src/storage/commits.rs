//! Files that become durable while something else goes on.

use std::collections::VecDeque;
use std::panic;
use std::thread::{Builder, JoinHandle};

use super::StorageError;
use super::durable::AtomicFile;

/// How many files may be on their way.
const MOST: usize = 8;

/// Files on their way to be durable, and to their names. They wait for the disk at once, and a file
/// system commits for all of them together.
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
    /// If there is no thread to be had, or one that was begun before has failed.
    pub fn begin(&mut self, file: AtomicFile) -> Result<(), StorageError> {
        if self.under_way.len() >= MOST {
            self.end_oldest()?;
        }
        let target = file.target().to_owned();
        let thread = Builder::new().name("commit".to_owned()).spawn(move || file.commit_bytes());
        self.under_way.push_back(thread.map_err(StorageError::of("make durable", &target))?);
        Ok(())
    }

    /// Waits until all are committed.
    ///
    /// # Errors
    /// If one of them has failed.
    pub fn finish(mut self) -> Result<(), StorageError> {
        while !self.under_way.is_empty() {
            self.end_oldest()?;
        }
        Ok(())
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
    use std::path::Path;

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
        for finish in [Commits::finish, |commits| {
            drop(commits);
            Ok(())
        }] {
            let mut commits = Commits::default();
            all().for_each(|target| begin(&mut commits, &target));
            finish(commits).unwrap();
            for target in all() {
                assert_eq!(fs::read(&target).unwrap(), b"content");
                fs::remove_file(target).unwrap();
            }
        }
    }

    #[test]
    fn one_that_fails_is_not_passed_over_and_keeps_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).unwrap();
        let mut commits = Commits::default();
        begin(&mut commits, &taken);
        begin(&mut commits, &dir.path().join("free"));
        assert_eq!(commits.finish().unwrap_err().path, taken);
        assert!(dir.path().join("free").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
