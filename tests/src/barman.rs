//! A real Barman beside the product, for comparing what both say of the same server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::failure::{Context, Failure, Result};
use crate::installation::{self, Installation};
use crate::program;

/// Where `cargo xtask postgres` puts it, and what says that it is all there.
const PLACE: &str = "peers/barman/bin/barman";

/// The Barman of this machine, with client programs for servers of one major.
#[derive(Debug, Clone)]
pub struct BarmanInstallation {
    program: PathBuf,
    client_programs: PathBuf,
}

impl BarmanInstallation {
    /// Barman and the programs that it calls; or what is missing of them.
    pub fn for_major(major: u32) -> Result<Self> {
        let program = installation::cache_directory()?.join(PLACE);
        if !program.is_file() {
            return Err(Failure::new("Barman is not on this machine"));
        }
        let has_programs = |found: &&Installation| {
            found.major == major
                && ["pg_receivewal", "pg_basebackup"]
                    .iter()
                    .all(|name| found.program(name).is_some())
        };
        let clients = installation::all().iter().find(has_programs).context(|| {
            format!("there is no pg_receivewal and pg_basebackup {major} on this machine")
        })?;
        Ok(Self { program, client_programs: clients.bindir.clone() })
    }
}

/// A Barman that looks after one server, `main`.
#[derive(Debug)]
pub struct Barman {
    installation: BarmanInstallation,
    directory: TempDir,
    receiver: Option<Child>,
}

impl Barman {
    /// An empty store for the server of this connection string.
    pub fn new(installation: &BarmanInstallation, conninfo: &str) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("barman-home-")
            .tempdir()
            .context(|| "cannot make a temporary directory".to_owned())?;
        let home = directory.path().display();
        let user = program::run(Command::new("id").arg("-un"))?;
        let text = format!(
            "[barman]\nbarman_home = {home}\nbarman_user = {}\nlog_file = {home}/barman.log\n\n\
             [main]\ndescription = orders\nconninfo = {conninfo}\nstreaming_conninfo = {conninfo}\n\
             streaming_archiver = on\narchiver = off\nslot_name = barman\ncreate_slot = auto\n\
             backup_method = postgres\nimmediate_checkpoint = true\npath_prefix = {}\n",
            user.trim(),
            installation.client_programs.display()
        );
        let path = directory.path().join("barman.conf");
        fs::write(&path, text).context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { installation: installation.clone(), directory, receiver: None })
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A command of it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.installation.program);
        command.arg("-c").arg(self.directory.path().join("barman.conf")).args(arguments);
        command
    }

    /// Runs a command to its end; what it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        program::run(&mut self.command(arguments))
    }

    /// Creates its slot and begins to receive.
    pub fn receive(&mut self) -> Result<()> {
        self.run(&["receive-wal", "--create-slot", "main"])?;
        let child = self
            .command(&["receive-wal", "main"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context(|| "cannot run barman".to_owned())?;
        self.receiver = Some(child);
        Ok(())
    }
}

impl Drop for Barman {
    fn drop(&mut self) {
        let Some(mut receiver) = self.receiver.take() else { return };
        // It ends its pg_receivewal, which a kill would leave behind.
        let pid = i32::try_from(receiver.id()).ok().and_then(Pid::from_raw);
        if pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok()) {
            let _ = receiver.wait();
        }
    }
}
