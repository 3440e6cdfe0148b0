//! Recovery to each kind of target, and across timelines.

use std::time::Duration;

use pgwire_stream::{Lsn, TimelineHistory, TimelineId};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation};

use crate::site::Site;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("recovery_targets", &[10, 12, 14, 18], recovery_targets)
        .per_major("timelines", &[10, 14, 17, 18], timelines)
        .per_major(
            "timelines_that_passed_meanwhile",
            &[10, 14, 18],
            timelines_that_passed_meanwhile,
        )
        .per_major("switch_cut_short", &[10, 14, 18], switch_cut_short)
        .per_major("recovered_to_before_a_fork", &[10, 14, 18], recovered_to_before_a_fork)
}

fn insert(cluster: &Cluster, marker: &str) -> walrecv_tests::Result<()> {
    cluster.execute(&format!("INSERT INTO marks VALUES ('{marker}')"))
}

fn marks(cluster: &Cluster) -> walrecv_tests::Result<String> {
    cluster.value("SELECT string_agg(mark, ' ' ORDER BY mark) FROM marks")
}

fn recovery_targets(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let cluster = &site.cluster;
    cluster.execute("CREATE TABLE marks (mark text)")?;
    let daemon = site.run()?;
    insert(cluster, "a-backup")?;
    let id = site.backup()?;
    insert(cluster, "b-lsn")?;
    let lsn = cluster.value("SELECT pg_current_wal_insert_lsn()")?;
    std::thread::sleep(Duration::from_millis(1100));
    insert(cluster, "c-time")?;
    let time = cluster.value("SELECT now()")?;
    std::thread::sleep(Duration::from_millis(1100));
    let xid = cluster.value(
        "INSERT INTO marks VALUES ('d-xid') RETURNING txid_current() % (2::bigint ^ 32)::bigint",
    )?;
    insert(cluster, "e-name")?;
    cluster.execute("SELECT pg_create_restore_point('named')")?;
    insert(cluster, "f-last")?;
    site.settle()?;

    let promote = ["--target-action", "promote"];
    for (index, (target, expected)) in [
        (vec!["--target-immediate"], "a-backup"),
        (vec!["--target-lsn", &lsn], "a-backup b-lsn"),
        (vec!["--target-time", &time], "a-backup b-lsn c-time"),
        (vec!["--target-xid", &xid], "a-backup b-lsn c-time d-xid"),
        (vec!["--target-xid", &xid, "--exclusive"], "a-backup b-lsn c-time"),
        (vec!["--target-name", "named"], "a-backup b-lsn c-time d-xid e-name"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut arguments = vec![id.as_str()];
        arguments.extend(target.iter().copied());
        arguments.extend(promote);
        let restored = site.restore_and_start(&format!("target{index}"), &arguments)?;
        assert_eq!(marks(&restored)?, expected, "{target:?}");
    }

    // Without a target: everything.
    let restored = site.restore_and_start("everything", &[&id])?;
    assert_eq!(marks(&restored)?, "a-backup b-lsn c-time d-xid e-name f-last");
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// Reception broke off just behind a switch of timelines: what was received of the old one is
/// recovered up to the switch all the same.
fn switch_cut_short(installation: &Installation) -> ScenarioResult {
    // One that archives would begin a segment at its stop, and the switch lie at its beginning.
    let mut site = Site::around(Cluster::start_new(installation)?)?;
    site.cluster.execute("CREATE TABLE marks (mark text)")?;
    let daemon = site.run()?;
    let id = site.backup()?;
    site.cluster.execute("CREATE TABLE filler AS SELECT generate_series(1, 3000) AS n")?;
    insert(&site.cluster, "first")?;
    site.settle()?;
    site.cluster.stop()?;
    site.cluster.recover_onto_a_new_timeline()?;
    site.cluster.start()?;
    site.cluster.wait_until_promoted()?;
    insert(&site.cluster, "second")?;
    site.wait_until_streaming()?;
    site.settle()?;
    site.cluster.kill9()?;
    assert_eq!(daemon.stop()?, 0);

    let mut cut = 0;
    for entry in std::fs::read_dir(site.walrecv.home().join("main/streaming"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("00000002") && name.ends_with(".partial") {
            std::fs::File::options().write(true).open(&path)?.set_len(8192)?;
            cut += 1;
        }
    }
    assert_eq!(cut, 1);
    let _daemon = site.walrecv.spawn(&["run"])?;
    std::thread::sleep(Duration::from_millis(500));
    let restored = site.restore_and_start("restored", &[&id])?;
    assert_eq!(marks(&restored)?, "first");
    assert_eq!(restored.value("SELECT count(*) FROM filler")?, "3000");
    Ok(())
}

fn timelines(installation: &Installation) -> ScenarioResult {
    let mut site = Site::new(installation)?;
    site.cluster.execute("CREATE TABLE marks (mark text)")?;
    let daemon = site.run()?;
    let id = site.backup()?;
    insert(&site.cluster, "first")?;
    for next in ["second", "third"] {
        site.settle()?;
        site.cluster.stop()?;
        site.cluster.recover_onto_a_new_timeline()?;
        site.cluster.start()?;
        site.cluster.wait_until_promoted()?;
        insert(&site.cluster, next)?;
        site.wait_until_streaming()?;
    }
    site.settle()?;
    site.cluster.kill9()?;

    for (choice, expected) in [
        (vec![], "first second third"),
        (vec!["--target-tli", "latest"], "first second third"),
        (vec!["--target-tli", "2"], "first second"),
        (vec!["--target-tli", "current"], "first"),
    ] {
        let mut arguments = vec![id.as_str()];
        arguments.extend(choice.iter().copied());
        let name = format!("restored{}", choice.last().copied().unwrap_or("-newest"));
        let restored = site.restore_and_start(&name, &arguments)?;
        assert_eq!(marks(&restored)?, expected, "{choice:?}");
    }
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// The receiver has all of timeline 1, and was away while the server changed its timeline twice.
fn timelines_that_passed_meanwhile(installation: &Installation) -> ScenarioResult {
    let mut site = Site::new(installation)?;
    site.cluster.execute("CREATE TABLE marks (mark text)")?;
    let daemon = site.run()?;
    let id = site.backup()?;
    insert(&site.cluster, "first")?;
    site.cluster.stop()?;
    assert_eq!(daemon.stop()?, 0);
    for next in ["second", "third"] {
        if site.cluster.is_running() {
            site.cluster.stop()?;
        }
        site.cluster.recover_onto_a_new_timeline()?;
        site.cluster.start()?;
        site.cluster.wait_until_promoted()?;
        insert(&site.cluster, next)?;
    }
    let daemon = site.run()?;
    site.settle()?;
    let wals = site.walrecv.home().join("main/wals");
    for history in ["00000002.history", "00000003.history"] {
        assert!(wals.join(history).exists(), "{history}");
    }
    site.cluster.kill9()?;
    let restored = site.restore_and_start("restored", &[&id])?;
    assert_eq!(marks(&restored)?, "first second third");
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// A recovery along timeline 2 that stops before timeline 2 began: timeline 3 leaves 2 before 1.
fn recovered_to_before_a_fork(installation: &Installation) -> ScenarioResult {
    let mut site = Site::around(Cluster::start_new(installation)?)?;
    site.cluster.execute("CREATE TABLE marks (mark text)")?;
    let daemon = site.run()?;
    let id = site.backup()?;
    insert(&site.cluster, "first")?;
    let fork = site.cluster.value("SELECT pg_current_wal_insert_lsn()")?;
    insert(&site.cluster, "undone")?;
    site.cluster.execute("SELECT pg_switch_wal()")?;
    insert(&site.cluster, "undone")?;
    site.settle()?;
    site.cluster.stop()?;
    site.cluster.recover_onto_a_new_timeline()?;
    site.cluster.start()?;
    site.cluster.wait_until_promoted()?;
    insert(&site.cluster, "undone")?;
    site.wait_until_streaming()?;
    site.settle()?;
    site.cluster.kill9()?;

    let target = ["--target-tli", "2", "--target-lsn", &fork, "--target-action", "promote"];
    let restored = site.restore_and_start("before", &[&[id.as_str()], &target[..]].concat())?;
    let third = TimelineId::new(3).unwrap();
    let history = std::fs::read(restored.data_directory().join("pg_wal/00000003.history"))?;
    let history = TimelineHistory::parse(third, &history)?;
    let left: Vec<Lsn> = history.switches().iter().map(|switch| switch.switch_point).collect();
    assert!(left.len() == 2 && left[1] < left[0], "{left:?}");

    assert_eq!(daemon.stop()?, 0);
    let _original = site.replace_cluster(restored)?;
    let daemon = site.run()?;
    insert(&site.cluster, "second")?;
    site.settle()?;
    site.cluster.kill9()?;
    let again = site.restore_and_start("again", &[&id])?;
    assert_eq!(marks(&again)?, "first second");
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}
