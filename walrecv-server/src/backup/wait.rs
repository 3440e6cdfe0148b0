//! Waiting for the WAL that makes a backup usable.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{self, Instant};

use super::BackupError;
use super::blocking::blocking;
use super::receive::raised;
use crate::catalog::{BackupRecord, BackupStatus, Catalog};
use crate::storage::{LockError, LockKind, ServerDir, ServerLock};

/// How often is looked. The receiver makes WAL durable about once a second.
const INTERVAL: Duration = Duration::from_millis(500);

/// Waits until durable WAL reaches the end of a backup, and records that it did.
///
/// Returns the record with the status it has then: `DONE`, or `BROKEN` if the WAL will never come.
///
/// # Errors
/// [`BackupError::NoWal`] after `timeout`; the backup is as good as before. Besides, if the WAL
/// cannot be looked at.
pub async fn wait_for_wal(
    server: &ServerDir,
    record: &BackupRecord,
    timeout: Option<Duration>,
    mut interrupted: watch::Receiver<bool>,
) -> Result<(BackupRecord, BackupStatus), BackupError> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let (here, mut looked_at) = (server.clone(), record.clone());
        let (looked_at, status) =
            blocking(move || look(&here, &mut looked_at).map(|status| (looked_at, status))).await?;
        if let Some(status) = status {
            return Ok((looked_at, status));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let needed = record.end.map(|end| end.lsn).unwrap_or_default();
            let seconds = timeout.unwrap_or_default().as_secs();
            return Err(BackupError::NoWal { needed, seconds });
        }
        tokio::select! {
            () = time::sleep(INTERVAL) => {}
            () = raised(&mut interrupted) => return Err(BackupError::Interrupted),
        }
    }
}

/// The status if it is final.
fn look(
    server: &ServerDir,
    record: &mut BackupRecord,
) -> Result<Option<BackupStatus>, BackupError> {
    let catalog = Catalog::new(server);
    let waiting = |status| matches!(status, BackupStatus::WaitingForWals);
    if waiting(catalog.standing(record)?.status) {
        return Ok(None);
    }
    let lock = match ServerLock::try_acquire(server, LockKind::Backup) {
        Ok(lock) => lock,
        // Another backup is being taken: look again later.
        Err(LockError::Held { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let status = catalog.settle(record, &lock)?.status;
    Ok((!waiting(status)).then_some(status))
}
