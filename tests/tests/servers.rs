//! The harness itself: clusters of every major start, answer, survive SIGKILL and stop.

use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation};

fn main() -> std::process::ExitCode {
    Scenarios::new().every_major("life_of_a_cluster", life_of_a_cluster).run()
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
