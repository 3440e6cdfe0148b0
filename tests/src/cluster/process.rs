//! The processes of one running server.

use std::fs::{self, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::account::Account;
use crate::cgroup::Cgroup;
use crate::failure::{Context, Failure, Result};
use crate::processes::{descendants, stat, working_in};

const PAUSE: Duration = Duration::from_millis(10);

/// A server process and, through it, all its children. Dropping it kills them all.
#[derive(Debug)]
pub(super) struct Server {
    postmaster: Child,
    data: PathBuf,
    cgroup: Option<Cgroup>,
    /// Its segment of System V shared memory, which outlives a killed server. There are only so
    /// many on a machine.
    shared_memory: Option<String>,
}

impl Server {
    /// Starts a server; its messages are appended to `log`.
    pub(super) fn spawn(
        command: &mut Command,
        data: &Path,
        log: &Path,
        account: &Account,
    ) -> Result<Self> {
        let about = || format!("cannot write {}", log.display());
        let file = OpenOptions::new().create(true).append(true).open(log).context(about)?;
        account.owns(log)?;
        let postmaster = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().context(about)?)
            .stderr(file)
            .spawn()
            .context(|| format!("cannot run {}", command.get_program().display()))?;
        let data = data.to_owned();
        Ok(Self { postmaster, data, cgroup: Cgroup::create(), shared_memory: None })
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.postmaster.id()).ok().and_then(Pid::from_raw)
    }

    /// Waits until the server has written into `postmaster.pid` that it accepts connections.
    pub(super) fn wait_until_ready(&mut self, patience: Duration) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < patience {
            if let Some(status) =
                self.postmaster.try_wait().context(|| "cannot wait for the server".to_owned())?
            {
                return Err(Failure::new(format!("the server did not start ({status})")));
            }
            if is_ready(&self.data, self.postmaster.id()) {
                self.gather();
                self.shared_memory = shared_memory(&self.data);
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        Err(Failure::new(format!("the server did not become ready in {patience:?}")))
    }

    /// Moves the processes born so far into the control group. The postmaster goes first, so
    /// whatever it starts from then on is a member by birth.
    fn gather(&mut self) {
        let Some((cgroup, pid)) = self.cgroup.as_ref().zip(self.pid()) else { return };
        let mut complete = cgroup.add(pid.as_raw_pid());
        for descendant in descendants(pid.as_raw_pid()) {
            // One that has ended meanwhile need not be a member.
            complete &= cgroup.add(descendant) || !is_alive(descendant);
        }
        if !complete {
            self.cgroup = None;
        }
    }

    /// A fast shutdown.
    pub(super) fn stop(mut self, patience: Duration) -> Result<()> {
        self.signal(Signal::INT)?;
        let begin = Instant::now();
        loop {
            let status =
                self.postmaster.try_wait().context(|| "cannot wait for the server".to_owned())?;
            match status {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(ended_badly(status)),
                None if begin.elapsed() < patience => std::thread::sleep(PAUSE),
                None => {
                    return Err(Failure::new(format!("the server did not stop in {patience:?}")));
                }
            }
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().context(|| "the server has no process number".to_owned())?;
        kill_process(pid, signal).context(|| "cannot signal the server".to_owned())
    }

    /// SIGKILL to all processes; returns when the last one is gone.
    pub(super) fn kill(mut self) -> Result<()> {
        self.kill_all()
    }

    fn kill_all(&mut self) -> Result<()> {
        if self.postmaster.try_wait().is_ok_and(|status| status.is_some()) {
            return self.bury_orphans();
        }
        let Some(pid) = self.pid() else { return Ok(()) };
        // A stopped postmaster starts no new processes while its children are counted.
        self.signal(Signal::STOP)?;
        let processes = descendants(pid.as_raw_pid());
        if !self.cgroup.as_ref().is_some_and(Cgroup::kill) {
            self.signal(Signal::KILL)?;
            for process in processes.iter().filter_map(|process| Pid::from_raw(*process)) {
                // It may be gone already.
                let _ = kill_process(process, Signal::KILL);
            }
        }
        self.postmaster.wait().context(|| "cannot wait for the server".to_owned())?;
        let begin = Instant::now();
        while processes.iter().any(|process| is_alive(*process)) {
            if begin.elapsed() > Duration::from_secs(20) {
                return Err(Failure::new("processes of the killed server are still there"));
            }
            std::thread::sleep(PAUSE);
        }
        if let Some(id) = &self.shared_memory {
            // The next server of this directory would do the same; often there is none.
            let _ = Command::new("ipcrm").args(["-m", id]).stderr(Stdio::null()).status();
        }
        self.bury_orphans()
    }

    /// Ends what outlives its postmaster and still writes into the data directory: a checkpointer
    /// that nobody waited for when a recovery was given up, or a `restore_command`'s helper that
    /// fetches WAL ahead.
    fn bury_orphans(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let orphans = working_in(&self.data);
            if orphans.is_empty() {
                return Ok(());
            }
            if begin.elapsed() > Duration::from_secs(20) {
                return Err(Failure::new("processes of the ended server are still there"));
            }
            for orphan in orphans.into_iter().filter_map(Pid::from_raw) {
                // It may be gone already.
                let _ = kill_process(orphan, Signal::KILL);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // There is nobody to tell; a server that will not die shows in the next test.
        let _ = self.kill_all();
    }
}

fn ended_badly(status: ExitStatus) -> Failure {
    Failure::new(match status.signal() {
        Some(signal) => format!("the server was ended by signal {signal}"),
        None => format!("the server ended with {status}"),
    })
}

/// Whether `postmaster.pid` is this server's and says that it is ready. A file left behind by
/// a killed server carries another process number.
fn is_ready(data: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else { return false };
    let mut lines = text.lines();
    let ours = lines.next().is_some_and(|line| line.trim() == pid.to_string());
    ours && lines.nth(6).is_some_and(|line| matches!(line.trim(), "ready" | "standby"))
}

/// The segment of shared memory that `postmaster.pid` names: the second number of its seventh line.
fn shared_memory(data: &Path) -> Option<String> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    Some(text.lines().nth(6)?.split_whitespace().nth(1)?.to_owned())
}

/// A zombie counts as gone: it waits only for its parent.
fn is_alive(pid: i32) -> bool {
    let exists = Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok());
    let zombie = stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state == "Z"));
    exists && !zombie
}
