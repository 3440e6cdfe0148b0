//! Everything that is stored for a server: its base backups, and its WAL archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::stored::{CHUNK, Summing, difference};
use super::{Depth, Problem, Problems, Request, VerifyError, verify};
use crate::catalog::{
    BackupOutcome, BackupRecord, BegunScrub, Catalog, Identity, Scrub, WalIndex, WalIndexRecord,
};
use crate::failure::in_one_line;
use crate::progress::ProgressSink;
use crate::storage::{ArchivedWal, KeyFile, Pace, ServerDir, durable, encryption};

/// How many problems are noted word for word.
const NOTED: usize = 100;

/// How long a segment may be archived and in no index.
const JUST_ARCHIVED: Duration = Duration::from_secs(3600);

/// What is to be verified.
#[derive(Clone, Debug)]
pub struct Everything {
    /// Whose store it is.
    pub server: ServerDir,
    /// What opens what is encrypted. Without it, that is compared with its checksums only.
    pub keys: Option<KeyFile>,
    /// How many threads decompress.
    pub jobs: NonZeroUsize,
    /// How fast the store may be read.
    pub pace: Option<Arc<Pace>>,
}

/// Verifies all base backups of a server and all its archived WAL. Blocks for as long as it takes.
/// What is removed meanwhile is passed over. What one has verified that was cut short not long ago is
/// not verified again.
///
/// # Errors
/// If it could not be found out whether something is good. That it is not is no error.
pub fn verify_everything(
    request: &Everything,
    progress: &dyn ProgressSink,
    interrupted: &watch::Receiver<bool>,
) -> Result<Scrub, VerifyError> {
    let begun = BegunScrub::resume(&request.server, Timestamp::now(), request.keys.is_some());
    let mut sweep = Sweep { request, interrupted, begun };
    match sweep.run(progress) {
        Ok(()) => Ok(Scrub { ended_at: Timestamp::now(), ..sweep.begun.so_far }),
        Err(VerifyError::Interrupted) => Err(VerifyError::Interrupted),
        Err(error) => {
            // Its turn is over, and the next one is to read everything.
            if let Err(error) = BegunScrub::give_up(&request.server) {
                let error = in_one_line(&error);
                tracing::warn!(error, "how far a verification has come cannot be forgotten");
            }
            Err(error)
        }
    }
}

/// The work that is going on, and what it has found.
struct Sweep<'a> {
    request: &'a Everything,
    interrupted: &'a watch::Receiver<bool>,
    begun: BegunScrub,
}

impl Sweep<'_> {
    fn run(&mut self, progress: &dyn ProgressSink) -> Result<(), VerifyError> {
        self.backups(progress)?;
        progress.begin("verifying archived WAL", None);
        let archive = self.archive(progress);
        progress.finish();
        archive
    }

    fn tell(&mut self, whose: &str, problem: &Problem) {
        let found = &mut self.begun.so_far;
        found.problems += 1;
        if found.first_problems.len() < NOTED {
            found.first_problems.push(format!("{whose}: {problem}"));
        }
    }

    fn tell_all(&mut self, whose: &str, problems: &Problems) {
        for problem in problems.told() {
            self.tell(whose, problem);
        }
        self.begun.so_far.problems += problems.more();
    }

    /// Notes how far it has come, if that is possible. Else the next one begins anew.
    fn note(&self) {
        if let Err(error) = self.begun.save(&self.request.server) {
            let error = in_one_line(&error);
            tracing::warn!(error, "how far a verification has come cannot be noted");
        }
    }

    fn backups(&mut self, progress: &dyn ProgressSink) -> Result<(), VerifyError> {
        for entry in Catalog::new(&self.request.server).list()? {
            if self.begun.backups.contains(&entry.id) {
                continue;
            }
            let whose = format!("backup {}", entry.id);
            match entry.record {
                Ok(record) if record.outcome == BackupOutcome::Copied => {
                    self.backup(&whose, record, progress)?;
                }
                // Perhaps it is complete when this is gone on with.
                Ok(_) => continue,
                Err(error) => {
                    let file = self.request.server.backup(entry.id).record();
                    let error = in_one_line(&error);
                    self.tell(&whose, &Problem::Unreadable { file, error });
                }
            }
            self.begun.backups.insert(entry.id);
            self.note();
        }
        Ok(())
    }

    fn backup(
        &mut self,
        whose: &str,
        record: BackupRecord,
        progress: &dyn ProgressSink,
    ) -> Result<(), VerifyError> {
        let Everything { server, keys, jobs, pace } = self.request.clone();
        let sealed = record.archives.iter().any(|archive| archive.encrypted);
        let depth = if sealed && keys.is_none() { Depth::Stored } else { Depth::Contents };
        let request = Request { server, record, depth, wal: false, keys, jobs, pace };
        match verify(&request, progress, self.interrupted) {
            Ok(found) => {
                self.begun.so_far.backups += 1;
                self.begun.so_far.bytes += found.stored_bytes;
                self.tell_all(whose, &found.problems);
                Ok(())
            }
            Err(VerifyError::Removed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn archive(&mut self, progress: &dyn ProgressSink) -> Result<(), VerifyError> {
        let names = durable::list_dir(&self.request.server.wals())?;
        let mut directories: Vec<String> =
            names.into_iter().filter_map(|name| name.into_string().ok()).collect();
        directories.sort();
        directories.retain(|name| Some(name) > self.begun.wal.as_ref());
        for directory in directories {
            self.directory(&directory, progress)?;
            self.begun.wal = Some(directory);
            self.note();
        }
        Ok(())
    }

    fn directory(
        &mut self,
        directory: &str,
        progress: &dyn ProgressSink,
    ) -> Result<(), VerifyError> {
        let server = &self.request.server;
        let path = server.wals().join(directory);
        if !path.is_dir() {
            return Ok(());
        }
        let mut files: Vec<ArchivedWal> = durable::list_dir(&path)?
            .iter()
            .filter_map(|name| name.to_str()?.parse().ok())
            .collect();
        files.sort();
        let Some(first) = files.first() else { return Ok(()) };
        let index = match WalIndex::of(server, first.segment).records() {
            Ok(records) => records,
            Err(error) => {
                let (file, error) = (server.wal_index(first.segment), in_one_line(&error));
                self.tell("WAL", &Problem::Unreadable { file, error });
                return Ok(());
            }
        };
        // The newest about each file counts.
        let index: BTreeMap<_, _> = index.into_iter().map(|record| (record.file, record)).collect();
        for file in files {
            match index.get(&file) {
                Some(record) => self.segment(&server.archived_file(file), record)?,
                None => self.unindexed(file)?,
            }
            progress.advance_to(self.begun.so_far.bytes);
        }
        Ok(())
    }

    /// One that no index knows. Unless it is just being archived, its index was lost, and nothing but
    /// reading it tells whether it is whole.
    fn unindexed(&mut self, file: ArchivedWal) -> Result<(), VerifyError> {
        let server = &self.request.server;
        let path = server.archived_file(file);
        let Some(modified) = durable::modified(&path)? else { return Ok(()) };
        let is_new = modified.elapsed().unwrap_or_default() < JUST_ARCHIVED;
        let is_sealed = file.form.encrypted && self.request.keys.is_none();
        if is_new || is_sealed {
            return Ok(());
        }
        let mut length = 0;
        let take = |bytes: &[u8]| {
            length += bytes.len() as u64;
            if let Some(pace) = &self.request.pace {
                pace.keep(bytes.len());
            }
        };
        let read = encryption::open(&path, file.form, self.request.keys.as_ref())
            .map_err(|error| in_one_line(&error))
            .and_then(|plain| self.drain(plain, take).map_err(|error| error.to_string()));
        // Removed meanwhile, or archived in another form.
        if durable::file_size(&path)?.is_none() {
            return Ok(());
        }
        // Without an identity nobody knows how long they are, which is told elsewhere.
        let identity = Identity::load(server).ok().flatten();
        let expected = identity.map(|known| u64::from(known.segment_size.bytes()));
        let expected = expected.filter(|_| !file.partial).unwrap_or(length);
        match read {
            Ok(false) => return Err(VerifyError::Interrupted),
            Ok(true) if length == expected => self.begun.so_far.segments += 1,
            Ok(true) => {
                let error = format!("there are {length} bytes of WAL in it instead of {expected}");
                self.tell("WAL", &Problem::Unreadable { file: path, error });
            }
            Err(error) => self.tell("WAL", &Problem::Unreadable { file: path, error }),
        }
        Ok(())
    }

    /// Reads to the end; `false` if that was interrupted.
    fn drain(&self, mut source: impl Read, mut take: impl FnMut(&[u8])) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK];
        while !*self.interrupted.borrow() {
            match source.read(&mut chunk) {
                Ok(0) => return Ok(true),
                Ok(read) => take(chunk.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Reads one archived segment as it is stored.
    fn segment(&mut self, path: &Path, record: &WalIndexRecord) -> Result<(), VerifyError> {
        let unreadable = |error: String| Problem::Unreadable { file: path.to_owned(), error };
        let file = match File::open(path) {
            Ok(file) => file,
            // Removed meanwhile, or archived in another form.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                self.tell("WAL", &unreadable(error.to_string()));
                return Ok(());
            }
        };
        let noted = record.fingerprint();
        let (source, sum) = Summing::new(file, Some(noted), self.request.pace.clone());
        match self.drain(source, |_| {}) {
            Ok(true) => {}
            Ok(false) => return Err(VerifyError::Interrupted),
            Err(error) => {
                self.tell("WAL", &unreadable(error.to_string()));
                return Ok(());
            }
        }
        let taken = sum.taken();
        self.begun.so_far.segments += 1;
        self.begun.so_far.bytes += taken.size();
        if let Some(problem) = difference(path, taken, Some(noted)) {
            self.tell("WAL", &problem);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use pgwire_stream::{
        SegmentName, SegmentNumber, SegmentSize, ServerVersion, SystemId, TimelineId,
    };

    use super::*;
    use crate::progress::Silent;
    use crate::storage::{Access, Codec, Home};

    #[test]
    fn what_was_read_before_it_was_cut_short_is_not_read_again() {
        let home = tempfile::tempdir().unwrap();
        let server = Home::new(home.path(), Access::Private).server(&"main".parse().unwrap());
        let (size, version) =
            (SegmentSize::new(1 << 20).unwrap(), ServerVersion::from_num(180_000));
        let system_id = SystemId::from_u64(7);
        Identity { system_id, segment_size: size, server_version: version, data_checksums: None }
            .establish(&server)
            .unwrap();
        // Both too short, in two directories, and there for longer than an index takes.
        let segments = [1, 4097].map(|number| {
            SegmentName::new(TimelineId::FIRST, SegmentNumber::from_u64(number), size)
        });
        for segment in segments {
            let path = server.archived(segment, Codec::None);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = File::create(&path).unwrap();
            file.set_modified(SystemTime::now() - 2 * JUST_ARCHIVED).unwrap();
        }
        let request =
            Everything { server: server.clone(), keys: None, jobs: NonZeroUsize::MIN, pace: None };
        let verify = |interrupted: bool| {
            let (_stop, stopped) = watch::channel(interrupted);
            verify_everything(&request, &Silent, &stopped)
        };
        assert!(matches!(verify(true), Err(VerifyError::Interrupted)));
        assert_eq!(verify(false).unwrap().problems, 2);
        let directory = server.wal_dir(segments[0]);
        let first = directory.file_name().unwrap().to_str().unwrap();
        let mut begun = BegunScrub::at(Timestamp::now(), false);
        begun.wal = Some(first.to_owned());
        begun.save(&server).unwrap();
        let found = verify(false).unwrap();
        assert_eq!(found.problems, 1, "{found:?}");
        assert!(found.first_problems[0].contains(&segments[1].to_string()), "{found:?}");
        // It noted how far it came; but what has found something is not gone on with.
        assert_eq!(verify(false).unwrap().problems, 2);
    }
}
