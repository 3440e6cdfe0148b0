//! Doing what a plan says, in an order that can be taken up again wherever it broke off.
//!
//! 1. The backups lose their names, those that build on others first. Each is a whole backup or none,
//!    and what is left never builds on one that is gone.
//! 2. The WAL that goes is noted as retired. From then on nobody takes what is gone for lost.
//! 3. The WAL goes, oldest first, and directories of which nothing is left.
//! 4. The space of what lost its name is freed.
//!
//! Whatever is left undone is planned again the next time: backups without names are collected, and
//! WAL that nobody needs is still WAL that nobody needs.
//!
//! Leases are looked at once more before each removal, while nobody can take a new one. What has come
//! to be needed since the plan was made stays.

use std::collections::{BTreeMap, BTreeSet};

use super::error::RetentionError;
use super::needs::Fate;
use super::plan::{RetentionPlan, read_leases};
use crate::catalog::{Catalog, NoNewLeases, WalStore, journal};
use crate::storage::{BackupId, ServerDir, ServerLock};

/// How many files are removed while a restore has to wait.
const BATCH: usize = 256;

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The backups, in the order in which they went.
    pub backups: Vec<BackupId>,
    /// How many files of WAL.
    pub wal_files: u64,
    /// Whether all was done that was planned.
    pub finished: bool,
}

/// Does what a plan says. `go_on` is asked before each step; what is not done then is done by a later
/// run.
///
/// # Errors
/// If something cannot be removed. What was removed before stays removed.
pub fn execute(
    plan: &RetentionPlan,
    server: &ServerDir,
    lock: &ServerLock,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Removed, RetentionError> {
    let mut removed = Removed::default();
    let catalog = Catalog::new(server);
    if !remove_backups(plan, server, lock, go_on, &mut removed)? {
        return Ok(removed);
    }
    let store = WalStore::new(server, plan.segment_size);
    for span in plan.wal.iter().flat_map(|wal| &wal.goes) {
        if !go_on() {
            return Ok(removed);
        }
        journal::record_retired(server, span.timeline, span.start, span.end, lock)?;
    }
    // Directories may be left of which an interrupted run has taken all.
    if !plan.wal.is_empty() && !remove_wal(plan, server, &store, lock, go_on, &mut removed)? {
        return Ok(removed);
    }
    if go_on() {
        store.collect_removed(lock)?;
        catalog.collect_removed(lock);
        removed.finished = true;
    }
    Ok(removed)
}

fn remove_backups(
    plan: &RetentionPlan,
    server: &ServerDir,
    lock: &ServerLock,
    go_on: &mut dyn FnMut() -> bool,
    removed: &mut Removed,
) -> Result<bool, RetentionError> {
    let going = children_first(plan);
    if going.is_empty() {
        return Ok(true);
    }
    let barrier = NoNewLeases::hold(server)?;
    let leases = read_leases(server)?;
    // What a restore has come to need since, and all that it builds on.
    let parents: BTreeMap<_, _> = plan.going().map(|backup| (backup.id, backup.parent)).collect();
    let mut needed = BTreeSet::new();
    for &backup in &going {
        let mut at = leases.protects(backup).then_some(backup);
        while let Some(id) = at
            && needed.insert(id)
        {
            at = parents.get(&id).copied().flatten();
        }
    }
    for backup in going.into_iter().filter(|backup| !needed.contains(backup)) {
        if !go_on() {
            return Ok(false);
        }
        Catalog::new(server).hide(backup, lock, &barrier)?;
        removed.backups.push(backup);
    }
    Ok(true)
}

/// The backups that go, those first that build on others.
fn children_first(plan: &RetentionPlan) -> Vec<BackupId> {
    let parents: BTreeMap<_, _> = plan.going().map(|backup| (backup.id, backup.parent)).collect();
    let depth = |id: &BackupId| {
        let mut seen = BTreeSet::from([*id]);
        let mut at = *id;
        while let Some(parent) = parents.get(&at).copied().flatten()
            && seen.insert(parent)
        {
            at = parent;
        }
        seen.len()
    };
    let mut going: Vec<_> = parents.keys().copied().collect();
    going.sort_by_key(|id| (std::cmp::Reverse(depth(id)), *id));
    going
}

fn remove_wal(
    plan: &RetentionPlan,
    server: &ServerDir,
    store: &WalStore,
    lock: &ServerLock,
    go_on: &mut dyn FnMut() -> bool,
    removed: &mut Removed,
) -> Result<bool, RetentionError> {
    for directory in store.directories()? {
        let leases = read_leases(server)?;
        if matches!(
            plan.needs.fate_of_directory(directory, &leases),
            Some(Fate::Backup { onward: true, .. })
        ) {
            continue;
        }
        let files = store.files_in(directory)?;
        for batch in files.chunks(BATCH) {
            let barrier = NoNewLeases::hold(server)?;
            let leases = read_leases(server)?;
            for &file in batch {
                if plan.needs.fate_of(file.segment, &leases) != Fate::Goes {
                    continue;
                }
                if !go_on() {
                    return Ok(false);
                }
                store.remove_file(file, lock, &barrier)?;
                removed.wal_files += 1;
            }
        }
        let leases = read_leases(server)?;
        if plan.needs.fate_of_directory(directory, &leases) == Some(Fate::Goes) {
            if !go_on() {
                return Ok(false);
            }
            store.remove_directory_if_empty(directory, lock)?;
        }
    }
    Ok(true)
}
