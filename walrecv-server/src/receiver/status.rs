//! How a receiver is, for those who look at it from outside.

use pgwire_stream::{Lsn, PgTimestamp, SlotName, TimelineId};
use serde::{Deserialize, Serialize};

use super::error::ReceiverError;
use crate::failure::{Failure, in_one_line};
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
    /// When that position last moved.
    #[serde(default)]
    pub flushed_at: Option<PgTimestamp>,
    /// How far the server could send when it was last heard, or when it said who it is.
    pub server_end: Option<Lsn>,
    /// When everything that the server could send was durable last.
    #[serde(default)]
    pub caught_up_at: Option<PgTimestamp>,
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
    /// The WAL that was left out, because the server no longer has it and the operator said to go
    /// on without it.
    #[serde(default)]
    pub left_out: Option<LeftOut>,
    /// What went wrong last, in one line.
    pub last_error: Option<String>,
    /// What the operator can do about it.
    #[serde(default)]
    pub last_hint: Option<String>,
    /// The slot on the other hosts of the conninfo, where it is kept there.
    #[serde(default)]
    pub other_hosts: Vec<HostSlot>,
}

/// WAL that was never received, and will not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The timeline.
    pub timeline: TimelineId,
    /// Its first byte.
    pub from: Lsn,
    /// The byte behind its last.
    pub to: Lsn,
}

/// The slot on a host that WAL is not received from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSlot {
    /// The host, as the conninfo has it.
    pub host: String,
    /// Whether it could be reached on the last visit.
    pub reached: bool,
    /// When it was last visited.
    pub visited_at: Option<PgTimestamp>,
    /// The timeline that it is on.
    pub timeline: Option<TimelineId>,
    /// How far its own WAL goes.
    pub server_end: Option<Lsn>,
    /// From where on the slot keeps its WAL.
    pub position: Option<Lsn>,
    /// How many bytes that was behind what is durable here.
    pub behind_us: Option<u64>,
    /// How many bytes that was behind the end of its own WAL.
    pub behind_server: Option<u64>,
    /// Why the slot is not as it should be, in one line.
    pub last_error: Option<String>,
}

impl HostSlot {
    /// A host that was not visited yet.
    pub(super) fn new(host: String) -> Self {
        Self { host, ..Self::default() }
    }
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
            flushed_at: None,
            server_end: None,
            caught_up_at: None,
            heard_at: None,
            synchronous: false,
            disk_full: false,
            waiting_for_archive: 0,
            suspect: 0,
            left_out: None,
            last_error: None,
            last_hint: None,
            other_hosts: Vec::new(),
        }
    }

    /// How many bytes the server has that are not durable here; `None` unless it streams: what it
    /// has written since it was last heard, nobody knows.
    pub fn lag(&self) -> Option<u64> {
        let behind = self.server_end?.bytes_since(self.flushed?);
        (self.state == State::Streaming).then_some(behind)
    }

    /// What went wrong, and what can be done about it.
    pub(super) fn fail(&mut self, error: &ReceiverError) {
        self.last_error = Some(in_one_line(error));
        self.last_hint = error.hint_about(self.server.as_str());
    }

    /// Everything before this position is durable now.
    pub(super) fn flush(&mut self, lsn: Lsn) {
        let now = Some(std::time::SystemTime::now().into());
        if self.flushed < Some(lsn) {
            self.flushed_at = now;
        }
        self.flushed = Some(lsn);
        self.written = self.written.max(self.flushed);
        if self.server_end.is_none_or(|end| lsn >= end) {
            self.caught_up_at = now;
        }
    }

    /// The server has said how far it could send.
    pub(super) fn hear(&mut self, server_end: Lsn) {
        // An idle server is not behind from the last WAL on, but from the next.
        if self.server_end.is_some() && self.flushed >= self.server_end {
            self.caught_up_at = self.caught_up_at.max(self.heard_at);
        }
        self.server_end = self.server_end.max(Some(server_end));
        self.heard_at = Some(std::time::SystemTime::now().into());
    }

    pub(super) fn enter(&mut self, state: State) {
        if self.state != state {
            self.state = state;
            self.since = std::time::SystemTime::now().into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_server_was_caught_up_when_it_was_last_heard() {
        let mut status = Status::new("main".parse().unwrap(), "walrecv".parse().unwrap());
        status.flush(Lsn::from_u64(100));
        let flushed_at = status.flushed_at;
        assert!(flushed_at.is_some());
        status.hear(Lsn::from_u64(100));
        status.flush(Lsn::from_u64(100));
        assert_eq!(status.flushed_at, flushed_at, "it did not move");
        status.caught_up_at = None;
        let heard_at = status.heard_at;
        status.hear(Lsn::from_u64(150));
        assert_eq!(status.caught_up_at, heard_at);
        status.hear(Lsn::from_u64(200));
        assert_eq!(status.caught_up_at, heard_at, "since then it is behind");
    }
}
