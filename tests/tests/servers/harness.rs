//! The harness itself: clusters of every major start, answer, survive SIGKILL and stop.

use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::sql::Session;
use walrecv_tests::{Cluster, Installation, program, tools};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .every_major("harness_life_of_a_cluster", life_of_a_cluster)
        .every_major("harness_ways_in", ways_in)
        .every_major("harness_judges", judges)
}

/// From initdb to a fast stop, with a crash in between.
fn life_of_a_cluster(installation: &Installation) -> ScenarioResult {
    let mut options = Cluster::options(installation).data_checksums().archive();
    if installation.major >= 11 {
        options = options.wal_segment_megabytes(1);
    }
    if installation.has_tls() {
        options = options.tls();
    }
    let mut cluster = options.start()?;

    let num: u32 = cluster.value("SHOW server_version_num")?.parse()?;
    assert_eq!(num / 10_000, installation.major);
    let size = if installation.major >= 11 { "1MB" } else { "16MB" };
    assert_eq!(cluster.value("SHOW wal_segment_size")?, size);
    assert_eq!(cluster.value("SHOW data_checksums")?, "on");
    assert_eq!(cluster.value("SHOW ssl")?, if installation.has_tls() { "on" } else { "off" });

    cluster.execute("CREATE TABLE kept (n int)")?;
    cluster.execute("INSERT INTO kept VALUES (7)")?;
    let segment = cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())")?;
    cluster.execute("SELECT pg_switch_wal()")?;
    let archived = cluster.archive_directory().join(&segment);
    cluster.wait_for("the archived segment", |_| Ok(archived.exists()))?;

    cluster.kill9()?;
    assert!(cluster.query("SELECT 1").is_err(), "a killed server answers");
    cluster.start()?;
    assert!(cluster.log().contains("was not properly shut down"), "no crash recovery took place");
    assert_eq!(cluster.value("SELECT n FROM kept")?, "7");

    cluster.restart()?;
    assert_eq!(cluster.value("SELECT n FROM kept")?, "7");
    cluster.stop()?;
    Ok(())
}

/// Every way in that a cluster offers, through the library.
fn ways_in(installation: &Installation) -> ScenarioResult {
    let mut options = Cluster::options(installation)
        .hba("hostssl all certified 127.0.0.1/32 cert")
        .hba("host all refused 127.0.0.1/32 reject");
    if installation.has_tls() {
        options = options.tls();
    }
    let cluster = options.start()?;
    for role in ["plain", "certified", "refused"] {
        cluster.create_role(role, "secret", "REPLICATION")?;
    }
    let who = |conninfo: &str| Session::connect(conninfo)?.value("SELECT current_user");

    assert_eq!(who(&cluster.conninfo("plain", "secret"))?, "plain");
    assert!(who(&cluster.conninfo("plain", "wrong")).is_err(), "any password is good");
    assert!(who(&cluster.conninfo("refused", "secret")).is_err(), "pg_hba.conf has no say");
    if installation.has_tls() {
        assert_eq!(who(&cluster.tls_conninfo("plain", "secret"))?, "plain");
        let client = cluster.client_certificate("certified")?;
        let conninfo = format!(
            "{} sslcert={} sslkey={}",
            cluster.tls_conninfo("certified", "unused"),
            client.certificate.display(),
            client.key.display()
        );
        assert_eq!(who(&conninfo)?, "certified");
    }
    Ok(())
}

/// The judges at work on a backup that PostgreSQL's own program took, and on what starts from it.
fn judges(installation: &Installation) -> ScenarioResult {
    let major = installation.major;
    let cluster = Cluster::options(installation).data_checksums().start()?;
    cluster.execute("CREATE TABLE kept AS SELECT n FROM generate_series(1, 1000) AS n")?;
    let Some(pg_basebackup) = tools::for_server("pg_basebackup", major) else {
        tools::missing("pg_basebackup", &cluster.installation().name());
        return Ok(());
    };
    let backup = cluster.new_directory("backup")?;
    let mut command = tools::client(pg_basebackup, &cluster);
    cluster.account().runs(&mut command);
    program::run(command.args(["-X", "stream", "-c", "fast", "-D"]).arg(&backup))?;
    let judged = tools::verify_backup(major, &backup, None)?;
    assert_eq!(judged, major >= 13, "a judge that `cargo xtask postgres` has got is not used");
    if judged {
        std::fs::write(backup.join("PG_VERSION"), "9.6\n")?;
        assert!(tools::verify_backup(major, &backup, None).is_err(), "damage goes unnoticed");
        std::fs::write(backup.join("PG_VERSION"), format!("{major}\n"))?;
    }

    let mut copy = Cluster::adopt(installation, &backup)?;
    copy.start()?;
    copy.wait_until_promoted()?;
    assert_eq!(tools::amcheck(&copy)?, major >= 14);
    let dump = tools::dump_all(&copy)?.ok_or("no pg_dumpall")?;
    assert!(dump.contains("\n1000\n"), "a row is missing in the dump");
    Ok(())
}
