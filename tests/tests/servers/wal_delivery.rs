//! A recovering server gets its WAL: what is made ready before it asks, what is held for it, and
//! what it is told when it cannot have it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use walrecv_tests::disk::{Disk, FileSystem};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::walrecv::{bare_command, finish};
use walrecv_tests::{Cluster, Installation, Result};

use crate::site::{Site, write_wal};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("wal_is_ready_before_it_is_asked_for", &[11, 15, 18], ready)
        .per_major("leases_hold_what_restores_need", &[10, 18], leases)
        .per_major("get_wal_never_ends_a_recovery_early", &[18], exit_contract)
}

/// What is in the table that all the WAL is about.
fn content(cluster: &Cluster) -> Result<String> {
    cluster.value("SELECT count(*) || ' ' || md5(string_agg(t, '' ORDER BY t)) FROM bulk_of_wal")
}

/// Sixty segments and a change of timelines between them.
fn ready(installation: &Installation) -> ScenarioResult {
    let mut site = Site::new(installation)?;
    let daemon = site.run()?;
    let id = site.backup()?;
    let begin = site.position()?;
    write_wal(&site.cluster, 30)?;
    site.settle()?;
    site.cluster.stop()?;
    site.cluster.recover_onto_a_new_timeline()?;
    site.cluster.start()?;
    site.cluster.wait_until_promoted()?;
    site.wait_until_streaming()?;
    write_wal(&site.cluster, 34)?;
    let end = site.settle()?;
    assert!(end.bytes_since(begin) >= 60 << 20, "only {} bytes of WAL", end.bytes_since(begin));
    let expected = content(&site.cluster)?;
    site.cluster.kill9()?;

    // The store is closed to the server's account: the daemon hands out the WAL.
    let seen = recovers(&site, "ahead", &id, &expected, |_| Ok(()), |_| ())?;
    assert!(seen > 8, "only {seen} segments were seen ready");
    let seen = recovers(&site, "plain", &id, &expected, without_prefetch, |_| ())?;
    assert_eq!(seen, 0);
    // It promotes long before the end of the WAL, while more is made ready.
    let early = site
        .restore_and_start("early", &[&id, "--target-immediate", "--target-action", "promote"])?;
    assert!(!early.data_directory().join("pg_wal/.walrecv-spool").exists());
    drop(early);
    let killed = AtomicUsize::new(0);
    let kill = |data: &Path| {
        killed.fetch_add(kill_those_who_fill(data), Ordering::Relaxed);
    };
    recovers(&site, "killed", &id, &expected, |_| Ok(()), kill)?;
    assert!(killed.load(Ordering::Relaxed) > 0, "nobody was killed");

    // The same where the server may read the store itself.
    assert_eq!(daemon.stop()?, 0);
    site.cluster.account().owns(site.walrecv.directory())?;
    own_all(&site, &site.walrecv.home())?;
    let seen = recovers(&site, "direct", &id, &expected, |_| Ok(()), |_| ())?;
    assert!(seen > 8, "only {seen} segments were seen ready");
    Ok(())
}

/// Restores, and recovers to the end of the WAL while somebody disturbs it. How many segments were
/// seen ready.
fn recovers(
    site: &Site,
    name: &str,
    id: &str,
    expected: &str,
    prepare: impl Fn(&Cluster) -> ScenarioResult,
    disturb: impl Fn(&Path) + Sync,
) -> Result<usize, Box<dyn std::error::Error>> {
    let (destination, output) = site.restore(name, &[id])?;
    output.success()?;
    let mut restored = Cluster::adopt(site.cluster.installation(), &destination)?;
    prepare(&restored).map_err(|failed| format!("{failed:?}"))?;
    let spool = destination.join("pg_wal/.walrecv-spool");
    let over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watched = scope.spawn(|| {
            let mut seen = std::collections::BTreeSet::new();
            while !over.load(Ordering::Relaxed) {
                let names = fs::read_dir(&spool).into_iter().flatten().flatten();
                seen.extend(names.map(|entry| entry.file_name()).filter(|name| name.len() == 24));
                disturb(&destination);
                std::thread::sleep(Duration::from_millis(1));
            }
            seen.len()
        });
        let recovered = restored.start().and_then(|()| restored.wait_until_promoted());
        over.store(true, Ordering::Relaxed);
        let seen = watched.join().unwrap();
        recovered.map(|()| seen)
    })?;
    assert_eq!(content(&restored)?, expected, "{name}");
    assert!(!spool.exists(), "{name}: the spool was left behind");
    for _ in 0..100 {
        if those_who_fill(&destination).is_empty() {
            restored.stop()?;
            return Ok(seen);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("{name}: somebody still makes segments ready").into())
}

fn without_prefetch(restored: &Cluster) -> ScenarioResult {
    let file = if restored.major() >= 12 { "postgresql.auto.conf" } else { "recovery.conf" };
    let path = restored.data_directory().join(file);
    let text = fs::read_to_string(&path)?;
    assert!(text.contains(" get-wal --partial "), "{text}");
    fs::write(&path, text.replace(" get-wal --partial ", " get-wal --prefetch 0 --partial "))?;
    Ok(())
}

/// The processes that make segments ready for this data directory.
fn those_who_fill(data: &Path) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ours = processes.filter(|process| {
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        words.split(|&byte| byte == 0).any(|word| word == b"--ahead")
            && fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == data)
    });
    ours.filter_map(|process| Pid::from_raw(process.file_name().to_str()?.parse().ok()?)).collect()
}

fn kill_those_who_fill(data: &Path) -> usize {
    let fillers = those_who_fill(data);
    fillers.into_iter().filter(|pid| kill_process(*pid, Signal::KILL).is_ok()).count()
}

fn own_all(site: &Site, path: &Path) -> ScenarioResult {
    site.cluster.account().owns(path)?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            own_all(site, &entry?.path())?;
        }
    }
    Ok(())
}

/// The files of leases.
fn lease_files(site: &Site) -> Vec<PathBuf> {
    let directory = site.walrecv.home().join("main/state/leases");
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.map(|entry| entry.path());
    named.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
}

fn lease(path: &Path) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn leases(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let daemon = site.run()?;
    let id = site.backup()?;
    write_wal(&site.cluster, 2)?;
    site.settle()?;

    // Nothing is left by one that only plans, or fails, or copies all its WAL.
    site.restore("planned", &[&id, "--dry-run"])?.1.success()?;
    site.restore("copied", &[&id, "--no-get-wal"])?.1.success()?;
    assert!(lease_files(&site).is_empty());

    // One that is killed leaves nothing that lasts.
    let killed = (0..20).any(|round| {
        let destination = site.cluster.base_directory().join(format!("killed{round}"));
        let mut restore = site
            .walrecv
            .spawn(&[
                "restore",
                "main",
                &id,
                &destination.display().to_string(),
                "--owner",
                &site.cluster.account().name,
            ])
            .unwrap();
        let begin = Instant::now();
        while lease_files(&site).is_empty() && begin.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_micros(200));
        }
        restore.signal(Signal::STOP).unwrap();
        let refused = site.walrecv.run(&["delete", "main", &id, "--dry-run"]).unwrap();
        let running = restore.is_running()
            && lease_files(&site)
                .iter()
                .any(|path| lease(path).is_ok_and(|lease| lease["restoring"] == true));
        if running {
            assert_eq!(refused.code, 3, "{}", refused.stderr);
            assert!(refused.stderr.contains("which is running"), "{}", refused.stderr);
        }
        restore.kill9().unwrap();
        if !running {
            for path in lease_files(&site) {
                fs::remove_file(path).unwrap();
            }
        }
        running
    });
    assert!(killed, "every restore was done before it could be killed");
    assert_eq!(lease_files(&site).len(), 1);
    site.walrecv.run(&["delete", "main", &id, "--dry-run"])?.success()?;

    // The server that was restored keeps what it needs.
    let (destination, output) = site.restore("restored", &[&id])?;
    output.success()?;
    let files = lease_files(&site);
    let [file] = files.as_slice() else { return Err(format!("{files:?}").into()) };
    let refused = site.walrecv.run(&["delete", "main", &id])?.code(3)?;
    for told in [destination.display().to_string().as_str(), "until 20", "--ignore-leases"] {
        assert!(refused.stderr.contains(told), "no `{told}` in {}", refused.stderr);
    }
    let shown = site.walrecv.run(&["show-backup", "main", &id])?.success()?;
    assert!(shown.stdout.contains("Needed by restore"), "{}", shown.stdout);

    // Six days later it goes on to ask for WAL.
    let mut aged = lease(file)?;
    let fresh = aged["expires"].clone();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let day = site.cluster.value(&format!(
        "SELECT to_char(to_timestamp({now} + 86400) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
    ))?;
    aged["expires"] = day.clone().into();
    aged.as_object_mut().unwrap().remove("crc32c");
    fs::write(file, serde_json::to_vec(&aged)?)?;
    let mut restored = Cluster::adopt(installation, &destination)?;
    restored.start()?;
    restored.wait_until_promoted()?;
    let renewed = lease(file)?["expires"].as_str().unwrap_or_default().to_owned();
    assert!(renewed.as_str() > fresh.as_str().unwrap_or_default(), "{renewed} {fresh}");
    site.walrecv.run(&["delete", "main", &id])?.code(3)?;

    // A state that nobody can read holds everything.
    fs::write(file.with_file_name("unreadable.json"), b"{")?;
    let next = site.backup()?;
    let unknown = site.walrecv.run(&["delete", "main", &next])?.code(3)?;
    assert!(unknown.stderr.contains("unreadable.json"), "{}", unknown.stderr);
    site.walrecv.run(&["delete", "main", &next, "--ignore-leases"])?.success()?;
    site.walrecv.run(&["delete", "main", &id, "--ignore-leases"])?.success()?;
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

fn exit_contract(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let daemon = site.run()?;
    let segment = site.cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())")?;
    write_wal(&site.cluster, 2)?;
    site.settle()?;
    let directory = site.cluster.new_directory("wanted")?;
    let wal = directory.join("RECOVERYXLOG").display().to_string();
    let home = site.walrecv.home().display().to_string();
    let by_server = |more: &[&str]| {
        let mut command = bare_command()?;
        site.cluster.account().runs(&mut command).current_dir("/");
        command.args(["--home", &home, "get-wal", "main", &segment, &wal]).args(more);
        Ok::<_, walrecv_tests::Failure>(command)
    };
    finish(&mut by_server(&[])?)?.success()?;
    fs::remove_file(&wal)?;

    // Its disk is full.
    let small = site.cluster.new_directory("small")?;
    if let Some(disk) = Disk::mount(FileSystem::Ext4, 16, &small)? {
        let _ballast = disk.fill(256 << 10)?;
        let name = small.join("RECOVERYXLOG").display().to_string();
        let full = site.walrecv.run(&["get-wal", "main", &segment, &name])?;
        assert!(full.code >= 200 && full.stderr.contains("No space left"), "{full:?}");
        assert_eq!(
            fs::read_dir(&small)?.flatten().filter(|e| e.file_name() != ".ballast").count(),
            0
        );
    }

    // Told to end while the daemon keeps it waiting, it dies by the signal.
    daemon.halt()?;
    let mut waiting = by_server(&[])?.spawn()?;
    std::thread::sleep(Duration::from_millis(500));
    assert!(waiting.try_wait()?.is_none());
    let pid = i32::try_from(waiting.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::TERM)?;
    let status = waiting.wait()?;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::TERM.as_raw()));
    daemon.signal(Signal::CONT)?;

    // Nobody is there to ask, and the store is closed.
    assert_eq!(daemon.stop()?, 0);
    let closed = finish(&mut by_server(&[])?)?;
    assert_eq!(closed.code, 201, "{}", closed.stderr);
    assert!(!Path::new(&wal).exists());
    Ok(())
}
