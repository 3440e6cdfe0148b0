//! The examples of the library, each against a real server, judged by what the server says and by
//! PostgreSQL's own programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pgwire_stream::{Lsn, WalFileName};
use tempfile::TempDir;
use walrecv_tests::cluster::{SUPERUSER, SUPERUSER_PASSWORD};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Context, Installation, Result, program, tools};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("example_identify_system", &[10, 18], identify_system)
        .per_major("example_receive_wal", &[10, 18], receive_wal)
        .per_major("example_base_backup", &[13, 18], base_backup)
        .per_major("example_verify_backup", &[13, 18], verify_backup)
        .per_major("example_follow_promotion", &[18], follow_promotion)
        .per_major("example_custom_transport", &[18], custom_transport)
        .per_major("example_blocking_session", &[18], blocking_session)
        .per_major("example_logical_stream", &[18], logical_stream)
        .once("examples_are_short", examples_are_short)
}

/// An example that runs until it is dropped, which is as sudden as a power cut.
struct Running {
    child: Child,
    directory: TempDir,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self, Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let output = fs::File::create(directory.path().join("output"))?;
        let child =
            command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()?;
        Ok(Self { child, directory })
    }

    /// Everything it has said so far.
    fn output(&self) -> String {
        fs::read_to_string(self.directory.path().join("output")).unwrap_or_default()
    }

    /// Waits until it says something.
    fn wait_for(&self, cluster: &Cluster, text: &str) -> Result<()> {
        let said = cluster.wait_for(text, |_| Ok(self.output().contains(text)));
        said.map_err(|failure| {
            walrecv_tests::Failure::new(format!("{failure}\nit said:\n{}", self.output()))
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn example(name: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(program::built(name)?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    Ok(command)
}

fn lsn(cluster: &Cluster, sql: &str) -> Result<Lsn, Box<dyn std::error::Error>> {
    Ok(cluster.value(sql)?.parse()?)
}

fn identify_system(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    let said = program::run(&mut example("identify_system", &[&cluster.superuser_conninfo()])?)?;
    let system = cluster.value("SELECT system_identifier FROM pg_control_system()")?;
    assert!(said.contains(&system), "{said}");
    assert!(said.contains(&format!("PostgreSQL {}", installation.major)), "{said}");
    Ok(())
}

/// Killed, started again, and on to another timeline: the archive has what the server archived.
fn receive_wal(installation: &Installation) -> ScenarioResult {
    let mut options = Cluster::options(installation).archive();
    if installation.major >= 11 {
        options = options.wal_segment_megabytes(1);
    }
    let mut cluster = options.start()?;
    let directory = tempfile::tempdir()?;
    let conninfo = cluster.superuser_conninfo();
    let path = directory.path().to_string_lossy().into_owned();
    let start = || {
        let mut command = example("receive_wal", &[&conninfo, &path, "receive_wal"])?;
        Running::start(&mut command)
    };
    let archived = |cluster: &Cluster| -> ScenarioResult {
        cluster.execute("CREATE TABLE IF NOT EXISTS load (t text)")?;
        cluster
            .execute("INSERT INTO load SELECT repeat('x', 200) FROM generate_series(1, 20000)")?;
        let until = lsn(cluster, "SELECT pg_switch_wal()")?;
        cluster.execute("CHECKPOINT")?;
        cluster.wait_for("the receiver's flush position", |cluster| {
            let flushed = "SELECT flush_lsn FROM pg_stat_replication WHERE flush_lsn IS NOT NULL";
            Ok(lsn(cluster, flushed).is_ok_and(|flushed| flushed >= until))
        })?;
        Ok(())
    };

    let receiver = start()?;
    archived(&cluster)?;
    drop(receiver);
    let receiver = start()?;
    archived(&cluster)?;
    assert!(compared(&cluster, directory.path())? >= 2);
    drop(receiver);

    cluster.stop()?;
    cluster.recover_onto_a_new_timeline()?;
    cluster.start()?;
    cluster.wait_until_promoted()?;
    let _receiver = start()?;
    archived(&cluster)?;
    assert!(compared(&cluster, directory.path())? >= 3);
    let history = fs::read(cluster.data_directory().join("pg_wal/00000002.history"))?;
    assert_eq!(fs::read(directory.path().join("00000002.history"))?, history);
    Ok(())
}

/// Compares every complete segment with the server's own archive; how many there are.
fn compared(cluster: &Cluster, directory: &Path) -> Result<usize, Box<dyn std::error::Error>> {
    let mut compared = 0;
    for file in directory.read_dir()? {
        let path = file?.path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if let Ok(WalFileName::Segment(_)) = name.parse() {
            let archived = cluster.archive_directory().join(&name);
            cluster.wait_for("the archived segment", |_| Ok(archived.exists()))?;
            assert!(fs::read(&path)? == fs::read(&archived)?, "{name} is not what was archived");
            compared += 1;
        }
    }
    Ok(compared)
}

/// Takes a backup with the example, and unpacks it below the directory.
fn unpacked_backup(installation: &Installation, directory: &Path) -> Result<PathBuf> {
    let cluster = Cluster::options(installation).data_checksums().start()?;
    cluster.execute("CREATE TABLE kept AS SELECT generate_series(1, 10000) n")?;
    let backup = directory.join("backup");
    program::run(&mut example(
        "base_backup",
        &[&cluster.superuser_conninfo(), &backup.to_string_lossy()],
    )?)?;
    let unpacked = directory.join("unpacked");
    tools::unpack(&backup.join("base.tar"), &unpacked)?;
    fs::copy(backup.join("backup_manifest"), unpacked.join("backup_manifest"))
        .context(|| "cannot copy the manifest".to_owned())?;
    Ok(unpacked)
}

fn base_backup(installation: &Installation) -> ScenarioResult {
    let directory = tempfile::tempdir()?;
    let unpacked = unpacked_backup(installation, directory.path())?;
    tools::verify_backup(installation.major, &unpacked, None)?;
    Ok(())
}

/// A backup is whole until a byte of it is changed.
fn verify_backup(installation: &Installation) -> ScenarioResult {
    let directory = tempfile::tempdir()?;
    let unpacked = unpacked_backup(installation, directory.path())?;
    let verify = || program::output(&mut example("verify_backup", &[&unpacked.to_string_lossy()])?);
    let whole = verify()?;
    let said = String::from_utf8_lossy(&whole.stdout).into_owned();
    assert!(whole.status.success() && said.contains("needs WAL of timeline 1"), "{whole:?}");

    fs::write(unpacked.join("PG_VERSION"), "9.6\n")?;
    let damaged = verify()?;
    let said = String::from_utf8_lossy(&damaged.stdout).into_owned();
    assert!(!damaged.status.success() && said.contains("PG_VERSION"), "{damaged:?}");
    Ok(())
}

/// The primary dies, its standby is promoted: the WAL of both is followed.
fn follow_promotion(installation: &Installation) -> ScenarioResult {
    let mut primary = Cluster::start_new(installation)?;
    let Some(pg_basebackup) = tools::for_server("pg_basebackup", installation.major) else {
        tools::missing("pg_basebackup", &installation.name());
        return Ok(());
    };
    let data = primary.new_directory("standby")?;
    let mut copy = tools::client(pg_basebackup, &primary);
    primary.account().runs(&mut copy);
    program::run(copy.args(["-X", "stream", "-c", "fast", "-D"]).arg(&data))?;
    fs::write(data.join("standby.signal"), "")?;
    let mut standby = Cluster::adopt(installation, &data)?;
    standby.set("primary_conninfo", &primary.superuser_conninfo());
    standby.start()?;

    let conninfo = format!(
        "host={},{} port={},{} user={SUPERUSER} target_session_attrs=read-write",
        primary.base_directory().display(),
        standby.base_directory().display(),
        primary.port(),
        standby.port()
    );
    let receiver = Running::start(&mut example("follow_promotion", &[&conninfo])?)?;
    receiver.wait_for(&primary, "streaming timeline 1")?;
    primary.execute("CREATE TABLE before_promotion (n int)")?;
    let until = primary.value("SELECT pg_current_wal_lsn()")?;
    standby.wait_for("the standby to have it all", |standby| {
        Ok(standby.value(&format!("SELECT pg_last_wal_replay_lsn() >= '{until}'"))? == "t")
    })?;
    primary.kill9()?;
    standby.promote()?;
    receiver.wait_for(&standby, "streaming timeline 2")?;
    let said = receiver.output();
    let history = fs::read_to_string(data.join("pg_wal/00000002.history"))?;
    let fork = history.split_whitespace().nth(1).ok_or("an empty history")?;
    assert!(said.contains(&format!("timeline 1 goes on as 2 at {fork}")), "{said}");
    Ok(())
}

fn custom_transport(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    let socket = cluster.base_directory().join(format!(".s.PGSQL.{}", cluster.port()));
    let user = format!("user={SUPERUSER}");
    let arguments = [&*socket.to_string_lossy(), &user];
    let said = program::run(&mut example("custom_transport", &arguments)?)?;
    assert!(said.contains("> ") && said.contains("IDENTIFY_SYSTEM"), "{said}");
    let system = cluster.value("SELECT system_identifier FROM pg_control_system()")?;
    let received = said.lines().filter(|line| line.starts_with("< "));
    assert!(received.collect::<String>().contains(&system), "{said}");
    Ok(())
}

fn blocking_session(installation: &Installation) -> ScenarioResult {
    // So short that a session without reports is ended.
    let cluster = Cluster::options(installation).config("wal_sender_timeout = '2s'").start()?;
    let conninfo = cluster.conninfo(SUPERUSER, SUPERUSER_PASSWORD);
    let from = cluster.value("SELECT pg_current_wal_flush_lsn()")?;
    let receiver = Running::start(&mut example("blocking_session", &[&conninfo, &from])?)?;
    cluster.execute("CREATE TABLE received (n int)")?;
    receiver.wait_for(&cluster, &from)?;
    std::thread::sleep(std::time::Duration::from_secs(4));
    cluster.execute("INSERT INTO received SELECT generate_series(1, 1000)")?;
    let until = lsn(&cluster, "SELECT pg_current_wal_flush_lsn()")?;
    cluster.wait_for("the reported position", |cluster| {
        let written = "SELECT write_lsn FROM pg_stat_replication WHERE write_lsn IS NOT NULL";
        Ok(lsn(cluster, written).is_ok_and(|written| written >= until))
    })?;
    Ok(())
}

fn logical_stream(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::options(installation).config("wal_level = logical").start()?;
    cluster.execute("CREATE TABLE received (t text)")?;
    cluster.execute("CREATE PUBLICATION everything FOR ALL TABLES")?;
    let conninfo = cluster.superuser_conninfo();
    let arguments =
        [&*conninfo, "logical", "pgoutput", "proto_version=1", "publication_names=everything"];
    let receiver = Running::start(&mut example("logical_stream", &arguments)?)?;
    receiver.wait_for(&cluster, "begins at")?;
    cluster.execute("INSERT INTO received VALUES ('a row to be seen')")?;
    receiver.wait_for(&cluster, "a row to be seen")?;
    Ok(())
}

/// What is to be read in one sitting.
fn examples_are_short() -> ScenarioResult {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/src/bin");
    let mut lines: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for file in folder.read_dir()? {
        let path = file?.path();
        let count = fs::read_to_string(&path)?.lines().count();
        lines.insert(path, count);
    }
    assert!(lines.len() >= 6, "{lines:?}");
    let long: Vec<_> = lines.iter().filter(|(_, lines)| **lines >= 120).collect();
    assert!(long.is_empty(), "{long:?}");
    Ok(())
}
