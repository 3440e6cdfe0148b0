//! Barman, which keeps files as they are and copies them with rsync. What it restores is durable only
//! after a `sync`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use walrecv_tests::{Context, Result, program};

use super::{Contender, Subject};
use crate::bench::process::{Cost, Process};
use crate::bench::wal::receivers::SERVER;
use crate::postgres::peers;

pub(super) const NAME: &str = "Barman, files as they are";

pub(super) struct Barman {
    program: PathBuf,
}

impl Barman {
    /// The one on this machine, if it has what it copies with.
    pub(super) fn find() -> Option<Self> {
        program::find_on_path("rsync")?;
        peers::barman().map(|program| Self { program })
    }

    fn command(&self, place: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-q").arg("-c").arg(place.join("barman.conf")).args(arguments);
        command
    }
}

impl Contender for Barman {
    fn name(&self) -> &str {
        NAME
    }

    fn back_up(&self, subject: &Subject, place: &Path) -> Result<()> {
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
        program::run(&mut self.command(place, &["backup", SERVER]))?;
        program::run(&mut self.command(place, &["archive-wal", SERVER]))?;
        receiver.stop().map(drop)
    }

    fn restore(&self, _subject: &Subject, place: &Path, into: &Path) -> Result<Cost> {
        let into = into.display().to_string();
        let restore = self.command(place, &["restore", SERVER, "latest", &into]);
        let script = format!("{} && sync -f '{into}'", program::command_line(&restore));
        Process::spawn(Command::new("sh").args(["-c", &script]), &place.join("log"))?.wait()
    }

    fn verify(&self, _subject: &Subject, place: &Path) -> Result<Option<Cost>> {
        let mut verify = self.command(place, &["verify-backup", SERVER, "latest"]);
        Process::spawn(&mut verify, &place.join("log"))?.wait().map(Some)
    }
}
