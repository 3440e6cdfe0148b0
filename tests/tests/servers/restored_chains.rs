//! Chains of incremental backups, restored: rows as at each backup, and files as PostgreSQL's own
//! program makes them, where that is right.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Installation, Result, program, tools};

use crate::encryption::Key;
use crate::incremental_backups::{backup, summarize};
use crate::site::Site;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("restored_chain", &[17, 18], restored_chain).per_major(
        "restored_sealed_chain",
        &[17, 18],
        restored_sealed_chain,
    )
}

const ROWS: &str = "SELECT (SELECT count(*) || md5(string_agg(n || t, '' ORDER BY n)) FROM t), \
                    (SELECT count(*) || md5(string_agg(n || t, '' ORDER BY n)) FROM cut)";

const BLOCK: u64 = 8192;

/// A chain that all kinds of things happen between.
struct Chain {
    backups: Vec<String>,
    /// What was in the tables when each was taken.
    rows: Vec<Vec<Vec<String>>>,
    /// The file of the table that was cut and grew again.
    cut: PathBuf,
}

fn take_chain(site: &mut Site, tablespace: &str) -> Result<Chain> {
    site.cluster.execute(&format!(
        "CREATE TABLE t {tablespace} AS SELECT n, repeat(md5(n::text), 8) AS t \
         FROM generate_series(1, 30000) n"
    ))?;
    site.cluster.execute(
        "CREATE TABLE cut AS SELECT n, repeat('x', 500) AS t FROM generate_series(1, 3000) n",
    )?;
    site.cluster.execute("CREATE TABLE gone AS SELECT generate_series(1, 1000) n")?;
    for table in ["t", "cut", "gone"] {
        site.cluster.execute(&format!("VACUUM (FREEZE, ANALYZE) {table}"))?;
    }
    let cut = site.cluster.value("SELECT pg_relation_filepath('cut')")?;
    let mut chain = Chain { backups: Vec::new(), rows: Vec::new(), cut: PathBuf::from(cut) };
    let path = site.cluster.data_directory().join(&chain.cut);
    let length = || fs::metadata(&path).unwrap().len();
    let whole = length();
    for round in 0..=4 {
        match round {
            1 => {
                site.cluster.execute("DELETE FROM cut WHERE n > 300")?;
                site.cluster.execute("VACUUM (TRUNCATE) cut")?;
                site.cluster.execute("CHECKPOINT")?;
                assert!(length() < whole / 5, "nothing was cut off");
            }
            // A server makes files longer before it logs anything of what it writes there.
            2 => {
                site.cluster.stop()?;
                let missing = (whole - length()) / BLOCK * BLOCK;
                let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
                file.write_all(&vec![0; missing as usize]).unwrap();
                site.cluster.start()?;
                site.wait_until_streaming()?;
            }
            3 => {
                site.cluster.execute("DROP TABLE gone")?;
                site.cluster.execute("CREATE TABLE later AS SELECT generate_series(1, 5000) n")?;
            }
            _ => {}
        }
        site.cluster
            .execute(&format!("UPDATE t SET t = 'round {round}' WHERE n % 300 = {round}"))?;
        chain.rows.push(site.cluster.query(ROWS)?);
        chain.backups.push(backup(site, &["--incremental", "auto"])?.0);
        let shown = &site.shown(chain.backups.last().unwrap())?["results"][0];
        let parent = chain.backups.iter().rev().nth(1);
        assert_eq!(shown["parent"].as_str(), parent.map(String::as_str));
    }
    assert_eq!(length(), whole);
    Ok(chain)
}

fn restored_chain(installation: &Installation) -> ScenarioResult {
    let mut site = Site::new(installation)?;
    summarize(&site)?;
    let daemon = site.run()?;
    let chain = take_chain(&mut site, "")?;
    for depth in [0, 1, 2, 4] {
        let name = format!("depth_{depth}");
        let restored = site.restore_and_start(
            &name,
            &[&chain.backups[depth], "--target-immediate", "--target-action", "promote"],
        )?;
        assert_eq!(restored.query(ROWS)?, chain.rows[depth], "{name}");
        tools::amcheck(&restored)?;
    }
    // The newest is what `latest` means, and WAL brings the rest.
    site.cluster.execute("UPDATE t SET t = 'the last' WHERE n = 7")?;
    site.settle()?;
    let expected = site.cluster.query(ROWS)?;
    let newest = site.restore_and_start("newest", &["latest"])?;
    assert_eq!(newest.query(ROWS)?, expected);

    let newest = chain.backups.last().unwrap();
    let (plain, said) = site.restore("files", &[newest, "--jobs", "3", "-v"])?;
    said.success()?;
    like_combined(&site, &chain, &plain)?;

    // Damage anywhere in the chain is found, and nothing starts from what was written.
    let archive =
        site.walrecv.home().join("main/base").join(&chain.backups[1]).join("base.tar.zst");
    let mut bytes = fs::read(&archive)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes)?;
    let (damaged, said) = site.restore("damaged", &[newest])?;
    let said = said.code(1)?.stderr;
    assert!(said.contains(&chain.backups[1]), "{said}");
    assert!(!damaged.join("global/pg_control").exists());
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// Compares a restored directory with what `pg_combinebackup` makes of the chain.
fn like_combined(site: &Site, chain: &Chain, restored: &Path) -> ScenarioResult {
    let major = site.cluster.major();
    let Some(judge) = tools::of_major("pg_combinebackup", major) else {
        tools::missing("pg_combinebackup", &site.cluster.installation().name());
        return Ok(());
    };
    let place = site.cluster.new_directory("by_hand")?;
    let mut unpacked = Vec::new();
    for id in &chain.backups {
        let stored = site.walrecv.home().join("main/base").join(id);
        let into = place.join(id);
        tools::unpack(&stored.join("base.tar.zst"), &into)?;
        fs::copy(stored.join("backup_manifest"), into.join("backup_manifest"))?;
        unpacked.push(into);
    }
    let whole = place.join("whole");
    program::run(Command::new(judge).args(&unpacked).arg("-o").arg(&whole))?;
    let (mut theirs, mut ours) = (files(&whole)?, files(restored)?);
    // Their own list of files, and what a server is told about its recovery.
    for own in ["backup_manifest", "postgresql.auto.conf", "recovery.signal"] {
        theirs.remove(Path::new(own));
        ours.remove(Path::new(own));
    }
    // They bring back what was cut off before the file grew again.
    let (of_theirs, of_ours) = (theirs.remove(&chain.cut), ours.remove(&chain.cut));
    assert_ne!(of_theirs, of_ours, "pg_combinebackup has learnt it");
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    for (name, content) in &ours {
        assert!(content == &theirs[name], "{} differs", name.display());
    }
    Ok(())
}

/// Every file below a directory.
fn files(directory: &Path) -> std::io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let below = path.strip_prefix(directory).unwrap().to_owned();
                found.insert(below, fs::read(&path)?);
            }
        }
    }
    Ok(found)
}

/// Encrypted and with a tablespace; archives of both codecs that have frames, and of one that has
/// none.
fn restored_sealed_chain(installation: &Installation) -> ScenarioResult {
    let mut site = Site::new(installation)?;
    let key = Key::new(&site, "key")?;
    let recipients = format!("encryption_recipients = [\"{}\"]\n", key.public);
    site.configure(&format!("{recipients}backup_compression = \"lz4\"\n"))?;
    summarize(&site)?;
    let daemon = site.run()?;
    let space = site.cluster.new_directory("space")?;
    site.cluster.execute(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()))?;
    let chain = take_chain(&mut site, "TABLESPACE space")?;
    for (depth, jobs) in [(0, "1"), (1, "2"), (4, "3")] {
        let name = format!("sealed_{depth}");
        let moved = format!("space:{}", site.cluster.base_directory().join(&name).display());
        let moved = format!("{moved}_space");
        let restored = site.restore_and_start(
            &name,
            &[
                &chain.backups[depth],
                "--target-immediate",
                "--target-action",
                "promote",
                "--tablespace",
                &moved,
                "--jobs",
                jobs,
                "--identity",
                key.identity(),
                "--no-get-wal",
            ],
        )?;
        assert_eq!(restored.query(ROWS)?, chain.rows[depth], "{name}");
        tools::amcheck(&restored)?;
    }
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}
