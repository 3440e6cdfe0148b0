//! `state/caught_up.json`: when the server was last seen to have no more WAL than was held.
//!
//! It tells that nothing happened until then, where the WAL itself is silent: a restore to a time
//! behind the last transaction is possible, and complete.

use pgwire_stream::{Lsn, PgTimestamp, TimelineId};
use serde::{Deserialize, Serialize};

use super::document::{self, DocumentError};
use crate::storage::ServerDir;

const FORMAT: u64 = 1;

/// A moment at which all WAL of the server was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaughtUp {
    /// When, by the server's clock.
    pub at: PgTimestamp,
    /// Where its WAL ended.
    pub lsn: Lsn,
    /// On which timeline.
    pub timeline: TimelineId,
}

impl CaughtUp {
    /// The last such moment; `None` if none is known.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn load(server: &ServerDir) -> Result<Option<Self>, DocumentError> {
        document::load(&server.caught_up(), FORMAT)
    }

    /// Notes such a moment. Durable on return.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, server: &ServerDir) -> Result<(), DocumentError> {
        document::save(&server.caught_up(), FORMAT, self, server.access())
    }
}
