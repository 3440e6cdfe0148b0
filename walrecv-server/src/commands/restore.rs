//! `restore`: plans a restore, and does it unless the plan is all that is wanted.

use std::env;
use std::io;
use std::path::PathBuf;

use tokio::sync::watch;

use crate::failure::{Class, Failure};
use crate::progress::ProgressSink;
use crate::restore::{self, Plan, Request, RestoreError, RestoreReport, ServesWal};
use crate::settings::ServerName;
use crate::storage::Home;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The server whose backup it is.
    pub server: ServerName,
    /// The backup, where to and how far.
    pub request: Request,
    /// Whether the plan is all that is wanted.
    pub dry_run: bool,
}

/// What was planned, and what was done.
#[derive(Clone, Debug)]
pub struct RestoreOutcome {
    /// The plan.
    pub plan: Plan,
    /// What was done; `None` if the plan is all that was wanted.
    pub report: Option<RestoreReport>,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreFailure {
    /// It is not possible, or failed.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The restored server could not be told how to call this program.
    #[error("cannot find out where this program lies")]
    Program(#[source] io::Error),
}

impl Failure for RestoreFailure {
    fn class(&self) -> Class {
        match self {
            Self::Restore(error) => error.class(),
            Self::Program(_) => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Restore(error) => error.hint(),
            Self::Program(_) => None,
        }
    }
}

/// Where this program lies, for the restored server to call it.
pub fn this_program() -> Result<PathBuf, RestoreFailure> {
    env::current_exe().map_err(RestoreFailure::Program)
}

/// Restores a backup. Blocks for as long as it takes.
pub fn restore(
    home: &Home,
    options: RestoreOptions,
    serves_wal: ServesWal<'_>,
    progress: &dyn ProgressSink,
    interrupted: &watch::Receiver<bool>,
) -> Result<RestoreOutcome, RestoreFailure> {
    let plan = restore::plan(home, &options.server, &options.request, serves_wal)?;
    let report =
        if options.dry_run { None } else { Some(restore::execute(&plan, progress, interrupted)?) };
    Ok(RestoreOutcome { plan, report })
}
