//! The backups that an incremental one builds on.

use super::backup_record::{BackupOutcome, BackupRecord};
use super::backups::{BackupError, Catalog};

impl Catalog {
    /// The backups that this one builds on: its parent first, the full one last. `None` if one of
    /// them is not there any more, or is none that could be built on.
    ///
    /// # Errors
    /// If a record cannot be read.
    pub fn ancestors(
        &self,
        record: &BackupRecord,
    ) -> Result<Option<Vec<BackupRecord>>, BackupError> {
        let mut ancestors: Vec<BackupRecord> = Vec::new();
        let mut youngest = record;
        while let Some(parent) = youngest.parent {
            let parent = match BackupRecord::load(&self.server().backup(parent))? {
                // Whoever began later is nobody's ancestor, so this ends.
                Some(parent)
                    if parent.outcome == BackupOutcome::Copied
                        && parent.began_at < youngest.began_at =>
                {
                    parent
                }
                _ => return Ok(None),
            };
            ancestors.push(parent);
            youngest = ancestors.last().unwrap_or(record);
        }
        Ok(Some(ancestors))
    }
}
