//! What happens in the middle of a run.

use std::cell::Cell;
use std::fs;
use std::sync::PoisonError;

use walrecv_server::catalog::journal;
use walrecv_server::commands::delete::{DeleteFailure, DeleteOptions, delete};
use walrecv_server::hooks::Hooks;
use walrecv_server::retention::{enforce, enforce_until};
use walrecv_server::settings::{Hook, HookEvent, HookKind, HookPhase};

use crate::left::Left;
use crate::properties::{LOCKS, settings};
use crate::world::{Event, FIRST, World};

/// Three backups, and WAL of a day between them.
const THREE: [Event; 6] = [
    Event::Full { long: false },
    Event::Write { segments: 3, hours: 8 },
    Event::Full { long: false },
    Event::Write { segments: 3, hours: 8 },
    Event::Full { long: false },
    Event::Write { segments: 3, hours: 8 },
];

#[test]
fn wal_that_is_archived_meanwhile_goes_the_next_time() {
    let _locks = LOCKS.read().unwrap_or_else(PoisonError::into_inner);
    let world = World::of(&THREE);
    let store = world.build();
    let late = (1, FIRST - 1);
    let mut first = true;
    let mut go_on = || {
        if std::mem::take(&mut first) {
            world.archive(&store.server, late);
        }
        true
    };
    let settings = settings("REDUNDANCY 1", 0);
    let enforced = enforce_until(&settings, &store.server, world.now, &mut go_on).unwrap();
    assert_eq!(enforced.removed.backups.len(), 2);
    assert!(enforced.removed.wal_files > 0);
    assert!(Left::of(&store).archived.contains(&late), "it went without a note");
    enforce(&settings, &store.server, world.now, &|| false).unwrap();
    assert!(!Left::of(&store).archived.contains(&late));
    let retired = journal::retired(&store.server).unwrap();
    assert!(retired.iter().any(|range| range.from.as_u64() == late.1 << 20), "{retired:?}");
}

#[test]
fn scripts_are_told_what_is_gone_where_a_run_is_broken_off() {
    let _alone = LOCKS.write().unwrap_or_else(PoisonError::into_inner);
    for event in [HookEvent::Delete, HookEvent::WalDelete] {
        let world = World::of(&THREE);
        let store = world.build();
        let told = store.server.path().join("state/told");
        let mut settings = settings("REDUNDANCY 1", 0);
        let hook = Hook { event, phase: HookPhase::Post, kind: HookKind::Once };
        let command = format!("echo $WALRECV_SEGMENT$WALRECV_BACKUP_ID >> {}", told.display());
        settings.hooks.commands.insert(hook, command);
        let before = Left::of(&store);
        let is_gone = || match event {
            HookEvent::Delete => Left::of(&store).backups != before.backups,
            _ => Left::of(&store).archived != before.archived,
        };
        // Asked once, when something is gone, whether to go on. Scripts have all the time.
        let answered = Cell::new(false);
        let interrupted = || !answered.get() && is_gone() && !answered.replace(true);
        let enforced = enforce(&settings, &store.server, world.now, &interrupted).unwrap();
        assert!(!enforced.removed.finished);
        let after = Left::of(&store);
        let gone = match event {
            HookEvent::Delete => before.backups.len() - after.backups.len(),
            _ => before.archived.len() - after.archived.len(),
        };
        let told = fs::read_to_string(told).unwrap_or_default();
        assert_eq!((gone, told.lines().count()), (1, 1), "{event:?}: {told}");
    }
}

#[test]
fn what_is_asked_for_leaves_as_many_as_have_to_be_there() {
    let _locks = LOCKS.read().unwrap_or_else(PoisonError::into_inner);
    let world = World::of(&THREE);
    let store = world.build();
    let remove = |minimum_redundancy| {
        let options = DeleteOptions {
            backup: "oldest".to_owned(),
            cascade: false,
            ignore_leases: false,
            dry_run: false,
            minimum_redundancy,
        };
        delete(&store.server, &options, &Hooks::none(&"main".parse().unwrap()), &|| false)
    };
    let refused = remove(3).unwrap_err();
    let told = matches!(refused, DeleteFailure::Redundancy { left: 2, minimum: 3, .. });
    assert!(told, "{refused:?}");
    assert_eq!(Left::of(&store).backups.len(), 3);
    remove(2).unwrap();
    assert_eq!(Left::of(&store).backups.len(), 2);
}
