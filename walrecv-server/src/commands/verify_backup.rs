//! `verify-backup`: whether a backup is still what was stored, and what was backed up.

use std::num::NonZeroUsize;

use tokio::sync::watch;

use crate::catalog::{BackupError, Catalog};
use crate::failure::{Class, Failure};
use crate::hooks::{News, Notice};
use crate::progress::ProgressSink;
use crate::settings::ServerName;
use crate::storage::{KeyFile, ServerDir};
use crate::verify::{self, Depth, Request, Verification, VerifyError};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// The backup.
    pub backup: String,
    /// What is looked at.
    pub depth: Depth,
    /// Whether its WAL is looked at, too.
    pub wal: bool,
    /// What opens what is encrypted.
    pub keys: Option<KeyFile>,
    /// How many threads decompress.
    pub jobs: NonZeroUsize,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct VerifyOutcome {
    /// The server.
    pub server: ServerName,
    /// What was found in its backup.
    pub verification: Verification,
}

/// Why nothing was found out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyFailure {
    /// There is no such backup, or its record is damaged.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// It could not be looked at.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl Failure for VerifyFailure {
    fn class(&self) -> Class {
        match self {
            Self::Backup(error) => error.class(),
            Self::Verify(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Backup(error) => error.hint(),
            Self::Verify(error) => error.hint(),
        }
    }
}

/// Verifies a backup. Blocks for as long as it takes.
pub fn verify_backup(
    server: &ServerDir,
    options: VerifyOptions,
    progress: &dyn ProgressSink,
    interrupted: &watch::Receiver<bool>,
) -> Result<VerifyOutcome, VerifyFailure> {
    let VerifyOptions { backup, depth, wal, keys, jobs } = options;
    let record = Catalog::new(server).resolve(&backup)?;
    let request = Request { server: server.clone(), record, depth, wal, keys, jobs, pace: None };
    let verification = verify::verify(&request, progress, interrupted)?;
    Ok(VerifyOutcome { server: server.name().clone(), verification })
}

/// What the webhook is told of it, if it did not end well.
pub fn notice(
    server: &ServerName,
    verified: &Result<VerifyOutcome, VerifyFailure>,
) -> Option<Notice> {
    match verified {
        Ok(VerifyOutcome { verification, .. }) if verification.problems.only_wait() => None,
        Ok(VerifyOutcome { verification, .. }) => {
            let first = verification.problems.told().first()?;
            let error = format!("backup {}: {first}", verification.backup);
            Some(Notice::new(server, News::VerificationFailed).with_error(error))
        }
        Err(failure) if failure.class() == Class::Interrupted => None,
        Err(failure) => Some(Notice::of(server, News::VerificationFailed, failure)),
    }
}
