//! What operators look at: lists, status, replication, diagnosis, and the rows of `check`.

use serde_json::Value;
use walrecv_tests::Installation;
use walrecv_tests::run::{ScenarioResult, Scenarios};

use crate::site::{PASSWORD, ROLE, Site};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("operator_status", &[10, 18], status)
        .per_major("operator_replication", &[10, 18], replication)
        .per_major("operator_checks", &[10, 17], checks)
        .per_major("operator_switch", &[18], switch_and_wait)
}

/// The row of a check in the clean JSON.
fn row(site: &Site, name: &str) -> walrecv_tests::Result<Value> {
    let checked = site.walrecv.run(&["-f", "json2", "check", "main"])?.json()?;
    let rows = checked["results"][0]["checks"].as_array().cloned().unwrap_or_default();
    Ok(rows.into_iter().find(|row| row["check"] == name).unwrap_or_default())
}

/// With the daemon and without it, with privileges and without.
fn status(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let before = site.walrecv.run(&["status", "main"])?.success()?;
    assert!(before.stdout.contains("\tReceiver: not running\n"), "{}", before.stdout);
    assert!(before.stdout.contains("GRANT pg_monitor TO walrecv"), "{}", before.stdout);
    assert!(!site.walrecv.home().exists(), "a look made something");

    site.cluster.execute(&format!("GRANT pg_monitor TO {ROLE}"))?;
    let daemon = site.run()?;
    let id = site.backup()?;
    let end = site.settle()?;
    let well = site.walrecv.run(&["status", "main"])?.success()?;
    let data = site.cluster.data_directory().display().to_string();
    for told in [
        "\tCluster state: in production\n".to_owned(),
        format!("\tPostgreSQL Data directory: {data}\n"),
        format!("\tLast available backup: {id}\n"),
        "\tMinimum redundancy requirements: satisfied (1/0)\n".to_owned(),
        "\tReceiver: streaming\n".to_owned(),
        "\tReplication slot: active, keeps WAL from ".to_owned(),
        "\tSuspect WAL: none\n".to_owned(),
    ] {
        assert!(well.stdout.contains(&told), "no {told:?} in:\n{}", well.stdout);
    }
    let clean = site.walrecv.run(&["-f", "json2", "status", "all"])?.success()?.json()?;
    let clean = &clean["results"][0];
    let durable: pgwire_stream::Lsn =
        clean["receiving"]["durable"].as_str().unwrap_or_default().parse()?;
    assert!(durable >= end, "{clean:#}");
    assert!(clean["seen"]["size"].as_u64().is_some_and(|size| size > 1 << 20), "{clean:#}");

    // Without the daemon the store tells.
    assert_eq!(daemon.stop()?, 0);
    let alone = site.walrecv.run(&["-f", "json2", "status", "main"])?.success()?.json()?;
    let alone = &alone["results"][0];
    assert_eq!(alone["receiving"]["running"], false);
    let stored: pgwire_stream::Lsn =
        alone["receiving"]["durable"].as_str().unwrap_or_default().parse()?;
    // The zeros that the last record may end with cannot be told from those ahead of it.
    assert!(stored.saturating_add(256) >= durable, "{alone:#}");

    let listed = site.walrecv.run(&["list-server"])?.success()?;
    assert_eq!(listed.stdout, "main\n");
    let diagnosed = site.walrecv.run(&["-f", "json", "diagnose"])?.success()?;
    assert!(!diagnosed.stdout.contains(PASSWORD), "{}", diagnosed.stdout);
    let diagnosed = diagnosed.json()?;
    assert_eq!(diagnosed["servers"]["main"]["backups"][&id]["id"], id.as_str());
    assert_eq!(diagnosed["servers"]["main"]["locks"]["receiver"], false);
    Ok(())
}

fn replication(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let daemon = site.run()?;
    let grant = format!("GRANT pg_read_all_stats TO {ROLE}");
    let hidden = site.walrecv.run(&["replication-status", "main"])?.success()?;
    assert!(hidden.stdout.contains(&grant), "{}", hidden.stdout);
    site.cluster.execute(&grant)?;
    let seen = site.walrecv.run(&["replication-status", "main"])?.success()?;
    for told in ["1. Async WAL streamer\n", "Replication slot: walrecv\n", "(async)\n"] {
        assert!(seen.stdout.contains(told), "no {told:?} in:\n{}", seen.stdout);
    }
    assert!(!seen.stdout.contains("GRANT"), "{}", seen.stdout);
    let minimal = ["replication-status", "main", "--minimal", "--target", "wal-streamer"];
    let minimal = site.walrecv.run(&minimal)?.success()?;
    assert!(minimal.stdout.contains("  1. W) walrecv@127.0.0.1 S:"), "{}", minimal.stdout);
    let none = ["-f", "json", "replication-status", "main", "--target", "hot-standby"];
    let none = site.walrecv.run(&none)?.success()?.json()?;
    assert_eq!(none["main"]["hot_standby_servers"], serde_json::json!([]));
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// Rows that depend on settings, and on what happened to the slot.
fn checks(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let daemon = site.run()?;
    site.backup()?;
    let security = row(&site, "connection security")?;
    let remark = security["remark"].as_str().unwrap_or_default();
    assert!(remark.contains("scram-sha-256"), "{security:#}");
    assert_eq!(remark.starts_with("TLSv1."), installation.has_tls(), "{security:#}");
    for name in ["clock skew", "receive lag", "further privileges"] {
        let row = row(&site, name)?;
        assert_eq!((&row["state"], &row["advisory"]), (&"OK".into(), &true.into()), "{row:#}");
    }
    let privileges = row(&site, "further privileges")?;
    assert!(
        privileges["remark"].as_str().is_some_and(|text| text.contains("GRANT pg_monitor TO")),
        "{privileges:#}"
    );

    site.configure(
        "last_backup_maximum_age = \"1 DAYS\"\nlast_backup_minimum_size = \"1 TiB\"\n\
         last_wal_maximum_age = \"1 HOURS\"\nincremental_schedule = \"0 3 * * *\"\n",
    )?;
    assert_eq!(row(&site, "backup maximum age")?["state"], "OK");
    assert_eq!(row(&site, "backup minimum size")?["state"], "FAILED");
    assert_eq!(row(&site, "wal maximum age")?["state"], "OK");
    if installation.major >= 17 {
        let summaries = row(&site, "summarize_wal")?;
        assert_eq!(summaries["state"], "WARNING", "{summaries:#}");
    }
    site.walrecv.run(&["check", "main", "--nagios"])?.code(2)?;

    // A server that is not backed up is not looked at.
    site.configure("active = false\n")?;
    let inactive = site.walrecv.run(&["check", "main"])?.success()?;
    assert!(inactive.stdout.starts_with("Server main (inactive):\n"), "{}", inactive.stdout);
    assert!(!inactive.stdout.contains("receive-wal"), "{}", inactive.stdout);
    site.configure("")?;

    // What an HA manager does.
    assert_eq!(daemon.stop()?, 0);
    site.cluster.execute("SELECT pg_drop_replication_slot('walrecv')")?;
    let ill = site.walrecv.run(&["check", "main"])?.code(1)?;
    assert!(ill.stdout.contains("ignore_slots"), "{}", ill.stdout);
    Ok(())
}

fn switch_and_wait(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    site.cluster.execute(&format!("GRANT EXECUTE ON FUNCTION pg_switch_wal() TO {ROLE}"))?;
    let daemon = site.run()?;
    site.cluster.execute("CREATE TABLE t (n int)")?;
    let switched = site.walrecv.run(&["-f", "json2", "switch-wal", "main", "--archive"])?;
    let switched = switched.success()?.json()?;
    assert_eq!(switched["results"][0]["archived"], true, "{switched:#}");

    // Nobody archives it.
    assert_eq!(daemon.stop()?, 0);
    site.cluster.execute("INSERT INTO t VALUES (1)")?;
    let arguments = ["switch-wal", "main", "--archive", "--archive-timeout", "1"];
    let late = site.walrecv.run(&arguments)?.code(1)?;
    assert!(late.stderr.contains("is not archived after 1 seconds"), "{}", late.stderr);
    Ok(())
}
