//! Barman, set up beside a server that is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use walrecv_tests::{Context, Result, program};

use super::backup::Subject;
use super::process::Process;
use super::wal::receivers::SERVER;
use crate::postgres::peers;

pub(super) struct Barman {
    program: PathBuf,
}

impl Barman {
    /// The one on this machine.
    pub(super) fn find() -> Option<Self> {
        peers::barman().map(|program| Self { program })
    }

    pub(super) fn command(&self, place: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-q").arg("-c").arg(place.join("barman.conf")).args(arguments);
        command
    }

    /// Configures it, and starts its receiver: it takes no backup without one.
    pub(super) fn begin(&self, subject: &Subject, place: &Path) -> Result<Process> {
        let user = program::run(Command::new("id").arg("-un"))?;
        let text = format!(
            "[barman]\nbarman_home = {home}\nbarman_user = {user}\nlog_file = {home}/barman.log\n\n\
             [{SERVER}]\ndescription = benchmark\nconninfo = {conninfo}\n\
             streaming_conninfo = {conninfo}\nstreaming_archiver = on\narchiver = off\n\
             slot_name = barman\ncreate_slot = auto\nbackup_method = postgres\n\
             immediate_checkpoint = true\npath_prefix = {programs}\n",
            home = place.display(),
            user = user.trim(),
            conninfo = subject.conninfo,
            programs = subject.cluster.installation().bindir.display(),
        );
        let path = place.join("barman.conf");
        fs::write(&path, text).context(|| format!("cannot write {}", path.display()))?;
        program::run(&mut self.command(place, &["receive-wal", "--create-slot", SERVER]))?;
        let log = place.join("log");
        let mut receiver =
            Process::spawn(&mut self.command(place, &["receive-wal", SERVER]), &log)?;
        // It refuses to begin before a receiver is there, and a segment in the archive.
        std::thread::sleep(Duration::from_secs(2));
        receiver.demand_running()?;
        subject.cluster.execute("CREATE TABLE IF NOT EXISTS of_barman (n int)")?;
        subject.cluster.execute("SELECT pg_switch_wal()")?;
        subject.cluster.execute("CHECKPOINT")?;
        std::thread::sleep(Duration::from_secs(2));
        program::run(&mut self.command(place, &["archive-wal", SERVER]))?;
        Ok(receiver)
    }
}
