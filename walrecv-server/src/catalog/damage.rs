//! `damage.json`: that a stored backup is not any more what was stored, as a verification or a restore
//! found. It says so until a verification that looks as closely finds nothing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::document::{self, DocumentError};
use crate::storage::{BackupDir, durable};

const FORMAT: u64 = 1;

/// What was found wrong with a stored backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// When it was found.
    pub found_at: Timestamp,
    /// How much was wrong.
    pub problems: u64,
    /// The first of it.
    pub first: String,
    /// Whether the files in the archives were looked at, and not only how they are stored.
    pub contents: bool,
}

impl Damage {
    /// The damage of a backup; `None` if none is known.
    ///
    /// # Errors
    /// If it cannot be read. Such a backup is not to be counted on either.
    pub fn load(backup: &BackupDir) -> Result<Option<Self>, DocumentError> {
        document::load(&backup.damage(), FORMAT)
    }

    /// Notes it. Durable on return.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, backup: &BackupDir) -> Result<(), DocumentError> {
        document::save(&backup.damage(), FORMAT, self, backup.access())
    }

    /// Takes the note away after nothing was found, unless what was found took a closer look. Durable
    /// on return.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn clear(backup: &BackupDir, contents: bool) -> Result<(), DocumentError> {
        let needed_more =
            matches!(Self::load(backup), Ok(Some(damage)) if damage.contents && !contents);
        if needed_more { Ok(()) } else { Ok(durable::remove_file(&backup.damage())?) }
    }

    /// Whether any is known, or nobody can tell.
    pub(super) fn is_known(backup: &BackupDir) -> bool {
        !matches!(Self::load(backup), Ok(None))
    }
}
