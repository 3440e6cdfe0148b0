//! The only place that prints: data on standard output, everything else on standard error.
//!
//! Commands return values; a [`Report`] renders one for people, in Barman's JSON, and in clean
//! JSON. The exit code comes from the same values, so success is never printed if anything failed.

mod adopt;
mod archive_wal;
mod backup;
mod check;
mod check_backup;
mod config;
mod cron;
mod delete;
mod diagnose;
mod diagnostic;
mod extract;
mod generate_manifest;
mod generated;
mod get_wal;
mod init;
mod keep;
mod list_backups;
mod list_files;
mod list_servers;
mod logging;
mod progress;
mod questions;
mod receive_wal;
mod receiving;
mod replication_status;
mod restore;
mod show_backup;
mod show_servers;
mod status;
mod switch_wal;
mod units;
mod verify_backup;

use std::error::Error;
use std::io::{self, Write};

use indicatif::MultiProgress;
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::settings::ServerName;

pub use check::CheckReport;
pub use generated::{GeneratedText, ManualPages};
pub use get_wal::END_OF_ARCHIVE;
pub use list_backups::ListBackupsReport;
pub use list_servers::ListServersReport;
pub use logging::{LogFormat, start_logging};
pub use progress::Progress;
pub use questions::NoAnswer;
pub use receiving::Receiving;
pub use replication_status::ReplicationStatusReport;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Console,
    /// Barman's JSON, key for key.
    Json,
    /// Clean JSON: numbers, RFC 3339 times.
    Json2,
}

/// When colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a command did, or found out, in the forms that it can be printed in.
pub trait Report {
    /// For people; ends with a newline unless it is empty.
    fn console(&self) -> String;

    /// Adds itself to a document of Barman's shape.
    fn barman(&self, document: &mut Map<String, Value>);

    /// As clean JSON; an array if it is about several servers.
    fn clean(&self) -> Value;

    /// The exit code, if nothing failed.
    fn exit_code(&self) -> u8 {
        0
    }
}

/// A failure, and the server that it is about if the command is about several.
pub struct Failed {
    /// The server.
    pub server: Option<ServerName>,
    /// What failed.
    pub failure: Box<dyn Failure>,
}

/// What a command came to: reports of what was done, and what failed.
#[derive(Default)]
pub struct Results {
    /// What was done.
    pub reports: Vec<Box<dyn Report>>,
    /// What failed.
    pub failures: Vec<Failed>,
    /// The server that the command was about, if it was about one.
    pub about: Option<ServerName>,
}

impl Results {
    /// A single report.
    pub fn one(report: impl Report + 'static) -> Self {
        Self { reports: vec![Box::new(report)], ..Self::default() }
    }

    /// A single failure that is not about one of several servers.
    pub fn failed(failure: Box<dyn Failure>) -> Self {
        Self { failures: vec![Failed { server: None, failure }], ..Self::default() }
    }

    /// The exit code: the gravest failure's, or else the reports'.
    pub fn exit_code(&self) -> u8 {
        let failed = self.failures.iter().map(|failed| failed.failure.exit_code()).max();
        let reported = self.reports.iter().map(|report| report.exit_code()).max();
        failed.or(reported).unwrap_or_default()
    }
}

/// Prints.
pub struct Printer {
    format: Format,
    quiet: bool,
    bars: MultiProgress,
}

impl Printer {
    /// A printer for this process's standard output and error.
    pub fn new(format: Format, quiet: bool, color: Color) -> Self {
        match color {
            Color::Auto => {}
            Color::Always => anstream::ColorChoice::Always.write_global(),
            Color::Never => anstream::ColorChoice::Never.write_global(),
        }
        Self { format, quiet, bars: MultiProgress::new() }
    }

    /// Shows how a receiver in the foreground is.
    pub fn receiving(&self) -> Receiving {
        Receiving::new(self.bars.clone(), self.quiet)
    }

    /// A listener for long work, with what the work is done for.
    pub fn progress(&self, label: &str) -> Progress {
        Progress::new(label, self.bars.clone(), self.quiet)
    }

    /// The bars, which log lines must not tear.
    pub fn bars(&self) -> MultiProgress {
        self.bars.clone()
    }

    /// Prints what a command came to, and says with which code to exit.
    pub fn results(&self, results: &Results) -> u8 {
        let document = match self.format {
            Format::Console => {
                results.reports.iter().map(|report| report.console()).collect::<String>()
            }
            Format::Json => pretty(&barman(results)),
            Format::Json2 => pretty(&clean(results)),
        };
        let printed = self.stdout(&document);
        for failed in &results.failures {
            let text = diagnostic::text(failed, results.about.as_ref());
            self.stderr(&logging::as_errors(text));
        }
        match printed {
            Ok(()) => results.exit_code(),
            Err(error) => {
                self.stderr(&diagnostic::plain("cannot write to standard output", &error));
                results.exit_code().max(1)
            }
        }
    }

    /// Prints a line for people that is not part of the result.
    pub fn note(&self, line: &str) {
        if !self.quiet {
            self.stderr(&format!("{line}\n"));
        }
    }

    fn stdout(&self, text: &str) -> io::Result<()> {
        self.bars.suspend(|| {
            let mut stdout = anstream::stdout().lock();
            match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
                // Whoever read it has seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                result => result,
            }
        })
    }

    fn stderr(&self, text: &str) {
        self.bars.suspend(|| {
            // There is nowhere left to complain to.
            let _ = anstream::stderr().lock().write_all(text.as_bytes());
        });
    }
}

/// Barman's document: reports merged by server, messages in lists beside them.
fn barman(results: &Results) -> Value {
    let mut document = Map::new();
    for report in &results.reports {
        report.barman(&mut document);
    }
    if !results.failures.is_empty() {
        for failed in &results.failures {
            message(&mut document, "_ERROR", diagnostic::sentence(failed));
        }
    }
    Value::Object(document)
}

/// Adds a message to one of the lists that Barman has for them beside its servers.
fn message(document: &mut Map<String, Value>, list: &str, text: impl Into<String>) {
    let messages = document.entry(list).or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(messages) = messages {
        messages.push(Value::String(text.into()));
    }
}

fn clean(results: &Results) -> Value {
    let reports: Vec<_> = results
        .reports
        .iter()
        .flat_map(|report| match report.clean() {
            Value::Array(several) => several,
            one => vec![one],
        })
        .collect();
    let failure = |failed| diagnostic::json(failed, results.about.as_ref());
    let failures: Vec<_> = results.failures.iter().map(failure).collect();
    json!({ "results": reports, "errors": failures, "exit_code": results.exit_code() })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The causes of an error, without those that the sentence before has told already.
fn causes(error: &dyn Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !told.contains(&text) {
            causes.push(text.clone());
            told = text;
        }
        source = cause.source();
    }
    causes
}
