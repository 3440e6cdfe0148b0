//! The commands around the main job: set up, look, switch, stop, interrupt.

use rustix::process::Signal;
use std::time::Duration;
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::walrecv::{Walrecv, bare_command, finish};
use walrecv_tests::{Cluster, Installation};

use crate::site::{PASSWORD, ROLE, Site};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("init", &[10, 18], init)
        .per_major("check", &[10, 14, 18], check)
        .per_major("switch_wal", &[10, 18], switch_wal)
        .per_major("receive_wal", &[10, 18], receive_wal)
        .per_major("interrupted_backup", &[10, 18], interrupted_backup)
        .once("arguments_alone", arguments_alone)
}

/// What `init` prints is all that a new server needs.
fn init(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    let directory = tempfile::tempdir()?;
    let configuration = directory.path().join("etc/walrecv-server.toml");
    let conninfo = format!("host=127.0.0.1 port={} user={ROLE} dbname=postgres", cluster.port());
    let run = |arguments: &[&str]| {
        let mut command = bare_command()?;
        command.arg("--config").arg(&configuration).args(arguments);
        command.env("PGPASSWORD", PASSWORD);
        finish(&mut command)
    };

    // Nobody there has heard of us: the file is written all the same, and says what to do.
    let home = directory.path().join("home").display().to_string();
    let first = run(&["--home", &home, "init", "db", "--conninfo", &conninfo])?.code(1)?;
    assert!(first.stdout.contains("CREATE ROLE walrecv LOGIN REPLICATION"), "{}", first.stdout);
    assert!(first.stderr.contains("hint: "), "{}", first.stderr);
    assert!(configuration.exists());

    for line in first.stdout.lines().map(str::trim) {
        if line.starts_with("CREATE ROLE") || line.starts_with("GRANT EXECUTE") {
            cluster.execute(&line.replace('…', PASSWORD))?;
        }
    }
    let written = std::fs::read(&configuration)?;
    let second = run(&["init", "db"])?.success()?;
    assert!(second.stdout.contains("answers: PostgreSQL"), "{}", second.stdout);
    assert_eq!(std::fs::read(&configuration)?, written);
    run(&["switch-wal", "db"])?.success()?;
    Ok(())
}

fn check(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let before = site.walrecv.run(&["check", "main"])?.code(1)?;
    assert!(before.stdout.contains("receive-wal running: FAILED"), "{}", before.stdout);
    assert!(!site.walrecv.home().exists(), "a look made something");
    let nagios = site.walrecv.run(&["check", "all", "--nagios"])?.code(2)?;
    assert!(nagios.stdout.starts_with("WALRECV CRITICAL"), "{}", nagios.stdout);

    let daemon = site.run()?;
    let id = site.backup()?;
    let well = site.walrecv.run(&["check", "main"])?.success()?;
    // How full the disk of this machine is decides nothing here.
    let mut rows = well.stdout.lines().filter(|line| !line.contains("disk space: "));
    assert!(rows.all(|row| !row.contains("FAILED") && !row.contains("WARNING")), "{}", well.stdout);
    assert!(well.stdout.contains(&format!("last backup: OK ({id} is DONE)")), "{}", well.stdout);
    let json = site.walrecv.run(&["-f", "json", "check", "main"])?.success()?.json()?;
    assert_eq!(json["main"]["systemid_coherence"]["status"], "OK");
    site.walrecv.run(&["check", "main", "--nagios"])?.success()?;

    let listed = site.walrecv.run(&["-f", "json", "list-backup", "all"])?.success()?.json()?;
    assert_eq!(listed["main"][0]["backup_id"], id.as_str());
    assert_eq!(listed["main"][0]["status"], "DONE");
    let shown = site.walrecv.run(&["show-backups", "main", "last"])?.success()?;
    assert!(shown.stdout.contains(&id), "{}", shown.stdout);

    // What Barman does not know is told to people only.
    for told in ["receiver state: OK (streaming", "archive backlog: OK", "no commit waits for us"] {
        assert!(well.stdout.contains(told), "no `{told}` in:\n{}", well.stdout);
    }
    let keys: Vec<_> = json["main"].as_object().into_iter().flatten().map(|(key, _)| key).collect();
    assert!(!keys.iter().any(|key| key.contains("synchronous") || key.contains("backlog")));

    // Commits that would wait for ever.
    for setting in ["synchronous_standby_names = '*'", "synchronous_commit = remote_apply"] {
        site.cluster.execute(&format!("ALTER SYSTEM SET {setting}"))?;
    }
    site.cluster.reload()?;
    site.cluster.wait_for("the setting", |cluster| {
        Ok(cluster.value("SHOW synchronous_commit")? == "remote_apply")
    })?;
    let warned = site.walrecv.run(&["check", "main"])?.success()?;
    assert!(warned.stdout.contains("synchronous replication: WARNING"), "{}", warned.stdout);
    assert!(warned.stdout.contains("wait for ever"), "{}", warned.stdout);
    site.cluster.execute("ALTER SYSTEM RESET ALL")?;
    site.cluster.reload()?;

    // The slot is gone behind our back.
    assert_eq!(daemon.stop()?, 0);
    site.cluster.execute("SELECT pg_drop_replication_slot('walrecv')")?;
    let ill = site.walrecv.run(&["check", "main"])?.code(1)?;
    assert!(ill.stdout.contains("replication slot: FAILED (slot 'walrecv' doesn't exist"));
    Ok(())
}

fn switch_wal(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    site.cluster.execute("CREATE TABLE t (n int)")?;
    let denied = site.walrecv.run(&["switch-wal", "main"])?.code(1)?;
    let grant = "GRANT EXECUTE ON FUNCTION pg_switch_wal() TO walrecv";
    assert!(denied.stderr.contains(grant), "{}", denied.stderr);
    assert!(denied.stderr.contains("the server says: "), "{}", denied.stderr);
    site.cluster.execute(grant)?;

    let file = "SELECT pg_walfile_name(pg_current_wal_lsn())";
    let current = site.cluster.value(file)?;
    let switched = site.walrecv.run(&["switch-xlog", "main"])?.success()?;
    assert!(switched.stdout.contains(&current), "{current}: {}", switched.stdout);
    // The server may write something by itself in between, but hardly each time.
    let idle = (0..5).find_map(|_| {
        let output = site.walrecv.run(&["switch-wal", "main"]).and_then(|output| output.success());
        output.ok().filter(|output| output.stdout.starts_with("No switch required"))
    });
    assert!(idle.is_some(), "there was always something to switch");
    let forced = site.walrecv.run(&["switch-wal", "main", "--force"])?.code(1)?;
    assert!(forced.stderr.contains("pg_checkpoint"), "{}", forced.stderr);
    Ok(())
}

fn receive_wal(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let nobody = site.walrecv.run(&["receive-wal", "main", "--stop"])?.success()?;
    assert!(nobody.stdout.starts_with("Nobody receives"), "{}", nobody.stdout);
    let mut receiver = site.walrecv.spawn(&["receive-wal", "main"])?;
    site.wait_until_streaming()?;
    let second = site.walrecv.run(&["receive-wal", "main"])?.code(1)?;
    assert!(second.stderr.contains("already receives WAL"), "{}", second.stderr);
    site.walrecv.run(&["receive-wal", "main", "--stop"])?.success()?;
    assert_eq!(receiver.wait(Duration::from_secs(10))?, 0);

    // The daemon works for other servers, too.
    let daemon = site.run()?;
    let refused = site.walrecv.run(&["receive-wal", "main", "--stop"])?.code(1)?;
    assert!(refused.stderr.contains("by the daemon"), "{}", refused.stderr);
    assert_eq!(daemon.stop()?, 0);

    let end = site.position()?.to_string();
    let reached = site.walrecv.run(&["receive-wal", "main", "--endpos", &end])?.success()?;
    assert!(reached.stdout.contains("reached its end position"), "{}", reached.stdout);
    Ok(())
}

/// An interrupted backup says so, with its own exit code, and leaves none of its data.
fn interrupted_backup(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    site.cluster
        .execute("CREATE TABLE t AS SELECT repeat('x', 500) FROM generate_series(1, 50000)")?;
    let mut backup = site.walrecv.spawn(&["backup", "main", "--bwlimit", "1024"])?;
    site.cluster.wait_for("the backup to be sent", |cluster| {
        let count = "SELECT count(*) FROM pg_stat_replication WHERE state = 'backup'";
        Ok(cluster.value(count)? == "1")
    })?;
    backup.signal(Signal::INT)?;
    assert_eq!(backup.wait(Duration::from_secs(30))?, 130, "{}", backup.log());
    let listed = site.walrecv.run(&["list-backups", "main"])?.success()?;
    assert!(listed.stdout.trim().ends_with("FAILED"), "{}", listed.stdout);
    Ok(())
}

/// A newcomer needs no file.
fn arguments_alone() -> ScenarioResult {
    let walrecv = Walrecv::new("")?;
    let run = |arguments: &[&str]| finish(bare_command()?.args(arguments));
    let unknown = run(&["--config", "/dev/null", "check", "main"])?.code(2)?;
    assert!(unknown.stderr.contains("--conninfo"), "{}", unknown.stderr);
    let home = walrecv.home().display().to_string();
    let missing = run(&["--home", &home, "list-backups", "main"])?.code(2)?;
    assert!(missing.stderr.contains("not configured"), "{}", missing.stderr);
    let checked = run(&[
        "--config",
        "/dev/null",
        "--home",
        &home,
        "--conninfo",
        "host=no-such-host.invalid user=x",
        "check",
        "main",
    ])?
    .code(1)?;
    assert!(checked.stdout.contains("no-such-host.invalid"), "{}", checked.stdout);
    Ok(())
}
