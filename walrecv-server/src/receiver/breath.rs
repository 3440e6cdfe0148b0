//! Letting streams alone for a moment that bring little at a time, where no commit waits for them.
//!
//! Hundreds of streams that bring some hundred bytes with every commit would wake a thread for each
//! of them. So whoever has read all that there was reads again after a [`BREATH`] only, and threads
//! of the runtime that have nothing left to do look for news after a [`NAP`] only, as long as many
//! streams are taking breath: the news of all of them is worth one awakening.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long a stream is let alone.
pub(super) const BREATH: Duration = Duration::from_millis(10);

/// What a stream may bring in that time, and still be one that brings little.
pub(super) const LITTLE: usize = 64 << 10;

/// How long a thread sleeps before it looks for news.
const NAP: Duration = Duration::from_millis(1);

/// Fewer streams would gain nothing by naps.
const MANY: usize = 4;

/// How many streams of this process are taking breath.
static BREATHING: AtomicUsize = AtomicUsize::new(0);

/// One that is counted as long as it lives.
struct Counted;

impl Counted {
    fn new() -> Self {
        BREATHING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        BREATHING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits for a breath.
pub(super) async fn breath() {
    let _counted = Counted::new();
    tokio::time::sleep(BREATH).await;
}

/// For threads of the runtime that are about to wait for news: sleeps first while many streams are
/// taking breath.
pub fn nap() {
    if BREATHING.load(Ordering::Relaxed) >= MANY {
        std::thread::sleep(NAP);
    }
}
