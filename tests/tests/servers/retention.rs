//! Retention beside a running receiver: what is left can be restored, and what is gone was obsolete.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation, Result};

use crate::site::{Site, write_wal};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("retention_redundancy", &[10, 15, 18], retention_redundancy).per_major(
        "retention_is_killed",
        &[15, 18],
        retention_is_killed,
    )
}

const ROWS: &str = "SELECT count(*) FROM t";

/// A site with a table, and incremental backups where the server can.
fn site(installation: &Installation) -> Result<Site> {
    let mut options = Cluster::options(installation).archive();
    if installation.major >= 11 {
        options = options.wal_segment_megabytes(1);
    }
    let site = Site::around(options.start()?)?;
    if installation.major >= 17 {
        site.cluster.execute("ALTER SYSTEM SET summarize_wal = on")?;
        site.cluster.execute("SELECT pg_reload_conf()")?;
    }
    site.cluster.execute("CREATE TABLE t (n int)")?;
    Ok(site)
}

/// A row, WAL behind it, and where that is.
fn step(site: &Site) -> Result<String> {
    site.cluster.execute("INSERT INTO t VALUES (1)")?;
    let lsn = site.cluster.value("SELECT pg_current_wal_lsn()")?;
    write_wal(&site.cluster, 3)?;
    site.cluster.execute("SELECT pg_switch_wal()")?;
    site.settle()?;
    Ok(lsn)
}

fn backups(site: &Site) -> Result<Vec<String>> {
    let listed = site.walrecv.run(&["list-backups", "main", "--minimal"])?.success()?.stdout;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// How many files the archive has, when all is in it that was received completely.
fn archived(site: &Site) -> std::io::Result<usize> {
    let streaming = site.walrecv.home().join("main/streaming");
    let is_whole = |entry: fs::DirEntry| entry.path().extension().is_none();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(60)
        && fs::read_dir(&streaming)?.flatten().any(is_whole)
    {
        thread::sleep(Duration::from_millis(50));
    }
    let mut count = 0;
    for directory in fs::read_dir(site.walrecv.home().join("main/wals"))?.flatten() {
        if directory.path().is_dir() {
            count += fs::read_dir(directory.path())?.count();
        }
    }
    Ok(count)
}

fn retention_redundancy(installation: &Installation) -> ScenarioResult {
    let site = site(installation)?;
    site.configure("retention_policy = \"REDUNDANCY 2\"\nminimum_redundancy = 1\n")?;
    let daemon = site.run()?;
    let mut taken = Vec::new();
    let mut places = Vec::new();
    for round in 0..4 {
        step(&site)?;
        taken.push(site.backup()?);
        if round == 2 && installation.major >= 17 {
            step(&site)?;
            let wait = ["--wait", "--wait-timeout", "60", "--incremental", "auto"];
            site.walrecv.run(&[&["backup", "main"], &wait[..]].concat())?.success()?;
        }
        places.push(step(&site)?);
    }
    let all = backups(&site)?;
    let before = archived(&site)?;

    let listed = site.walrecv.run(&["list-backups", "main"])?.success()?.stdout;
    assert_eq!(listed.matches(" - OBSOLETE\n").count(), 2, "{listed}");
    assert_eq!(listed.matches(" - VALID\n").count(), all.len() - 2, "{listed}");
    let planned = site.walrecv.run(&["cron", "--dry-run"])?.success()?.stdout;
    for (backup, said) in [
        (&taken[0], "DELETE 2 newer full backups are there"),
        (&taken[1], "DELETE 2 newer full backups are there"),
        (&taken[2], "KEEP   one of the newest 2 full backups"),
        (&taken[3], "KEEP   one of the newest 2 full backups"),
    ] {
        assert!(planned.contains(&format!("{backup} {said}")), "{planned}");
    }
    assert_eq!((backups(&site)?, archived(&site)?), (all.clone(), before), "it was dry");

    // A server that is not backed up keeps what it has.
    site.configure(
        "retention_policy = \"REDUNDANCY 2\"\nminimum_redundancy = 1\nactive = false\n",
    )?;
    let planned = site.walrecv.run(&["cron", "--dry-run"])?.success()?.stdout;
    assert!(planned.contains("is not active"), "{planned}");
    assert_eq!(site.walrecv.run(&["cron"])?.success()?.stdout, "");
    assert_eq!((backups(&site)?, archived(&site)?), (all.clone(), before));
    site.configure("retention_policy = \"REDUNDANCY 2\"\nminimum_redundancy = 1\n")?;

    let done = site.walrecv.run(&["cron"])?.success()?.stdout;
    assert!(done.contains(&format!("Deleted backup {}", taken[0])), "{done}");
    let left: Vec<_> = all.iter().filter(|id| !taken[..2].contains(id)).cloned().collect();
    assert_eq!(backups(&site)?, left);
    assert!(archived(&site)? + 6 < before, "{} of {before}", archived(&site)?);
    assert_eq!(site.walrecv.run(&["cron"])?.success()?.stdout, "", "there was nothing to do");
    let said = site.walrecv.run(&["archive-wal", "main"])?.success()?.stdout;
    assert!(said.contains("archives its WAL as it comes"), "{said}");

    let checked = site.walrecv.run(&["-f", "json2", "check", "main"])?.json()?.to_string();
    for row in ["retention policy settings", "minimum redundancy requirements"] {
        assert!(checked.contains(row), "{row}: {checked}");
    }
    let shown = site.walrecv.run(&["-f", "json", "show-backup", "main", &taken[2]])?;
    let shown = shown.success()?.json()?;
    assert_eq!(shown["main"]["catalog_information"]["retention_policy"], "VALID");

    // From what is left, to a place between the two, and to the end.
    let target = ["auto", "--target-lsn", &places[2], "--target-action", "promote"];
    let between = site.restore_and_start("between", &target)?;
    let expected = if installation.major >= 17 { "7" } else { "6" };
    assert_eq!(between.value(ROWS)?, expected);
    let end = site.restore_and_start("end", &[&taken[2]])?;
    assert_eq!(end.value(ROWS)?, site.cluster.value(ROWS)?);
    // Nothing leads to a place before.
    let (_, refused) = site
        .restore("before", &["auto", "--target-lsn", &places[0], "--target-action", "promote"])?;
    assert_ne!(refused.code, 0, "{}", refused.stderr);

    // The restored servers may still want theirs: they have leases.
    let kept = site.walrecv.run(&["delete", "main", &taken[2], "--cascade"])?.code(3)?;
    assert!(kept.stderr.contains("needs it"), "{}", kept.stderr);
    let ours = archived(&site)?;
    let gone = ["delete", "main", &taken[2], "--cascade", "--ignore-leases"];
    let gone = site.walrecv.run(&gone)?.success()?.stdout;
    assert_eq!(backups(&site)?, taken[3..]);
    // Their WAL stays all the same: it is not the backup that was asked about.
    assert_eq!(archived(&site)?, ours, "{gone}");
    for lease in fs::read_dir(site.walrecv.home().join("main/state/leases"))?.flatten() {
        fs::remove_file(lease.path())?;
    }
    site.walrecv.run(&["cron"])?.success()?;
    assert!(archived(&site)? < ours);
    assert_eq!(daemon.stop()?, 0);
    let last = site.restore_and_start("last", &[&taken[3], "--no-get-wal"])?;
    assert_eq!(last.value(ROWS)?, site.cluster.value(ROWS)?);
    Ok(())
}

/// Killed at any moment, it ends where it would have ended.
/// Whatever came of the others: they are whole or gone.
fn newest_is_whole(site: &Site, last: &str) -> ScenarioResult {
    let listed = site.walrecv.run(&["list-backups", "main"])?.success()?.stdout;
    assert!(listed.contains(last) && !listed.contains("BROKEN"), "{listed}");
    assert!(!listed.contains("UNREADABLE"), "{listed}");
    Ok(())
}

fn retention_is_killed(installation: &Installation) -> ScenarioResult {
    let site = site(installation)?;
    site.configure("retention_policy = \"REDUNDANCY 1\"\n")?;
    let daemon = site.run()?;
    for delay in [0, 1, 2, 3, 5, 8, 12, 18] {
        step(&site)?;
        site.backup()?;
        let last = site.backup()?;
        let mut running = site.walrecv.spawn(&["cron"])?;
        thread::sleep(Duration::from_millis(delay));
        if running.is_running() {
            running.kill9()?;
        }
        newest_is_whole(&site, &last)?;
    }
    // The same where a script tells how far it is, and has it wait there.
    for place in ["pre_delete", "post_delete", "pre_wal_delete", "post_wal_delete"] {
        step(&site)?;
        site.backup()?;
        step(&site)?;
        let last = site.backup()?;
        let reached = site.walrecv.directory().join(place);
        site.configure(&format!(
            "retention_policy = \"REDUNDANCY 1\"\n{place}_script = \"touch {} && sleep 60\"\n",
            reached.display()
        ))?;
        let running = site.walrecv.spawn(&["cron"])?;
        site.cluster.wait_for(place, |_| Ok(reached.exists()))?;
        running.kill9()?;
        let before = archived(&site)?;
        newest_is_whole(&site, &last)?;
        let are_left = place == "pre_delete";
        assert_eq!(backups(&site)? != std::slice::from_ref(&last), are_left, "killed {place}");
        site.configure("retention_policy = \"REDUNDANCY 1\"\n")?;
        site.walrecv.run(&["cron"])?.success()?;
        // The last script is told of all of it at once.
        let was_left = archived(&site)? < before;
        assert_eq!(was_left, place != "post_wal_delete", "killed {place}");
    }
    site.walrecv.run(&["cron"])?.success()?;
    let last = site.last_backup()?;
    assert_eq!(backups(&site)?, std::slice::from_ref(&last));
    let base = fs::read_dir(site.walrecv.home().join("main/base"))?.count();
    assert_eq!(base, 1, "something of what was removed is left");
    assert_eq!(site.walrecv.run(&["cron"])?.success()?.stdout, "");
    site.walrecv.run(&["verify-backup", "main", &last, "--wal"])?.success()?;
    let restored = site.restore_and_start("restored", &[&last])?;
    assert_eq!(restored.value(ROWS)?, site.cluster.value(ROWS)?);
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}
