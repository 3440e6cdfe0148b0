//! Notes now and then that all WAL of the server is held.
//!
//! An idle server sends no WAL that would tell the time; it answers when it is asked, and says how
//! far its WAL goes.

use std::time::{Duration, Instant};

use pgwire_stream::{Keepalive, Lsn, TimelineId};

use crate::catalog::CaughtUp;
use crate::storage::ServerDir;

/// Hundreds of servers may share a disk, and a note is a sync.
const INTERVAL: Duration = Duration::from_secs(60);

/// What one stream notes.
pub(super) struct CaughtUpNotes {
    server: ServerDir,
    noted: Option<Instant>,
}

impl CaughtUpNotes {
    pub(super) fn new(server: &ServerDir) -> Self {
        Self { server: server.clone(), noted: None }
    }

    /// The server has said how far its WAL goes, and so much of it is durable here.
    pub(super) fn heard(&mut self, said: &Keepalive, flushed: Option<Lsn>, timeline: TimelineId) {
        let caught_up = flushed.is_some_and(|flushed| flushed >= said.server_end);
        let due = self.noted.is_none_or(|noted| noted.elapsed() >= INTERVAL);
        if !caught_up || !due {
            return;
        }
        self.noted = Some(Instant::now());
        let note = CaughtUp { at: said.sent_at, lsn: said.server_end, timeline };
        let server = self.server.clone();
        // Nobody waits for it: the next one says more.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = note.save(&server) {
                tracing::warn!(error = %crate::failure::in_one_line(&error), "cannot note that all WAL is held");
            }
        });
    }
}
