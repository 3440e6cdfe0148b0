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
pub(super) const BREATH: Duration = Duration::from_millis(20);

/// What a stream may bring in that time, and still be one that brings little. Less than a socket
/// holds at first, so that one whose server waits for room is not taken for one that has nothing.
pub(super) const LITTLE: usize = 48 << 10;

/// How long a thread sleeps before it looks for news.
const NAP: Duration = Duration::from_millis(4);

/// Fewer streams would gain nothing by naps.
const MANY: usize = 4;

/// How many streams of this process are taking breath.
static BREATHING: AtomicUsize = AtomicUsize::new(0);

/// How much there is that must not wait for naps.
static HURRIED: AtomicUsize = AtomicUsize::new(0);

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
pub(crate) struct Hurry(#[expect(dead_code, reason = "it is there to be dropped")] Counted);

impl Hurry {
    pub(crate) fn new() -> Self {
        Self(Counted::new(&HURRIED))
    }
}

/// Waits for a breath.
pub(super) async fn breath() {
    let _counted = Counted::new(&BREATHING);
    tokio::time::sleep(BREATH).await;
}

/// For threads of the runtime that are about to wait for news: sleeps first while many streams are
/// taking breath, and nobody is in a hurry.
pub fn nap() {
    if BREATHING.load(Ordering::Relaxed) >= MANY && HURRIED.load(Ordering::Relaxed) == 0 {
        std::thread::sleep(NAP);
    }
}
