//! What the operator's scripts are told of a backup.

use super::backup_record::{BackupOutcome, BackupRecord};
use super::backups::Catalog;
use super::status::BackupStatus;
use crate::hooks::BackupFacts;

impl Catalog {
    /// What scripts are told of a backup as it is now. What cannot be read of its neighbours or of
    /// its WAL is not told: that is no reason to leave a script out.
    pub fn facts(&self, record: &BackupRecord) -> BackupFacts {
        let backup = self.server().backup(record.id);
        let (mut previous, mut next) = (None, None);
        let mut is_before = true;
        for other in self.list().unwrap_or_default() {
            if other.id == record.id {
                is_before = false;
            } else if other.record.is_ok_and(|other| other.outcome == BackupOutcome::Copied) {
                if is_before {
                    previous = Some(other.id.to_string());
                } else {
                    next = next.or(Some(other.id.to_string()));
                }
            }
        }
        let status = self.standing(record).map(|standing| standing.status);
        BackupFacts {
            dir: backup.path().to_owned(),
            record: backup.record(),
            id: record.id.to_string(),
            previous,
            next,
            status: status.map_or("", BackupStatus::name),
        }
    }
}
