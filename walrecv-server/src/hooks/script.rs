//! One run of one script: in a process group of its own, its output in the log, ended with all that
//! it has started if it takes too long.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, PipeReader, Read};
use std::mem;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::Interrupted;
use crate::settings::{Hook, ServerName};

/// How long a script that is told to end has to do so.
const GRACE: Duration = Duration::from_secs(2);

/// How often is looked whether a script has ended that writes nothing.
const TICK: Duration = Duration::from_millis(20);

/// The longest line that is logged; the rest of it is not.
const LONGEST_LINE: usize = 1024;

/// How many lines of one run are logged.
const MOST_LINES: usize = 1000;

/// What of our environment is no script's business: our settings, which may hold passwords and
/// would be read as what a script is told; and PostgreSQL's password.
fn is_ours(variable: &str) -> bool {
    let passed_on = ["WALRECV_CONFIG", "WALRECV_HOME"];
    variable == "PGPASSWORD" || variable.starts_with("WALRECV_") && !passed_on.contains(&variable)
}

/// A script, and what it is told.
pub(super) struct Script<'a> {
    pub(super) hook: Hook,
    pub(super) server: &'a ServerName,
    pub(super) command: &'a str,
    pub(super) environment: Vec<(&'static str, OsString)>,
    pub(super) timeout: Duration,
}

/// How a run ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// By itself.
    Exited {
        /// The exit code, unless it was killed by a signal.
        code: Option<i32>,
        /// That signal.
        signal: Option<i32>,
        /// The last line that it wrote.
        said: String,
    },
    /// It took too long, and was killed with all that it had started.
    TimedOut(Duration),
    /// Nobody waits for it any more. It was killed in the same way.
    Interrupted,
    /// It could not be run, or not be watched.
    Impossible(io::Error),
}

impl Ending {
    pub(super) fn is_success(&self) -> bool {
        matches!(self, Self::Exited { code: Some(0), .. })
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code, signal, said } => {
                match (code, signal) {
                    (Some(code), _) => write!(f, "exit code {code}")?,
                    (None, Some(signal)) => write!(f, "killed by signal {signal}")?,
                    (None, None) => write!(f, "nobody knows how it ended")?,
                }
                match said.as_str() {
                    "" => Ok(()),
                    said => write!(f, ", after writing \"{said}\""),
                }
            }
            Self::TimedOut(after) => write!(f, "killed after {after:?} (`hook_timeout`)"),
            Self::Interrupted => write!(f, "interrupted"),
            Self::Impossible(error) => write!(f, "it cannot be run: {error}"),
        }
    }
}

impl Script<'_> {
    /// Runs it to its end. What it leaves running in the background is not waited for.
    pub(super) fn run(&self, interrupted: Interrupted<'_>) -> Ending {
        self.start()
            .and_then(|(child, output)| self.watch(child, output, interrupted))
            .unwrap_or_else(Ending::Impossible)
    }

    fn start(&self) -> io::Result<(Child, PipeReader)> {
        let (output, writer) = io::pipe()?;
        fcntl_setfl(&output, OFlags::NONBLOCK)?;
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(self.command);
        for (name, _) in std::env::vars_os() {
            if is_ours(&name.to_string_lossy()) {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        // So that it can be ended together with what it starts, and only then.
        command.process_group(0);
        Ok((command.spawn()?, output))
    }

    fn watch(
        &self,
        mut child: Child,
        output: PipeReader,
        interrupted: Interrupted<'_>,
    ) -> io::Result<Ending> {
        let pid = Pid::from_child(&child);
        let deadline = Instant::now() + self.timeout;
        let mut output = Output {
            script: self,
            pipe: Some(output),
            line: Vec::new(),
            cut: false,
            lines: 0,
            said: String::new(),
        };
        loop {
            output.wait(TICK);
            // In this order: what it wrote before it ended is there when it has ended.
            let ended = has_ended(pid);
            output.read();
            if ended {
                break;
            }
            let why = if interrupted() {
                Ending::Interrupted
            } else if Instant::now() >= deadline {
                Ending::TimedOut(self.timeout)
            } else {
                continue;
            };
            end_group(pid);
            output.read();
            output.end();
            child.wait()?;
            return Ok(why);
        }
        output.end();
        let status = child.wait()?;
        Ok(Ending::Exited { code: status.code(), signal: status.signal(), said: output.said })
    }
}

/// Whether a process has ended. It stays what `wait` waits for, and its group is not another's.
fn has_ended(pid: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    // An error is one that `wait` will tell, too.
    !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
}

/// Ends a script and what it has started: in a friendly way first, then in one that works.
fn end_group(pid: Pid) {
    // Whatever has ended already cannot be ended.
    let _ = kill_process_group(pid, Signal::TERM);
    let end = Instant::now() + GRACE;
    while !has_ended(pid) && Instant::now() < end {
        thread::sleep(TICK);
    }
    let _ = kill_process_group(pid, Signal::KILL);
}

/// What a script writes, line by line to the log.
struct Output<'a> {
    script: &'a Script<'a>,
    /// `None` at its end.
    pipe: Option<PipeReader>,
    line: Vec<u8>,
    /// Whether the line has become too long.
    cut: bool,
    lines: usize,
    said: String,
}

impl Output<'_> {
    /// Waits until there is something to read, but not for long.
    fn wait(&self, most: Duration) {
        let Some(pipe) = &self.pipe else { return thread::sleep(most) };
        let most = Timespec { tv_sec: 0, tv_nsec: most.subsec_nanos().into() };
        // A signal is as good a reason to look as any.
        let _ = poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&most));
    }

    /// Takes what is there. No more than a script that writes without end lets through in one go.
    fn read(&mut self) {
        let mut chunk = [0; 8192];
        for _ in 0..64 {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut chunk) {
                Ok(0) => self.pipe = None,
                Ok(length) => self.take(chunk.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.end(),
                _ if self.line.len() < LONGEST_LINE => self.line.push(*byte),
                _ => self.cut = true,
            }
        }
    }

    /// The line is complete.
    fn end(&mut self) {
        let line = mem::take(&mut self.line);
        let cut = if mem::take(&mut self.cut) { "…" } else { "" };
        let text: String = String::from_utf8_lossy(&line)
            .trim_end()
            .chars()
            .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
            .collect();
        if text.is_empty() {
            return;
        }
        let text = format!("{text}{cut}");
        let (server, hook) = (self.script.server, self.script.hook);
        match self.lines {
            0..MOST_LINES => tracing::info!(%server, %hook, "{text}"),
            MOST_LINES => tracing::info!(%server, %hook, "what follows is not logged"),
            _ => {}
        }
        self.lines = self.lines.saturating_add(1);
        self.said = text;
    }
}
