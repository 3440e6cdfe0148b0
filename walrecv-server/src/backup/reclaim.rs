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
    catalog.collect_unbegun(lock)?;
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::storage::{Access, Home, LockKind};

    #[test]
    fn what_died_before_it_had_a_record_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let server = Home::new(home.path(), Access::Private).server(&"main".parse().unwrap());
        let lock = ServerLock::try_acquire(&server, LockKind::Backup).unwrap();
        let begun = server.base().join("20260305T151133");
        let strange = server.base().join("20260305T151200");
        for (directory, file) in [(&begun, ".backup.json.tmp"), (&strange, "base.tar")] {
            fs::create_dir_all(directory).unwrap();
            fs::write(directory.join(file), b"").unwrap();
        }
        settle_abandoned(&server, &lock).unwrap();
        assert!(!begun.exists());
        assert!(strange.join("base.tar").exists(), "nobody knows what it is");
    }
}
