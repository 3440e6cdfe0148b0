//! Cases that chance would seldom make.

use std::fs;

use walrecv_server::catalog::Catalog;
use walrecv_server::retention::{RetentionError, enforce};
use walrecv_server::storage::{LockKind, ServerLock};

use crate::left::Left;
use crate::properties::settings;
use crate::world::{Event, World};

const WRITE: Event = Event::Write { segments: 3, hours: 20 };
const FULL: Event = Event::Full { long: false };

#[test]
fn a_backup_that_was_moved_away_holds_what_it_needs_until_it_is_forgotten() {
    let world = World::of(&[FULL, WRITE, FULL, WRITE]);
    let store = world.build();
    let server = &store.server;
    let run = |count: u8| {
        enforce(&settings(&format!("REDUNDANCY {count}"), 0), server, world.now, &|| false)
    };
    // The first settling enters what is there.
    assert!(run(5).unwrap().plan.unwrap().is_empty());
    let [first, second] = [0, 1].map(|which: usize| world.backups[which].id);
    let base = server.base();
    let elsewhere = server.path().join("elsewhere");
    fs::rename(&base, &elsewhere).unwrap();
    fs::create_dir(&base).unwrap();
    let before = Left::of(&store);
    let Err(RetentionError::Vanished { backups, .. }) = run(1) else { panic!("nothing is missed") };
    assert_eq!(backups, [first, second]);
    assert_eq!(Left::of(&store), before);
    fs::rename(elsewhere.join(second.to_string()), server.backup(second).path()).unwrap();
    assert!(matches!(run(1), Err(RetentionError::Vanished { .. })));
    assert_eq!(Left::of(&store).archived, before.archived);
    let lock = ServerLock::try_acquire(server, LockKind::Backup).unwrap();
    let catalog = Catalog::new(server);
    catalog.forget(second, &lock).unwrap_err();
    catalog.forget(first, &lock).unwrap();
    catalog.forget(first, &lock).unwrap_err();
    drop(lock);
    assert!(run(1).unwrap().removed.wal_files > 0);
}
