//! What becomes of backups that failed: their record stays, their space does not.

use jiff::Timestamp;

use super::BackupError;
use crate::catalog::{BackupOutcome, BackupRecord, Catalog};
use crate::storage::{BackupDir, ServerDir, ServerLock, StorageError, durable};

/// Frees what a backup takes, and records that it failed.
///
/// In this order, because on a full disk the record cannot be written before there is room. A power
/// cut in between leaves one that says that it is being taken, which the next backup settles.
pub(super) fn fail(
    server: &ServerDir,
    mut record: BackupRecord,
    error: String,
) -> Result<(), BackupError> {
    record.outcome = BackupOutcome::Failed { error };
    record.ended_at = Some(Timestamp::now());
    record.archives.clear();
    record.manifest = None;
    free(&server.backup(record.id))?;
    Ok(Catalog::new(server).save(&record)?)
}

/// Settles the backups whose process died, before they had a record or after it, and frees what
/// failed ones still take.
pub(super) fn settle_abandoned(server: &ServerDir, lock: &ServerLock) -> Result<(), BackupError> {
    let catalog = Catalog::new(server);
    catalog.collect_removed(lock);
    catalog.fail_interrupted(lock)?;
    for entry in catalog.list()? {
        // One whose record cannot be read is left alone: nobody knows what it is.
        if let Ok(BackupRecord { outcome: BackupOutcome::Failed { .. }, id, .. }) = entry.record {
            free(&server.backup(id))?;
        }
    }
    Ok(())
}

/// Removes every file but the record.
fn free(backup: &BackupDir) -> Result<(), StorageError> {
    let record = backup.record();
    for name in durable::list_dir(backup.path())? {
        let path = backup.path().join(&name);
        if path != record {
            durable::remove_file(&path)?;
        }
    }
    Ok(())
}
