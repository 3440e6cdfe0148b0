//! The main job on every major: receive, back up, lose everything, restore to the last commit.

use pgwire_stream::{SegmentSize, TimelineId};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation, tools};

use crate::site::{Site, lsn};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.every_major("full_path", full_path)
}

fn full_path(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let cluster = &site.cluster;
    let location = cluster.new_directory("elsewhere")?;
    cluster.execute(&format!("CREATE TABLESPACE elsewhere LOCATION '{}'", location.display()))?;
    cluster.execute("CREATE TABLE ledger (n serial PRIMARY KEY, at timestamptz DEFAULT now())")?;
    cluster.execute(
        "CREATE TABLE bulk TABLESPACE elsewhere AS \
         SELECT g, repeat(md5(g::text), 8) AS t FROM generate_series(1, 20000) AS g",
    )?;

    let daemon = site.run()?;
    let begin = lsn(&cluster.value("SELECT restart_lsn FROM pg_replication_slots")?)?;
    cluster.execute("INSERT INTO ledger SELECT FROM generate_series(1, 500)")?;

    let id = site.backup()?;
    let shown = site.shown(&id)?.to_string();
    assert!(shown.contains("\"DONE\""), "{shown}");
    judge_stored_backup(&site, &id)?;

    cluster.execute("UPDATE bulk SET t = t || 'x'")?;
    for _ in 0..20 {
        cluster.execute("INSERT INTO ledger DEFAULT VALUES")?;
    }
    let last = cluster.value("SELECT max(n) FROM ledger")?;
    let rows = cluster.value("SELECT count(*), md5(string_agg(t, '' ORDER BY g)) FROM bulk")?;
    site.settle()?;

    // Every segment is what the server itself archived.
    let size = SegmentSize::from_setting(&cluster.value("SHOW wal_segment_size")?)?;
    let first = pgwire_stream::SegmentName::new(TimelineId::FIRST, size.segment_of(begin), size);
    let compared = site.compare_with_archive(&first)?;
    assert!(compared >= 2, "only {compared} segments were compared");

    // The machine is lost.
    let mut site = site;
    site.cluster.kill9()?;
    site.cluster.remove_data()?;
    std::fs::remove_dir_all(&location)?;

    let elsewhere = site.cluster.new_directory("mapped")?;
    let mapping = format!("elsewhere:{}", elsewhere.display());
    let restored = site.restore_and_start("restored", &["latest", "--tablespace", &mapping])?;
    assert_eq!(restored.value("SELECT max(n) FROM ledger")?, last);
    assert_eq!(
        restored.value("SELECT count(*), md5(string_agg(t, '' ORDER BY g)) FROM bulk")?,
        rows
    );
    judge_restored(&restored)?;
    // It lives: on a timeline of its own.
    restored.execute("INSERT INTO ledger DEFAULT VALUES")?;

    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// `pg_verifybackup` on what stock `tar` and `zstd` make of the stored archives.
fn judge_stored_backup(site: &Site, id: &str) -> ScenarioResult {
    let stored = site.walrecv.home().join("main/base").join(id);
    let unpacked = site.cluster.base_directory().join("unpacked");
    tools::unpack(&stored.join("base.tar.zst"), &unpacked)?;
    let mut tablespaces = 0;
    for entry in std::fs::read_dir(&stored)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(oid) = name.strip_suffix(".tar.zst").filter(|stem| *stem != "base") {
            tools::unpack(&path, &unpacked.join("pg_tblspc").join(oid))?;
            tablespaces += 1;
        }
    }
    assert_eq!(tablespaces, 1);
    std::fs::copy(stored.join("backup_manifest"), unpacked.join("backup_manifest"))?;
    if site.cluster.major() >= 13 {
        let wal = site.cluster.archive_directory();
        assert!(tools::verify_backup(site.cluster.major(), &unpacked, Some(&wal))?);
    }
    std::fs::remove_dir_all(&unpacked)?;
    Ok(())
}

fn judge_restored(restored: &Cluster) -> ScenarioResult {
    if restored.major() >= 14 {
        assert!(tools::amcheck(restored)?);
    }
    assert!(tools::dump_all(restored)?.is_some());
    Ok(())
}
