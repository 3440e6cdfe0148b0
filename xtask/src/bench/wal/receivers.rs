//! How the programs that receive WAL are run, and slots for them.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use walrecv_tests::cluster::{SUPERUSER, SUPERUSER_PASSWORD};
use walrecv_tests::sql::Session;
use walrecv_tests::walrecv::Walrecv;
use walrecv_tests::{Cluster, Context, Installation, Result};

use super::super::process::Process;

pub(super) const PG_RECEIVEWAL: &str = "pg_receivewal";
pub(super) const WALRECV: &str = "walrecv-server";

/// The server's name in the product's configuration, where there is one only.
pub(in crate::bench) const SERVER: &str = "main";

/// By what `synchronous_standby_names` knows them.
pub(super) const APPLICATION: &str = "receiver";

/// A program that receives until it is stopped.
#[derive(Debug)]
pub(super) struct Receiver {
    // Dropped in this order.
    pub(super) process: Process,
    _place: Place,
}

/// Where it keeps what it receives.
#[derive(Debug)]
enum Place {
    Directory { _it: TempDir },
    Store { _it: Walrecv },
}

/// How everybody connects: over TCP, with a password, without TLS.
pub(in crate::bench) fn conninfo(cluster: &Cluster) -> String {
    let conninfo = cluster.conninfo(SUPERUSER, SUPERUSER_PASSWORD);
    format!("{conninfo} application_name={APPLICATION}")
}

/// The process number of a cluster's server.
pub(super) fn postmaster(cluster: &Cluster) -> Result<i32> {
    let path = cluster.data_directory().join("postmaster.pid");
    let about = || format!("cannot read {}", path.display());
    let text = std::fs::read_to_string(&path).context(about)?;
    text.lines().next().context(about)?.trim().parse().context(about)
}

/// A directory on the file system on which all stores are.
pub(in crate::bench) fn directory() -> Result<TempDir> {
    let directory = tempfile::Builder::new().prefix("walrecv-bench-").tempdir();
    directory.context(|| "cannot make a temporary directory".to_owned())
}

/// `pg_receivewal` into a directory.
pub(super) fn pg_receivewal(
    installation: &Installation,
    conninfo: &str,
    slot: &str,
    directory: &Path,
) -> Result<Command> {
    let program = installation.program(PG_RECEIVEWAL);
    let mut command = Command::new(program.context(|| "there is no pg_receivewal".to_owned())?);
    command.args(["-d", conninfo, "-S", slot, "-D"]).arg(directory);
    Ok(command)
}

/// The configuration of one server of the product.
pub(in crate::bench) fn section(
    name: &str,
    conninfo: &str,
    slot: &str,
    settings: &[&str],
) -> String {
    let mut section = format!(
        "\n[servers.{name}]\nconninfo = \"{conninfo}\"\nslot_name = \"{slot}\"\n\
         create_slot = \"manual\"\n"
    );
    for setting in settings {
        section.push_str(setting);
        section.push('\n');
    }
    section
}

/// One of the two, confirming every commit at once.
pub(super) fn synchronous(
    program: &str,
    installation: &Installation,
    conninfo: &str,
    slot: &str,
) -> Result<Receiver> {
    if program == PG_RECEIVEWAL {
        let directory = directory()?;
        let store = directory.path().join("wal");
        std::fs::create_dir(&store).context(|| format!("cannot make {}", store.display()))?;
        let mut command = pg_receivewal(installation, conninfo, slot, &store)?;
        let process = Process::spawn(command.arg("--synchronous"), &directory.path().join("log"))?;
        return Ok(Receiver { process, _place: Place::Directory { _it: directory } });
    }
    let walrecv = Walrecv::new(&section(SERVER, conninfo, slot, &["synchronous = true"]))?;
    let log = walrecv.directory().join("log");
    let process = Process::spawn(&mut walrecv.command(&["receive-wal", SERVER])?, &log)?;
    Ok(Receiver { process, _place: Place::Store { _it: walrecv } })
}

/// A new slot that keeps all WAL from now on.
pub(super) fn create_slot(session: &mut Session, slot: &str) -> Result<()> {
    session.query(&format!("SELECT pg_create_physical_replication_slot('{slot}', true)")).map(drop)
}

/// Drops a slot as soon as the server has noticed that nobody uses it any more.
pub(super) fn drop_slot(cluster: &Cluster, slot: &str) -> Result<()> {
    cluster.wait_for("the slot to be free", |cluster| {
        let sql = format!(
            "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots \
             WHERE slot_name = '{slot}' AND NOT active"
        );
        Ok(cluster.value(&sql)? == "1")
    })
}
