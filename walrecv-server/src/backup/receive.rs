//! From the socket to the thread that stores: back-pressure and interruption.

use std::future::pending;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures::{Stream, StreamExt};
use pgwire_stream::BackupEvent;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::{task, time};

use super::BackupError;
use super::blocking::{blocking, finished};
use super::contents::ContentsWriter;
use crate::progress::ProgressSink;
use crate::receiver::Hurry;

/// How many bytes may be received but not stored yet. Past this, nothing is read from the socket,
/// and the server waits.
const IN_FLIGHT: usize = 4 << 20;

/// How many bytes are handed over together: to wake a thread costs more than to store a message.
const TOGETHER: usize = 512 << 10;

/// How long what has come waits for more of it at most.
const GATHERING: Duration = Duration::from_millis(20);

/// What an event takes besides its bytes, so that a server that sends none fills no memory either.
const EVENT_OVERHEAD: usize = 256;

/// How long nothing may come once data flows. A server that sends so slowly, or that is there no more
/// without a word, would keep the backup's place for ever.
const STALL: Duration = Duration::from_secs(600);

/// Events, and the room that their bytes take until they are stored.
type Work = (Vec<BackupEvent>, OwnedSemaphorePermit);

/// Hands what the server sends to a thread that stores it, until the stream ends. Whether it ended
/// well is for the stream to say, and then for [`ContentsWriter::finish`]. The thread first makes
/// ready to store by `begin`, which may wait for the disk: the server does not.
///
/// Not cancel-safe: dropped, it leaves a backup that is not known to have failed. To stop, raise
/// `interrupted`; everything that was begun is given up then before this returns.
pub(super) async fn receive(
    mut events: impl Stream<Item = Result<BackupEvent, pgwire_stream::Error>> + Unpin,
    begin: impl FnOnce() -> Result<ContentsWriter, BackupError> + Send + 'static,
    interrupted: &mut watch::Receiver<bool>,
    progress: &dyn ProgressSink,
) -> Result<ContentsWriter, BackupError> {
    let _hurry = Hurry::new();
    let (work, queue) = mpsc::channel();
    let mut storing = task::spawn_blocking(move || store(begin()?, &queue));
    let received = tokio::select! {
        received = hand_over(&mut events, work, progress) => received,
        () = raised(interrupted) => Err(BackupError::Interrupted),
        // Before the queue is closed, only by what it met with.
        given_up = &mut storing => return finished(given_up),
    };
    // The queue is closed now. What the thread met with comes first: if it gave up, the stream was
    // left for that reason.
    let contents = finished(storing.await)?;
    match received {
        Ok(()) => Ok(contents),
        Err(error) => {
            give_up(contents).await;
            Err(error)
        }
    }
}

/// Drops what was begun, which waits for files that are on their way to the disk.
pub(super) async fn give_up(contents: ContentsWriter) {
    blocking(move || drop(contents)).await;
}

async fn hand_over(
    events: &mut (impl Stream<Item = Result<BackupEvent, pgwire_stream::Error>> + Unpin),
    work: mpsc::Sender<Work>,
    progress: &dyn ProgressSink,
) -> Result<(), BackupError> {
    let mut events = events.fuse();
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut done = 0;
    while let Some(first) = next(&mut events, done > 0).await? {
        let mut size = 0;
        let mut together = Vec::new();
        let mut next = Some(first);
        let deadline = time::Instant::now() + GATHERING;
        while let Some(event) = next {
            let event = event?;
            size += EVENT_OVERHEAD;
            size += match &event {
                BackupEvent::ArchiveData(bytes) => {
                    done += bytes.len() as u64;
                    bytes.len()
                }
                BackupEvent::ManifestData(bytes) => bytes.len(),
                _ => 0,
            };
            together.push(event);
            // What comes next is taken along, unless it takes its time.
            next = if size < TOGETHER {
                time::timeout_at(deadline, events.next()).await.ok().flatten()
            } else {
                None
            };
        }
        let permits = u32::try_from(size.min(IN_FLIGHT)).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(&room).acquire_many_owned(permits).await else { break };
        if work.send((together, permit)).is_err() {
            break;
        }
        progress.advance_to(done);
    }
    Ok(())
}

/// The next event, which has its time when data flows: before that, the server makes a checkpoint.
async fn next(
    events: &mut (impl Stream<Item = Result<BackupEvent, pgwire_stream::Error>> + Unpin),
    flows: bool,
) -> Result<Option<Result<BackupEvent, pgwire_stream::Error>>, pgwire_stream::Error> {
    if !flows {
        return Ok(events.next().await);
    }
    let what = "the next part of the backup";
    let next = time::timeout(STALL, events.next()).await;
    next.map_err(|_| pgwire_stream::Error::Timeout { what, limit: STALL })
}

fn store(
    mut contents: ContentsWriter,
    queue: &mpsc::Receiver<Work>,
) -> Result<ContentsWriter, BackupError> {
    for (events, room) in queue {
        events.into_iter().try_for_each(|event| contents.take(event))?;
        drop(room);
    }
    Ok(contents)
}

/// Returns when the user wants no backup any more.
pub(super) async fn raised(interrupted: &mut watch::Receiver<bool>) {
    if interrupted.wait_for(|raised| *raised).await.is_err() {
        // Nobody is left who could raise it.
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use pgwire_stream::Error;

    use super::*;
    use crate::progress::Silent;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_falls_silent_in_the_middle_is_given_up() {
        let data = || Ok(BackupEvent::ArchiveData(vec![0; 10].into()));
        let stalls = |first: Vec<Result<BackupEvent, Error>>| async move {
            let (work, _queue) = mpsc::channel();
            let mut events = stream::iter(first).chain(stream::pending());
            let received = hand_over(&mut events, work, &Silent);
            time::timeout(Duration::from_secs(24 * 3600), received).await
        };
        let stalled = stalls(vec![data(), data()]).await.unwrap();
        assert!(matches!(stalled, Err(BackupError::Server(Error::Timeout { .. }))), "{stalled:?}");
        assert!(stalls(Vec::new()).await.is_err(), "a checkpoint may take as long as it likes");
    }
}
