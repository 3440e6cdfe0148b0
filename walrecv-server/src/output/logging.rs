//! Log lines on standard error, which go around the progress bars.

use std::io::{self, Write};

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::Printer;

/// The environment variable that says what is logged, for those who need to know more.
const FILTER_VARIABLE: &str = "RUST_LOG";

/// Begins to log: what `RUST_LOG` says, or else what `default` does.
pub fn start_logging(printer: &Printer, default: &str) {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE)
        .or_else(|_| EnvFilter::try_new(default))
        .unwrap_or_default();
    let colors = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
    // Fails only if logging was started before, which is as good.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(AroundBars(printer.bars()))
        .with_ansi(colors)
        .with_target(false)
        .try_init();
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
