//! `restore`: plans a restore, and does it unless the plan is all that is wanted.

use std::env;
use std::io;
use std::path::PathBuf;

use tokio::sync::watch;

use crate::catalog::{BackupError, Catalog};
use crate::failure::{Class, Failure};
use crate::progress::ProgressSink;
use crate::restore::target::{RecoveryTarget, TargetAction, TimelineChoice};
use crate::restore::{
    self, Plan, Request, RestoreError, RestoreReport, ServesWal, TablespaceMapping, WalDelivery,
};
use crate::settings::ServerName;
use crate::storage::Home;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The server whose backup it is.
    pub server: ServerName,
    /// The backup, by its id or in a word.
    pub backup: String,
    /// The new data directory.
    pub destination: PathBuf,
    /// How far to recover.
    pub target: RecoveryTarget,
    /// Along which timeline.
    pub timeline: TimelineChoice,
    /// Whether the target itself is replayed.
    pub inclusive: bool,
    /// What happens there.
    pub action: TargetAction,
    /// Where tablespaces go that are not to go back to where they were.
    pub tablespaces: Vec<TablespaceMapping>,
    /// Who is to own the files.
    pub owner: Option<String>,
    /// How the restored server gets at its WAL.
    pub wal: WalDelivery,
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
    /// There is no such backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
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
            Self::Backup(error) => error.class(),
            Self::Restore(error) => error.class(),
            Self::Program(_) => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Backup(error) => error.hint(),
            Self::Restore(error) => error.hint(),
            Self::Program(_) => None,
        }
    }
}

/// Restores a backup. Blocks for as long as it takes.
pub fn restore(
    home: &Home,
    options: RestoreOptions,
    serves_wal: ServesWal<'_>,
    progress: &dyn ProgressSink,
    interrupted: &watch::Receiver<bool>,
) -> Result<RestoreOutcome, RestoreFailure> {
    let record = Catalog::new(&home.server(&options.server)).resolve_restorable(&options.backup)?;
    let request = Request {
        backup: record.id,
        destination: options.destination,
        target: options.target,
        timeline: options.timeline,
        inclusive: options.inclusive,
        action: options.action,
        tablespaces: options.tablespaces,
        owner: options.owner,
        wal: options.wal,
        program: env::current_exe().map_err(RestoreFailure::Program)?,
    };
    let plan = restore::plan(home, &options.server, &request, serves_wal)?;
    let report =
        if options.dry_run { None } else { Some(restore::execute(&plan, progress, interrupted)?) };
    Ok(RestoreOutcome { plan, report })
}
