//! Log lines on standard error, which go around the progress bars.
//!
//! The same line wherever it goes: with the time, or, where systemd's journal reads our standard
//! error, with the priority that the journal notes beside its own time.

use std::fmt;
use std::io::{self, Write};

use indicatif::MultiProgress;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use super::Printer;

/// The environment variable that says what is logged, for those who need to know more.
const FILTER_VARIABLE: &str = "RUST_LOG";

/// The variable by which systemd says that its journal reads what we write.
const JOURNAL_VARIABLE: &str = "JOURNAL_STREAM";

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object in each line.
    Json,
}

/// Begins to log: what `RUST_LOG` says, or else what `default` does.
pub fn start_logging(printer: &Printer, default: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE)
        .or_else(|_| EnvFilter::try_new(default))
        .unwrap_or_default();
    let colors = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(AroundBars(printer.bars()))
        .with_ansi(colors && format == LogFormat::Text);
    let text = Format::default().with_target(false);
    let json = text.clone().json().flatten_event(true).with_current_span(false);
    // Fails only if logging was started before, which is as good.
    let _ = match (format, in_journal()) {
        (LogFormat::Text, false) => lines.event_format(text).try_init(),
        (LogFormat::Text, true) => {
            lines.event_format(ForJournal(text.without_time().with_level(false))).try_init()
        }
        (LogFormat::Json, false) => lines.json().event_format(json).try_init(),
        (LogFormat::Json, true) => lines.json().event_format(ForJournal(json)).try_init(),
    };
}

/// What is told as an error, each line with the priority of errors where the journal reads it.
pub(super) fn as_errors(text: String) -> String {
    if in_journal() { with_priority(Level::ERROR, &text) } else { text }
}

fn with_priority(level: Level, text: &str) -> String {
    text.lines().map(|line| format!("<{}>{line}\n", priority(level))).collect()
}

/// Whether systemd's journal reads what we write to standard error.
fn in_journal() -> bool {
    let Ok(stream) = std::env::var(JOURNAL_VARIABLE) else { return false };
    // What we inherited may lead elsewhere by now, such as into a file.
    rustix::fs::fstat(io::stderr()).is_ok_and(|file| names(&stream, file.st_dev, file.st_ino))
}

/// Whether the variable's `device:inode` is this file.
fn names(stream: &str, device: u64, inode: u64) -> bool {
    stream
        .split_once(':')
        .is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

/// Puts the priority in front of a line, as the journal takes it (`sd-daemon(3)`).
struct ForJournal<F>(F);

impl<S, N, F> FormatEvent<S, N> for ForJournal<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// The level as syslog counts it.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// Writes whole log lines while the bars are out of the way.
struct AroundBars(MultiProgress);

impl<'a> MakeWriter<'a> for AroundBars {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &AroundBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A log that can no longer be written, as its terminal was closed, ends nothing: an error
        // here would be reported on the same standard error, by a panic.
        let _ = self.0.suspend(|| io::stderr().lock().write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = io::stderr().lock().flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_an_error_is_one() {
        assert_eq!(with_priority(Level::ERROR, "error: x\nhint: y\n"), "<3>error: x\n<3>hint: y\n");
    }

    #[test]
    fn the_journal_is_recognised_by_the_file_that_it_reads() {
        assert!(names("8:4711", 8, 4711));
        for other in ["8:4712", "9:4711", "8", "", "a:b"] {
            assert!(!names(other, 8, 4711), "{other}");
        }
    }
}
