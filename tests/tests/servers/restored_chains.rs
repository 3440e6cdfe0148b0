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
    scenarios
        .per_major("restored_chain", &[17, 18], restored_chain)
        .per_major("restored_plain_chain", &[18], restored_plain_chain)
        .per_major("restored_sealed_chain", &[17, 18], restored_sealed_chain)
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
    site.cluster.execute("CREATE TABLE marks (n int)")?;
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

    to_every_target(&site, &chain, &[])?;
    let newest = chain.backups.last().unwrap();
    let (plain, said) = site.restore("files", &[newest, "--jobs", "3", "-v"])?;
    said.success()?;
    like_combined(&site, &chain, &plain)?;
    // One file is the same when it comes alone.
    for file in [chain.cut.to_str().unwrap(), "PG_VERSION", "global/pg_control"] {
        let alone = site.walrecv.directory().join("alone");
        let to = alone.to_str().unwrap();
        site.walrecv.run(&["extract", "main", newest, file, to])?.success()?;
        assert!(fs::read(&alone)? == fs::read(plain.join(file))?, "{file}");
        let again = site.walrecv.run(&["extract", "main", newest, file, to])?.code(3)?;
        assert!(again.stderr.contains("exists already"), "{}", again.stderr);
        fs::remove_file(&alone)?;
    }
    let unknown = site.walrecv.run(&["extract", "main", newest, "base/1/nothing"])?.code(1)?;
    assert!(unknown.stderr.contains("has no file `base/1/nothing`"), "{}", unknown.stderr);

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
    // And nobody counts on it any more.
    let again = site.restore("again", &[newest])?.1.code(3)?.stderr;
    assert!(again.contains("is damaged"), "{again}");
    let checked = site.walrecv.run(&["check", "main"])?.code(1)?.stdout;
    assert!(checked.contains("damaged backups: FAILED"), "{checked}");
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// Every kind of target, from the full backup and from the ends of a short and of a long chain.
fn to_every_target(site: &Site, chain: &Chain, options: &[&str]) -> ScenarioResult {
    let mark = |n: u32| {
        let insert = format!("WITH i AS (INSERT INTO marks VALUES ({n})) SELECT txid_current()");
        site.cluster.value(&insert)
    };
    mark(1)?;
    site.cluster.execute("SELECT pg_create_restore_point('here')")?;
    let xid = mark(2)?;
    let pause = std::time::Duration::from_millis(20);
    std::thread::sleep(pause);
    let time = site.cluster.value("SELECT clock_timestamp()")?;
    std::thread::sleep(pause);
    mark(3)?;
    let lsn = site.cluster.value("SELECT pg_current_wal_insert_lsn()")?;
    mark(4)?;
    site.settle()?;
    let targets: &[(&[&str], &str)] = &[
        (&["--target-immediate"], ""),
        (&["--target-name", "here"], "1"),
        (&["--target-xid", &xid], "1,2"),
        (&["--target-xid", &xid, "--exclusive"], "1"),
        (&["--target-time", &time], "1,2"),
        (&["--target-lsn", &lsn], "1,2,3"),
        (&[], "1,2,3,4"),
    ];
    for depth in [0, 1, 4] {
        for (number, (target, expected)) in targets.iter().enumerate() {
            let name = format!("target_{depth}_{number}");
            let mut arguments = vec![chain.backups[depth].as_str()];
            arguments.extend(*target);
            if !target.is_empty() {
                arguments.extend(["--target-action", "promote"]);
            }
            arguments.extend(options);
            let mut restored = site.restore_and_start(&name, &arguments)?;
            let marks = "SELECT coalesce(string_agg(n::text, ',' ORDER BY n), '') FROM marks";
            assert_eq!(restored.value(marks)?, *expected, "{target:?} from depth {depth}");
            restored.stop()?;
            restored.remove_data()?;
            // Where the tablespace went, if there is one.
            let _ = fs::remove_dir_all(site.cluster.base_directory().join("moved"));
        }
    }
    Ok(())
}

/// Not compressed, so that archives are read by one thread.
fn restored_plain_chain(installation: &Installation) -> ScenarioResult {
    let mut site = Site::new(installation)?;
    site.configure("backup_compression = \"none\"\ncompression = \"none\"\n")?;
    summarize(&site)?;
    let daemon = site.run()?;
    let chain = take_chain(&mut site, "")?;
    to_every_target(&site, &chain, &[])?;
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
    for own in ["backup_manifest", "postgresql.auto.conf", "postgresql.conf", "recovery.signal"] {
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
    if installation.major == 18 {
        let moved = format!("space:{}", site.cluster.base_directory().join("moved").display());
        let options = ["--tablespace", &moved, "--identity", key.identity(), "--no-get-wal"];
        to_every_target(&site, &chain, &options)?;
    }
    let table = site.cluster.value("SELECT pg_relation_filepath('t')")?;
    let alone = site.walrecv.directory().join("alone");
    let newest = chain.backups.last().unwrap();
    let extract = ["extract", "main", newest, &table, alone.to_str().unwrap()];
    let sealed = site.walrecv.run(&extract)?.code(3)?;
    assert!(sealed.stderr.contains("encrypted"), "{}", sealed.stderr);
    let opened = [&extract[..], &["--identity", key.identity()]].concat();
    site.walrecv.run(&opened)?.success()?;
    let length = |path: &Path| fs::metadata(path).unwrap().len();
    assert_eq!(length(&alone), length(&site.cluster.data_directory().join(&table)));
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}
