//! Watching, and disturbing, the system calls of the product with `strace`.
//!
//! * [`calls`]: what `strace` wrote, as values.
//! * [`order`]: the judge that says whether each report of a flush position came after the sync
//!   that it stands on.
//!
//! Work that is given to the kernel through io_uring is not seen here; the judge refuses it.

pub mod calls;
pub mod order;
mod ranges;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{Context, Failure, Result};
use crate::walrecv::Daemon;
use crate::{program, tools};

/// How long `strace` may take to begin or to write its last line.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether system calls can be watched here; says so if not, and what remains unjudged.
pub fn is_possible(what: &str) -> bool {
    static PROBLEM: OnceLock<Option<String>> = OnceLock::new();
    let problem = PROBLEM.get_or_init(|| {
        let mut probe = Command::new("strace");
        program::run(probe.args(["-f", "-o", "/dev/null", "true"])).err().map(|e| e.to_string())
    });
    if let Some(problem) = problem {
        tools::not_judged(what, problem);
    }
    problem.is_none()
}

/// The words that put `strace` in front of a program, which stays our own child: its system calls
/// are written to `trace`.
pub fn in_front(trace: &Path, arguments: &[&str]) -> Vec<String> {
    let mut words: Vec<String> = ["strace", "-D", "-f", "-qq", "-o"].map(str::to_owned).to_vec();
    words.push(trace.display().to_string());
    words.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    words
}

/// Waits until everything that a program did, which has ended, is in its trace.
pub fn wait_for_end(trace: &Path, program: u32) -> Result<String> {
    let begin = Instant::now();
    // With `-qq` there are no lines about exits, but the tracer has the file open.
    while is_open_anywhere(trace) {
        if begin.elapsed() > PATIENCE {
            return Err(Failure::new(format!("strace still watches process {program}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::read_to_string(trace).context(|| format!("cannot read {}", trace.display()))
}

/// Whether any process has a file open.
fn is_open_anywhere(path: &Path) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| fs::read_dir(process.path().join("fd")).ok())
        .flat_map(|files| files.flatten())
        .any(|file| fs::read_link(file.path()).is_ok_and(|target| target == path))
}

/// `strace` that disturbs system calls of a program which runs already. Dropping it ends that.
#[derive(Debug)]
pub struct Disturbance {
    strace: Child,
    trace: PathBuf,
}

impl Disturbance {
    /// Disturbs the threads that there are now, and none that are started later. `injection` is
    /// what `strace -e inject=` takes; it counts per thread.
    pub fn of_present_threads(daemon: &Daemon, trace: &Path, injection: &str) -> Result<Self> {
        let tasks = format!("/proc/{}/task", daemon.id());
        let about = || format!("cannot read {tasks}");
        let mut threads = Vec::new();
        for task in fs::read_dir(&tasks).context(about)? {
            threads.push("-p".to_owned());
            threads.push(task.context(about)?.file_name().to_string_lossy().into_owned());
        }
        Self::start(trace, injection, &threads)
    }

    /// Disturbs all threads, also those to come.
    pub fn of_all_threads(daemon: &Daemon, trace: &Path, injection: &str) -> Result<Self> {
        Self::start(trace, injection, &["-f".into(), "-p".into(), daemon.id().to_string()])
    }

    fn start(trace: &Path, injection: &str, whom: &[String]) -> Result<Self> {
        let about = || "cannot run strace".to_owned();
        let calls = injection.split(':').next().unwrap_or(injection);
        let log = trace.with_extension("log");
        let strace = Command::new("strace")
            .arg("-o")
            .arg(trace)
            .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={injection}")])
            .args(whom)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).context(about)?)
            .spawn()
            .context(about)?;
        let disturbance = Self { strace, trace: trace.to_owned() };
        let begin = Instant::now();
        while !fs::read_to_string(&log).unwrap_or_default().contains("attached") {
            if begin.elapsed() > PATIENCE {
                return Err(Failure::new("strace does not attach"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(disturbance)
    }

    /// How many system calls were disturbed so far.
    pub fn count(&self) -> usize {
        fs::read_to_string(&self.trace).unwrap_or_default().matches("(INJECTED)").count()
    }

    /// Waits until at least one was.
    pub fn wait(&self) -> Result<()> {
        let begin = Instant::now();
        while self.count() == 0 {
            if begin.elapsed() > PATIENCE {
                return Err(Failure::new("no system call was there to be disturbed"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Disturbance {
    fn drop(&mut self) {
        // On this signal it leaves the threads in peace; killed, it would do so too.
        if let Some(pid) = i32::try_from(self.strace.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::INT);
        }
        let begin = Instant::now();
        while self.strace.try_wait().is_ok_and(|status| status.is_none()) {
            if begin.elapsed() > PATIENCE {
                let _ = self.strace.kill();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
