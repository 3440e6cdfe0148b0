//! Waiting for room on a full disk: the server keeps what we do not take, and the connection lives
//! on meanwhile.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{Report, Reporter};
use crate::storage::is_out_of_space;

/// How often a full disk is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Tries again while there is no room, until nobody wants to wait any more.
#[derive(Clone)]
pub(crate) struct Patience {
    hurry: Arc<AtomicBool>,
    report: Reporter,
}

impl Patience {
    pub(super) fn new(hurry: Arc<AtomicBool>, report: Reporter) -> Self {
        Self { hurry, report }
    }

    /// Makes attempts until one succeeds, or fails otherwise than for want of room.
    pub(super) fn retry<T, E: std::fmt::Display>(
        &self,
        is_full: impl Fn(&E) -> bool,
        mut attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut told = false;
        loop {
            match attempt() {
                Err(error) if is_full(&error) && !self.hurry.load(Ordering::Relaxed) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::error!(error = %error, "the disk is full, waiting for room");
                        (self.report)(Report::DiskFull(true));
                    }
                    thread::sleep(PAUSE);
                }
                result => {
                    if told {
                        (self.report)(Report::DiskFull(false));
                    }
                    return result;
                }
            }
        }
    }
}

/// A sink that waits for room.
pub(crate) struct Patient<W> {
    sink: W,
    patience: Patience,
}

impl<W> Patient<W> {
    pub(super) fn new(sink: W, patience: Patience) -> Self {
        Self { sink, patience }
    }

    pub(super) fn into_inner(self) -> W {
        self.sink
    }
}

impl<W: Write> Write for Patient<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { sink, patience } = self;
        patience.retry(is_out_of_space, || sink.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
