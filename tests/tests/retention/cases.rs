//! Cases that chance would seldom make.

use std::fs;
use std::process::Command;

use jiff::SignedDuration;
use walrecv_server::catalog::{Catalog, Damage};
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

#[test]
fn a_damaged_backup_is_not_counted_and_stays_as_if_it_were_whole() {
    let world = World::of(&[FULL, WRITE, FULL, WRITE, FULL, WRITE]);
    let damage = Damage {
        found_at: world.now,
        problems: 1,
        first: "`base.tar` is missing".to_owned(),
        contents: true,
    };
    let ids: Vec<_> = world.backups.iter().map(|taken| taken.id).collect();
    for policy in ["REDUNDANCY 1", "KEEP 1 YEARLY", "RECOVERY WINDOW OF 1 DAYS"] {
        let run = |damaged: &[usize]| {
            let store = world.build();
            for which in damaged {
                damage.save(&store.server.backup(ids[*which])).unwrap();
            }
            let now = world.now + SignedDuration::from_hours(48);
            enforce(&settings(policy, 0), &store.server, now, &|| false).unwrap();
            Left::of(&store).backups.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(run(&[]), ids[2..], "{policy}");
        assert_eq!(run(&[2]), ids[1..], "{policy}");
        assert_eq!(run(&[1, 2]), [ids[0], ids[2]], "{policy}");
        assert_eq!(run(&[0]), ids[2..], "{policy}");
        // Better something that is damaged than nothing.
        assert_eq!(run(&[0, 1, 2]), ids, "{policy}");
    }
}

#[test]
fn what_is_wrong_with_one_store_stops_no_other() {
    let world = World::of(&[FULL, WRITE, FULL, WRITE]);
    let store = world.build();
    let previous = |name: &str| store.server.previous().server(&name.parse().unwrap());
    for name in ["7", "8"] {
        let one = world.build();
        fs::create_dir_all(store.server.previous().path()).unwrap();
        let (from, to) = (&one.server, previous(name));
        let copied = Command::new("cp").arg("-r").arg(from.path()).arg(to.path()).status();
        assert!(copied.unwrap().success());
    }
    let run = || enforce(&settings("REDUNDANCY 1", 0), &store.server, world.now, &|| false);
    let broken = previous("7").backup(world.backups[0].id).record();
    let record = fs::read(&broken).unwrap();
    fs::write(&broken, b"{").unwrap();
    let enforced = run().unwrap();
    assert_eq!(enforced.removed.backups, [world.backups[0].id]);
    assert_eq!(enforced.previous[0].1.removed.backups, [world.backups[0].id]);
    assert_eq!(enforced.failed[0].0.as_str(), "7");
    // What is wrong with the newest stops none of those before it.
    fs::write(&broken, record).unwrap();
    fs::write(store.server.backup(world.backups[1].id).record(), b"{").unwrap();
    run().unwrap_err();
    assert!(!previous("7").backup(world.backups[0].id).path().exists());
}

#[test]
fn a_backup_that_was_not_begun_is_in_nobodys_way() {
    let world = World::of(&[FULL, WRITE, FULL, WRITE]);
    let store = world.build();
    let unbegun = store.server.base().join(".20200101T000001.hidden");
    fs::create_dir(&unbegun).unwrap();
    fs::write(unbegun.join(".backup.json.tmp"), b"").unwrap();
    let strange = store.server.backup("20200101T000002".parse().unwrap()).path().to_owned();
    fs::create_dir(&strange).unwrap();
    let run = || enforce(&settings("REDUNDANCY 1", 0), &store.server, world.now, &|| false);
    // Nobody knows what this was.
    assert!(matches!(run(), Err(RetentionError::Backup { .. })));
    fs::remove_dir(&strange).unwrap();
    assert_eq!(run().unwrap().removed.backups, [world.backups[0].id]);
    assert!(!unbegun.exists());
}
