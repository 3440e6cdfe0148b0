//! How fast is read where others need the disk, too.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The longest that somebody sleeps at once: who is to stop shall notice.
const LONGEST: Duration = Duration::from_millis(250);

/// Keeps all who share it, together, at so many bytes per second.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When everything that was read so far has had its time.
    free_at: Mutex<Instant>,
}

impl Pace {
    /// So many kB (of 1024 bytes) per second.
    pub fn kilobytes(per_second: u32) -> Self {
        let bytes_per_second = u64::from(per_second.max(1)) * 1024;
        Self { bytes_per_second, free_at: Mutex::new(Instant::now()) }
    }

    /// So many bytes were read: returns when it is time for more, or after a quarter of a second.
    pub fn keep(&self, bytes: usize) {
        let pause = self.pause(bytes, Instant::now());
        if !pause.is_zero() {
            thread::sleep(pause.min(LONGEST));
        }
    }

    fn pause(&self, bytes: usize, now: Instant) -> Duration {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let micros = bytes.saturating_mul(1_000_000) / self.bytes_per_second;
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        // What was not used before is not saved up.
        let from = (*free_at).max(now);
        *free_at = from.checked_add(Duration::from_micros(micros)).unwrap_or(from);
        free_at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_takes_its_time_and_idle_time_is_not_saved_up() {
        let pace = Pace::kilobytes(1024);
        let now = Instant::now() + Duration::from_secs(100);
        assert_eq!(pace.pause(512 << 10, now), Duration::from_millis(500));
        // Two who read at the same time share it.
        assert_eq!(pace.pause(512 << 10, now), Duration::from_secs(1));
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.pause(1 << 20, later), Duration::from_secs(1));
    }
}
