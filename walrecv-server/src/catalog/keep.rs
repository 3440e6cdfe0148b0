//! `keep.json`: a backup that no policy removes.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::document::{self, DocumentError};
use crate::storage::{BackupDir, durable};

const FORMAT: u64 = 1;

/// A mark on a backup that is to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// What stays with it.
    pub target: KeepTarget,
    /// Since when it is there.
    pub since: Timestamp,
}

/// What stays with a backup that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepTarget {
    /// All WAL from it on, so that every later point can be reached.
    Full,
    /// The WAL that it needs itself: the point at which it ended can be reached.
    Standalone,
}

impl KeepTarget {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Standalone => "standalone",
        }
    }
}

impl fmt::Display for KeepTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Keep {
    /// The mark on a backup; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read. Whoever removes backups takes that for a mark.
    pub fn load(backup: &BackupDir) -> Result<Option<Self>, DocumentError> {
        document::load(&backup.keep(), FORMAT)
    }

    /// Marks a backup. Durable on return.
    ///
    /// # Errors
    /// If the mark cannot be written.
    pub fn save(&self, backup: &BackupDir) -> Result<(), DocumentError> {
        document::save(&backup.keep(), FORMAT, self, backup.access())
    }

    /// Takes the mark away, if there is one. Durable on return.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn release(backup: &BackupDir) -> Result<(), DocumentError> {
        Ok(durable::remove_file(&backup.keep())?)
    }
}
