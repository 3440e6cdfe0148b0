//! Backups that something happens to: none of them may look good, take room, or be in the way of
//! the next one.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::walrecv::Daemon;
use walrecv_tests::{Context, Installation};

use crate::site::Site;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("disturbed_backups", &[10, 14, 15, 18], disturbed_backups)
        .per_major("damaged_pages", &[12, 14, 15, 18], damaged_pages)
        .per_major("busy_backups", &[10, 14, 18], busy_backups)
        .per_major("unattended_backup", &[10, 18], unattended_backup)
}

/// A backup that takes long enough to be disturbed: it gets so many kB a second. It has begun to copy.
pub(crate) fn slow_backup(site: &Site, limit: u32) -> walrecv_tests::Result<Daemon> {
    let base = site.walrecv.home().join("main/base");
    let before = count(&base);
    let backup = site.walrecv.spawn(&["backup", "main", "--bwlimit", &limit.to_string()])?;
    let begin = Instant::now();
    while count(&base) == before || count(&base.join(newest(&base))) < 2 {
        let said = || format!("no backup begins:\n{}", backup.log());
        (begin.elapsed() < Duration::from_secs(30)).then_some(()).context(said)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(backup)
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}

fn newest(directory: &Path) -> String {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    names.map(|entry| entry.file_name().to_string_lossy().into_owned()).max().unwrap_or_default()
}

fn disturbed_backups(installation: &Installation) -> ScenarioResult {
    let mut site = Site::new(installation)?;
    site.cluster
        .execute("CREATE TABLE t AS SELECT g, md5(g::text) FROM generate_series(1, 20000) g")?;
    let daemon = site.run()?;
    let base = site.walrecv.home().join("main/base");

    // Ctrl-C.
    let mut backup = slow_backup(&site, 512)?;
    backup.signal(Signal::INT)?;
    assert_eq!(backup.wait(Duration::from_secs(20))?, 130, "{}", backup.log());
    let interrupted = newest(&base);
    failed(&site, &interrupted, "interrupted")?;

    // Two at once.
    let mut backup = slow_backup(&site, 512)?;
    let second = site.walrecv.run(&["backup", "main"])?;
    assert_ne!(second.code, 0);
    assert!(second.stderr.contains("hint:"), "{}", second.stderr);
    assert_eq!(count(&base), 2);
    // The power goes, here.
    backup.signal(Signal::KILL)?;
    assert_eq!(backup.wait(Duration::from_secs(20))?, 137);
    let killed = newest(&base);
    let refused = site.restore("never", &[&killed])?.1;
    assert_ne!(refused.code, 0);

    // The server goes.
    let mut backup = slow_backup(&site, 512)?;
    failed(&site, &killed, "interrupted")?;
    site.cluster.kill9()?;
    assert_eq!(backup.wait(Duration::from_secs(20))?, 1, "{}", backup.log());
    let cut = newest(&base);
    failed(&site, &cut, "")?;
    let none = site.restore("never", &["latest"])?.1;
    assert_ne!(none.code, 0);
    assert!(!site.cluster.base_directory().join("never").exists());

    site.cluster.start()?;
    site.wait_until_streaming()?;
    let good = site.backup()?;
    assert_eq!(count(&base), 4);
    site.cluster.execute("DELETE FROM t WHERE g > 15000")?;
    site.settle()?;
    site.cluster.kill9()?;
    let restored = site.restore_and_start("restored", &["latest"])?;
    assert_eq!(restored.value("SELECT count(*) FROM t")?, "15000");
    assert!(!good.is_empty());
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// Says that it failed and why, and takes no room.
fn failed(site: &Site, id: &str, why: &str) -> ScenarioResult {
    let shown = site.shown(id)?.to_string();
    assert!(shown.contains("FAILED") && shown.contains(why), "{shown}");
    let directory = site.walrecv.home().join("main/base").join(id);
    assert_eq!(count(&directory), 1, "{id}");
    Ok(())
}

/// The server's checksums are wrong: its words are told, and there is no backup.
fn damaged_pages(installation: &Installation) -> ScenarioResult {
    let mut site = Site::new(installation)?;
    site.cluster.execute("CREATE TABLE t AS SELECT generate_series(1, 20000) AS n")?;
    let path = site.cluster.value("SELECT pg_relation_filepath('t')")?;
    site.cluster.stop()?;
    let file = site.cluster.data_directory().join(&path);
    let mut pages = fs::read(&file)?;
    pages[3 * 8192 + 100] ^= 0x55;
    fs::write(&file, pages)?;
    site.cluster.start()?;
    let daemon = site.run()?;
    let taken = site.walrecv.run(&["backup", "main"])?;
    assert_eq!(taken.code, 1, "{}", taken.stderr);
    assert!(taken.stderr.contains("checksum"), "{}", taken.stderr);
    assert!(taken.stderr.contains("hint:"), "{}", taken.stderr);
    failed(&site, &site.last_backup()?, "checksum")?;
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// Tables come, go and shrink while they are copied.
fn busy_backups(installation: &Installation) -> ScenarioResult {
    let mut site = Site::new(installation)?;
    site.cluster.execute("CREATE TABLE kept AS SELECT generate_series(1, 100000) AS n")?;
    site.cluster.execute("CREATE TABLE cut AS SELECT generate_series(1, 100000) AS n")?;
    let daemon = site.run()?;
    let mut backup = slow_backup_of(&site, "8192")?;
    let mut round = 0;
    let mut session = site.cluster.session()?;
    while backup.is_running() {
        round += 1;
        session
            .query(&format!("CREATE TABLE made{round} AS SELECT generate_series(1, 3000) AS n"))?;
        session.query("INSERT INTO kept SELECT generate_series(1, 1000)")?;
        session.query("TRUNCATE cut")?;
        session.query("INSERT INTO cut SELECT generate_series(1, 50000)")?;
        session.query("DELETE FROM cut WHERE n > 10")?;
        session.query("VACUUM cut")?;
        if round > 2 {
            session.query(&format!("DROP TABLE made{}", round - 2))?;
        }
        session.query("CHECKPOINT")?;
    }
    assert_eq!(backup.wait(Duration::from_secs(1))?, 0, "{}", backup.log());
    drop(session);
    let kept = site.cluster.value("SELECT count(*), sum(n) FROM kept")?;
    let tables = site.cluster.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'made%'")?;
    site.settle()?;
    site.cluster.kill9()?;
    let restored = site.restore_and_start("restored", &["latest"])?;
    assert_eq!(restored.value("SELECT count(*), sum(n) FROM kept")?, kept);
    assert_eq!(restored.value("SELECT count(*) FROM cut")?, "10");
    let found = restored.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'made%'")?;
    assert_eq!(found, tables);
    if installation.major >= 14 {
        assert!(walrecv_tests::tools::amcheck(&restored)?);
    }
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

fn slow_backup_of(site: &Site, limit: &str) -> walrecv_tests::Result<Daemon> {
    site.walrecv.spawn(&["backup", "main", "--bwlimit", limit])
}

/// Nobody receives the WAL: that is said, and the word for the latest finds a better backup.
fn unattended_backup(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    site.cluster.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) n")?;
    // Nobody receives: the command does, from before the backup to its end, without a switch.
    let first = site.walrecv.run(&["backup", "main"])?.success()?;
    assert!(first.stderr.contains("nobody receives the WAL"), "{}", first.stderr);
    assert!(first.stdout.contains(": DONE"), "{}", first.stdout);
    let good = site.last_backup()?;
    site.cluster.execute("INSERT INTO t VALUES (7)")?;
    let restored = site.restore_and_start("restored", &["latest", "--no-get-wal"])?;
    assert_eq!(restored.value("SELECT count(*) FROM t")?, "1000");
    drop(restored);
    // It goes on where it was, and lets go when it is done.
    let second = site.walrecv.run(&["backup", "main"])?.success()?;
    assert!(second.stdout.contains(": DONE"), "{}", second.stdout);
    assert_ne!(site.last_backup()?, good);
    let daemon = site.run()?;
    let attended = site.walrecv.run(&["backup", "main", "--wait"])?.success()?;
    assert!(!attended.stderr.contains("nobody receives"), "{}", attended.stderr);
    assert_eq!(daemon.stop()?, 0);

    // It cannot: the slot is missing, and is the operator's to make.
    site.cluster.execute("SELECT pg_drop_replication_slot('walrecv')")?;
    site.configure("create_slot = \"manual\"\n")?;
    let attended = site.last_backup()?;
    let waiting = site.walrecv.run(&["backup", "main"])?.success()?;
    assert!(waiting.stderr.contains("not received here: the server has no"), "{}", waiting.stderr);
    let unwanted = site.walrecv.run(&["backup", "main", "--no-receive"])?.success()?;
    assert!(unwanted.stderr.contains("here: that was not wanted"), "{}", unwanted.stderr);
    assert!(unwanted.stdout.contains("WAITING_FOR_WALS"), "{}", unwanted.stdout);
    assert!(waiting.stdout.contains("WAITING_FOR_WALS"), "{}", waiting.stdout);
    let newest = site.last_backup()?;
    assert_ne!(newest, attended);
    // WAL that is still to come is told, and is no damage.
    let verified = site.walrecv.run(&["verify-backup", "main", &newest, "--wal"])?.code(1)?;
    assert!(verified.stdout.contains(": WAITING_FOR_WALS"), "{}", verified.stdout);
    assert!(verified.stdout.contains("still to come"), "{}", verified.stdout);
    let copied = site.restore("copied", &["latest", "--no-get-wal"])?.1.success()?;
    assert!(copied.stdout.contains(&attended), "{}", copied.stdout);
    Ok(())
}
