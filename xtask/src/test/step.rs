//! One step: a run of cargo whose output passes through.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use walrecv_tests::{Context, Failure, Result, program};

use super::tally::Tally;
use crate::paths;

/// Says on stderr what comes next.
pub(super) fn announce(name: &str) {
    eprintln!("\n==> {name}");
}

/// A named run of cargo.
pub(super) struct Step {
    name: String,
    command: Command,
    /// Whether its output holds results of tests.
    counted: bool,
}

impl Step {
    pub(super) fn cargo(name: &str, arguments: &[&str]) -> Self {
        let mut command = paths::cargo();
        command.args(arguments);
        Self { name: name.to_owned(), command, counted: false }
    }

    pub(super) fn tests(name: &str, arguments: &[&str]) -> Self {
        Self { counted: true, ..Self::cargo(name, arguments) }
    }

    pub(super) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    pub(super) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs it to its end; the results of its tests are added to `tally`.
    pub(super) fn run(mut self, tally: &mut Tally) -> Result<()> {
        let line = program::command_line(&self.command);
        let status = if self.counted {
            pass_through(&mut self.command, |line| tally.read(line))?
        } else {
            self.command.status().context(|| format!("cannot run `{line}`"))?
        };
        if status.success() {
            Ok(())
        } else {
            Err(Failure::new(format!("`{line}` ended with {status}")))
        }
    }
}

/// Runs a command, copies what it prints to where it would have gone, and shows each line to
/// `see` too.
fn pass_through(
    command: &mut Command,
    mut see: impl FnMut(&str),
) -> Result<std::process::ExitStatus> {
    let about = || "cannot run cargo".to_owned();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context(about)?;
    let stdout = child.stdout.take().context(about)?;
    let stderr = child.stderr.take().context(about)?;
    let (sender, lines) = mpsc::channel();
    let copied =
        [copy(stdout, std::io::stdout(), sender.clone()), copy(stderr, std::io::stderr(), sender)];
    for line in lines {
        see(&line);
    }
    for thread in copied {
        // A thread that panicked has closed its pipe; cargo's exit status tells the rest.
        let _ = thread.join();
    }
    child.wait().context(about)
}

fn copy(
    from: impl std::io::Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    lines: mpsc::Sender<String>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            // Nothing is lost for the tally if the terminal has gone away.
            let _ = to.write_all(&line).and_then(|()| to.flush());
            let _ = lines.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    })
}
