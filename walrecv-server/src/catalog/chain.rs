//! The backups that an incremental one builds on.

use std::collections::BTreeSet;

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
        let mut family = BTreeSet::from([record.id]);
        let mut youngest = record;
        while let Some(parent) = youngest.parent {
            let parent = match BackupRecord::load(&self.server().backup(parent))? {
                // Nobody is an ancestor of itself, so this ends.
                Some(parent)
                    if parent.outcome == BackupOutcome::Copied && family.insert(parent.id) =>
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
