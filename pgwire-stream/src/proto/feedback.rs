//! When to report to the server, when to ask for a sign of life, and when to give it up.

use std::time::{Duration, Instant};

/// The longest time between two status updates while nothing is read: well within the shortest
/// `wal_sender_timeout` that anybody sets.
const UNHEARD: Duration = Duration::from_secs(1);

/// How often a receiver reports, and how long it listens to silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intervals {
    /// The longest time between two status updates; `None` or zero reports only when there is a
    /// reason. While nothing is read on purpose, the server's question whether anybody lives stands
    /// unread: then it is a second at most.
    pub status: Option<Duration>,
    /// The longest silence of the server; it is asked for a sign of life at half of it. `None` or
    /// zero waits for ever.
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
    /// The server has been silent for too long, although it was asked for a sign of life.
    TimedOut,
}

/// The clockwork of a copy-both conversation. Time is always an argument, and never runs back.
///
/// The server's silence counts only while somebody listens: not between [`pause`](Self::pause) and
/// [`resume`](Self::resume). Nor is it given up unasked: whoever comes back late asks, and gives
/// it half the limit to answer.
#[derive(Debug)]
pub struct Feedback {
    intervals: Intervals,
    last_report: Instant,
    last_received: Instant,
    /// When the server was asked for a sign of life, unless it was heard since.
    asked: Option<Instant>,
    /// Since when nobody listens.
    paused: Option<Instant>,
    /// Whether a report is due without regard to the time.
    wanted: bool,
}

impl Feedback {
    /// Starts the clocks. A first report is due at once: the server learns where we are.
    pub fn new(intervals: Intervals, now: Instant) -> Self {
        let given = |interval: Option<Duration>| interval.filter(|time| !time.is_zero());
        let intervals =
            Intervals { status: given(intervals.status), receive: given(intervals.receive) };
        Self {
            intervals,
            last_report: now,
            last_received: now,
            asked: None,
            paused: None,
            wanted: true,
        }
    }

    /// The intervals that hold.
    pub fn intervals(&self) -> Intervals {
        self.intervals
    }

    /// Something came from the server.
    pub fn received(&mut self, now: Instant) {
        self.last_received = now;
        self.asked = None;
    }

    /// From now on nothing is read on purpose: silence says nothing about the server.
    pub fn pause(&mut self, now: Instant) {
        self.paused.get_or_insert(now);
    }

    /// Somebody listens again. Without a pause before, nothing changes.
    pub fn resume(&mut self, now: Instant) {
        let Some(since) = self.paused.take() else { return };
        let pause = now.saturating_duration_since(since);
        for at in [Some(&mut self.last_received), self.asked.as_mut()].into_iter().flatten() {
            *at = at.checked_add(pause).unwrap_or(now).min(now);
        }
    }

    /// A report is due at once: the server asked for it, or there is news.
    pub fn want_report(&mut self) {
        self.wanted = true;
    }

    /// A report was sent.
    pub fn reported(&mut self, now: Instant, asked_for_reply: bool) {
        self.last_report = now;
        self.wanted = false;
        if asked_for_reply {
            self.asked.get_or_insert(now);
        }
    }

    /// What is due now.
    pub fn poll(&self, now: Instant) -> Action {
        let mut alarm = Alarm { now, next: None };
        let silence = self.judge_silence(&mut alarm);
        if silence == Silence::TooLong {
            return Action::TimedOut;
        }
        let ask_for_reply = silence == Silence::Suspicious;
        let longest = if self.paused.is_some() { UNHEARD } else { Duration::MAX };
        let status = self.intervals.status.map(|status| status.min(longest));
        let routine = alarm.is_due(status.and_then(|status| self.last_report.checked_add(status)));
        if self.wanted || routine || ask_for_reply {
            Action::Report { ask_for_reply }
        } else {
            Action::Wait(alarm.next)
        }
    }

    /// What is due when nothing can be sent any more: [`Action::TimedOut`] or [`Action::Wait`]. What
    /// was sent last counts as a question, so whoever comes back late waits as long as with one.
    pub fn poll_silence(&mut self, now: Instant) -> Action {
        let mut alarm = Alarm { now, next: None };
        match self.judge_silence(&mut alarm) {
            Silence::Bearable => Action::Wait(alarm.next),
            Silence::TooLong => Action::TimedOut,
            Silence::Suspicious => {
                self.asked = Some(now);
                self.poll_silence(now)
            }
        }
    }

    fn judge_silence(&self, alarm: &mut Alarm) -> Silence {
        let (Some(limit), None) = (self.intervals.receive, self.paused) else {
            return Silence::Bearable;
        };
        let half = self.last_received.checked_add(limit / 2);
        let Some(asked) = self.asked else {
            return if alarm.is_due(half) { Silence::Suspicious } else { Silence::Bearable };
        };
        let (silence, unanswered) =
            (self.last_received.checked_add(limit), asked.checked_add(limit / 2));
        // A moment beyond all clocks never comes.
        let end = silence.zip(unanswered).map(|(silence, unanswered)| silence.max(unanswered));
        if alarm.is_due(end) { Silence::TooLong } else { Silence::Bearable }
    }
}

/// What the server's silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    Bearable,
    /// The server is to be asked for a sign of life.
    Suspicious,
    /// It was asked, and had its time to answer.
    TooLong,
}

/// Finds the next of several moments.
struct Alarm {
    now: Instant,
    next: Option<Instant>,
}

impl Alarm {
    /// Whether the moment has come; if not, it is noted.
    fn is_due(&mut self, at: Option<Instant>) -> bool {
        let Some(at) = at else { return false };
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
        self.now >= at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn quiet_after_first_report(start: Instant) -> Feedback {
        let mut feedback = Feedback::new(Intervals::default(), start);
        assert_eq!(feedback.poll(start), Action::Report { ask_for_reply: false });
        feedback.reported(start, false);
        feedback
    }

    #[test]
    fn reports_every_interval_and_asks_at_half_the_timeout() {
        let start = Instant::now();
        let mut feedback = quiet_after_first_report(start);
        assert_eq!(feedback.poll(start), Action::Wait(Some(start + 10 * SECOND)));
        for seconds in [10, 20] {
            let now = start + seconds * SECOND;
            assert_eq!(feedback.poll(now), Action::Report { ask_for_reply: false });
            feedback.reported(now, false);
        }
        let half = start + 30 * SECOND;
        assert_eq!(feedback.poll(half), Action::Report { ask_for_reply: true });
        feedback.reported(half, true);
        assert_eq!(feedback.poll(half), Action::Wait(Some(half + 10 * SECOND)));
        assert_eq!(feedback.poll(start + 60 * SECOND), Action::TimedOut);
    }

    #[test]
    fn hearing_from_the_server_restarts_its_clock() {
        let start = Instant::now();
        let mut feedback = quiet_after_first_report(start);
        let later = start + 59 * SECOND;
        feedback.reported(later, true);
        feedback.received(later);
        assert_eq!(feedback.poll(later), Action::Wait(Some(later + 10 * SECOND)));
    }

    #[test]
    fn silence_says_nothing_while_nobody_listens() {
        let start = Instant::now();
        let mut feedback = quiet_after_first_report(start);
        feedback.pause(start + SECOND);
        let now = start + 100 * SECOND;
        assert_eq!(feedback.poll(now), Action::Report { ask_for_reply: false });
        feedback.reported(now, false);
        // What it asks meanwhile is not heard, so it is told unasked.
        assert_eq!(feedback.poll(now), Action::Wait(Some(now + SECOND)));
        assert_eq!(feedback.poll_silence(now), Action::Wait(None));
        feedback.resume(now);
        assert_eq!(feedback.poll(now), Action::Wait(Some(now + 10 * SECOND)));
        // One second of silence counts.
        let half = now + 29 * SECOND;
        feedback.reported(half, false);
        assert_eq!(feedback.poll(half - SECOND), Action::Wait(Some(half)));
        assert_eq!(feedback.poll(half), Action::Report { ask_for_reply: true });
    }

    #[test]
    fn short_pauses_do_not_hide_a_dead_server() {
        let start = Instant::now();
        let mut feedback = quiet_after_first_report(start);
        let mut now = start;
        let mut dead_after = None;
        for _ in 0..200 {
            feedback.pause(now);
            now += SECOND;
            feedback.resume(now);
            now += SECOND;
            match feedback.poll(now) {
                Action::Report { ask_for_reply } => feedback.reported(now, ask_for_reply),
                Action::Wait(_) => {}
                Action::TimedOut => {
                    dead_after = Some(now - start);
                    break;
                }
            }
        }
        assert_eq!(dead_after, Some(120 * SECOND));
    }

    #[test]
    fn whoever_comes_back_late_asks_before_giving_up() {
        let start = Instant::now();
        let mut feedback = quiet_after_first_report(start);
        let late = start + 300 * SECOND;
        assert_eq!(feedback.poll(late), Action::Report { ask_for_reply: true });
        feedback.reported(late, true);
        assert_eq!(feedback.poll(late + 29 * SECOND), Action::Report { ask_for_reply: false });
        assert_eq!(feedback.poll(late + 30 * SECOND), Action::TimedOut);
    }

    #[test]
    fn asking_again_does_not_extend_the_limit() {
        let start = Instant::now();
        let mut feedback = quiet_after_first_report(start);
        feedback.reported(start + 30 * SECOND, true);
        feedback.reported(start + 50 * SECOND, true);
        assert_eq!(feedback.poll(start + 60 * SECOND), Action::TimedOut);
    }

    #[test]
    fn both_clocks_can_be_off() {
        for off in [None, Some(Duration::ZERO), Some(Duration::MAX)] {
            let start = Instant::now();
            let mut feedback = Feedback::new(Intervals { status: off, receive: off }, start);
            feedback.reported(start, true);
            assert_eq!(feedback.poll(start + 1000 * SECOND), Action::Wait(None));
            assert_eq!(feedback.poll_silence(start + 1000 * SECOND), Action::Wait(None));
            feedback.want_report();
            assert_eq!(feedback.poll(start), Action::Report { ask_for_reply: false });
        }
    }
}
