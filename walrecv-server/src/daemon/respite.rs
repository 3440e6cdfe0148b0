//! When what is due begins all the same a little later: not everything at once after a start, and
//! again after a failure that may pass by itself.

use std::time::Duration;

use tokio::time::Instant;

/// How long is waited after the first failure. The pauses double.
const FIRST: Duration = Duration::from_secs(60);

/// The longest of them.
const LONGEST: Duration = Duration::from_secs(3600);

/// Until when a line waits.
#[derive(Debug)]
pub(super) struct Respite {
    until: Instant,
    /// The pause after the next failure.
    pause: Duration,
}

impl Respite {
    /// So long from now.
    pub(super) fn new(first: Duration) -> Self {
        Self { until: Instant::now() + first, pause: FIRST }
    }

    /// How long it still is.
    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// What was due has failed, and may succeed the next time. Says whether there is one before the
    /// line's next moment, which is `next` from now: then everything is as on any other day.
    pub(super) fn again(&mut self, next: Option<Duration>) -> bool {
        let pause = self.pause;
        if next.is_none_or(|next| next <= pause) {
            self.over();
            return false;
        }
        *self = Self { until: Instant::now() + pause, pause: pause.saturating_mul(2).min(LONGEST) };
        true
    }

    /// Whether nothing has failed since it was over.
    pub(super) fn is_first(&self) -> bool {
        self.pause == FIRST
    }

    /// Nothing is waited for any more.
    pub(super) fn over(&mut self) {
        *self = Self::new(Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_until_the_next_moment() {
        let begin = Instant::now();
        let next = Duration::from_secs(5 * 3600);
        let mut respite = Respite::new(Duration::from_secs(7));
        let mut tried = Vec::new();
        loop {
            tokio::time::sleep(respite.left()).await;
            tried.push(begin.elapsed().as_secs());
            if !respite.again(next.checked_sub(begin.elapsed())) {
                break;
            }
        }
        assert_eq!(tried, [7, 67, 187, 427, 907, 1867, 3787, 7387, 10987, 14587]);
        assert_eq!((respite.left(), respite.is_first()), (Duration::ZERO, true));
        assert!(!respite.again(None), "nothing comes next");
    }
}
