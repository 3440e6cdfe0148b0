//! The daemon beside receiving: what is scheduled, other settings while it runs, and systemd.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::walrecv::Daemon;
use walrecv_tests::{Cluster, Context, Installation, Result};

use crate::site::{PASSWORD, ROLE, Site, write_wal};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("daemon_catches_up_with_schedules", &[11, 18], schedules).per_major(
        "daemon_reads_settings_again",
        &[10, 18],
        reload,
    )
}

const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until `there` says so.
fn wait_until(what: &str, daemon: &Daemon, there: impl Fn() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !there()? {
        assert!(begin.elapsed() < PATIENCE, "no {what}; the daemon says:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Schedules whose last moments nobody was there for.
const SCHEDULED: &str = "time_zone = \"UTC\"\nbackup_schedule = \"0 2 * * *\"\n\
                         incremental_schedule = \"30 2 * * *\"\nverify_schedule = \"0 5 * * *\"\n";

/// Notes that the last turn of these was long ago.
fn miss(site: &Site, names: &[(&str, &str)]) -> Result<()> {
    let turns: Vec<_> = names
        .iter()
        .map(|(name, moment)| {
            format!(
                "\"{name}\": {{\"schedule\": \"{moment} UTC\", \"until\": \"2026-01-01T00:00:00Z\"}}"
            )
        })
        .collect();
    let path = site.walrecv.home().join("main/state/schedule.json");
    fs::write(&path, format!("{{\"format\": 1, \"turns\": {{{}}}}}", turns.join(", ")))
        .context(|| format!("cannot write {}", path.display()))
}

fn backups(site: &Site) -> Result<Vec<serde_json::Value>> {
    let listed = site.walrecv.run(&["-f", "json2", "list-backups", "main"])?.success()?.json()?;
    let backups = listed.pointer("/results/0/backups").and_then(|backups| backups.as_array());
    backups.cloned().context(|| format!("no list of backups in {listed}"))
}

fn done(site: &Site) -> Result<usize> {
    Ok(backups(site)?.iter().filter(|backup| backup["status"] == "DONE").count())
}

/// The result of the last verification.
fn scrub(site: &Site) -> Option<serde_json::Value> {
    let path = site.walrecv.home().join("main/state/scrub.json");
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

fn first_file(directory: &Path, suffix: &str) -> Option<PathBuf> {
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.to_string_lossy().ends_with(suffix) {
                return Some(path);
            }
        }
    }
    None
}

fn schedules(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    if installation.major >= 17 {
        site.cluster.execute("ALTER SYSTEM SET summarize_wal = on")?;
        site.cluster.reload()?;
    }
    site.configure(SCHEDULED)?;
    let daemon = site.run()?;
    write_wal(&site.cluster, 3)?;
    site.settle()?;
    assert_eq!(daemon.stop()?, 0);
    assert_eq!(backups(&site)?.len(), 0, "nothing was missed yet");

    // A full backup was missed many times and an incremental one, too: one full one makes up for all.
    miss(&site, &[("backup", "0 2 * * *"), ("incremental_backup", "30 2 * * *")])?;
    let daemon = site.run()?;
    wait_until("backup", &daemon, || Ok(done(&site)? == 1))?;
    assert_eq!(daemon.stop()?, 0);

    // That was its turn. The incremental one has its own; before 17 it is a full one.
    miss(&site, &[("incremental_backup", "30 2 * * *"), ("verification", "0 5 * * *")])?;
    let daemon = site.run()?;
    wait_until("second backup", &daemon, || Ok(done(&site)? == 2))?;
    let incremental = backups(&site)?.iter().filter(|backup| !backup["parent"].is_null()).count();
    assert_eq!(incremental, usize::from(installation.major >= 17));
    wait_until("verification", &daemon, || Ok(scrub(&site).is_some()))?;
    let found = scrub(&site).context(|| "no verification".to_owned())?;
    assert_eq!(found["problems"], 0, "{found}");
    assert!(found["segments"].as_u64() > Some(0), "{found}");
    assert_eq!(daemon.stop()?, 0);
    let check = site.walrecv.run(&["check", "main"])?;
    assert!(check.stdout.contains("verification: OK"), "{}", check.stdout);

    // A flipped bit is found, and fails the check.
    let wals = site.walrecv.home().join("main/wals");
    let archived = first_file(&wals, ".zst").context(|| "no archived segment".to_owned())?;
    let mut bytes = fs::read(&archived).context(|| "cannot read a segment".to_owned())?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archived, bytes).context(|| "cannot damage a segment".to_owned())?;
    miss(&site, &[("verification", "0 5 * * *")])?;
    let daemon = site.run()?;
    wait_until("damage", &daemon, || Ok(scrub(&site).is_some_and(|scrub| scrub["problems"] == 1)))?;
    let check = site.walrecv.run(&["check", "main"])?.code(1)?;
    assert!(check.stdout.contains("verification: FAILED (1 problems"), "{}", check.stdout);
    assert_eq!(done(&site)?, 2, "no turn came twice");
    assert_eq!(daemon.stop()?, 0);

    // So is what no index tells of.
    let bytes = fs::read(&archived).context(|| "cannot read a segment".to_owned())?;
    fs::write(&archived, &bytes[..middle]).context(|| "cannot cut a segment".to_owned())?;
    let hours_ago = SystemTime::now() - Duration::from_secs(7200);
    let file = File::options().append(true).open(&archived);
    file.and_then(|file| file.set_modified(hours_ago)).context(|| "no other time".to_owned())?;
    fs::remove_file(archived.with_file_name("index")).context(|| "no index".to_owned())?;
    fs::remove_file(site.walrecv.home().join("main/state/scrub.json"))
        .context(|| "no verification".to_owned())?;
    miss(&site, &[("verification", "0 5 * * *")])?;
    let daemon = site.run()?;
    wait_until("what is cut", &daemon, || Ok(scrub(&site).is_some()))?;
    let found = scrub(&site).context(|| "no verification".to_owned())?;
    assert_eq!(found["problems"], 1, "{found}");
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// What systemd would have heard.
struct Systemd {
    _directory: tempfile::TempDir,
    path: PathBuf,
    socket: UnixDatagram,
}

impl Systemd {
    fn new() -> Result<Self> {
        let about = || "cannot make a notification socket".to_owned();
        let directory = tempfile::tempdir().context(about)?;
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).context(about)?;
        socket.set_read_timeout(Some(PATIENCE)).context(about)?;
        Ok(Self { _directory: directory, path, socket })
    }

    /// The next message that is about this.
    fn hear(&self, what: &str) -> Result<String> {
        let mut buffer = [0; 4096];
        loop {
            let length = self
                .socket
                .recv(&mut buffer)
                .context(|| format!("systemd did not hear `{what}`"))?;
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.lines().any(|line| line.starts_with(what)) {
                return Ok(message);
            }
        }
    }
}

/// The process that serves a slot.
fn sender_of(cluster: &Cluster, slot: &str) -> Result<String> {
    let sql = format!(
        "SELECT coalesce(max(active_pid), 0) FROM pg_replication_slots WHERE slot_name = '{slot}'"
    );
    cluster.value(&sql)
}

fn wait_for_sender(cluster: &Cluster, slot: &str) -> Result<String> {
    cluster.wait_for("a receiver", |cluster| Ok(sender_of(cluster, slot)? != "0"))?;
    sender_of(cluster, slot)
}

fn reload(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let cluster = &site.cluster;
    let conninfo = cluster.conninfo(ROLE, PASSWORD);
    let main = |more: &str| format!("[servers.main]\nconninfo = \"{conninfo}\"\n{more}");
    let other = format!("[servers.other]\nconninfo = \"{conninfo}\"\nslot_name = \"other\"\n");
    site.walrecv.configure(&main(""))?;

    let systemd = Systemd::new()?;
    let environment = [
        "env".to_owned(),
        format!("NOTIFY_SOCKET={}", systemd.path.display()),
        "WATCHDOG_USEC=1500000".to_owned(),
    ];
    let mut daemon = site.walrecv.spawn_behind(&environment, &["run"])?;
    systemd.hear("READY=1")?;
    systemd.hear("WATCHDOG=1")?;
    let first = wait_for_sender(cluster, "walrecv")?;

    // One more server: the first notices nothing.
    site.walrecv.configure(&format!("{}{other}", main("description = \"orders\"\n")))?;
    daemon.signal(Signal::HUP)?;
    assert!(systemd.hear("RELOADING=1")?.contains("MONOTONIC_USEC="));
    systemd.hear("READY=1")?;
    wait_for_sender(cluster, "other")?;
    assert_eq!(sender_of(cluster, "walrecv")?, first);

    // A mistake changes nothing.
    site.walrecv.configure(&main("compresion = \"lz4\"\n"))?;
    daemon.signal(Signal::HUP)?;
    wait_until("complaint", &daemon, || Ok(daemon.log().contains("did you mean `compression`?")))?;
    systemd.hear("READY=1")?;
    systemd.hear("STATUS=configuration refused: ")?;
    assert_ne!(sender_of(cluster, "other")?, "0");
    assert_eq!(sender_of(cluster, "walrecv")?, first);

    // Without the second server, and with another compression, which its receiver has to know.
    site.walrecv.configure(&main("compression = \"lz4\"\n"))?;
    daemon.signal(Signal::HUP)?;
    cluster.wait_for("the end of the other receiver", |cluster| {
        Ok(sender_of(cluster, "other")? == "0")
    })?;
    cluster.wait_for("a new receiver", |cluster| {
        let now = sender_of(cluster, "walrecv")?;
        Ok(now != "0" && now != first)
    })?;
    write_wal(cluster, if installation.major >= 11 { 3 } else { 20 })?;
    let wals = site.walrecv.home().join("main/wals");
    wait_until("lz4", &daemon, || Ok(first_file(&wals, ".lz4").is_some()))?;

    // Not looked after, and then again.
    site.walrecv.configure(&main("active = false\n"))?;
    daemon.signal(Signal::HUP)?;
    cluster.wait_for("no receiver", |cluster| Ok(sender_of(cluster, "walrecv")? == "0"))?;
    site.walrecv.configure(&main(""))?;
    daemon.signal(Signal::HUP)?;
    wait_for_sender(cluster, "walrecv")?;
    daemon.signal(Signal::TERM)?;
    systemd.hear("STOPPING=1")?;
    assert_eq!(daemon.wait(PATIENCE)?, 0);
    Ok(())
}
