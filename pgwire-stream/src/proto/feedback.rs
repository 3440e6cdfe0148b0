//! When to report to the server, when to ask for a sign of life, and when to give it up.

use std::time::{Duration, Instant};

/// How often a receiver reports, and how long it listens to silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intervals {
    /// The longest time between two status updates; `None` reports only when there is a reason.
    pub status: Option<Duration>,
    /// The longest silence of the server; it is asked for a sign of life at half of it. `None`
    /// waits for ever.
    pub receive: Option<Duration>,
}

impl Default for Intervals {
    /// PostgreSQL's own `wal_receiver_status_interval` and `wal_receiver_timeout`.
    fn default() -> Self {
        Self { status: Some(Duration::from_secs(10)), receive: Some(Duration::from_secs(60)) }
    }
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until this moment; `None` means never.
    Wait(Option<Instant>),
    /// Send a status update, and ask for an answer if so.
    Report {
        /// Whether the server shall answer.
        ask_for_reply: bool,
    },
    /// The server has been silent for too long.
    TimedOut,
}

/// The clockwork of a copy-both conversation. Time is always an argument.
#[derive(Debug)]
pub struct Feedback {
    intervals: Intervals,
    last_report: Instant,
    last_received: Instant,
    /// Whether the server was asked for a sign of life since it was last heard.
    asked: bool,
    /// Whether a report is due without regard to the time.
    wanted: bool,
}

impl Feedback {
    /// Starts the clocks. A first report is due at once: the server learns where we are.
    pub fn new(intervals: Intervals, now: Instant) -> Self {
        Self { intervals, last_report: now, last_received: now, asked: false, wanted: true }
    }

    /// The intervals that hold.
    pub fn intervals(&self) -> Intervals {
        self.intervals
    }

    /// When the server's silence has lasted too long.
    pub fn give_up_at(&self) -> Option<Instant> {
        self.intervals.receive.map(|limit| self.last_received + limit)
    }

    /// Something came from the server.
    pub fn received(&mut self, now: Instant) {
        self.last_received = now;
        self.asked = false;
    }

    /// A report is due at once: the server asked for it, or there is news.
    pub fn want_report(&mut self) {
        self.wanted = true;
    }

    /// A report was sent.
    pub fn reported(&mut self, now: Instant, asked_for_reply: bool) {
        self.last_report = now;
        self.wanted = false;
        self.asked |= asked_for_reply;
    }

    /// What is due now. `listening` is false while nothing is read on purpose: then silence says
    /// nothing about the server.
    pub fn poll(&self, now: Instant, listening: bool) -> Action {
        let mut next: Option<Instant> = None;
        let mut due = |at: Instant| {
            let earlier = next.is_none_or(|next| at < next);
            if earlier {
                next = Some(at);
            }
            now >= at
        };
        let mut ask_for_reply = false;
        if let (Some(limit), true) = (self.intervals.receive, listening) {
            if due(self.last_received + limit) {
                return Action::TimedOut;
            }
            ask_for_reply = !self.asked && due(self.last_received + limit / 2);
        }
        let routine = self.intervals.status.is_some_and(|status| due(self.last_report + status));
        if self.wanted || routine || ask_for_reply {
            Action::Report { ask_for_reply }
        } else {
            Action::Wait(next)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn quiet_after_first_report(start: Instant) -> Feedback {
        let mut feedback = Feedback::new(Intervals::default(), start);
        assert_eq!(feedback.poll(start, true), Action::Report { ask_for_reply: false });
        feedback.reported(start, false);
        feedback
    }

    #[test]
    fn reports_every_interval_and_asks_at_half_the_timeout() {
        let start = Instant::now();
        let mut feedback = quiet_after_first_report(start);
        assert_eq!(feedback.poll(start, true), Action::Wait(Some(start + 10 * SECOND)));
        for seconds in [10, 20] {
            let now = start + seconds * SECOND;
            assert_eq!(feedback.poll(now, true), Action::Report { ask_for_reply: false });
            feedback.reported(now, false);
        }
        let half = start + 30 * SECOND;
        assert_eq!(feedback.poll(half, true), Action::Report { ask_for_reply: true });
        feedback.reported(half, true);
        assert_eq!(feedback.poll(half, true), Action::Wait(Some(half + 10 * SECOND)));
        assert_eq!(feedback.poll(start + 60 * SECOND, true), Action::TimedOut);
    }

    #[test]
    fn hearing_from_the_server_restarts_its_clock() {
        let start = Instant::now();
        let mut feedback = quiet_after_first_report(start);
        let later = start + 59 * SECOND;
        feedback.reported(later, true);
        feedback.received(later);
        assert_eq!(feedback.poll(later, true), Action::Wait(Some(later + 10 * SECOND)));
    }

    #[test]
    fn silence_says_nothing_while_nobody_listens() {
        let start = Instant::now();
        let feedback = quiet_after_first_report(start);
        let now = start + 100 * SECOND;
        assert_eq!(feedback.poll(now, false), Action::Report { ask_for_reply: false });
    }

    #[test]
    fn both_clocks_can_be_off() {
        let start = Instant::now();
        let mut feedback = Feedback::new(Intervals { status: None, receive: None }, start);
        feedback.reported(start, false);
        assert_eq!(feedback.poll(start + 1000 * SECOND, true), Action::Wait(None));
        feedback.want_report();
        assert_eq!(feedback.poll(start, true), Action::Report { ask_for_reply: false });
    }
}
