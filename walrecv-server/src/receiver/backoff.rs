//! How long to wait before the next attempt.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// The first pause that is one.
const FIRST: Duration = Duration::from_millis(250);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// Pauses that double from attempt to attempt. The first attempt after a success follows at once:
/// most connections break for a moment only.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// An attempt has succeeded.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after another failure. Between half and all of the doubled pause, so that
    /// many receivers that lost the same server do not come back at the same moment.
    pub(crate) fn pause(&mut self) -> Duration {
        let random = RandomState::new().build_hasher().finish();
        self.pause_with(random)
    }

    fn pause_with(&mut self, random: u64) -> Duration {
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        if failures == 0 {
            return Duration::ZERO;
        }
        let whole = FIRST.saturating_mul(1 << (failures - 1).min(10)).min(LONGEST);
        let half = whole / 2;
        let span = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        half + Duration::from_millis(random % span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_nothing_to_half_a_minute() {
        let mut backoff = Backoff::default();
        for random in [0, u64::MAX, 12_345] {
            assert_eq!(backoff.pause_with(random), Duration::ZERO);
            for failure in 1..40 {
                let pause = backoff.pause_with(random);
                let whole = FIRST.saturating_mul(1 << (failure - 1).min(10)).min(LONGEST);
                assert!((whole / 2..=whole).contains(&pause), "{failure}: {pause:?}");
            }
            assert!(backoff.pause_with(random) >= LONGEST / 2);
            backoff.succeeded();
        }
    }
}
