//! `state/scrub.json`: when everything that is stored was verified last, and what was found.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::document::{self, DocumentError};
use crate::storage::ServerDir;

const FORMAT: u64 = 1;

/// A verification of everything that is stored for a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrub {
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How many base backups were read.
    pub backups: u64,
    /// How many archived WAL segments were read.
    pub segments: u64,
    /// How many bytes of the store.
    pub bytes: u64,
    /// How many problems were found.
    pub problems: u64,
    /// The first of them, a line each.
    pub first_problems: Vec<String>,
}

impl Scrub {
    /// The last one; `None` if there was none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn load(server: &ServerDir) -> Result<Option<Self>, DocumentError> {
        document::load(&server.scrub(), FORMAT)
    }

    /// Notes it. Durable on return.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, server: &ServerDir) -> Result<(), DocumentError> {
        document::save(&server.scrub(), FORMAT, self, server.access())
    }
}
