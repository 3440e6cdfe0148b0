//! A stream in a task of its own, for consumers that cannot be in `next` or `hold` all the time.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::{Progress, ReplicationClient, StreamEnd, WalEvent, WalStream};
use crate::{Lsn, Misuse, Result};

/// What an event counts beside its payload, so that keepalives are bounded too.
const OVERHEAD: usize = size_of::<Queued>();

/// An event that waits for its consumer, how far WAL has come with it, and its share of the budget.
type Queued = (WalEvent, Lsn, OwnedSemaphorePermit);

/// Moves a stream into a task of its own on the current runtime, which keeps the session alive and
/// receives ahead of the consumer: events of at most `budget_bytes` wait in memory.
///
/// When the budget is used up nothing is read until the consumer has taken enough, and TCP slows
/// the server down; reports still go out. An event that is larger than the budget passes alone.
/// Beside the budget there are the receive buffers of which events are slices, of some 256 KiB.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn spawn_wal_stream<S>(stream: WalStream<S>, budget_bytes: usize) -> SpawnedWalStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let budget = budget_bytes.clamp(1, Semaphore::MAX_PERMITS);
    let budget = u32::try_from(budget).unwrap_or(u32::MAX);
    let (sender, events) = mpsc::unbounded_channel();
    let (progress, stop) = (stream.progress(), Arc::new(Notify::new()));
    let room = Arc::new(Semaphore::new(budget as usize));
    let queue = Queue { sender, room: Arc::clone(&room), budget };
    let task = tokio::spawn(run(stream, queue, Arc::clone(&stop)));
    SpawnedWalStream { events, room, budget, progress, stop, task: Task::Running(task) }
}

/// The consumer's end of a [`WalStream`] that lives in a task; made by [`spawn_wal_stream`].
///
/// The task answers and reports, but still makes nothing durable: when a server shuts down, it is
/// the consumer that it waits for, as [`WalStream`] tells. Dropping it ends the task and closes
/// the connection.
pub struct SpawnedWalStream<S = crate::net::Stream> {
    events: UnboundedReceiver<Queued>,
    room: Arc<Semaphore>,
    budget: u32,
    progress: Progress,
    stop: Arc<Notify>,
    task: Task<S>,
}

enum Task<S> {
    Running(JoinHandle<(WalStream<S>, Result<()>)>),
    Over(Box<WalStream<S>>),
    Lost,
}

impl<S: AsyncRead + AsyncWrite + Unpin> SpawnedWalStream<S> {
    /// The next event, as [`WalStream::next`].
    ///
    /// Cancel-safe: nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// As [`WalStream::next`], after all events that came before the error; [`Misuse::Failed`] if
    /// the task's runtime has shut down.
    ///
    /// # Panics
    /// If the task has panicked: with its panic.
    pub async fn next(&mut self) -> Result<Option<WalEvent>> {
        if let Some((event, received, _room)) = self.events.recv().await {
            self.progress.received(received);
            return Ok(Some(event));
        }
        match &mut self.task {
            Task::Running(task) => match task.await {
                Ok((stream, result)) => {
                    self.task = Task::Over(Box::new(stream));
                    result.map(|()| None)
                }
                Err(lost) => {
                    self.task = Task::Lost;
                    match lost.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => Err(Misuse::Failed.into()),
                    }
                }
            },
            // Says again that it has ended, or failed.
            Task::Over(stream) => stream.next().await,
            Task::Lost => Err(Misuse::Failed.into()),
        }
    }

    /// The handle by which WAL is reported as written and durable, and which tells how far it has
    /// come. What waits in the queue is not received yet.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// How much of the budget waits for [`next`](Self::next), in bytes: a queue that is always full
    /// has a consumer that is too slow.
    pub fn queued(&self) -> usize {
        (self.budget as usize).saturating_sub(self.room.available_permits())
    }

    /// Asks the server to end the stream, as [`WalStream::stop`]: what is on its way still comes
    /// from [`next`](Self::next).
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// Gives the client back at the end of the stream, and why it ended; as [`WalStream::finish`].
    ///
    /// # Errors
    /// [`Misuse::NotFinished`] before [`next`](Self::next) has given `None`.
    pub fn finish(self) -> Result<(ReplicationClient<S>, StreamEnd)> {
        match self.task {
            Task::Over(stream) => stream.finish(),
            Task::Running(_) | Task::Lost => Err(Misuse::NotFinished.into()),
        }
    }

    /// Gives the client back after an error that left it usable; as [`WalStream::recover`].
    pub fn recover(self) -> Option<ReplicationClient<S>> {
        match self.task {
            Task::Over(stream) => stream.recover(),
            Task::Running(_) | Task::Lost => None,
        }
    }
}

/// The task's end of the channel.
struct Queue {
    sender: UnboundedSender<Queued>,
    /// As many permits as bytes that may still be queued.
    room: Arc<Semaphore>,
    budget: u32,
}

/// Receives until the end of the stream, or until nobody listens.
async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: WalStream<S>,
    queue: Queue,
    stop: Arc<Notify>,
) -> (WalStream<S>, Result<()>) {
    let result = queue.fill(&mut stream, &stop).await;
    (stream, result)
}

impl Queue {
    async fn fill<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut WalStream<S>,
        stop: &Notify,
    ) -> Result<()> {
        loop {
            let event = tokio::select! {
                biased;
                () = self.sender.closed() => return Ok(()),
                () = stop.notified() => {
                    stream.stop()?;
                    continue;
                }
                event = stream.next_unannounced() => event?,
            };
            let Some(event) = event else { return Ok(()) };
            let size = self.size(&event);
            let room = match Arc::clone(&self.room).try_acquire_many_owned(size) {
                Ok(room) => Some(room),
                Err(_) => stream.hold(self.wait_for_room(size)).await?,
            };
            let Some(room) = room else { return Ok(()) };
            if self.sender.send((event, stream.received, room)).is_err() {
                return Ok(());
            }
        }
    }

    /// `None` if nobody listens any more.
    async fn wait_for_room(&self, size: u32) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            room = Arc::clone(&self.room).acquire_many_owned(size) => room.ok(),
            () = self.sender.closed() => None,
        }
    }

    /// What an event takes from the budget: never more than there is.
    fn size(&self, event: &WalEvent) -> u32 {
        let payload = match event {
            WalEvent::Data(data) => data.data.len(),
            WalEvent::Keepalive(_) | WalEvent::PrimaryStatus(_) => 0,
        };
        u32::try_from(payload + OVERHEAD).map_or(self.budget, |size| size.min(self.budget))
    }
}
