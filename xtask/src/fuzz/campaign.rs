//! One target, run for a measured time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use walrecv_tests::{Context, Result, program};

use super::target::{Target, count_files};

/// The most that the decoders may ask for at once: four times their longest message. Whoever
/// allocates by a length that somebody announced is found by this.
const MALLOC_LIMIT: &str = "-malloc_limit_mb=64";

/// Longer than any input may take, sanitizer and a busy machine included.
const TIMEOUT: &str = "-timeout=25";

/// How long the smallest input is sought on which a target still fails.
const MINIMISE: &str = "-max_total_time=30";

/// What libFuzzer exits with when it is interrupted.
const INTERRUPTED: i32 = 72;

/// What a run came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) executions: u64,
    /// The processor time that it used, which on a busy machine is less than the time that passed.
    pub(super) cpu: Duration,
    pub(super) corpus: usize,
    /// The input on which the target failed, as small as could be found.
    pub(super) find: Option<PathBuf>,
    /// Everything that it said.
    pub(super) log: PathBuf,
}

/// Runs a target until it has used as much processor time, or fails.
pub(super) fn run(target: &Target, binaries: &Path, cpu_time: Duration) -> Result<Outcome> {
    target.make_directories()?;
    let log = binaries.join(format!("{}.log", target.name));
    let about = || format!("cannot write {}", log.display());
    let program = binaries.join(&target.name);
    let mut command = Command::new(&program);
    command
        .args([MALLOC_LIMIT, TIMEOUT, "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/", target.artifacts().display()))
        .args([target.corpus(), target.seeds()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).context(about)?);
    let line = program::command_line(&command);
    let mut child = command.spawn().context(|| format!("cannot run `{line}`"))?;
    let cpu = watch(&mut child, cpu_time)?;
    let status = child.wait().context(|| format!("cannot wait for `{line}`"))?;

    let said = fs::read(&log).context(|| format!("cannot read {}", log.display()))?;
    let said = String::from_utf8_lossy(&said);
    let find = match status.code() {
        Some(INTERRUPTED) => None,
        _ => Some(minimise(target, &program, &said)),
    };
    Ok(Outcome {
        executions: executions(&said),
        cpu,
        corpus: count_files(&target.corpus()),
        find,
        log,
    })
}

/// How long a process may go on that was interrupted.
const DEAF: Duration = Duration::from_secs(10);

/// Waits until a process has used as much processor time, and interrupts it then. Gives what it
/// has used.
fn watch(child: &mut Child, limit: Duration) -> Result<Duration> {
    let pid = Pid::from_child(child);
    let mut used = Duration::ZERO;
    let mut interrupted: Option<Instant> = None;
    while child.try_wait().context(|| "cannot wait for a fuzz target".to_owned())?.is_none() {
        used = cpu_time(pid).unwrap_or(used);
        // It may have ended meanwhile, which is as good.
        match interrupted {
            None if used >= limit => {
                let _ = kill_process(pid, Signal::INT);
                interrupted = Some(Instant::now());
            }
            // Whoever was started in the background of a script may not hear of interrupts.
            Some(since) if since.elapsed() >= DEAF => {
                let _ = kill_process(pid, Signal::KILL);
            }
            _ => {}
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(used)
}

/// The processor time of a process, from `/proc/PID/stat`; `None` if it is gone.
fn cpu_time(pid: Pid) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // Behind the name, which may hold anything: fields 14 and 15 of proc(5) are user and system
    // time; the first behind the name is the third.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map_while(|field| field.parse::<u64>().ok());
    let ticks = times.next()? + times.next()?;
    Some(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// How often the target was executed, by its closing statistics, or by its last line of progress
/// where a failure cost it those.
fn executions(said: &str) -> u64 {
    let total = "stat::number_of_executed_units:";
    let total = said.lines().find_map(|line| line.strip_prefix(total)?.trim().parse().ok());
    let progress = |line: &str| line.strip_prefix('#')?.split_whitespace().next()?.parse().ok();
    total.or_else(|| said.lines().rev().find_map(progress)).unwrap_or(0)
}

/// The smallest input on which the target fails as it did; where none was written, the log says
/// why, and the directory of artifacts stands for it.
fn minimise(target: &Target, program: &Path, said: &str) -> PathBuf {
    let written = "Test unit written to ";
    let Some(found) = said.lines().find_map(|line| line.split_once(written)) else {
        return target.artifacts();
    };
    let found = PathBuf::from(found.1);
    let smallest = found.with_extension("min");
    let mut command = Command::new(program);
    command
        .args(["-minimize_crash=1", MALLOC_LIMIT, TIMEOUT, MINIMISE])
        .arg(format!("-exact_artifact_path={}", smallest.display()))
        .arg(&found);
    // It ends with an error when it cannot be made smaller.
    let _ = program::output(&mut command);
    if smallest.is_file() { smallest } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_told_even_by_a_failed_run() {
        let whole = "#7\tNEW cov: 3\nstat::number_of_executed_units: 1234\n";
        assert_eq!(executions(whole), 1234);
        assert_eq!(executions("#7\tNEW cov: 3\n#512\tpulse  cov: 3\n==1== ERROR\n"), 512);
        assert_eq!(executions(""), 0);
    }

    #[test]
    fn processor_time_is_measured_not_time() {
        let mut sleeper = Command::new("sleep").arg("1").spawn().unwrap();
        assert!(watch(&mut sleeper, Duration::from_secs(60)).unwrap() < Duration::from_millis(500));
        let busy = "while :; do :; done";
        let mut busy = Command::new("sh").args(["-c", busy]).spawn().unwrap();
        let used = watch(&mut busy, Duration::from_millis(300)).unwrap();
        assert!(used >= Duration::from_millis(300), "{used:?}");
    }
}
