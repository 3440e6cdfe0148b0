//! Questions to the person at the terminal.

use std::io::{self, BufRead, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::Printer;
use crate::failure::{Class, Failure};

const QUESTION: Style = AnsiColor::Cyan.on_default().bold();

/// A question was not answered.
#[derive(Debug, thiserror::Error)]
#[error("the question after `{about}` was not answered")]
pub struct NoAnswer {
    about: String,
    source: io::Error,
}

impl Failure for NoAnswer {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn hint(&self) -> Option<String> {
        Some("answer it, or say it with an option: see `--help`".to_owned())
    }
}

impl Printer {
    /// Whether there is somebody who can be asked.
    pub fn can_ask(&self) -> bool {
        !self.quiet && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks until `check` has nothing against the answer. An empty one is the default, if there is
    /// one.
    pub fn ask(
        &self,
        about: &str,
        default: Option<&str>,
        check: &dyn Fn(&str) -> Result<(), String>,
    ) -> Result<String, NoAnswer> {
        let shown = default.map(|default| format!(" [{default}]")).unwrap_or_default();
        loop {
            self.stderr(&format!("{QUESTION}{about}{QUESTION:#}{shown}: "));
            let line = read_line().map_err(|source| NoAnswer { about: about.into(), source })?;
            let answer = match (line.trim(), default) {
                ("", Some(default)) => default,
                ("", None) => continue,
                (answer, _) => answer,
            };
            match check(answer) {
                Ok(()) => return Ok(answer.to_owned()),
                Err(problem) => self.stderr(&format!("    {problem}\n")),
            }
        }
    }

    /// Tells what is about to happen, and asks whether it shall.
    pub fn agrees(&self, what: &str) -> Result<bool, NoAnswer> {
        let check = |answer: &str| match answer {
            "yes" | "no" => Ok(()),
            _ => Err("`yes` or `no`".to_owned()),
        };
        self.stderr(&format!("{what}\n"));
        Ok(self.ask("go on? (yes/no)", Some("no"), &check)? == "yes")
    }

    /// Asks for what nobody shall see; empty if it is not answered.
    pub fn ask_secret(&self, about: &str) -> Result<String, NoAnswer> {
        let failed = |source| NoAnswer { about: about.into(), source };
        // First of all, so that nothing is seen of an answer that is quick.
        let hidden = Hidden::begin().map_err(failed)?;
        self.stderr(&format!("{QUESTION}{about}{QUESTION:#}: "));
        let line = read_line();
        drop(hidden);
        // The end of the line was not shown either.
        self.stderr("\n");
        Ok(line.map_err(failed)?.trim_end_matches(['\r', '\n']).to_owned())
    }
}

fn read_line() -> io::Result<String> {
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line),
    }
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden(rustix::termios::Termios);

impl Hidden {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Where the terminal has gone away, there is nothing to show.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
        let _ = io::stderr().flush();
    }
}
