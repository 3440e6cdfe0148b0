//! Waiting for the WAL that makes a backup usable.

use std::time::Duration;

use pgwire_stream::Lsn;
use tokio::sync::watch;
use tokio::time::{self, Instant};

use super::BackupError;
use super::blocking::blocking;
use super::receive::raised;
use crate::catalog::{BackupRecord, BackupStatus, Catalog};
use crate::receiver::Status;
use crate::storage::{LockError, LockKind, ServerDir, ServerLock};

/// How often is looked without a word from the receiver, which makes WAL durable about once a second.
const INTERVAL: Duration = Duration::from_millis(500);

/// Waits until durable WAL reaches the end of a backup, and records that it did. A receiver in this
/// process tells by its status when there is more.
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
    mut receiver: Option<watch::Receiver<Status>>,
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
            let needed = record.end_lsn();
            let seconds = timeout.unwrap_or_default().as_secs();
            return Err(BackupError::NoWal { needed, seconds });
        }
        tokio::select! {
            () = time::sleep(INTERVAL) => {}
            () = reached(&mut receiver, record.end_lsn()) => receiver = None,
            () = raised(&mut interrupted) => return Err(BackupError::Interrupted),
        }
    }
}

/// Returns when a receiver has made everything up to there durable; never, if none tells.
async fn reached(receiver: &mut Option<watch::Receiver<Status>>, end: Lsn) {
    let Some(receiver) = receiver else { return std::future::pending().await };
    let there = receiver.wait_for(|status| status.flushed.is_some_and(|flushed| flushed >= end));
    if there.await.is_err() {
        std::future::pending().await
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{BackupOutcome, Identity, Position};
    use crate::storage::{Access, Home, durable};
    use jiff::Timestamp;
    use pgwire_stream::{SegmentName, SegmentNumber, SegmentSize, ServerVersion};
    use pgwire_stream::{SystemId, TimelineId};
    use std::fs;
    use std::path::Path;

    /// A backup that was copied, and needs the third segment and nothing else.
    fn copied(home: &Path) -> (ServerDir, BackupRecord) {
        let server = Home::new(home, Access::Private).server(&"main".parse().unwrap());
        let identity = Identity {
            system_id: SystemId::from_u64(7),
            segment_size: SegmentSize::new(1 << 20).unwrap(),
            server_version: ServerVersion::from_num(150_020),
            data_checksums: None,
        };
        identity.establish(&server).unwrap();
        let lock = ServerLock::try_acquire(&server, LockKind::Backup).unwrap();
        let position =
            |lsn: &str| Some(Position { lsn: lsn.parse().unwrap(), timeline: TimelineId::FIRST });
        let record = |id| BackupRecord {
            id,
            server: "main".parse().unwrap(),
            outcome: BackupOutcome::Copied,
            name: None,
            label: String::new(),
            parent: None,
            system_id: identity.system_id,
            segment_size: identity.segment_size,
            server_version: identity.server_version,
            data_checksums: None,
            program_version: String::new(),
            began_at: Timestamp::now(),
            ended_at: None,
            done_at: None,
            begin: position("0/200028"),
            end: position("0/200100"),
            tablespaces: Vec::new(),
            archives: Vec::new(),
            manifest: None,
            config_files: None,
            damaged_pages: None,
        };
        let (_, record) = Catalog::new(&server).begin(Timestamp::now(), &lock, record).unwrap();
        (server, record)
    }

    fn segment(server: &ServerDir) -> std::path::PathBuf {
        let size = SegmentSize::new(1 << 20).unwrap();
        let name = SegmentName::new(TimelineId::FIRST, SegmentNumber::from_u64(2), size);
        server.streaming_segment(name)
    }

    #[tokio::test]
    async fn wal_that_arrives_makes_it_done() {
        let home = tempfile::tempdir().unwrap();
        let (server, record) = copied(home.path());
        let (_raise, interrupted) = watch::channel(false);
        let (here, waiting) = (server.clone(), record.clone());
        let waiting =
            tokio::spawn(
                async move { wait_for_wal(&here, &waiting, None, None, interrupted).await },
            );
        time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        durable::write_file(&segment(&server), &vec![0; 1 << 20], Access::Private).unwrap();
        let (settled, status) = waiting.await.unwrap().unwrap();
        assert_eq!(status, BackupStatus::Done);
        assert!(settled.done_at.is_some());
        let stored = Catalog::new(&server).load(record.id).unwrap();
        assert_eq!(stored, settled);

        // What was there once and is not any more never comes back.
        fs::remove_file(segment(&server)).unwrap();
        let (_raise, interrupted) = watch::channel(false);
        let (_, status) = wait_for_wal(&server, &settled, None, None, interrupted).await.unwrap();
        assert_eq!(status, BackupStatus::Broken);
    }

    #[tokio::test]
    async fn waiting_ends_with_the_time_or_at_a_word() {
        let home = tempfile::tempdir().unwrap();
        let (server, record) = copied(home.path());
        let (raise, interrupted) = watch::channel(false);
        let soon = Some(Duration::from_millis(1));
        let error =
            wait_for_wal(&server, &record, soon, None, interrupted.clone()).await.unwrap_err();
        assert!(matches!(error, BackupError::NoWal { .. }), "{error}");
        assert!(error.to_string().contains("0/200100"), "{error}");
        raise.send(true).unwrap();
        let error = wait_for_wal(&server, &record, None, None, interrupted).await.unwrap_err();
        assert!(matches!(error, BackupError::Interrupted), "{error}");
        assert_eq!(Catalog::new(&server).load(record.id).unwrap(), record);
    }
}
