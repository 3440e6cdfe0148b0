//! Files of the store, compared with what was noted when they were written.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Sink, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Problem, Search, VerifyError};
use crate::catalog::Archive;
use crate::storage::{Fingerprint, FingerprintWriter, Pace, Stored};

/// How much is read at a time.
pub(super) const CHUNK: usize = 256 << 10;

/// Sums up what is read through it, no faster than it may be read.
pub(super) struct Summing<R> {
    source: R,
    sum: Arc<Sum>,
    pace: Option<Arc<Pace>>,
}

/// What was read so far. Somebody else reads, and drops the reader.
pub(super) struct Sum(Mutex<FingerprintWriter<Sink>>);

impl<R: Read> Summing<R> {
    /// For the comparison with what was noted, if anything was.
    pub(super) fn new(
        source: R,
        noted: Option<Fingerprint>,
        pace: Option<Arc<Pace>>,
    ) -> (Self, Arc<Sum>) {
        let taking = match noted {
            Some(noted) => FingerprintWriter::like(&noted, io::sink()),
            None => FingerprintWriter::sha256(io::sink()),
        };
        let sum = Arc::new(Sum(Mutex::new(taking)));
        (Self { source, sum: Arc::clone(&sum), pace }, sum)
    }
}

impl<R: Read> Read for Summing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        if let Some(pace) = &self.pace {
            pace.keep(read);
        }
        self.sum.lock().write_all(buffer.get(..read).unwrap_or_default())?;
        Ok(read)
    }
}

impl Sum {
    /// How many bytes.
    pub(super) fn size(&self) -> u64 {
        self.lock().size()
    }

    /// What they are.
    pub(super) fn taken(&self) -> Fingerprint {
        self.lock().so_far()
    }

    fn lock(&self) -> MutexGuard<'_, FingerprintWriter<Sink>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is wrong with a file that was read to its end.
pub(super) fn difference(
    path: &Path,
    taken: Fingerprint,
    noted: Option<Fingerprint>,
) -> Option<Problem> {
    let (noted, file) = (noted?, path.to_owned());
    if taken.size() != noted.size() {
        let (found, expected) = (taken.size(), noted.size());
        return Some(Problem::StoredSize { file, found, expected });
    }
    (taken != noted).then_some(Problem::StoredChecksum { file })
}

impl Search<'_> {
    /// The manifest as it is stored.
    pub(super) fn manifest(&mut self) -> Result<(), VerifyError> {
        let path = self.backup.manifest();
        match &self.request.record.manifest {
            Some(manifest) => {
                let noted = Stored { size: manifest.size, sha256: manifest.sha256 };
                self.read_through(&path, Some(noted.into()), |_| {})
            }
            // Every backup that is complete has one.
            None => {
                self.tell(Problem::Gone { file: path });
                Ok(())
            }
        }
    }

    /// The indexes as they are stored.
    pub(super) fn indexes(&mut self) -> Result<(), VerifyError> {
        for archive in &self.request.record.archives {
            let path = self.backup.archive_index(&archive.name);
            self.read_through(&path, archive.index.map(Fingerprint::from), |_| {})?;
        }
        Ok(())
    }

    /// The archive of configuration files as it is stored.
    pub(super) fn config_files(&mut self) -> Result<(), VerifyError> {
        match &self.request.record.config_files {
            Some(config) if config.stored.is_some() => {
                let path = self.backup.config_files(config.form());
                self.read_through(&path, config.stored.map(Fingerprint::from), |_| {})
            }
            _ => Ok(()),
        }
    }

    /// The archives as they are stored.
    pub(super) fn archives_as_stored(&mut self) -> Result<(), VerifyError> {
        for archive in &self.request.record.archives {
            let path = self.backup.archive(&archive.name, archive.form());
            self.read_through(&path, archive.fingerprint(), |_| {})?;
            self.demand_fingerprint(archive);
        }
        Ok(())
    }

    /// Without a checksum in its record, nobody knows what an archive was.
    pub(super) fn demand_fingerprint(&mut self, archive: &Archive) {
        if archive.fingerprint().is_none() {
            let file = self.backup.archive(&archive.name, archive.form());
            self.tell(Problem::StoredChecksum { file });
        }
    }

    /// Reads a file to its end, and compares it with what was noted.
    pub(super) fn read_through(
        &mut self,
        path: &Path,
        noted: Option<Fingerprint>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), VerifyError> {
        let Some(file) = self.open(path) else { return Ok(()) };
        let (mut source, sum) = Summing::new(file, noted, self.request.pace.clone());
        let mut chunk = vec![0; CHUNK];
        loop {
            self.check_interruption()?;
            match source.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => take(chunk.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let (file, error) = (path.to_owned(), error.to_string());
                    self.tell(Problem::Unreadable { file, error });
                    return Ok(());
                }
            }
            self.progress.advance_to(self.done + sum.size());
        }
        self.compare(path, &sum, noted);
        Ok(())
    }

    /// Opens a file of the store that should be there.
    pub(super) fn open(&mut self, path: &Path) -> Option<File> {
        match File::open(path) {
            Ok(file) => Some(file),
            Err(error) => {
                let file: PathBuf = path.to_owned();
                self.tell(if error.kind() == ErrorKind::NotFound {
                    Problem::Gone { file }
                } else {
                    Problem::Unreadable { file, error: error.to_string() }
                });
                None
            }
        }
    }

    /// A file was read to its end: is it what was noted?
    pub(super) fn compare(&mut self, path: &Path, sum: &Sum, noted: Option<Fingerprint>) {
        let taken = sum.taken();
        self.done += taken.size();
        self.found.stored_files += 1;
        self.found.stored_bytes += taken.size();
        if let Some(problem) = difference(path, taken, noted) {
            self.tell(problem);
        }
    }
}
