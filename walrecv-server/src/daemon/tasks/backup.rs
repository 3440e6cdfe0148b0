//! A base backup that is due.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time;

use super::End;
use crate::backup::{self, BackupError, BackupRequest, Incremental};
use crate::daemon::board::Ongoing;
use crate::daemon::places::Place;
use crate::daemon::raised;
use crate::failure::{Failure, in_one_line};
use crate::hooks::{News, Notice};
use crate::progress::ProgressSink;
use crate::settings::ServerSettings;
use crate::storage::{LockError, ServerDir};

/// How long to wait before looking again whether an operator's backup has ended.
const BUSY: Duration = Duration::from_secs(30);

/// How long its WAL may take to come. Then it is as good as before, and waits without us.
const WAL_PATIENCE: Duration = Duration::from_secs(3600);

/// Takes a base backup, and waits until it can be restored. The place is for others again when it is
/// copied.
pub(in crate::daemon) async fn back_up(
    settings: &ServerSettings,
    store: &ServerDir,
    incremental: bool,
    ongoing: &Ongoing,
    place: Place,
    stop: &watch::Receiver<bool>,
) -> End {
    let request = BackupRequest {
        server: store.clone(),
        settings: settings.clone(),
        name: None,
        accept_damaged_pages: false,
        incremental: incremental.then_some(Incremental::Auto),
    };
    let server = &settings.name;
    let taken = loop {
        match backup::take_with_retries(&request, ongoing, stop.clone()).await {
            // Somebody takes one, or removes some: that one comes first.
            Err(BackupError::Lock(LockError::Held { .. })) => {
                ProgressSink::begin(ongoing, "waiting for another backup to end", None);
                let mut stop = stop.clone();
                tokio::select! {
                    () = raised(&mut stop) => return End::CutShort,
                    () = time::sleep(BUSY) => {}
                }
            }
            taken => break taken,
        }
    };
    drop(place);
    let record = match taken {
        Ok(record) => record,
        Err(BackupError::Interrupted) => return End::CutShort,
        Err(error) => {
            let (line, hint) = (in_one_line(&error), error.hint().unwrap_or_default());
            tracing::error!(server = %server, error = line, hint, "a scheduled backup failed");
            let notice = Notice::of(server, News::BackupFailed, &error);
            return End::Badly(line, Some(notice));
        }
    };
    let backup = record.id;
    tracing::info!(server = %server, backup = %backup, "a scheduled backup was taken");
    ProgressSink::begin(ongoing, "waiting for its WAL", None);
    match backup::wait_for_wal(store, &record, Some(WAL_PATIENCE), stop.clone()).await {
        Ok((_, status)) => tracing::info!(server = %server, backup = %backup, status = %status),
        // It is there, and is settled by whoever looks at it next.
        Err(BackupError::Interrupted) => {}
        Err(error) => {
            let error = in_one_line(&error);
            tracing::warn!(server = %server, backup = %backup, error, "it cannot be restored yet");
            return End::Badly(error, None);
        }
    }
    End::Well
}
