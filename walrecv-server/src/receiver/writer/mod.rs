//! Writes one timeline's WAL into segments and makes it durable.
//!
//! ```text
//!  WalWriter ──▶ queue ──▶ Worker ──▶ OpenSegment ─────┐ complete: Completions, in order
//!  (async)      bounded    (a job)    or DirectSegment ┘ sync, rename, report
//!               in bytes      │
//!                             └─ sync by policy, report
//! ```
//!
//! What was received waits in a queue bounded in bytes, so receiving, writing and syncing overlap
//! and a slow disk fills the queue instead of the memory. The [`Worker`] rests while nothing is
//! due, and its thread does something else. It is woken for some amount of bytes or after a while,
//! and at once where commits wait; then, while it keeps up, it works on the thread that receives
//! (`Workplace`). Where nobody waits, it shares threads with other streams (`Crew`) as long as it
//! has little to do; else it has one of the runtime. A segment that is complete is synced and named
//! behind its back while the next is written.
//!
//! When to sync:
//!
//! * at each segment's end;
//! * on demand: the server asked for a reply, or the stream is about to end;
//! * synchronous: as soon as what had arrived is written. What arrives during a sync is covered by
//!   the next one, so one sync serves all commits that wait;
//! * otherwise: when the queue is drained, but at most once per flush interval; and once per
//!   interval if it never is.
//!
//! Only after a sync has succeeded is its position reported as flushed, and that report is the
//! only source of the flush positions that the server is told. Positions are reported in order: a
//! segment is never acknowledged before the one in front of it.

mod completions;
mod direct;
mod patience;
mod sums;
mod validation;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pgwire_stream::wal::WalOptions;
use pgwire_stream::{Lsn, SegmentName, SegmentSize, TimelineId};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit, oneshot};

use self::direct::DirectSegment;
use self::worker::{Rest, Worker};
use super::archive::Archive;
use super::crew::Crew;
use super::open_segment::{SegmentError, SyncData};
use super::workplace::Workplace;
use crate::catalog::SuspectRange;
use crate::storage::ServerDir;

/// What a message costs besides its bytes: its own frame, and its place in the queue.
const MESSAGE_OVERHEAD: usize = 256;

/// What is written at once where nobody waits for it. Less is written after a while.
const GATHERED: usize = 128 << 10;

/// What every stream may have waiting, whatever others have.
const OWN: u32 = 128 << 10;

/// What all streams of the process together may have waiting beyond that. When many begin a new
/// segment at once, the rests of the old ones come faster than any disk takes them.
const SHARED: usize = 2 << 20;

/// What is left of it.
static COMMON: Semaphore = Semaphore::const_new(SHARED);

/// How long a worker that has more to do keeps a thread that it shares.
const A_WHILE: Duration = Duration::from_millis(5);

/// How long bytes are gathered. A stream that brings a few at a time would wake a thread for each.
const GATHERING: Duration = Duration::from_millis(100);

/// Why the writer stopped.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// A segment could not be written or synced, or what came again differs.
    #[error("the WAL segment {segment} cannot be continued; it is durable up to {durable}")]
    Segment {
        /// The segment that was open.
        segment: SegmentName,
        /// Everything before this position is durable.
        durable: Lsn,
        /// What went wrong.
        source: SegmentError,
    },
    /// WAL that does not follow what came before.
    #[error("WAL at {got} came where {expected} was due")]
    Position {
        /// The position that was due.
        expected: Lsn,
        /// The position that came.
        got: Lsn,
    },
    /// The work was lost without a word.
    #[error("the writing of WAL ended unexpectedly")]
    Lost,
}

/// What the writer has to tell, from its own threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// Everything before this position is written.
    Written(Lsn),
    /// Everything before this position is durable.
    Flushed(Lsn),
    /// A segment is complete and waits for the archive.
    Completed(SegmentName),
    /// A segment has gone straight into the archive.
    Archived(SegmentName),
    /// The disk is full, and the writer waits for room.
    DiskFull(bool),
    /// This was written, as it came, and PostgreSQL could not replay it.
    Suspect(SuspectRange),
}

/// Who is told.
type Reporter = Arc<dyn Fn(Report) + Send + Sync>;

/// What to write, where and how.
pub(crate) struct Assignment {
    pub(crate) dir: ServerDir,
    pub(crate) timeline: TimelineId,
    pub(crate) segment_size: SegmentSize,
    /// The position of the first byte that will come. Within a segment only where a file holds
    /// what lies before it.
    pub(crate) from: Lsn,
    /// Everything before this position is known to be durable; not before `from`, and behind it
    /// where what is stored will come again.
    pub(crate) durable: Lsn,
    pub(crate) policy: FlushPolicy,
    /// How many received bytes may wait to be written, with [`MESSAGE_OVERHEAD`] for each message.
    pub(crate) budget: u32,
    /// Where segments may go without a raw file between, while the stream is far behind.
    pub(crate) archive: Option<Arc<Archive>>,
    /// What is known of the WAL, if it is to be validated.
    pub(crate) validation: Option<WalOptions>,
    pub(crate) sync_data: SyncData,
    /// Where the stream's own thread works while commits wait.
    pub(crate) workplace: Option<Arc<Workplace>>,
    /// Who works where nobody waits for it.
    pub(crate) crew: Arc<Crew>,
}

/// When to sync, apart from segment ends and demands.
#[derive(Clone, Debug)]
pub(crate) struct FlushPolicy {
    /// The shortest time between two syncs of a drained queue that is not synchronous.
    pub(crate) interval: Duration,
    /// Whether commits wait for us. May change at any time.
    pub(crate) synchronous: Arc<AtomicBool>,
}

enum Order {
    Data(Received),
    /// What was queued before is to be made durable.
    Flush,
}

/// WAL as it came.
struct Received {
    at: Lsn,
    data: Bytes,
    /// When that was.
    came: Instant,
    /// How far the server could have sent then.
    server_end: Lsn,
    _room: Room,
}

/// The handle of the writing. Dropping it without [`finish`](Self::finish) makes the work end by
/// itself, with everything synced that it was given.
pub(crate) struct WalWriter {
    desk: Arc<Desk>,
    room: Arc<Semaphore>,
    budget: u32,
    /// A flush is queued, and nothing behind it.
    flush_queued: bool,
    outcome: oneshot::Receiver<Result<Lsn, WriterError>>,
}

/// Room for one message in the queue.
pub(crate) struct Room {
    _own: OwnedSemaphorePermit,
    _common: Option<SemaphorePermit<'static>>,
}

impl WalWriter {
    /// Begins to write, at the workplace or on the blocking threads of the runtime; without a
    /// workplace that is the one in which this is called. `report` is called where the work is
    /// done.
    pub(crate) fn start(
        assignment: Assignment,
        report: impl Fn(Report) + Send + Sync + 'static,
    ) -> Self {
        let budget = assignment.budget;
        let (tell, outcome) = oneshot::channel();
        let desk = Desk::new(assignment, Arc::new(report), tell);
        let room = Arc::new(Semaphore::new(budget as usize));
        Self { desk, room, budget, flush_queued: false, outcome }
    }

    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes + MESSAGE_OVERHEAD).unwrap_or(u32::MAX).min(self.budget)
    }

    /// How much of the budget must be free for the stream to need nothing of what all have in
    /// common, once it has taken room for a message: what one message takes is always its own.
    fn spare(&self, permits: u32) -> u32 {
        self.budget - OWN.max(permits).min(self.budget)
    }

    /// Room for so many bytes, if there is some now.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Room> {
        let permits = self.permits(bytes);
        let own = Arc::clone(&self.room).try_acquire_many_owned(permits).ok()?;
        let common = match self.room.available_permits() < self.spare(permits) as usize {
            true => Some(COMMON.try_acquire_many(permits).ok()?),
            false => None,
        };
        Some(Room { _own: own, _common: common })
    }

    /// Waits until there is room for so many bytes. A message larger than the whole budget waits
    /// until the queue is empty. Can be dropped at any time.
    pub(crate) async fn reserve(&mut self, bytes: usize) -> Result<Room, WriterError> {
        if let Some(room) = self.try_reserve(bytes) {
            return Ok(room);
        }
        let permits = self.permits(bytes);
        let spare = self.spare(permits);
        let stream = Arc::clone(&self.room);
        // What is being gathered takes the room.
        self.desk.wake(self.desk.waiting());
        let room = async move {
            let own = Arc::clone(&stream).acquire_many_owned(permits).await?;
            let common = tokio::select! {
                biased;
                little_waits = stream.acquire_many(spare) => little_waits.map(|_| None)?,
                common = COMMON.acquire_many(permits) => Some(common?),
            };
            Ok(Room { _own: own, _common: common })
        };
        tokio::select! {
            room = room => room.map_err(|_: AcquireError| WriterError::Lost),
            error = self.failed() => Err(error),
        }
    }

    /// Queues received bytes. The server could send up to `server_end` by then.
    pub(crate) fn write(&mut self, at: Lsn, data: Bytes, server_end: Lsn, room: Room) {
        self.flush_queued = false;
        // If the work has ended, `failed` tells why.
        self.desk.order(Order::Data(Received {
            at,
            data,
            came: Instant::now(),
            server_end,
            _room: room,
        }));
    }

    /// Makes everything durable that was queued before. Costs nothing while that is being done: a
    /// server that shuts down asks again as fast as it is answered, however long a sync takes.
    pub(crate) fn flush(&mut self) {
        if !std::mem::replace(&mut self.flush_queued, true) {
            // If the work has ended, `failed` tells why.
            self.desk.order(Order::Flush);
        }
    }

    /// Waits for the work to fail. Can be dropped at any time.
    pub(crate) async fn failed(&mut self) -> WriterError {
        match (&mut self.outcome).await {
            Ok(Err(error)) => error,
            // It ends well only when this handle is given up.
            Ok(Ok(_)) | Err(_) => WriterError::Lost,
        }
    }

    /// Ends the work: everything queued is written and synced. Returns the position before which
    /// all is durable.
    pub(crate) async fn finish(mut self) -> Result<Lsn, WriterError> {
        self.desk.close();
        (&mut self.outcome).await.unwrap_or(Err(WriterError::Lost))
    }
}

impl Drop for WalWriter {
    fn drop(&mut self) {
        self.desk.close();
    }
}

/// On which thread a worker works.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Thread {
    /// On one of the crew's.
    Shared,
    Own,
}

/// Where orders wait for the worker, and the worker for orders.
struct Desk {
    waiting: Mutex<Waiting>,
    /// Nobody waits for room on a full disk any more.
    hurry: Arc<AtomicBool>,
    runtime: tokio::runtime::Handle,
    workplace: Option<Arc<Workplace>>,
    crew: Arc<Crew>,
    /// How long bytes are gathered.
    gathering: Duration,
}

struct Waiting {
    orders: VecDeque<Order>,
    /// How many bytes they bring.
    bytes: usize,
    closed: bool,
    /// The worker while it rests; absent while it works, and when it has ended.
    resting: Option<Box<Worker>>,
    /// When the worker will be woken, the latest first.
    alarms: Vec<Instant>,
}

impl Desk {
    fn new(
        assignment: Assignment,
        report: Reporter,
        tell: oneshot::Sender<Result<Lsn, WriterError>>,
    ) -> Arc<Self> {
        let hurry = Arc::new(AtomicBool::new(false));
        let (workplace, crew) = (assignment.workplace.clone(), Arc::clone(&assignment.crew));
        let gathering = GATHERING.min(assignment.policy.interval / 2);
        let runtime = match &workplace {
            Some(workplace) => workplace.common_runtime().clone(),
            None => tokio::runtime::Handle::current(),
        };
        Arc::new_cyclic(|desk| {
            let hurry_up = Arc::clone(&hurry);
            let worker = Worker::new(assignment, report, hurry_up, desk.clone(), tell);
            let waiting = Waiting {
                orders: VecDeque::new(),
                bytes: 0,
                closed: false,
                resting: Some(Box::new(worker)),
                alarms: Vec::new(),
            };
            Self { waiting: Mutex::new(waiting), hurry, runtime, workplace, crew, gathering }
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(self: &Arc<Self>, order: Order) {
        let mut waiting = self.waiting();
        let may_wait = match &order {
            Order::Data(received) => {
                waiting.bytes += received.data.len() + MESSAGE_OVERHEAD;
                waiting.bytes < GATHERED
            }
            Order::Flush => false,
        };
        waiting.orders.push_back(order);
        match &waiting.resting {
            // It is woken for more than a little at a time, unless somebody waits for it.
            Some(worker) if may_wait && !worker.is_synchronous() => {
                self.wake_at(waiting, Instant::now() + self.gathering);
            }
            _ => self.wake(waiting),
        }
    }

    fn close(self: &Arc<Self>) {
        self.hurry.store(true, Ordering::Relaxed);
        let mut waiting = self.waiting();
        waiting.closed = true;
        self.wake(waiting);
    }

    /// Has the worker look what there is.
    fn wake(self: &Arc<Self>, mut waiting: MutexGuard<'_, Waiting>) {
        if let Some(worker) = waiting.resting.take() {
            drop(waiting);
            self.put_to_work(worker);
        }
    }

    /// Wakes the worker at this time, or before: if there is nothing to do yet, it rests again.
    fn wake_at(self: &Arc<Self>, mut waiting: MutexGuard<'_, Waiting>, due: Instant) {
        if waiting.alarms.last().is_some_and(|alarm| *alarm <= due) {
            return;
        }
        waiting.alarms.push(due);
        drop(waiting);
        let desk = Arc::downgrade(self);
        drop(self.runtime.spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            let Some(desk) = desk.upgrade() else { return };
            let mut waiting = desk.waiting();
            waiting.alarms.retain(|alarm| *alarm != due);
            desk.wake(waiting);
        }));
    }

    /// Where the worker is to work now, if that is not on a thread from the runtime.
    fn workplace_of(&self, worker: &Worker) -> Option<&Arc<Workplace>> {
        self.workplace.as_ref().filter(|_| worker.is_waited_for())
    }

    fn put_to_work(self: &Arc<Self>, worker: Box<Worker>) {
        let desk = Arc::clone(self);
        match self.workplace_of(&worker) {
            Some(workplace) => workplace.offer(Box::new(move || desk.work_a_turn(worker))),
            None if worker.may_wait_its_turn() => {
                self.crew.offer(&self.runtime, Box::new(move || desk.work(worker, Thread::Shared)));
            }
            None => self.work_alone(worker),
        }
    }

    fn work_alone(self: &Arc<Self>, worker: Box<Worker>) {
        let desk = Arc::clone(self);
        drop(self.runtime.spawn_blocking(move || desk.work(worker, Thread::Own)));
    }

    /// Works until there is nothing to do. Others wait for a thread that is shared, so one that has
    /// more to do goes on alone after a while.
    fn work(self: Arc<Self>, mut worker: Box<Worker>, thread: Thread) {
        let (began, mut batch) = (Instant::now(), VecDeque::new());
        while let Some(next) = self.turn(worker, &mut batch) {
            worker = next;
            worker.look();
            let long = thread == Thread::Shared && began.elapsed() >= A_WHILE;
            if long && !self.waiting().orders.is_empty() {
                return self.work_alone(worker);
            }
        }
    }

    /// Does one thing, and offers the next: what was reported is to leave before.
    fn work_a_turn(self: Arc<Self>, worker: Box<Worker>) {
        if let Some(worker) = self.turn(worker, &mut VecDeque::new()) {
            self.put_to_work(worker);
        }
    }

    /// Does the next thing that there is to do. Gives the worker back, unless it rests or has ended.
    fn turn(
        self: &Arc<Self>,
        mut worker: Box<Worker>,
        batch: &mut VecDeque<Order>,
    ) -> Option<Box<Worker>> {
        let mut waiting = self.waiting();
        if waiting.orders.is_empty() {
            drop(waiting);
            worker.look();
            waiting = self.waiting();
        }
        std::mem::swap(&mut waiting.orders, batch);
        waiting.bytes = 0;
        let result = if !batch.is_empty() {
            drop(waiting);
            worker.work(batch)
        } else if waiting.closed {
            drop(waiting);
            let result = worker.end();
            self.end(worker, result);
            return None;
        } else {
            match worker.rest() {
                Ok(Rest::Long) => {
                    waiting.resting = Some(worker);
                    return None;
                }
                Ok(Rest::Until(due)) => {
                    waiting.resting = Some(worker);
                    self.wake_at(waiting, due);
                    return None;
                }
                Ok(Rest::None) => {
                    drop(waiting);
                    worker.catch_up()
                }
                Err(error) => {
                    drop(waiting);
                    Err(error)
                }
            }
        };
        match result {
            Ok(()) => Some(worker),
            Err(error) => {
                batch.clear();
                self.end(worker, Err(error));
                None
            }
        }
    }

    /// The work has ended so.
    fn end(&self, worker: Box<Worker>, result: Result<Lsn, WriterError>) {
        // Whatever it still holds is given back before anybody hears of the end.
        let tell = worker.dismiss();
        self.waiting().orders.clear();
        // Nobody listens any more if the handle was dropped.
        let _ = tell.send(result);
    }
}

/// Positions that are told from several threads.
#[derive(Debug)]
struct Marks {
    /// What was reported as flushed.
    flushed: AtomicU64,
    /// What is durable: `flushed`, or more where what is stored will come again to be compared.
    durable: AtomicU64,
}

impl Marks {
    fn new(flushed: Lsn, durable: Lsn) -> Self {
        Self {
            flushed: AtomicU64::new(flushed.as_u64()),
            durable: AtomicU64::new(durable.max(flushed).as_u64()),
        }
    }

    fn flushed(&self) -> Lsn {
        Lsn::from_u64(self.flushed.load(Ordering::Acquire))
    }

    fn durable(&self) -> Lsn {
        Lsn::from_u64(self.durable.load(Ordering::Acquire))
    }

    fn note_durable(&self, lsn: Lsn) {
        self.durable.fetch_max(lsn.as_u64(), Ordering::AcqRel);
    }

    fn note_flushed(&self, lsn: Lsn) {
        self.note_durable(lsn);
        self.flushed.fetch_max(lsn.as_u64(), Ordering::AcqRel);
    }
}
