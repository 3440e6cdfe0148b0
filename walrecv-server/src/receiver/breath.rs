//! Letting streams alone for a moment that bring little at a time, where no commit waits for them.
//!
//! Hundreds of streams that bring some hundred bytes with every commit would wake a thread for each
//! of them. So whoever has read all that there was reads again after a [`BREATH`] only, and threads
//! of the runtime that have nothing left to do look for news after a [`NAP`] only, as long as many
//! streams are taking breath and nobody is in a [`Hurry`]: the news of all of them is worth one
//! awakening.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long a stream is let alone.
const BREATH: Duration = Duration::from_millis(20);

/// What a stream may bring in that time, and still be one that brings little. Less than a socket
/// holds at first, so that one whose server waits for room is not taken for one that has nothing.
pub(super) const LITTLE: usize = 48 << 10;

/// How long a thread sleeps before it looks for news.
const NAP: Duration = Duration::from_millis(4);

/// Fewer streams would gain nothing by naps.
const MANY: usize = 4;

/// Whether some milliseconds do not count where WAL is to be durable after this time.
pub(super) fn is_unhurried(flush_interval: Duration) -> bool {
    flush_interval >= 10 * BREATH
}

/// Whether threads may take naps.
struct Naps {
    /// How many streams are taking breath.
    breathing: AtomicUsize,
    /// How much there is that must not wait.
    hurried: AtomicUsize,
}

impl Naps {
    const fn new() -> Self {
        Self { breathing: AtomicUsize::new(0), hurried: AtomicUsize::new(0) }
    }

    fn are_allowed(&self) -> bool {
        self.breathing.load(Ordering::Relaxed) >= MANY && self.hurried.load(Ordering::Relaxed) == 0
    }
}

/// Those of this process.
static NAPS: Naps = Naps::new();

/// One that is counted as long as it lives.
struct Counted(&'static AtomicUsize);

impl Counted {
    fn new(count: &'static AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// As long as one of these lives, no thread takes a nap: a backup's bytes come faster than a socket
/// holds them.
pub(crate) struct Hurry {
    _counted: Counted,
}

impl Hurry {
    pub(crate) fn new() -> Self {
        Self { _counted: Counted::new(&NAPS.hurried) }
    }
}

/// Waits for a breath.
pub(super) async fn breath() {
    let _counted = Counted::new(&NAPS.breathing);
    tokio::time::sleep(BREATH).await;
}

/// For threads of the runtime that are about to wait for news: sleeps first while many streams are
/// taking breath, and nobody is in a hurry.
pub fn nap() {
    if NAPS.are_allowed() {
        std::thread::sleep(NAP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_are_taken_while_many_breathe_and_nobody_is_in_a_hurry() {
        static NAPS: Naps = Naps::new();
        let mut breathing: Vec<_> = (1..MANY).map(|_| Counted::new(&NAPS.breathing)).collect();
        assert!(!NAPS.are_allowed());
        breathing.push(Counted::new(&NAPS.breathing));
        assert!(NAPS.are_allowed());
        let hurry = Counted::new(&NAPS.hurried);
        assert!(!NAPS.are_allowed());
        drop(hurry);
        assert!(NAPS.are_allowed());
        breathing.pop();
        assert!(!NAPS.are_allowed());
    }
}
