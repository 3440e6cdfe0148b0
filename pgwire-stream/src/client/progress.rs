//! How far WAL has come on our side, shared between the stream and whoever makes it durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::{Lsn, Misuse};

/// Tells a [`WalStream`](crate::WalStream) how far its WAL has come, from any thread.
///
/// Positions only ever grow: reporting an older one changes nothing. Nothing but
/// [`flushed`](Self::flushed) moves the position before which the server may forget its WAL.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Invariant: `flushed <= max(received, flushed at the start)`.
    received: AtomicU64,
    written: AtomicU64,
    flushed: AtomicU64,
    applied: AtomicU64,
    server_end: AtomicU64,
    news: Notify,
}

/// How far WAL has come, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Positions {
    /// Received from the server. In a logical stream, how far the server has decoded, by its last
    /// message: everything wanted before it has come.
    pub received: Lsn,
    /// Reported as written.
    pub written: Lsn,
    /// Reported as durable.
    pub flushed: Lsn,
    /// Reported as replayed.
    pub applied: Lsn,
    /// How far the server could send when it was last heard.
    pub server_end: Lsn,
}

impl Progress {
    pub(super) fn new(received: Lsn, flushed: Lsn) -> Self {
        let position = |lsn: Lsn| AtomicU64::new(lsn.as_u64());
        Self(Arc::new(Shared {
            received: position(received),
            written: position(flushed),
            flushed: position(flushed),
            applied: position(Lsn::ZERO),
            server_end: position(Lsn::ZERO),
            news: Notify::new(),
        }))
    }

    /// WAL up to here is written, though perhaps not durable. The server is told with the next
    /// report, and never more than was received.
    pub fn written(&self, lsn: Lsn) {
        self.0.written.fetch_max(lsn.as_u64(), Ordering::AcqRel);
    }

    /// WAL up to here is durable: the server may forget it. The server is told at once, if the
    /// stream is in `next` or `hold`.
    ///
    /// # Errors
    /// If this much was neither received nor durable before the stream began;
    /// [`Positions::received`] says how much a logical stream counts as received.
    pub fn flushed(&self, lsn: Lsn) -> Result<(), Misuse> {
        let received = load(&self.0.received).max(load(&self.0.flushed));
        if lsn > received {
            return Err(Misuse::FlushedBeyondReceived { reported: lsn, received });
        }
        if self.0.flushed.fetch_max(lsn.as_u64(), Ordering::AcqRel) < lsn.as_u64() {
            self.0.news.notify_one();
        }
        Ok(())
    }

    /// WAL up to here is replayed. Something that only stores WAL never reports it, or reports
    /// what is durable if it shall satisfy `synchronous_commit = remote_apply`. The server is told
    /// with the next report.
    pub fn applied(&self, lsn: Lsn) {
        self.0.applied.fetch_max(lsn.as_u64(), Ordering::AcqRel);
    }

    pub(super) fn received(&self, lsn: Lsn) {
        self.0.received.fetch_max(lsn.as_u64(), Ordering::AcqRel);
    }

    pub(super) fn server_end(&self, lsn: Lsn) {
        self.0.server_end.fetch_max(lsn.as_u64(), Ordering::AcqRel);
    }

    /// How far WAL has come.
    pub fn positions(&self) -> Positions {
        let (received, flushed) = (load(&self.0.received), load(&self.0.flushed));
        // Only `flushed` is checked when it is reported; the server checks nothing.
        let most = received.max(flushed);
        Positions {
            received,
            // What is durable is written.
            written: load(&self.0.written).clamp(flushed, most),
            flushed,
            applied: load(&self.0.applied).min(most),
            server_end: load(&self.0.server_end),
        }
    }

    pub(super) fn flushed_to(&self) -> Lsn {
        load(&self.0.flushed)
    }

    /// Completes when the flush position has moved since the last time.
    pub(super) async fn news(&self) {
        self.0.news.notified().await;
    }
}

fn load(position: &AtomicU64) -> Lsn {
    Lsn::from_u64(position.load(Ordering::Acquire))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(address: u64) -> Lsn {
        Lsn::from_u64(address)
    }

    #[test]
    fn nothing_is_flushed_before_it_is_received() {
        let progress = Progress::new(lsn(100), lsn(40));
        assert!(progress.flushed(lsn(100)).is_ok());
        let error = Misuse::FlushedBeyondReceived { reported: lsn(101), received: lsn(100) };
        assert_eq!(progress.flushed(lsn(101)), Err(error));
        progress.received(lsn(200));
        assert!(progress.flushed(lsn(200)).is_ok());
    }

    #[test]
    fn what_was_flushed_before_the_stream_may_be_repeated() {
        let progress = Progress::new(lsn(100), lsn(500));
        assert!(progress.flushed(lsn(500)).is_ok());
        assert!(progress.flushed(lsn(501)).is_err());
    }

    #[test]
    fn positions_never_go_back() {
        let progress = Progress::new(lsn(100), lsn(0));
        progress.flushed(lsn(90)).unwrap();
        progress.flushed(lsn(50)).unwrap();
        progress.written(lsn(10));
        let positions = progress.positions();
        assert_eq!((positions.flushed, positions.written), (lsn(90), lsn(90)));
    }

    #[test]
    fn nothing_is_claimed_beyond_what_was_received() {
        let progress = Progress::new(lsn(100), lsn(0));
        progress.written(lsn(5000));
        progress.applied(lsn(6000));
        let positions = progress.positions();
        assert_eq!((positions.written, positions.applied), (lsn(100), lsn(100)));
    }
}
