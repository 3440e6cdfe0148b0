//! A base backup that is due.

use std::time::Duration;

use pgwire_stream::Advice;
use tokio::sync::watch;
use tokio::time;

use super::End;
use crate::backup::{self, BackupError, BackupRequest, Incremental, Retries};
use crate::daemon::board::Ongoing;
use crate::daemon::places::Queue;
use crate::daemon::raised;
use crate::failure::{Failure, in_one_line};
use crate::hooks::{News, Notice};
use crate::progress::ProgressSink;
use crate::receiver::{State, Status};
use crate::settings::{ServerName, ServerSettings};
use crate::storage::{LockError, ServerDir};

/// How long to wait before looking again whether an operator's backup has ended.
const BUSY: Duration = Duration::from_secs(30);

/// How long its WAL may take to come. Then it is as good as before, and waits without us.
const WAL_PATIENCE: Duration = Duration::from_secs(3600);

/// Takes a base backup, and waits until it can be restored. Others have the place while nothing is
/// copied.
pub(in crate::daemon) async fn back_up(
    settings: &ServerSettings,
    store: &ServerDir,
    incremental: bool,
    receiver: Option<Status>,
    ongoing: &Ongoing,
    queue: &Queue,
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
    if let Some(refused) = receiver.filter(|status| status.state == State::Refused) {
        let why = refused.last_error.unwrap_or_default();
        return failed(server, &BackupError::NotReceived { why, advice: refused.last_hint });
    }
    let mut retries = Retries::new(settings);
    let taken = loop {
        let Some(place) = queue.take(stop).await else { return End::CutShort };
        let taken = backup::take(&request, ongoing, stop.clone()).await;
        drop(place);
        let (what, pause) = match taken {
            // Somebody takes one, or removes some: that one comes first.
            Err(BackupError::Lock(LockError::Held { .. })) => {
                ("waiting for another backup to end", BUSY)
            }
            Err(error) => match retries.after(&error, ongoing) {
                Some(pause) => ("waiting for another attempt", pause),
                None => break Err(error),
            },
            Ok(record) => break Ok(record),
        };
        ProgressSink::begin(ongoing, what, None);
        let mut stop = stop.clone();
        tokio::select! {
            () = raised(&mut stop) => return End::CutShort,
            () = time::sleep(pause) => {}
        }
        ProgressSink::finish(ongoing);
    };
    let record = match taken {
        Ok(record) => record,
        Err(BackupError::Interrupted) => return End::CutShort,
        Err(error) => {
            return failed(server, &error);
        }
    };
    let backup = record.id;
    tracing::info!(server = %server, backup = %backup, "a scheduled backup was taken");
    ProgressSink::begin(ongoing, "waiting for its WAL", None);
    match backup::wait_for_wal(store, &record, Some(WAL_PATIENCE), None, stop.clone()).await {
        Ok((_, status)) => tracing::info!(server = %server, backup = %backup, status = %status),
        // It is there, and is settled by whoever looks at it next.
        Err(BackupError::Interrupted) => {}
        Err(error) => {
            let error = in_one_line(&error);
            tracing::warn!(server = %server, backup = %backup, error, "it cannot be restored yet");
            return End::badly(error, None);
        }
    }
    End::Well
}

/// That of a backup of which there is nothing.
fn failed(server: &ServerName, error: &BackupError) -> End {
    let hint = error.hint_about(server.as_str()).unwrap_or_default();
    let line = in_one_line(error);
    tracing::error!(server = %server, error = line, hint, "a scheduled backup failed");
    let may_pass = match error {
        BackupError::Server(error) => error.advice() == Advice::Retry,
        BackupError::NotReceived { .. } => true,
        _ => false,
    };
    let notice = Some(Notice::of(server, News::BackupFailed, error));
    End::Badly { error: line, notice, may_pass }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::board::{Board, Task};
    use crate::daemon::places::Places;
    use crate::settings::ConnInfo;
    use crate::storage::{Access, Home};

    #[tokio::test]
    async fn a_backup_that_waits_for_another_attempt_has_no_place() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path(), Access::Private);
        // Nobody is there.
        let conninfo = ConnInfo::new("host=127.0.0.1 port=1 user=x");
        let mut settings =
            ServerSettings::new("main".parse().unwrap(), conninfo, "walrecv".parse().unwrap());
        settings.basebackup_retry_times = 1;
        settings.basebackup_retry_sleep = Duration::from_secs(3600);
        let (places, board) = (Places::new(1), Board::default());
        let queue = Queue::new(places.clone(), home.clone());
        let (raise, stop) = watch::channel(false);
        let backup = tokio::spawn({
            let (board, settings) = (board.clone(), settings.clone());
            async move {
                let ongoing = board.begin(&settings.name, Task::Backup);
                let store = home.server(&settings.name);
                back_up(&settings, &store, false, None, &ongoing, &queue, &stop).await
            }
        });
        let waits = || {
            let news = board.news();
            let running = news.first().and_then(|news| news.running.first());
            running.is_some_and(|running| running.phase == "waiting for another attempt")
        };
        while !waits() {
            assert!(!backup.is_finished());
            time::sleep(Duration::from_millis(5)).await;
        }
        drop(places.take().await);
        raise.send_replace(true);
        assert!(matches!(backup.await.unwrap(), End::CutShort));
        // The last attempt fails, and may succeed later.
        settings.basebackup_retry_times = 0;
        let (store, ongoing) =
            (directory.path().to_owned(), board.begin(&settings.name, Task::Backup));
        let home = Home::new(&store, Access::Private);
        let (queue, (_raise, stop)) = (Queue::new(places, home.clone()), watch::channel(false));
        let store = home.server(&settings.name);
        let end = back_up(&settings, &store, false, None, &ongoing, &queue, &stop).await;
        assert!(matches!(end, End::Badly { may_pass: true, .. }));
        // None is taken whose WAL is lost while it is copied.
        let mut receiver = Status::new(settings.name.clone(), settings.slot_name.clone());
        receiver.state = State::Refused;
        receiver.last_error = Some("a gap".to_owned());
        let end = back_up(&settings, &store, false, Some(receiver), &ongoing, &queue, &stop).await;
        let End::Badly { error, may_pass: true, notice: Some(_) } = end else { panic!() };
        assert!(error.ends_with("none is received: a gap"), "{error}");
    }
}
