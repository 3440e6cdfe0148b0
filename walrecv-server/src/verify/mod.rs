//! Whether a stored backup is still what was stored, and what was backed up.
//!
//! ```text
//!  stored file ─▶ SHA-256 ─▶ decrypt, decompress ─▶ tar ─┬▶ members, compared with the index
//!                                                        ├▶ files, compared with the manifest
//!                                                        └▶ pages, by their own checksums
//! ```
//!
//! An archive is read once, whatever is asked about it. Damage does not end the search: what is wrong is told for every file, up to a limit.
//! That a backup is damaged is noted beside it, so that nothing counts on it; its record is not touched.

mod contents;
mod everything;
mod index;
mod manifest_again;
mod problem;
mod stored;
mod wal;

use std::num::NonZeroUsize;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::catalog::{
    BackupError, BackupOutcome, BackupRecord, Catalog, Damage, HistoryStoreError, WalError,
};
use crate::failure::{Class, Failure, in_one_line};
use crate::progress::ProgressSink;
use crate::storage::{
    BackupDir, BackupId, DecryptionError, KeyFile, Pace, ServerDir, StorageError,
};

pub use self::everything::{Everything, verify_everything};
pub use self::manifest_again::{ManifestAgainError, make_manifest_again};
pub use self::problem::{Problem, Problems};

/// What is to be verified, and how thoroughly.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whose backup it is.
    pub server: ServerDir,
    /// Its record.
    pub record: BackupRecord,
    /// What is looked at.
    pub depth: Depth,
    /// Whether the WAL between its begin and its end is looked at, too.
    pub wal: bool,
    /// What opens what is encrypted.
    pub keys: Option<KeyFile>,
    /// How many threads decompress.
    pub jobs: NonZeroUsize,
    /// How fast the store may be read; as fast as it goes, if nothing is said.
    pub pace: Option<Arc<Pace>>,
}

/// How much of the stored archives is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// The bytes as they are stored. Needs no key.
    Stored,
    /// The files in them, too.
    Contents,
    /// The pages in those, too.
    Pages,
}

/// What was looked at, and what is wrong.
#[derive(Clone, Debug)]
pub struct Verification {
    /// The backup.
    pub backup: BackupId,
    /// What was asked for.
    pub depth: Depth,
    /// Files of the store.
    pub stored_files: u64,
    /// Their size.
    pub stored_bytes: u64,
    /// Files of the cluster.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// Pages whose checksums were computed; absent if that was not asked for, or they have none.
    pub pages: Option<u64>,
    /// Segments of WAL; absent if that was not asked for.
    pub segments: Option<u64>,
    /// What is wrong.
    pub problems: Problems,
}

/// Why it was not found out whether a backup is good.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// There is nothing yet, or nothing any more, that could be verified.
    #[error("backup `{backup}` is not complete")]
    NotComplete {
        /// The backup.
        backup: BackupId,
    },
    /// Somebody has removed it meanwhile.
    #[error("backup `{backup}` was removed while it was verified")]
    Removed {
        /// The backup.
        backup: BackupId,
    },
    /// Its record, or another, cannot be read.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// It is encrypted, and cannot be read.
    #[error(transparent)]
    Decryption(#[from] DecryptionError),
    /// The history of its timeline cannot be read.
    #[error(transparent)]
    History(#[from] HistoryStoreError),
    /// The WAL cannot be looked for.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The store cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The user does not want to know any more.
    #[error("the verification was interrupted")]
    Interrupted,
}

impl Failure for VerifyError {
    fn class(&self) -> Class {
        match self {
            Self::Interrupted => Class::Interrupted,
            Self::NotComplete { .. } | Self::Removed { .. } => Class::Failed,
            Self::Backup(error) => error.class(),
            Self::Decryption(error) => error.class(),
            Self::History(error) => error.class(),
            Self::Wal(error) => error.class(),
            Self::Storage(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotComplete { .. } | Self::Removed { .. } | Self::Interrupted => None,
            Self::Backup(error) => error.hint(),
            Self::Decryption(error) => error.hint().map(|hint| {
                format!("{hint}; `--stored` compares what is stored with its checksums without")
            }),
            Self::History(error) => error.hint(),
            Self::Wal(error) => error.hint(),
            Self::Storage(error) => error.hint(),
        }
    }
}

/// The work that is going on, and what it has found.
struct Search<'a> {
    request: &'a Request,
    backup: BackupDir,
    progress: &'a dyn ProgressSink,
    interrupted: &'a watch::Receiver<bool>,
    /// Stored bytes that were read before the file that is being read.
    done: u64,
    found: Verification,
}

impl Search<'_> {
    fn check_interruption(&self) -> Result<(), VerifyError> {
        if *self.interrupted.borrow() { Err(VerifyError::Interrupted) } else { Ok(()) }
    }

    fn tell(&mut self, problem: Problem) {
        self.found.problems.add(problem);
    }
}

/// Verifies a backup. Blocks for as long as it takes.
///
/// # Errors
/// If it could not be found out whether the backup is good. That it is not is no error.
pub fn verify(
    request: &Request,
    progress: &dyn ProgressSink,
    interrupted: &watch::Receiver<bool>,
) -> Result<Verification, VerifyError> {
    let record = &request.record;
    if record.outcome != BackupOutcome::Copied {
        return Err(VerifyError::NotComplete { backup: record.id });
    }
    let has_pages = request.depth == Depth::Pages && record.data_checksums == Some(true);
    let found = Verification {
        backup: record.id,
        depth: request.depth,
        stored_files: 0,
        stored_bytes: 0,
        files: 0,
        bytes: 0,
        pages: has_pages.then_some(0),
        segments: request.wal.then_some(0),
        problems: Problems::default(),
    };
    let backup = request.server.backup(record.id);
    let mut search = Search { request, backup, progress, interrupted, done: 0, found };
    progress.begin("verifying", Some(record.stored_size()));
    let outcome = search.run();
    progress.finish();
    match outcome {
        Ok(()) => {}
        Err(VerifyError::Interrupted) => return Err(VerifyError::Interrupted),
        Err(_) if !search.backup.path().exists() => {
            return Err(VerifyError::Removed { backup: record.id });
        }
        // What was found is worth more than why nothing more was.
        Err(error) if !search.found.problems.is_empty() => {
            search.tell(Problem::Unfinished { error: in_one_line(&error) });
        }
        Err(error) => return Err(error),
    }
    note(&search);
    // Somebody may have removed it in the middle of all this.
    if search.found.problems.is_empty() || search.backup.path().exists() {
        Ok(search.found)
    } else {
        Err(VerifyError::Removed { backup: record.id })
    }
}

/// Notes beside the backup whether it is damaged.
fn note(search: &Search<'_>) {
    let problems = &search.found.problems;
    let contents = search.request.depth > Depth::Stored;
    let noted = match problems.told().iter().find(|problem| problem.is_damage()) {
        Some(first) => Damage {
            found_at: Timestamp::now(),
            problems: problems.told().len() as u64 + problems.more(),
            first: first.to_string(),
            contents,
        }
        .save(&search.backup),
        // Damage may be behind what kept the search from going on.
        None if problems
            .told()
            .iter()
            .any(|problem| matches!(problem, Problem::Unfinished { .. })) =>
        {
            Ok(())
        }
        None => Damage::clear(&search.backup, contents),
    };
    if let Err(error) = noted
        && search.backup.path().exists()
    {
        let (backup, error) = (search.request.record.id, in_one_line(&error));
        tracing::warn!(%backup, error, "what a verification found cannot be noted");
    }
}

impl Search<'_> {
    fn run(&mut self) -> Result<(), VerifyError> {
        let record = &self.request.record;
        if Catalog::new(&self.request.server).ancestors(record)?.is_none() {
            self.tell(Problem::Parent);
        }
        self.manifest()?;
        self.indexes()?;
        self.config_files()?;
        if self.request.depth == Depth::Stored {
            self.archives_as_stored()?;
        } else {
            self.contents()?;
        }
        if self.request.wal { self.wal() } else { Ok(()) }
    }
}
