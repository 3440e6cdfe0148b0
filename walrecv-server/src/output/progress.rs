//! How far long work is: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::units;
use crate::progress::ProgressSink;

/// How soon a plain line may follow on another, or on the beginning: short work needs none.
const NEXT_LINE: Duration = Duration::from_secs(5);

/// After how long one is printed if there is no new tenth to tell.
const LINE_INTERVAL: Duration = Duration::from_secs(60);

const KNOWN: &str = "{prefix} [{bar:30}] {percent:>3}% {binary_bytes:>10}/{binary_total_bytes} \
                     {binary_bytes_per_sec} ETA {eta}";
const UNKNOWN: &str = "{prefix} {spinner} {binary_bytes} {binary_bytes_per_sec} {elapsed}";

/// Shows how far one piece of work after the other is.
pub struct Progress {
    label: String,
    bars: MultiProgress,
    quiet: bool,
    terminal: bool,
    work: Mutex<Option<Work>>,
}

/// The piece of work that goes on.
struct Work {
    what: String,
    bar: Option<ProgressBar>,
    lines: Lines,
}

impl Progress {
    pub(super) fn new(label: &str, bars: MultiProgress, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { label: label.to_owned(), bars, quiet, terminal, work: Mutex::new(None) }
    }

    fn print(&self, line: &str) {
        if !self.quiet {
            self.bars.suspend(|| anstream::eprintln!("{}: {line}", self.label));
        }
    }

    fn work(&self) -> std::sync::MutexGuard<'_, Option<Work>> {
        // What a panicking thread left half told is still worth showing.
        self.work.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl ProgressSink for Progress {
    fn begin(&self, what: &str, total: Option<u64>) {
        self.finish();
        let bar = (self.terminal && !self.quiet).then(|| {
            let bar = self.bars.add(match total {
                Some(total) => ProgressBar::new(total),
                None => ProgressBar::no_length(),
            });
            let template = if total.is_some() { KNOWN } else { UNKNOWN };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(format!("{}: {what}", self.label));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let lines = Lines::new(total, Instant::now());
        *self.work() = Some(Work { what: what.to_owned(), bar, lines });
    }

    fn advance_to(&self, done: u64) {
        let line = match self.work().as_mut() {
            Some(Work { bar: Some(bar), lines, .. }) => {
                // Totals are estimates: a full bar that goes on would look stuck.
                if bar.length().is_some_and(|total| done > total) {
                    bar.set_length(done);
                }
                bar.set_position(done);
                lines.done = done;
                None
            }
            Some(Work { what, lines, .. }) => {
                lines.due(done, Instant::now()).map(|line| format!("{what}: {line}"))
            }
            None => None,
        };
        if let Some(line) = line {
            self.print(&line);
        }
    }

    fn finish(&self) {
        let Some(Work { what, bar, lines }) = self.work().take() else { return };
        if let Some(bar) = bar {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
        self.print(&format!("{what}: {}", lines.last(Instant::now())));
    }

    fn note(&self, line: &str) {
        self.print(line);
    }
}

/// Decides when a plain line is due, and what it says.
struct Lines {
    total: Option<u64>,
    began: Instant,
    printed: Instant,
    tenth: u64,
    done: u64,
}

impl Lines {
    fn new(total: Option<u64>, now: Instant) -> Self {
        // Nothing to do at all is as good as unknown.
        let total = total.filter(|total| *total > 0);
        Self { total, began: now, printed: now, tenth: 0, done: 0 }
    }

    /// The line that tells `done`, if it is time for one: at each new tenth, and now and then.
    fn due(&mut self, done: u64, now: Instant) -> Option<String> {
        self.done = done;
        let tenth = self.total.map(|total| {
            let tenths = u128::from(done) * 10 / u128::from(total);
            u64::try_from(tenths).unwrap_or(u64::MAX).min(10)
        });
        let new_tenth = tenth.is_some_and(|tenth| tenth > self.tenth);
        let interval = if new_tenth { NEXT_LINE } else { LINE_INTERVAL };
        if now.duration_since(self.printed) < interval {
            return None;
        }
        self.tenth = tenth.unwrap_or_default();
        self.printed = now;
        let elapsed = now.duration_since(self.began);
        let rate = match units::per_second(done, elapsed) {
            Some(rate) => format!(", {}/s", units::size(rate)),
            None => String::new(),
        };
        Some(match self.total {
            Some(total) => {
                let percent = percent(done, total);
                let (done_text, total_text) = (units::size(done), units::size(total));
                let eta = eta(done, total, elapsed);
                format!("{percent}% ({done_text} of {total_text}{rate}{eta})")
            }
            None => format!("{}{rate}", units::size(done)),
        })
    }

    /// The line at the end.
    fn last(&self, now: Instant) -> String {
        let elapsed = now.duration_since(self.began);
        let rate = match units::per_second(self.done, elapsed) {
            Some(rate) => format!(" ({}/s)", units::size(rate)),
            None => String::new(),
        };
        format!("{} in {:.1} s{rate}", units::size(self.done), elapsed.as_secs_f64())
    }
}

fn percent(done: u64, total: u64) -> u128 {
    (u128::from(done) * 100 / u128::from(total.max(1))).min(100)
}

fn eta(done: u64, total: u64, elapsed: Duration) -> String {
    if done == 0 || done >= total {
        return String::new();
    }
    let left = elapsed.as_secs_f64() * (total - done) as f64 / done as f64;
    // Nobody waits for more than a year; and it must fit into a duration.
    match Duration::try_from_secs_f64(left.ceil().min(31_536_000.0)) {
        Ok(left) => format!(", {} left", units::duration(left)),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_come_at_each_tenth_with_rate_and_time_left() {
        let start = Instant::now();
        let mut lines = Lines::new(Some(10 << 20), start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(lines.due(1 << 19, at(1)), None);
        // Whoever is done in no time has nothing to tell in between.
        assert_eq!(lines.due(4 << 20, at(4)), None);
        assert_eq!(
            lines.due(5 << 20, at(5)).unwrap(),
            "50% (5.0 MiB of 10.0 MiB, 1.0 MiB/s, 5 seconds left)"
        );
        assert_eq!(lines.due(5 << 20, at(30)), None);
        // Slow work is told now and then all the same.
        assert!(lines.due(5 << 20, at(65)).is_some());
        assert_eq!(
            lines.due(10 << 20, at(80)).unwrap(),
            "100% (10.0 MiB of 10.0 MiB, 128.0 KiB/s)"
        );
        assert_eq!(lines.last(at(20)), "10.0 MiB in 20.0 s (512.0 KiB/s)");
    }

    #[test]
    fn an_unknown_or_wrong_total_is_survived() {
        let start = Instant::now();
        let later = start + LINE_INTERVAL;
        assert_eq!(Lines::new(None, start).due(1024, later).unwrap(), "1.0 KiB, 17 B/s");
        assert!(Lines::new(Some(0), start).due(u64::MAX, later).is_some());
        assert!(Lines::new(Some(1), start).due(u64::MAX, later).unwrap().starts_with("100%"));
    }
}
