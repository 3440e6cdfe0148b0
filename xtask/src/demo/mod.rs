//! `cargo xtask demo`: the product on a real PostgreSQL, in a minute.
//!
//! A throwaway cluster is streamed and backed up under load, then killed and removed, restored
//! from what `walrecv-server` has, and compared with what it had acknowledged before.
//!
//! Replication is asynchronous: what the server acknowledged to its client may not have reached
//! us when it dies at that instant. So the load ends, and the kill waits until the receiver has
//! reported the last commit as durable. From then on nothing may be missing.

mod load;
mod scene;

use std::time::Duration;

use walrecv_tests::walrecv::{self, Daemon, Walrecv};
use walrecv_tests::{Cluster, Context, Failure, Installation, Result, program};

use crate::interrupt::Interrupt;
use crate::{paths, postgres};

use load::{Ledger, Load};
use scene::Scene;

/// How long commits go on beside the backup, before and after it.
const LOAD_BEFORE: Duration = Duration::from_secs(2);
const LOAD_AFTER: Duration = Duration::from_secs(4);

/// The name of the server in the demonstration's configuration.
const SERVER: &str = "demo";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The PostgreSQL to use [default: the newest of the system, else any that can be had]
    #[arg(long)]
    major: Option<u32>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    let outcome = demonstrate(arguments, &interrupt);
    // Everything else has been removed by the destructors of what `demonstrate` held.
    walrecv::remove_copy();
    if interrupt.came() {
        return Err(Failure::new("interrupted; everything has been stopped and removed"));
    }
    let verdict = outcome?;
    println!("{verdict}");
    Ok(())
}

fn demonstrate(arguments: &Arguments, interrupt: &Interrupt) -> Result<String> {
    let mut scene = Scene::begin(interrupt);

    scene.next("building walrecv-server")?;
    build()?;

    scene.next("looking for a PostgreSQL")?;
    let installation = postgres::obtain_one(arguments.major)?;
    scene.tell(&format!(
        "PostgreSQL {} in {}",
        installation.version,
        installation.bindir.display()
    ));

    scene.next("making a throwaway cluster, and filling it")?;
    let mut cluster = start_cluster(&installation)?;
    load::fill(&cluster)?;
    scene.tell(&format!(
        "it runs as {} on 127.0.0.1:{}, with {} of data",
        cluster.account().name,
        cluster.port(),
        cluster.value("SELECT pg_size_pretty(pg_database_size('postgres'))")?
    ));

    scene.next("streaming its WAL through a physical slot: walrecv-server run")?;
    let walrecv = Walrecv::new(&configuration(&cluster))?;
    let mut daemon = walrecv.spawn(&["run"])?;
    wait_until_streaming(&cluster, &mut daemon, interrupt).map_err(|failure| {
        Failure::new(format!("{failure}\nwalrecv-server said:\n{}", daemon.log()))
    })?;
    let load = Load::start(&cluster)?;
    scene.wait(LOAD_BEFORE)?;

    scene.next("taking a base backup under load: walrecv-server backup")?;
    show(&walrecv, &["backup", SERVER, "--immediate-checkpoint", "--wait"])?;

    scene.next("committing some more")?;
    scene.wait(LOAD_AFTER)?;
    let commits = load.stop()?;
    let before = Ledger::read(&cluster)?;
    wait_until_flushed(&cluster, interrupt)?;
    scene.tell(&format!(
        "{commits} commits of all sessions; the ledger's last row is {}",
        before.last
    ));

    scene.next("SIGKILL to the cluster, and its data directory is removed")?;
    cluster.kill9()?;
    cluster.remove_data()?;

    scene.next("restoring: walrecv-server restore")?;
    let place = scene.directory(cluster.account())?;
    let destination = place.path().join("data");
    let target = destination.display().to_string();
    let mut arguments = vec!["restore", SERVER, "latest", target.as_str()];
    let owner = cluster.account().name.clone();
    if rustix::process::geteuid().is_root() {
        arguments.extend(["--owner", owner.as_str()]);
    }
    show(&walrecv, &arguments)?;

    scene.next("starting the restored cluster, which fetches its WAL by walrecv-server get-wal")?;
    let mut restored = Cluster::adopt(&installation, &destination)?;
    restored.start()?;
    restored.wait_until_promoted()?;
    let after = Ledger::read(&restored)?;

    restored.stop()?;
    daemon.stop()?;
    verdict(&before, &after)
}

fn build() -> Result<()> {
    let mut cargo = paths::cargo();
    cargo.args(["build", "--package", "walrecv-server"]);
    let status = cargo.status().context(|| "cannot run cargo".to_owned())?;
    if !status.success() {
        return Err(Failure::new(format!("`{}` failed", program::command_line(&cargo))));
    }
    Ok(())
}

fn start_cluster(installation: &Installation) -> Result<Cluster> {
    let cluster = Cluster::options(installation)
        .durable()
        .data_checksums()
        .config("shared_buffers = '128MB'")
        .config("max_wal_size = '2GB'")
        .start()?;
    cluster.create_role("walrecv", "demo-secret", "REPLICATION")?;
    Ok(cluster)
}

/// The configuration file, after its `home`.
fn configuration(cluster: &Cluster) -> String {
    // The restored server's account, who may not enter the store, is served by the daemon.
    format!(
        "wal_readers = [\"{}\"]\n\n[servers.{SERVER}]\nconninfo = \"{}\"\n",
        cluster.account().name,
        cluster.conninfo("walrecv", "demo-secret")
    )
}

/// Runs a command of the product with its output, and its progress bar, on our terminal.
fn show(walrecv: &Walrecv, arguments: &[&str]) -> Result<()> {
    let status =
        walrecv.command(arguments)?.status().context(|| "cannot run walrecv-server".to_owned())?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`walrecv-server {}` ended with {status}", arguments.join(" "))))
}

fn wait_until_streaming(
    cluster: &Cluster,
    daemon: &mut Daemon,
    interrupt: &Interrupt,
) -> Result<()> {
    cluster.wait_for("the WAL receiver", |cluster| {
        interrupt.check()?;
        if !daemon.is_running() {
            return Err(Failure::new("walrecv-server has ended"));
        }
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        Ok(cluster.value(sql)? != "0")
    })
}

/// Waits until the receiver has reported everything committed so far as durable.
fn wait_until_flushed(cluster: &Cluster, interrupt: &Interrupt) -> Result<()> {
    let end = cluster.value("SELECT pg_current_wal_insert_lsn()")?;
    cluster.wait_for("the receiver's flush position", |cluster| {
        interrupt.check()?;
        let sql = format!(
            "SELECT count(*) FROM pg_stat_replication \
             WHERE state = 'streaming' AND flush_lsn >= '{end}'"
        );
        Ok(cluster.value(&sql)? != "0")
    })
}

fn verdict(before: &Ledger, after: &Ledger) -> Result<String> {
    let rows = format!(
        "last committed row before the kill: {}; after the restore: {}",
        before.last, after.last
    );
    if before.last != after.last {
        return Err(Failure::new(format!("NOT EQUAL: {rows}")));
    }
    if before != after {
        return Err(Failure::new(format!(
            "NOT EQUAL: the last row is the same, but other data is not: {before:?}, {after:?}"
        )));
    }
    Ok(format!("EQUAL: {rows}"))
}
