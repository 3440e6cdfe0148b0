//! How a receiver in the foreground is: a live line on a terminal, plain lines now and then
//! elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use indicatif::{MultiProgress, ProgressBar};
use pgwire_stream::{Lsn, PgTimestamp};

use super::units;
use crate::receiver::{State, Status};

/// How often a plain line is printed, if WAL has come meanwhile.
const LINE_INTERVAL: Duration = Duration::from_secs(60);

/// Over how long the speed is taken.
const RATE_INTERVAL: Duration = Duration::from_secs(1);

/// Shows one receiver.
pub struct Receiving {
    bars: MultiProgress,
    bar: Option<ProgressBar>,
    quiet: bool,
    shown: Mutex<Shown>,
}

/// What was shown last.
struct Shown {
    at: Instant,
    received: Option<Lsn>,
    rate: Option<u64>,
    printed: (Instant, Option<Lsn>),
}

impl Receiving {
    pub(super) fn new(bars: MultiProgress, quiet: bool) -> Self {
        let bar = (std::io::stderr().is_terminal() && !quiet)
            .then(|| bars.add(ProgressBar::new_spinner()));
        let now = Instant::now();
        let shown = Shown { at: now, received: None, rate: None, printed: (now, None) };
        Self { bars, bar, quiet, shown: Mutex::new(shown) }
    }

    /// Shows how the receiver is now.
    pub fn show(&self, status: &Status) {
        let line = self.shown().line(status, Instant::now(), SystemTime::now().into());
        match (&self.bar, line) {
            (Some(bar), (line, _)) => {
                bar.set_message(line);
                bar.tick();
            }
            (None, (line, true)) if !self.quiet => {
                self.bars.suspend(|| anstream::eprintln!("{line}"));
            }
            (None, _) => {}
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        // What a panicking thread left half told is still worth showing.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Shown {
    /// The line, and whether it is time to print it where lines stay.
    fn line(&mut self, status: &Status, now: Instant, time: PgTimestamp) -> (String, bool) {
        let past = now.duration_since(self.at);
        if past >= RATE_INTERVAL || self.received.is_none() {
            self.rate = match (self.received, status.received) {
                (Some(before), Some(received)) => {
                    units::per_second(received.bytes_since(before), past)
                }
                _ => None,
            };
            (self.at, self.received) = (now, status.received);
        }
        let (printed, of) = self.printed;
        let due = status.flushed.is_some()
            && status.flushed != of
            && (of.is_none() || now.duration_since(printed) >= LINE_INTERVAL);
        if due {
            self.printed = (now, status.flushed);
        }
        (text(status, self.rate, time), due)
    }
}

fn text(status: &Status, rate: Option<u64>, time: PgTimestamp) -> String {
    let mut text = format!("{}: ", status.server);
    match status.state {
        State::Streaming => {}
        State::Connecting => text.push_str("connecting, "),
        State::Waiting => text.push_str("waiting before the next attempt, "),
        State::Refused | State::Stopped => text.push_str("stopped, "),
    }
    match (status.flushed, status.timeline) {
        (Some(lsn), Some(timeline)) => {
            text.push_str(&format!("{lsn} on timeline {timeline} is durable"));
        }
        _ => text.push_str("nothing received yet"),
    }
    if let Some(rate) = rate.filter(|rate| *rate > 0) {
        text.push_str(&format!(", {}/s", units::size(rate)));
    }
    let behind = status.server_end.zip(status.flushed);
    match behind.map(|(end, flushed)| end.bytes_since(flushed)) {
        Some(bytes @ 1..) => {
            text.push_str(&format!(", {} behind", units::size(bytes)));
            let since = status.caught_up_at.map(|at| time.as_micros() - at.as_micros());
            if let Some(seconds @ 1..) = since.map(|micros| micros / 1_000_000) {
                text.push_str(&format!(" ({seconds} s)"));
            }
        }
        Some(0) => text.push_str(", caught up"),
        None => {}
    }
    if status.waiting_for_archive > 0 {
        text.push_str(&format!(", {} to archive", status.waiting_for_archive));
    }
    if status.synchronous {
        text.push_str(", synchronous");
    }
    if status.disk_full {
        text.push_str(", the disk is full");
    }
    if status.suspect > 0 {
        text.push_str(&format!(", {} suspect", status.suspect));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let mut status = Status::new("main".parse().unwrap(), "walrecv".parse().unwrap());
        status.state = State::Streaming;
        status.timeline = Some(pgwire_stream::TimelineId::FIRST);
        status
    }

    #[test]
    fn the_line_tells_how_far_how_fast_and_how_far_behind() {
        let lsn = |mib: u64| Some(Lsn::from_u64(mib << 20));
        let mut status = status();
        let start = Instant::now();
        let time = |seconds: i64| PgTimestamp::from_micros(seconds * 1_000_000);
        let mut shown = Shown { at: start, received: None, rate: None, printed: (start, None) };
        let (line, due) = shown.line(&status, start, time(0));
        assert_eq!((line.as_str(), due), ("main: nothing received yet", false));
        (status.received, status.flushed, status.server_end) = (lsn(16), lsn(16), lsn(16));
        status.caught_up_at = Some(time(5));
        let (line, due) = shown.line(&status, start + RATE_INTERVAL, time(5));
        assert_eq!(line, "main: 0/1000000 on timeline 1 is durable, caught up");
        assert!(due);
        (status.received, status.flushed, status.server_end) = (lsn(48), lsn(40), lsn(80));
        status.waiting_for_archive = 2;
        let (line, due) = shown.line(&status, start + 3 * RATE_INTERVAL, time(8));
        assert_eq!(
            line,
            "main: 0/2800000 on timeline 1 is durable, 16.0 MiB/s, 40.0 MiB behind (3 s), 2 to archive"
        );
        assert!(!due);
        assert!(shown.line(&status, start + LINE_INTERVAL * 2, time(120)).1);
    }
}
