//! The clean root, booted: systemd is its first process, and everything else is its own but the
//! network, where the servers are.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use walrecv_tests::cgroup::Cgroup;
use walrecv_tests::{Context, Failure, Result, processes, program};

use super::root::{Root, with_environment};

/// Becomes the first process.
const BOOT: &str = include_str!("boot.sh");

/// The namespaces of the container, as `unshare` and `nsenter` call them.
const NAMESPACES: [&str; 5] = ["--mount", "--uts", "--ipc", "--pid", "--cgroup"];

/// How long it may take to boot.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running container. Dropping it kills everything in it.
pub(super) struct Container {
    // Dropped in the end, when all of its processes are gone.
    group: Cgroup,
    /// Waits for systemd.
    unshare: Child,
    /// What systemd is called outside.
    leader: i32,
}

/// Why nothing can be booted on this machine, if so.
pub(super) fn impossible() -> Option<String> {
    if Cgroup::create().is_none() {
        return Some("no control groups (v2) can be made".to_owned());
    }
    let mut unshare = Command::new("unshare");
    let tried = program::run(
        unshare.args(NAMESPACES).args(["--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]),
    );
    tried.err().map(|failure| failure.to_string())
}

impl Container {
    /// Boots a root that has systemd.
    pub(super) fn boot(root: &Root) -> Result<Self> {
        let group = Cgroup::create().context(|| "cannot make a control group".to_owned())?;
        let mut first = Command::new("sh");
        // In the group before its namespace is made: the group is the root that systemd sees. If
        // we are killed, so is all of it.
        first.args([
            "-c",
            "echo 0 > \"$1\" && shift && exec setpriv --pdeathsig KILL \"$@\"",
            "sh",
        ]);
        first.arg(group.directory().join("cgroup.procs"));
        first.arg("unshare").args(NAMESPACES).args(["--fork", "--kill-child=KILL"]);
        first.args(["sh", "-c", BOOT, "boot"]).arg(root.path(""));
        let unshare = first
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context(|| "cannot run `unshare`".to_owned())?;
        let mut container = Self { group, unshare, leader: 0 };
        container.wait_until_booted()?;
        Ok(container)
    }

    fn wait_until_booted(&mut self) -> Result<()> {
        let begin = Instant::now();
        let mut state = String::new();
        while begin.elapsed() < PATIENCE {
            if let Ok(Some(status)) = self.unshare.try_wait() {
                return Err(Failure::new(format!("systemd did not come up: {status}")));
            }
            let unshare = i32::try_from(self.unshare.id()).unwrap_or_default();
            if let Some(leader) = processes::descendants(unshare).first() {
                self.leader = *leader;
                // Its exit code says that something is amiss, which may be another unit's matter.
                let asked = program::output(&mut self.command("systemctl is-system-running"))?;
                state = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
                if matches!(state.as_str(), "running" | "degraded") {
                    return Ok(());
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(Failure::new(format!("systemd is not up after {PATIENCE:?}, but `{state}`")))
    }

    /// A command that runs a command line inside.
    pub(super) fn command(&self, line: &str) -> Command {
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.leader.to_string()]).args(NAMESPACES);
        enter.args(["/bin/sh", "-c", line]).current_dir(Path::new("/"));
        with_environment(&mut enter).env("HOME", "/root");
        enter
    }

    /// Runs a command line inside, as root.
    pub(super) fn run(&self, line: &str) -> Result<String> {
        program::run(&mut self.command(line))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.group.kill();
        // It has been killed with the others.
        let _ = self.unshare.wait();
    }
}
