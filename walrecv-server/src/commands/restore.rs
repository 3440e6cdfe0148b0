//! `restore`: plans a restore, and does it unless the plan is all that is wanted.

use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::catalog::{Catalog, Damage, HeldLease, LeaseId};
use crate::failure::{Class, Failure, in_one_line};
use crate::hooks::{Event, HookError, Hooks, RecoveryFacts};
use crate::progress::ProgressSink;
use crate::restore::target::{RecoveryTarget, TimelineChoice};
use crate::restore::{self, Plan, Request, RestoreError, RestoreReport, ServesWal, WalDelivery};
use crate::settings::ServerName;
use crate::storage::{BackupId, Fingerprint, Home, ServerDir};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The server whose backup it is.
    pub server: ServerName,
    /// The backup, where to and how far.
    pub request: Request,
    /// Whether the plan is all that is wanted.
    pub dry_run: bool,
    /// The scripts around it.
    pub hooks: Hooks,
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
    /// A script of the operator's does not allow it.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// The restored server could not be told how to call this program.
    #[error("cannot find out where this program lies")]
    Program(#[source] io::Error),
}

impl Failure for RestoreFailure {
    fn class(&self) -> Class {
        match self {
            Self::Restore(error) => error.class(),
            Self::Hook(error) => error.class(),
            Self::Program(_) => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Restore(error) => error.hint(),
            Self::Hook(error) => error.hint(),
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
    mut options: RestoreOptions,
    serves_wal: ServesWal<'_>,
    progress: &dyn ProgressSink,
    interrupted: &watch::Receiver<bool>,
) -> Result<RestoreOutcome, RestoreFailure> {
    let lease = (!options.dry_run).then(|| LeaseId::at(Timestamp::now()));
    options.request.lease.clone_from(&lease);
    let plan = restore::plan(home, &options.server, &options.request, serves_wal)?;
    let Some(lease) = lease else { return Ok(RestoreOutcome { plan, report: None }) };
    let leased = take_lease(&home.server(&options.server), &plan, lease);
    let (lease, mut unleased) =
        leased.map_or_else(|why| (None, Some(why)), |held| (Some(held), None));
    plan.confirm()?;
    let catalog = Catalog::new(&home.server(&options.server));
    let restored = catalog.load(plan.backup).map_err(RestoreError::from)?;
    let event = Event::Recovery(catalog.facts(&restored), facts(&plan, &options.request));
    // Whether it fails or not: what is not kept is released.
    let work = || {
        restore::execute(&plan, progress, interrupted).map_err(|error| {
            note_damage(&home.server(&options.server), &error);
            RestoreFailure::from(error)
        })
    };
    let mut report = options.hooks.around(&event, &|| *interrupted.borrow(), work)?;
    if let Some(lease) = lease
        && plan.wal_delivery != WalDelivery::Copy
    {
        unleased = lease.keep().err().map(|error| in_one_line(&error));
    }
    if let Some(why) = unleased
        && plan.wal_delivery != WalDelivery::Copy
    {
        report.notes.push(format!(
            "nothing keeps the backup and its WAL until the restored server has replayed it: {why}"
        ));
    }
    Ok(RestoreOutcome { plan, report: Some(report) })
}

/// Notes beside a backup that it is damaged, if that is certain: nobody counts on it then until it
/// was verified.
fn note_damage(server: &ServerDir, error: &RestoreError) {
    let RestoreError::Extract(error) = error else { return };
    let altered = || {
        let (backup, name) = error.unreadable()?;
        is_altered(server, backup, name).then_some(backup)
    };
    let Some(backup) = error.damaged().or_else(altered) else { return };
    let directory = server.backup(backup);
    if !matches!(Damage::load(&directory), Ok(None)) {
        return;
    }
    let first = in_one_line(error);
    let found_at = Timestamp::now();
    let noted = Damage { found_at, problems: 1, first, contents: true }.save(&directory);
    if let Err(error) = noted {
        let error = in_one_line(&error);
        tracing::warn!(%backup, error, "it cannot be noted that the backup is damaged");
    }
}

/// Whether the file of an archive is another one than was stored.
fn is_altered(server: &ServerDir, backup: BackupId, name: &str) -> bool {
    let Ok(record) = Catalog::new(server).load(backup) else { return false };
    let Some(archive) = record.archives.iter().find(|archive| archive.name == name) else {
        return false;
    };
    let path = server.backup(backup).archive(name, archive.form());
    let stored = |noted: Fingerprint| File::open(&path).and_then(|file| noted.again(file));
    let noted = archive.fingerprint();
    noted.is_some_and(|noted| stored(noted).is_ok_and(|stored| stored != noted))
}

/// What scripts are told of a restore: what was asked for, by the names of Barman's options.
fn facts(plan: &Plan, request: &Request) -> RecoveryFacts {
    let mut options: BTreeMap<&'static str, Value> = BTreeMap::new();
    match &plan.target {
        RecoveryTarget::Latest => {}
        RecoveryTarget::Time(time) => drop(options.insert("target_time", json!(time.text))),
        RecoveryTarget::Lsn(lsn) => drop(options.insert("target_lsn", json!(lsn.to_string()))),
        RecoveryTarget::Xid(xid) => drop(options.insert("target_xid", json!(xid.to_string()))),
        RecoveryTarget::Name(name) => drop(options.insert("target_name", json!(name))),
        RecoveryTarget::Immediate => drop(options.insert("target_immediate", json!(true))),
    }
    if plan.target != RecoveryTarget::Latest {
        options.insert("target_action", json!(request.action.to_string()));
        if !request.inclusive {
            options.insert("exclusive", json!(true));
        }
    }
    if request.timeline != TimelineChoice::default() {
        options.insert("target_tli", json!(plan.timeline.get()));
    }
    if request.standby.is_some() {
        options.insert("standby_mode", json!(true));
    }
    let moved =
        plan.tablespaces.iter().filter(|placed| Path::new(&placed.location) != placed.directory);
    let tablespaces = moved.map(|placed| {
        let name = placed.name.clone().unwrap_or_else(|| placed.oid.to_string());
        (name, placed.directory.to_string_lossy().into_owned())
    });
    RecoveryFacts {
        destination: plan.destination.clone(),
        tablespaces: tablespaces.collect(),
        options,
    }
}

/// Has what the restore reads stay. A restore is no worse for want of a lease: it may be the last
/// resort of one who may only read the store, or whose disk is full.
fn take_lease(server: &ServerDir, plan: &Plan, id: LeaseId) -> Result<HeldLease, String> {
    HeldLease::take(server, plan.lease(id)).map_err(|error| in_one_line(&error))
}
