//! Notes now and then that all WAL of the server is held.
//!
//! An idle server sends no WAL that would tell the time; it answers when it is asked, and says how
//! far it has sent. Of a primary that has nothing more to send, this is where its WAL ends. A standby
//! may be behind its primary, of which it says nothing.

use std::time::{Duration, Instant};

use pgwire_stream::{Keepalive, Lsn, PgTimestamp, TimelineId};

use crate::catalog::CaughtUp;
use crate::storage::ServerDir;

/// Hundreds of servers may share a disk, and a note is a sync.
const INTERVAL: Duration = Duration::from_secs(60);

/// A transaction has its time before its end is written: that of one that is yet to be sent may be
/// so long ago, in microseconds.
const MARGIN: i64 = 10_000_000;

/// What one stream notes.
pub(super) struct CaughtUpNotes {
    server: ServerDir,
    primary: bool,
    noted: Option<Instant>,
}

impl CaughtUpNotes {
    pub(super) fn new(server: &ServerDir, primary: bool) -> Self {
        Self { server: server.clone(), primary, noted: None }
    }

    /// The server has said how far its WAL goes, and so much of it is durable here.
    pub(super) fn heard(&mut self, said: &Keepalive, flushed: Option<Lsn>, timeline: TimelineId) {
        let caught_up = flushed.is_some_and(|flushed| flushed >= said.server_end);
        let due = self.noted.is_none_or(|noted| noted.elapsed() >= INTERVAL);
        if !self.primary || !caught_up || !due {
            return;
        }
        self.noted = Some(Instant::now());
        let at = PgTimestamp::from_micros(said.sent_at.as_micros().saturating_sub(MARGIN));
        let note = CaughtUp { at, lsn: said.server_end, timeline };
        let server = self.server.clone();
        // Nobody waits for it: the next one says more.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = note.save(&server) {
                tracing::warn!(error = %crate::failure::in_one_line(&error), "cannot note that all WAL is held");
            }
        });
    }
}
