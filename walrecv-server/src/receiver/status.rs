//! How a receiver is, for those who look at it from outside.

use pgwire_stream::{Lsn, PgTimestamp, SlotName, TimelineId};
use serde::{Deserialize, Serialize};

use crate::settings::ServerName;

/// What a receiver is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Making a connection, or deciding where to start.
    #[default]
    Connecting,
    /// WAL flows, or would if there was any.
    Streaming,
    /// Waiting before the next attempt.
    Waiting,
    /// It will not go on by itself: that would mix or lose data.
    Refused,
    /// It was told to stop.
    Stopped,
}

/// How a receiver is.
///
/// `flushed <= written <= received <= server_end`, as long as the last is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whose WAL it receives.
    pub server: ServerName,
    /// Its slot.
    pub slot: SlotName,
    /// What it is doing.
    pub state: State,
    /// Since when.
    pub since: PgTimestamp,
    /// The timeline being received.
    pub timeline: Option<TimelineId>,
    /// Where it started on this connection.
    pub started_at: Option<Lsn>,
    /// Everything before this position was received.
    pub received: Option<Lsn>,
    /// Everything before this position was written.
    pub written: Option<Lsn>,
    /// Everything before this position is durable, and the server was told so.
    pub flushed: Option<Lsn>,
    /// How far the server could send when it was last heard.
    pub server_end: Option<Lsn>,
    /// When the server last sent something.
    pub heard_at: Option<PgTimestamp>,
    /// Whether commits on the server wait for us.
    pub synchronous: bool,
    /// Whether the disk is full, so that nothing can be taken.
    pub disk_full: bool,
    /// Complete segments that wait to be archived.
    pub waiting_for_archive: u64,
    /// Ranges of WAL on this and earlier connections that PostgreSQL could not replay.
    #[serde(default)]
    pub suspect: u64,
    /// What went wrong last, in one line.
    pub last_error: Option<String>,
}

impl Status {
    /// A receiver that has not begun.
    pub fn new(server: ServerName, slot: SlotName) -> Self {
        Self {
            server,
            slot,
            state: State::default(),
            since: std::time::SystemTime::now().into(),
            timeline: None,
            started_at: None,
            received: None,
            written: None,
            flushed: None,
            server_end: None,
            heard_at: None,
            synchronous: false,
            disk_full: false,
            waiting_for_archive: 0,
            suspect: 0,
            last_error: None,
        }
    }

    pub(super) fn enter(&mut self, state: State) {
        if self.state != state {
            self.state = state;
            self.since = std::time::SystemTime::now().into();
        }
    }
}
