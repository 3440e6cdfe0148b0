//! A process whose time, CPU and memory are measured.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use walrecv_tests::{Context, Failure, Result, program};

use super::cost;

/// How often the peak of the process itself is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// Every how many glances all the processes below are looked at as well.
const LOOK_AROUND: u32 = 5;

/// A running process. Dropping it kills it and all below it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pid: i32,
    log: PathBuf,
    line: String,
    began: Instant,
    watch: Option<Watch>,
    reaped: bool,
}

/// What a process and all below it have cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// From its start to its end.
    pub(super) wall: Duration,
    /// User and system time.
    pub(super) cpu_seconds: f64,
    /// The larger of the largest process's peak and the most that all had together.
    pub(super) peak_mib: f64,
}

impl Cost {
    /// That of one after the other.
    pub(super) fn and(self, next: Self) -> Self {
        Self {
            wall: self.wall + next.wall,
            cpu_seconds: self.cpu_seconds + next.cpu_seconds,
            peak_mib: self.peak_mib.max(next.peak_mib),
        }
    }
}

impl Process {
    /// Starts it; what it says is appended to `log`.
    pub(super) fn spawn(command: &mut Command, log: &Path) -> Result<Self> {
        let about = || format!("cannot write {}", log.display());
        let file: File = OpenOptions::new().create(true).append(true).open(log).context(about)?;
        let line = program::command_line(command);
        command.stdin(Stdio::null()).stdout(file.try_clone().context(about)?).stderr(file);
        let began = Instant::now();
        let child = command.spawn().context(|| format!("cannot run `{line}`"))?;
        let pid = i32::try_from(child.id()).context(|| "a process number".to_owned())?;
        let watch = Some(Watch::start(pid));
        Ok(Self { child, pid, log: log.to_owned(), line, began, watch, reaped: false })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Fails with what it said when it has ended.
    pub(super) fn demand_running(&mut self) -> Result<()> {
        match self.child.try_wait().context(|| format!("cannot wait for `{}`", self.line))? {
            None => Ok(()),
            Some(status) => {
                self.reaped = true;
                Err(self.ended_badly(status))
            }
        }
    }

    /// Waits until it ends by itself, successfully.
    pub(super) fn wait(mut self) -> Result<Cost> {
        let (cost, status) = self.end(0.0)?;
        if status.success() { Ok(cost) } else { Err(self.ended_badly(status)) }
    }

    /// Tells it to stop, and waits until it has.
    pub(super) fn stop(mut self) -> Result<Cost> {
        // Children that end after their parent leave it nothing to count.
        let before = cost::cpu_seconds(&cost::tree(self.pid));
        self.signal(Signal::TERM)?;
        self.end(before).map(|(cost, _)| cost)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let about = || format!("cannot signal `{}`", self.line);
        kill_process(Pid::from_raw(self.pid).context(about)?, signal).context(about)
    }

    /// The cost is read after the process has ended, and before it is gone.
    fn end(&mut self, at_least: f64) -> Result<(Cost, ExitStatus)> {
        let about = || format!("cannot wait for `{}`", self.line);
        let pid = Pid::from_raw(self.pid).context(about)?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(error) = waitid(WaitId::Pid(pid), options) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error).context(about);
            }
        }
        let wall = self.began.elapsed();
        let cpu_seconds = cost::cpu_seconds(&[self.pid]).max(at_least);
        let peak_mib = self.watch.take().map_or(0.0, Watch::finish);
        let status = self.child.wait().context(about)?;
        self.reaped = true;
        Ok((Cost { wall, cpu_seconds, peak_mib }, status))
    }

    fn ended_badly(&self, status: ExitStatus) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let said = program::last_lines(&log, 20);
        Failure::new(format!("`{}` ended with {status}; it said last:\n{said}", self.line))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        for process in cost::tree(self.pid).into_iter().filter_map(Pid::from_raw) {
            // It may have ended already.
            let _ = kill_process(process, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// A thread that looks at the memory of a process every now and then.
#[derive(Debug)]
struct Watch {
    stop: Arc<AtomicBool>,
    peak_kib: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Watch {
    fn start(pid: i32) -> Self {
        let (stop, peak_kib) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, peak) = (Arc::clone(&stop), Arc::clone(&peak_kib));
        let thread = std::thread::spawn(move || {
            let mut glances = 0_u32;
            while !stopped.load(Ordering::Relaxed) {
                let tree =
                    if glances.is_multiple_of(LOOK_AROUND) { cost::tree(pid) } else { vec![pid] };
                if tree.len() > 1 {
                    peak.fetch_max(cost::pss_kib(&tree), Ordering::Relaxed);
                }
                for rss in tree.iter().filter_map(|pid| cost::peak_rss_kib(*pid)) {
                    peak.fetch_max(rss, Ordering::Relaxed);
                }
                glances += 1;
                std::thread::sleep(GLANCE);
            }
        });
        Self { stop, peak_kib, thread }
    }

    /// The peak in MiB.
    fn finish(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        // It cannot fail: it only looks.
        let _ = self.thread.join();
        self.peak_kib.load(Ordering::Relaxed) as f64 / 1024.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let log = tempfile::NamedTempFile::new().unwrap();
        Process::spawn(Command::new("sh").args(["-c", script]), log.path()).unwrap()
    }

    #[test]
    fn the_cost_of_children_is_counted() {
        let script = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; true";
        let cost = shell(script).wait().unwrap();
        assert!(cost.cpu_seconds > 0.02, "{cost:?}");
        assert!(cost.peak_mib > 0.2, "{cost:?}");
    }

    #[test]
    fn a_failure_is_told_and_a_stop_is_none() {
        assert!(shell("exit 3").wait().is_err());
        let mut sleeper = shell("exec sleep 60");
        sleeper.demand_running().unwrap();
        sleeper.stop().unwrap();
    }
}
