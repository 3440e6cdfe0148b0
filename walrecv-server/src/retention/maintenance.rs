//! What is done for a server's backups from time to time.

use jiff::Timestamp;

use super::error::RetentionError;
use super::execute::{Removed, Steps, execute};
use super::plan::{RetentionPlan, plan_by, plan_wal, read_clock};
use super::policy::Rules;
use crate::catalog::{BackupOutcome, BackupStatus, Catalog, Clock, Identity, WalStore};
use crate::failure::in_one_line;
use crate::hooks::{Hooks, Interrupted};
use crate::settings::{ServerName, ServerSettings};
use crate::storage::{BackupId, LockKind, ServerDir, ServerLock};

/// What was done for a server's backups.
#[derive(Debug, Default)]
pub struct Enforced {
    /// The backups that are done since the last time.
    pub settled: Vec<BackupId>,
    /// What was planned; `None` if nothing is stored for the server.
    pub plan: Option<RetentionPlan>,
    /// What was removed.
    pub removed: Removed,
    /// The same for the clusters that had the server's name before.
    pub previous: Vec<(ServerName, Self)>,
    /// Those of them for which not all was done, and why.
    pub failed: Vec<(ServerName, RetentionError)>,
}

/// Notes which backups are done, and removes what the policy says. Blocks, and changes nothing but
/// the notes without a policy.
///
/// # Errors
/// If another process works on the backups, something cannot be read that counts (nothing is removed
/// then), or something cannot be removed.
pub fn enforce(
    settings: &ServerSettings,
    server: &ServerDir,
    now: Timestamp,
    interrupted: Interrupted<'_>,
) -> Result<Enforced, RetentionError> {
    let hooks = Hooks::new(&settings.name, &settings.hooks);
    let mut go_on = || !interrupted();
    let mut steps = Steps { hooks: &hooks, interrupted, go_on: &mut go_on };
    enforce_all(settings, server, now, &mut steps)
}

/// The same without scripts, ended by `go_on` before any step; the rest is for another time.
///
/// # Errors
/// As [`enforce`].
pub fn enforce_until(
    settings: &ServerSettings,
    server: &ServerDir,
    now: Timestamp,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Enforced, RetentionError> {
    let hooks = Hooks::none(&settings.name);
    let mut steps = Steps { hooks: &hooks, interrupted: &|| false, go_on };
    enforce_all(settings, server, now, &mut steps)
}

/// Also of the clusters that had the server's name before.
fn enforce_all(
    settings: &ServerSettings,
    server: &ServerDir,
    now: Timestamp,
    steps: &mut Steps<'_>,
) -> Result<Enforced, RetentionError> {
    let clock = read_clock(server, now)?;
    let enforced = enforce_one(settings, server, clock, steps);
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    let previous = server.previous();
    for name in previous.servers()? {
        let previous = previous.server(&name);
        // A cluster that is no more tells no time; the one that has its place does.
        let clock = read_clock(&previous, now).map(|own| own.or_heard(clock));
        // What is wrong with one store is no reason to leave another, or to tell nothing of it.
        match clock.and_then(|clock| enforce_one(settings, &previous, clock, steps)) {
            Ok(one) => done.push((name, one)),
            Err(error) => failed.push((name, error)),
        }
    }
    if enforced.is_err() {
        for (name, one) in &done {
            let (backups, wal_files) = (one.removed.backups.len(), one.removed.wal_files);
            tracing::info!(server = %server.name(), previous = %name, backups, wal_files, "removed");
        }
        for (name, error) in &failed {
            let error = in_one_line(error);
            tracing::error!(server = %server.name(), previous = %name, error, "nothing is removed");
        }
    }
    Ok(Enforced { previous: done, failed, ..enforced? })
}

fn enforce_one(
    settings: &ServerSettings,
    server: &ServerDir,
    clock: Clock,
    steps: &mut Steps<'_>,
) -> Result<Enforced, RetentionError> {
    let Some(identity) = Identity::load(server)? else { return Ok(Enforced::default()) };
    let lock = ServerLock::try_acquire(server, LockKind::Backup)?;
    let settled = settle(server, &lock)?;
    let Some(mut plan) = plan_by(server, &Rules::from(settings), clock)? else {
        return Ok(Enforced::default());
    };
    // What an interrupted run has left is not in the plan.
    let store = WalStore::new(server, identity.segment_size);
    store.collect_removed(&lock);
    Catalog::new(server).collect_removed(&lock);
    let removed = execute(&mut plan, server, &lock, steps)?;
    Ok(Enforced { settled, plan: Some(plan), removed, ..Enforced::default() })
}

/// Notes which backups are done, and which were interrupted. What a plan counts on is durable then.
///
/// # Errors
/// If something cannot be read or written.
pub fn settle(server: &ServerDir, lock: &ServerLock) -> Result<Vec<BackupId>, RetentionError> {
    let catalog = Catalog::new(server);
    catalog.fail_interrupted(lock)?;
    let mut settled = Vec::new();
    let mut copied = Vec::new();
    for entry in catalog.list()? {
        let backup = entry.id;
        let failed = |source| RetentionError::Backup { backup, source };
        let mut record = entry.record.map_err(failed)?;
        if record.outcome == BackupOutcome::Copied {
            copied.push(backup);
        }
        if record.outcome == BackupOutcome::Copied && record.done_at.is_none() {
            let standing = catalog.settle(&mut record, lock).map_err(failed)?;
            if standing.status == BackupStatus::Done {
                settled.push(backup);
            }
        }
    }
    // Stores are older than the register.
    catalog.enter(copied, lock)?;
    Ok(settled)
}

/// Removes the WAL that no backup needs any more, where all backups stay that are there.
///
/// # Errors
/// As [`enforce`].
pub fn free_wal(
    server: &ServerDir,
    lock: &ServerLock,
    hooks: &Hooks,
) -> Result<Option<RetentionPlan>, RetentionError> {
    settle(server, lock)?;
    let Some(mut plan) = plan_wal(server)? else { return Ok(None) };
    let steps = &mut Steps { hooks, interrupted: &|| false, go_on: &mut || true };
    execute(&mut plan, server, lock, steps)?;
    Ok(Some(plan))
}
