//! Base backups whose connection, disk or power goes at any moment. The catalog is never wrong, what
//! was taken for them is free again, and the next one works without anybody's help.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use walrecv_tests::disk::{Disk, FileSystem};
use walrecv_tests::proxy::CuttingProxy;
use walrecv_tests::run::{ScenarioResult, Scenarios, rounds};
use walrecv_tests::walrecv::Daemon;
use walrecv_tests::{Cluster, Installation, Result};

use crate::disturbed_backups::slow_backup;
use crate::site::{PASSWORD, ROLE, Site};
use crate::synchronous::sleep_between;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("backup_cut_at_any_byte", &[10, 18], cut_at_any_byte)
        .per_major("backup_on_a_full_disk", &[12, 18], full_disk)
        .per_major("backup_on_a_hanging_disk", &[18], hanging_disk)
        .per_major("backup_in_power_cuts", &[18], power_cuts)
}

/// Some megabytes that do not compress, in an archive of their own: it is complete when that of the
/// data directory begins.
fn fill(cluster: &Cluster) -> Result<()> {
    let place = cluster.new_directory("place")?;
    cluster.execute(&format!("CREATE TABLESPACE place LOCATION '{}'", place.display()))?;
    cluster.execute(
        "CREATE TABLE t TABLESPACE place AS SELECT g, md5(g::text) || md5((-g)::text) AS text \
         FROM generate_series(1, 60000) g",
    )
}

/// A store on a disk of its own, with these lines in its configuration. None, and said so, where there
/// can be no such disk.
fn with_a_disk(installation: &Installation, lines: &str) -> Result<Option<(Site, Disk)>> {
    let site = Site::new(installation)?;
    let disk = Disk::mount(FileSystem::Ext4, 512, &site.walrecv.home())?;
    site.configure(lines)?;
    fill(&site.cluster)?;
    Ok(disk.map(|disk| (site, disk)))
}

/// The backups, and what `list-backups` says of each.
fn listed(site: &Site) -> Result<Vec<(String, String)>> {
    let listed = site.walrecv.run(&["-f", "json2", "list-backups", "main"])?.success()?.json()?;
    let word = |backup: &serde_json::Value, key: &str| {
        backup.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    let backups = listed["results"].as_array().cloned().unwrap_or_default();
    let backups = backups.iter().flat_map(|server| server["backups"].as_array().cloned());
    Ok(backups.flatten().map(|backup| (word(&backup, "id"), word(&backup, "status"))).collect())
}

/// One that failed says so, and takes no room.
fn is_settled(site: &Site) -> ScenarioResult {
    let base = site.walrecv.home().join("main/base");
    for (id, status) in listed(site)? {
        let files = fs::read_dir(base.join(&id))?.map(|entry| Ok(entry?.file_name()));
        let files = files.collect::<std::io::Result<Vec<_>>>()?;
        match status.as_str() {
            "DONE" => assert!(files.len() > 2, "{id} is empty"),
            "FAILED" => assert_eq!(files.len(), 1, "{id} takes room"),
            status => {
                let shown = site.walrecv.run(&["show-backup", "main", &id])?;
                panic!("{id} is {status}, and has {files:?}: {}", shown.stderr)
            }
        }
    }
    Ok(())
}

/// It works without cleaning anything, and what it makes is whole.
fn next_one_works(site: &Site) -> ScenarioResult {
    let id = site.backup()?;
    site.walrecv.run(&["verify-backup", "main", &id, "--wal"])?.success()?;
    is_settled(site)?;
    let base = fs::read_dir(site.walrecv.home().join("main/base"))?.count();
    assert_eq!(base, listed(site)?.len(), "something is left that is no backup");
    Ok(())
}

fn cut_at_any_byte(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    fill(&site.cluster)?;
    let proxy = CuttingProxy::start(site.cluster.port())?;
    let port = |port: u16| format!("port={port}");
    let conninfo = site.cluster.conninfo(ROLE, PASSWORD);
    let conninfo = conninfo.replace(&port(site.cluster.port()), &port(proxy.port()));
    site.walrecv.configure(&format!(
        "[servers.main]\nconninfo = \"{conninfo}\"\nimmediate_checkpoint = true\n\
         basebackup_retry_times = 0\n"
    ))?;
    // Without a receiver: the WAL of the backup comes over the same proxy.
    next_one_works(&site)?;
    let whole = proxy.allow(u64::MAX);

    let count = rounds("WALRECV_TEST_CUTS", 16) as u64;
    let mut failed = 0;
    for round in 0..count {
        // At both ends as well as in between, and never at the same byte of a message.
        let at = match round {
            0 => 1,
            1 => 200,
            round => whole / count * round + round * 97,
        };
        proxy.allow(at);
        let output = site.walrecv.run(&["backup", "main", "--wait", "--wait-timeout", "5"])?;
        let said = proxy.allow(u64::MAX);
        let backups = listed(&site)?;
        if output.code == 0 {
            // Perhaps cut all the same: in the rest of a segment, after all that the backup needs.
            let taken = site.last_backup()?;
            let done = (taken.clone(), "DONE".to_owned());
            assert!(backups.contains(&done), "after {at} of {whole} bytes: {}", output.stderr);
            site.walrecv.run(&["verify-backup", "main", &taken, "--wal"])?.success()?;
        } else {
            failed += 1;
            assert!(said > at, "it failed without a cut: {}", output.stderr);
            assert_eq!(output.code, 1, "after {at} of {whole} bytes: {}", output.stderr);
            assert!(output.stderr.contains("error:"), "{}", output.stderr);
        }
        for (id, status) in backups {
            let whole = matches!(status.as_str(), "DONE" | "WAITING_FOR_WALS");
            let verified = site.walrecv.run(&["verify-backup", "main", &id, "--stored"])?;
            assert_eq!(verified.code == 0, whole, "{id} is {status}: {}", verified.stdout);
            let files = fs::read_dir(site.walrecv.home().join("main/base").join(&id))?.count();
            assert!(whole || files == 1, "{id} takes room");
        }
    }
    assert!(failed * 2 > count, "only {failed} of {count} were cut");
    // One that only its WAL was missing of gets it from whoever receives next.
    let daemon = site.run()?;
    site.settle()?;
    next_one_works(&site)?;
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

fn full_disk(installation: &Installation) -> ScenarioResult {
    let Some((site, disk)) = with_a_disk(installation, "backup_compression = \"none\"\n")? else {
        return Ok(());
    };
    let daemon = site.run()?;
    site.settle()?;
    for left in [1 << 20, 4 << 20, 12 << 20] {
        let ballast = disk.fill(left)?;
        let output = site.walrecv.run(&["backup", "main"])?.code(1)?;
        assert!(output.stderr.contains("No space left on device"), "{}", output.stderr);
        assert!(output.stderr.contains("hint:"), "{}", output.stderr);
        is_settled(&site)?;
        // The room is there again for WAL, whose receiver has not gone.
        site.settle()?;
        drop(ballast);
        site.settle()?;
        next_one_works(&site)?;
        for (id, _) in listed(&site)? {
            site.walrecv.run(&["delete", "main", &id])?.success()?;
        }
    }
    assert_eq!(daemon.stop()?, 0);
    drop(disk);
    Ok(())
}

/// The store's disk hangs in the middle of a backup, which goes on with it, or ends as soon as it can.
fn hanging_disk(installation: &Installation) -> ScenarioResult {
    let Some((site, disk)) = with_a_disk(installation, "backup_compression = \"none\"\n")? else {
        return Ok(());
    };
    let daemon = site.run()?;
    site.settle()?;
    for (unwanted, code) in [(false, 0), (true, 130)] {
        let mut backup = slow_backup(&site, 8192)?;
        let frozen = disk.freeze()?;
        // Longer than all of it would take.
        std::thread::sleep(Duration::from_secs(6));
        if unwanted {
            backup.signal(Signal::INT)?;
        }
        assert!(backup.is_running(), "it ended on a disk that hangs:\n{}", backup.log());
        drop(frozen);
        assert_eq!(backup.wait(Duration::from_secs(60))?, code, "{}", backup.log());
        next_one_works(&site)?;
    }
    assert_eq!(daemon.stop()?, 0);
    drop(disk);
    Ok(())
}

/// The power of the store's disk goes, in the middle of backups and just after their ends.
fn power_cuts(installation: &Installation) -> ScenarioResult {
    let Some((site, disk)) = with_a_disk(installation, "retention_policy = \"REDUNDANCY 2\"\n")?
    else {
        return Ok(());
    };
    let mut promised: Vec<String> = Vec::new();
    for round in 0..rounds("WALRECV_TEST_POWER_CUTS", 10) {
        let daemon = site.run()?;
        if round == 0 {
            promised.push(site.backup()?);
        }
        let mut backup = site.walrecv.spawn(&["backup", "main", "--wait"])?;
        if round % 3 == 0 {
            // What is said to be done is done.
            assert_eq!(backup.wait(Duration::from_secs(60))?, 0, "{}", backup.log());
            promised.push(site.last_backup()?);
        } else {
            sleep_between(50..900);
        }
        cut(&disk, daemon, backup)?;
        disk.restore_power()?;
        for id in &promised {
            let shown = site.shown(id)?;
            assert_eq!(shown["results"][0]["status"], "DONE", "round {round}: {shown}");
            site.walrecv.run(&["verify-backup", "main", id, "--wal"])?.success()?;
        }
        // A backup that says that it is done is whole, whoever heard of its end.
        for (id, status) in listed(&site)? {
            if status == "DONE" {
                site.walrecv.run(&["verify-backup", "main", &id, "--wal"])?.success()?;
            }
        }
    }
    let daemon = site.run()?;
    next_one_works(&site)?;
    assert_eq!(daemon.stop()?, 0);
    drop(disk);
    Ok(())
}

/// First everybody stands still: what is under way when a file system is shut down may seem to have
/// succeeded.
fn cut(disk: &Disk, daemon: Daemon, mut backup: Daemon) -> Result<()> {
    daemon.halt()?;
    if backup.is_running() {
        backup.halt()?;
    }
    disk.cut_power()?;
    daemon.kill9()?;
    if backup.is_running() { backup.kill9() } else { Ok(()) }
}
