//! `state/schedule.json`: up to when scheduled moments have had their turn.
//!
//! It tells a run that was missed, because nobody was there at its moment, from one that was not.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::document::{self, DocumentError};
use crate::storage::ServerDir;

const FORMAT: u64 = 1;

/// Up to when the moments of one schedule have had their turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The schedule: another one begins anew.
    pub schedule: String,
    /// All moments up to here have had their turn.
    pub until: Timestamp,
}

/// The turns of a server's schedules, by the names of what they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    turns: BTreeMap<String, Turn>,
}

impl Turns {
    /// Reads them; none, if nothing was scheduled yet.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn load(server: &ServerDir) -> Result<Self, DocumentError> {
        Ok(document::load(&server.schedule(), FORMAT)?.unwrap_or_default())
    }

    /// Writes them. Durable on return.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn save(&self, server: &ServerDir) -> Result<(), DocumentError> {
        document::save(&server.schedule(), FORMAT, self, server.access())
    }

    /// The turn of a schedule.
    pub fn of(&self, name: &str) -> Option<&Turn> {
        self.turns.get(name)
    }

    /// Notes a turn.
    pub fn set(&mut self, name: &str, turn: Turn) {
        self.turns.insert(name.to_owned(), turn);
    }
}
