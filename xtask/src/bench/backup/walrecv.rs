//! The product. Every file is compared with the manifest while it comes, and all is durable.

use std::fs;
use std::path::{Path, PathBuf};

use walrecv_tests::walrecv::write_private;
use walrecv_tests::{Context, Result};

use super::super::wal::receivers::{SERVER, section};
use super::{Contender, Subject};
use crate::bench::process::{Cost, Process};

pub(super) const PLAIN: &str = "walrecv-server";
pub(super) const ZSTD: &str = "walrecv-server zstd 1";
pub(super) const LZ4: &str = "walrecv-server lz4";
pub(super) const SERVER_ZSTD: &str = "walrecv-server, server's zstd 1";

pub(super) struct Product {
    name: &'static str,
    /// The settings that say how backups are compressed.
    compression: &'static [&'static str],
}

impl Product {
    pub(super) fn new(name: &'static str, compression: &'static [&'static str]) -> Self {
        Self { name, compression }
    }

    /// The settings that a place was begun with.
    fn settings(&self, conninfo: &str, place: &Path) -> Result<PathBuf> {
        let path = place.join("walrecv.toml");
        let lines = [self.compression, &["immediate_checkpoint = true"]].concat();
        let text = format!(
            "home = \"{}\"\n{}",
            place.join("home").display(),
            section(SERVER, conninfo, "walrecv", &lines)
                .replace("create_slot = \"manual\"", "create_slot = \"auto\"")
        );
        write_private(&path, &text)?;
        Ok(path)
    }

    fn spawn(&self, place: &Path, arguments: &[&str]) -> Result<Process> {
        let mut command = walrecv_tests::walrecv::bare_command()?;
        command.arg("--config").arg(place.join("walrecv.toml")).args(arguments);
        Process::spawn(&mut command, &place.join("log"))
    }

    fn run(&self, place: &Path, arguments: &[&str]) -> Result<Cost> {
        self.spawn(place, arguments)?.wait()
    }

    /// Takes a backup while its WAL is received as ever, which is not counted here: `pg_basebackup`
    /// takes none along either.
    fn take(&self, subject: &Subject, place: &Path, arguments: &[&str]) -> Result<Cost> {
        let mut receiver = self.spawn(place, &["receive-wal", SERVER])?;
        let mut wait = || {
            subject.cluster.wait_for("the receiver to have everything", |cluster| {
                receiver.demand_running()?;
                let sql = "SELECT count(*) FROM pg_stat_replication \
                           WHERE flush_lsn >= pg_current_wal_flush_lsn()";
                Ok(cluster.value(sql)? == "1" && archived_all(place)?)
            })
        };
        wait()?;
        // What was received has been paid for by then: the disk's part of it too, and what the server's
        // next checkpoint does to WAL that its slot has kept.
        subject.settle()?;
        wait()?;
        rustix::fs::sync();
        let cost = self.run(place, arguments)?;
        receiver.stop()?;
        Ok(cost)
    }
}

impl Contender for Product {
    fn name(&self) -> &str {
        self.name
    }

    fn back_up(&self, subject: &Subject, place: &Path) -> Result<(Cost, PathBuf)> {
        // Every place begins with nothing.
        subject.cluster.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active",
        )?;
        self.settings(&subject.conninfo, place)?;
        let cost = self.take(subject, place, &["backup", SERVER])?;
        Ok((cost, newest(place)?))
    }

    fn verify(&self, place: &Path) -> Result<Option<Cost>> {
        self.run(place, &["verify-backup", SERVER, "latest"]).map(Some)
    }

    fn back_up_changes(&self, subject: &Subject, place: &Path) -> Result<Option<(Cost, PathBuf)>> {
        let arguments = ["backup", SERVER, "--incremental", "latest"];
        let cost = self.take(subject, place, &arguments)?;
        Ok(Some((cost, newest(place)?)))
    }
}

/// Whether no whole segment waits for the archive in a place.
fn archived_all(place: &Path) -> Result<bool> {
    let streaming = place.join("home").join(SERVER).join("streaming");
    let about = || format!("cannot read {}", streaming.display());
    let mut entries = fs::read_dir(&streaming).context(about)?.flatten();
    Ok(entries.all(|entry| entry.path().extension().is_some()))
}

/// The directory of the newest backup in a place.
fn newest(place: &Path) -> Result<PathBuf> {
    let base = place.join("home").join(SERVER).join("base");
    let about = || format!("cannot read {}", base.display());
    let entries = fs::read_dir(&base).context(about)?;
    entries.flatten().map(|entry| entry.path()).max().context(about)
}
