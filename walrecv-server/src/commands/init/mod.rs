//! `init`: a first configuration, what the server needs, and whether it can be reached.

mod configuration;
mod needs;
mod next;
mod password_file;
mod slot;
mod trial;

use std::path::PathBuf;

use pgwire_stream::{ServerVersion, SystemId, TimelineId};

use crate::settings::ServerName;

pub use configuration::{Addition, FirstConfiguration, WriteError, write_addition, write_first};
pub use needs::{Needs, this_machine, what_is_needed};
pub use next::Surroundings;
pub use password_file::{PASSWORD_FILE, write_password};
pub use slot::free_slot;
pub use trial::{TrialFailure, attempt};

/// What `init` did, and what is left to do on the server.
#[derive(Clone, Debug)]
pub struct InitOutcome {
    /// The configuration, or the file beside it that adds this server.
    pub file: PathBuf,
    /// Whether it was written now; it is never overwritten.
    pub written: bool,
    /// The file that the password was put into, if one was given.
    pub password_file: Option<PathBuf>,
    /// The server.
    pub server: ServerName,
    /// What is to be done on the server.
    pub needs: Needs,
    /// The server as it was reached; `None` if the conninfo is not known yet, or the server could
    /// not be reached.
    pub reached: Option<Reached>,
    /// What to type next.
    pub next: Vec<NextCommand>,
}

/// A command that is worth typing next, and what it is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextCommand {
    /// The command line.
    pub line: String,
    /// What it does.
    pub purpose: &'static str,
}

/// A server that was reached, and can be backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Its version.
    pub version: ServerVersion,
    /// Which cluster it is.
    pub system_id: SystemId,
    /// The timeline that it is on.
    pub timeline: TimelineId,
    /// The state of the slot: it is there, or it can be made.
    pub slot: TriedSlot,
    /// Whether SQL works, which is worth having; else why not.
    pub sql: Result<(), String>,
}

/// What is known about the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriedSlot {
    /// It exists.
    Exists,
    /// Another one was made and went with its connection, so it can be made.
    CanBeMade,
    /// The server is too old for a slot that leaves nothing behind.
    Untried,
}
