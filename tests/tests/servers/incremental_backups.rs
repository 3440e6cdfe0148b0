//! Incremental backups: what they build on, and whether PostgreSQL's own program makes of a chain
//! what the server had.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation, Result, program, tools};

use crate::site::Site;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("incremental_chain", &[17, 18], incremental_chain).per_major(
        "no_incremental_backup",
        &[10, 16, 18],
        no_incremental_backup,
    )
}

const ROWS: &str = "SELECT count(*), md5(string_agg(n || t, '' ORDER BY n)) FROM t";

fn incremental_chain(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    summarize(&site)?;
    site.cluster.execute(
        "CREATE TABLE t AS SELECT n, repeat(md5(n::text), 8) AS t FROM generate_series(1, 40000) n",
    )?;
    // Or the first to read a page changes it.
    site.cluster.execute("VACUUM (FREEZE, ANALYZE) t")?;
    let daemon = site.run()?;

    // Nothing is there to build on.
    let first = backup(&site, &["--incremental", "auto"])?;
    assert!(
        first.1.contains("taking a full backup: there is no backup to build on"),
        "{}",
        first.1
    );
    let full = first.0;
    let mut chain = vec![full.clone()];
    for round in 1..=3 {
        site.cluster
            .execute(&format!("UPDATE t SET t = 'round {round}' WHERE n % 400 = {round}"))?;
        let (id, said) = backup(&site, &["--incremental", "auto"])?;
        let parent = chain.last().unwrap();
        assert!(said.contains(&format!("building on backup {parent}")), "{said}");
        let shown = &site.shown(&id)?["results"][0];
        assert_eq!(
            (&shown["type"], &shown["parent"]),
            (&"incremental".into(), &parent.as_str().into())
        );
        assert_eq!(shown["status"], "DONE");
        let whole = &site.shown(&full)?["results"][0];
        let sizes = (shown["plain_size"].as_u64(), whole["plain_size"].as_u64());
        assert!(sizes.0.unwrap() < sizes.1.unwrap() / 3, "{sizes:?}");
        site.walrecv.run(&["verify-backup", "main", &id, "--pages", "--wal"])?.success()?;
        chain.push(id);
    }
    let listed = site.walrecv.run(&["list-backups", "main"])?.success()?.stdout;
    assert_eq!(listed.matches(" - I - ").count(), 3, "{listed}");
    // On one that is not the newest.
    let (side, _) = backup(&site, &["--incremental", &full])?;
    assert_eq!(site.shown(&side)?["results"][0]["parent"], full.as_str());

    let expected = site.cluster.value(ROWS)?;
    site.cluster.execute("SELECT pg_switch_wal()")?;
    site.settle()?;
    for backups in [&chain[..], &[full.clone(), side.clone()]] {
        combined(&site, backups, &expected)?;
    }
    // What is newer than the full backup comes with the WAL.
    let restored = site.restore_and_start("restored", &["latest"])?;
    assert_eq!(restored.value(ROWS)?, expected);

    // Nobody takes away what others stand on.
    let refused = site.walrecv.run(&["delete", "main", &chain[1]])?.code(3)?;
    for child in &chain[2..] {
        assert!(refused.stderr.contains(child.as_str()), "{}", refused.stderr);
    }
    let kept = site.walrecv.run(&["keep", "main", &chain[1], "--target", "full"])?.code(3)?;
    assert!(kept.stderr.contains("cannot be kept alone"), "{}", kept.stderr);
    site.walrecv.run(&["delete", "main", &chain[1], "--cascade"])?.success()?;
    let left = site.walrecv.run(&["list-backups", "main", "--minimal"])?.success()?.stdout;
    assert_eq!(left.lines().collect::<Vec<_>>(), [side.as_str(), full.as_str()]);

    // The chain is as long as it may be.
    site.configure("incremental_chain_max = 1\n")?;
    let (third, said) = backup(&site, &["--incremental", "auto"])?;
    assert!(said.contains("taking a full backup: 1 backups build on"), "{said}");
    assert_eq!(site.shown(&third)?["results"][0]["parent"], serde_json::Value::Null);

    // What stands on nothing is worth nothing.
    let base = site.walrecv.home().join("main/base");
    fs::rename(base.join(&full), site.walrecv.directory().join("gone"))?;
    let checked = site.walrecv.run(&["check-backup", "main", &side])?.code(1)?;
    assert!(checked.stdout.contains("BROKEN"), "{}", checked.stdout);
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

pub(crate) fn summarize(site: &Site) -> ScenarioResult {
    site.cluster.execute("ALTER SYSTEM SET summarize_wal = on")?;
    site.cluster.reload()?;
    site.cluster
        .wait_for("the setting", |cluster| Ok(cluster.value("SHOW summarize_wal")? == "on"))?;
    Ok(())
}

/// Takes a backup; its id, and what was said meanwhile.
pub(crate) fn backup(site: &Site, options: &[&str]) -> Result<(String, String)> {
    let arguments = [&["backup", "main", "--wait", "--wait-timeout", "60"], options].concat();
    let said = site.walrecv.run(&arguments)?.success()?.stderr;
    Ok((site.last_backup()?, said))
}

/// What PostgreSQL's own programs make of a chain, unpacked by hand, has these rows.
fn combined(site: &Site, backups: &[String], expected: &str) -> ScenarioResult {
    let major = site.cluster.major();
    let place = site.cluster.new_directory(&format!("by_hand_{}", backups.last().unwrap()))?;
    let mut unpacked: Vec<PathBuf> = Vec::new();
    for id in backups {
        let stored = site.walrecv.home().join("main/base").join(id);
        let into = place.join(id);
        tools::unpack(&stored.join("base.tar.zst"), &into)?;
        fs::copy(stored.join("backup_manifest"), into.join("backup_manifest"))?;
        tools::verify_backup(major, &into, None)?;
        unpacked.push(into);
    }
    let Some(judge) = tools::of_major("pg_combinebackup", major) else {
        tools::missing("pg_combinebackup", &site.cluster.installation().name());
        return Ok(());
    };
    let whole = place.join("whole");
    program::run(Command::new(judge).args(&unpacked).arg("-o").arg(&whole))?;
    give_wal(site, &whole)?;
    let mut cluster = Cluster::adopt(site.cluster.installation(), &whole)?;
    cluster.start()?;
    cluster.wait_until_promoted()?;
    assert_eq!(cluster.value(ROWS)?, expected);
    tools::amcheck(&cluster)?;
    Ok(())
}

/// Has a data directory recover from what the server archived itself.
fn give_wal(site: &Site, data: &Path) -> ScenarioResult {
    let archive = site.cluster.archive_directory();
    let settings = data.join("postgresql.auto.conf");
    let mut text = fs::read_to_string(&settings)?;
    text.push_str(&format!(
        "\nssl = off\narchive_mode = off\nrestore_command = 'cp {}/%f %p'\n",
        archive.display()
    ));
    fs::write(&settings, text)?;
    fs::write(data.join("recovery.signal"), "")?;
    program::run(Command::new("chown").arg("-R").arg(&site.cluster.account().name).arg(data))?;
    Ok(())
}

/// Where the server cannot, a full backup is taken, and it is said why; what was named is insisted
/// on.
fn no_incremental_backup(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let _daemon = site.run()?;
    let (full, _) = backup(&site, &[])?;
    let reason = if installation.major < 17 { "servers before 17" } else { "summarize_wal is off" };
    let (second, said) = backup(&site, &["--incremental", "auto"])?;
    assert!(said.contains("taking a full backup: ") && said.contains(reason), "{said}");
    assert_eq!(site.shown(&second)?["results"][0]["type"], "full");
    let refused = site.walrecv.run(&["backup", "main", "--incremental", &full])?.code(1)?;
    assert!(refused.stderr.contains(reason), "{}", refused.stderr);
    let unknown = site.walrecv.run(&["backup", "main", "--incremental", "20010101T000000"])?;
    assert!(unknown.code(1)?.stderr.contains("hint: "));
    if installation.major >= 17 {
        // Summaries from now on do not reach back to it; the server says so itself.
        summarize(&site)?;
        site.cluster.execute("CREATE TABLE later AS SELECT generate_series(1, 1000) n")?;
        let (third, _) = backup(&site, &["--incremental", "auto"])?;
        let (fourth, said) = backup(&site, &["--incremental", "auto"])?;
        assert!(said.contains(&format!("building on backup {third}")), "{said}");
        assert_eq!(site.shown(&fourth)?["results"][0]["status"], "DONE");
    }
    Ok(())
}
