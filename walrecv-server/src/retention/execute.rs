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
//! to be needed since the plan was made stays. So does the WAL of a backup that was to go and stays.

use std::collections::{BTreeMap, BTreeSet};

use super::error::RetentionError;
use super::needs::Fate;
use super::plan::{RetentionPlan, read_leases};
use crate::catalog::{BackupError, Catalog, Leases, NoNewLeases, WalStore, journal};
use crate::failure::in_one_line;
use crate::hooks::{Event, HookError, Hooks, Interrupted, WalFacts};
use crate::settings::HookEvent;
use crate::storage::{ArchivedWal, BackupId, ServerDir, ServerLock, StorageError};

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

/// What stands around the steps of an execution.
pub struct Steps<'a> {
    /// The operator's scripts.
    pub hooks: &'a Hooks,
    /// Says whether nobody waits for a script any more.
    pub interrupted: Interrupted<'a>,
    /// Says whether the next step is to be done.
    pub go_on: &'a mut dyn FnMut() -> bool,
}

impl Steps<'_> {
    /// What the scripts do not let go; why not is logged. One that fails has had its minutes, with the
    /// backups locked: it is asked for the others another time.
    fn refused<K: Ord + Copy>(&mut self, events: &[(K, Event)]) -> BTreeSet<K> {
        let mut refused = BTreeSet::new();
        let mut over = false;
        for (key, event) in events {
            over = over || !(self.go_on)();
            if over {
                refused.insert(*key);
            } else if let Err(error) = self.hooks.before(event, self.interrupted) {
                over = !matches!(error, HookError::Refused { .. });
                refused.insert(*key);
                let error = in_one_line(&error);
                tracing::warn!(server = %self.hooks.server(), error, "it is not removed");
            }
        }
        refused
    }
}

/// Does what a plan says, and corrects the plan if a backup stays that was to go. `go_on` is asked
/// before each step; what is not done then is done by a later run.
///
/// # Errors
/// If something cannot be removed. What was removed before stays removed.
pub fn execute(
    plan: &mut RetentionPlan,
    server: &ServerDir,
    lock: &ServerLock,
    steps: &mut Steps<'_>,
) -> Result<Removed, RetentionError> {
    let mut removed = Removed::default();
    let catalog = Catalog::new(server);
    let Some(spared) = remove_backups(plan, server, lock, steps, &mut removed)? else {
        return Ok(removed);
    };
    if !spared.is_empty() {
        plan.spare(&spared, server)?;
    }
    let store = WalStore::new(server, plan.segment_size);
    for span in plan.wal.iter().flat_map(|wal| &wal.goes) {
        if !(steps.go_on)() {
            return Ok(removed);
        }
        journal::record_retired(server, span.timeline, span.start, span.end, lock)?;
    }
    // Directories may be left of which an interrupted run has taken all.
    if !plan.wal.is_empty() && !remove_wal(plan, server, &store, lock, steps, &mut removed)? {
        return Ok(removed);
    }
    if (steps.go_on)() {
        store.collect_removed(lock);
        catalog.collect_removed(lock);
        removed.finished = true;
    }
    Ok(removed)
}

/// Says which of those stay that were to go; `None` if it was broken off.
fn remove_backups(
    plan: &RetentionPlan,
    server: &ServerDir,
    lock: &ServerLock,
    steps: &mut Steps<'_>,
    removed: &mut Removed,
) -> Result<Option<BTreeSet<BackupId>>, RetentionError> {
    let going = children_first(plan);
    if going.is_empty() {
        return Ok(Some(BTreeSet::new()));
    }
    // Scripts take their time; no restore shall wait for them.
    let events = delete_events(&going, server, steps)?;
    let refused = steps.refused(&events);
    let barrier = NoNewLeases::hold(server)?;
    let leases = read_leases(server, plan.clock)?;
    // What a restore has come to need since, or a script does not let go, and all that it builds on.
    let parents: BTreeMap<_, _> = plan.going().map(|backup| (backup.id, backup.parent)).collect();
    let mut needed = BTreeSet::new();
    for &backup in &going {
        let stays = leases.protects(backup) || refused.contains(&backup);
        let mut at = stays.then_some(backup);
        while let Some(id) = at
            && parents.contains_key(&id)
            && needed.insert(id)
        {
            at = parents.get(&id).copied().flatten();
        }
    }
    let mut hide = || {
        for &backup in going.iter().filter(|backup| !needed.contains(backup)) {
            if !(steps.go_on)() {
                return Ok(false);
            }
            Catalog::new(server).hide(backup, lock, &barrier)?;
            removed.backups.push(backup);
        }
        Ok(true)
    };
    let hidden: Result<bool, BackupError> = hide();
    drop(barrier);
    // What is gone is told of, also if that was not all.
    for (_, event) in events.iter().filter(|(id, _)| removed.backups.contains(id)) {
        steps.hooks.after(event, None, steps.interrupted);
    }
    Ok(hidden?.then_some(needed))
}

/// What scripts are told of backups that go; nothing, if there are none.
fn delete_events(
    going: &[BackupId],
    server: &ServerDir,
    steps: &Steps<'_>,
) -> Result<Vec<(BackupId, Event)>, RetentionError> {
    if !steps.hooks.has(HookEvent::Delete) {
        return Ok(Vec::new());
    }
    let catalog = Catalog::new(server);
    going.iter().map(|id| Ok((*id, Event::Delete(catalog.facts(&catalog.load(*id)?))))).collect()
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
    steps: &mut Steps<'_>,
    removed: &mut Removed,
) -> Result<bool, RetentionError> {
    for directory in store.directories()? {
        let leases = read_leases(server, plan.clock)?;
        if matches!(
            plan.needs.fate_of_directory(directory, &leases),
            Some(Fate::Backup { onward: true, .. })
        ) {
            continue;
        }
        let files = store.files_in(directory)?;
        for batch in files.chunks(BATCH) {
            let events = wal_events(plan, server, batch, steps)?;
            let refused = steps.refused(&events);
            let mut gone = BTreeSet::new();
            let barrier = NoNewLeases::hold(server)?;
            let leases = read_leases(server, plan.clock)?;
            let mut remove = || {
                for &file in batch.iter().filter(|file| goes(plan, **file, &leases)) {
                    if refused.contains(&file) {
                        continue;
                    }
                    if !(steps.go_on)() {
                        return Ok(false);
                    }
                    store.remove_file(file, lock, &barrier)?;
                    removed.wal_files += 1;
                    gone.insert(file);
                }
                Ok(true)
            };
            let finished: Result<bool, StorageError> = remove();
            drop(barrier);
            for (_, event) in events.iter().filter(|(file, _)| gone.contains(file)) {
                steps.hooks.after(event, None, steps.interrupted);
            }
            if !finished? {
                return Ok(false);
            }
        }
        let leases = read_leases(server, plan.clock)?;
        if plan.needs.fate_of_directory(directory, &leases) == Some(Fate::Goes) {
            if !(steps.go_on)() {
                return Ok(false);
            }
            store.remove_directory_if_empty(directory, lock)?;
        }
    }
    Ok(true)
}

/// Whether a file goes: it still does, and was noted as retired. What the archiver has put there since
/// the plan was made is for the next run.
fn goes(plan: &RetentionPlan, file: ArchivedWal, leases: &Leases) -> bool {
    plan.is_noted(file.segment) && plan.needs.fate_of(file.segment, leases) == Fate::Goes
}

/// What scripts are told of WAL that goes; nothing, if there are none.
fn wal_events(
    plan: &RetentionPlan,
    server: &ServerDir,
    batch: &[ArchivedWal],
    steps: &Steps<'_>,
) -> Result<Vec<(ArchivedWal, Event)>, RetentionError> {
    if !steps.hooks.has(HookEvent::WalDelete) {
        return Ok(Vec::new());
    }
    let leases = read_leases(server, plan.clock)?;
    let going = batch.iter().filter(|file| goes(plan, **file, &leases));
    let event =
        |&file: &ArchivedWal| Some((file, Event::WalDelete(WalFacts::archived(server, file)?)));
    Ok(going.filter_map(event).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::settings::{Hook, HookScripts};

    #[test]
    fn scripts_are_asked_for_no_more_files_when_it_is_to_end() {
        let directory = tempfile::tempdir().unwrap();
        let told = directory.path().join("told");
        let asked = || fs::read_to_string(&told).unwrap_or_default().lines().count();
        let hooks = |script: &str| {
            let script = format!("echo >> {}; {script}", told.display());
            let hook = Hook::all().find(|hook| hook.to_string() == "pre_wal_delete_retry_script");
            let commands = [(hook.unwrap(), script)].into();
            let timeout = Duration::from_secs(60);
            let scripts = HookScripts { commands, timeout, ..HookScripts::default() };
            Hooks::new(&"main".parse().unwrap(), &scripts)
        };
        let event = |segment: u32| {
            let facts = WalFacts {
                segment: segment.to_string(),
                file: "/srv/x".into(),
                size: 1,
                modified: None,
                compression: "none",
            };
            (segment, Event::WalDelete(facts))
        };
        let events = [event(1), event(2), event(3)];
        let refused = |hooks: &Hooks, interrupted: bool, steps: usize| {
            let mut left = steps;
            let mut go_on = || left.checked_sub(1).inspect(|less| left = *less).is_some();
            let interrupted = &|| interrupted;
            let mut steps = Steps { hooks, interrupted, go_on: &mut go_on };
            steps.refused(&events).into_iter().collect::<Vec<_>>()
        };
        assert_eq!((refused(&hooks("exit 0"), false, 9), asked()), (vec![], 3));
        assert_eq!((refused(&hooks("exit 0"), false, 1), asked()), (vec![2, 3], 4));
        // One that refuses one may allow another; one that does not come to an end is not asked again.
        assert_eq!((refused(&hooks("exit 63"), false, 9), asked()), (vec![1, 2, 3], 7));
        let before = asked();
        assert_eq!(refused(&hooks("sleep 600"), true, 9), [1, 2, 3]);
        assert!(asked() <= before + 1);
    }
}
