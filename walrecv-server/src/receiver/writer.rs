//! The thread that writes one timeline's WAL into segment files and makes it durable.
//!
//! It takes what was received from a queue bounded in bytes, so receiving, writing and syncing
//! overlap and a slow disk fills the queue instead of the memory. When to sync:
//!
//! * at each segment's end;
//! * on demand: the server asked for a reply, or the stream is about to end;
//! * synchronous: whenever the queue is drained. What arrives during a sync is covered by the
//!   next one, so one sync serves all commits that wait;
//! * otherwise: when the queue is drained, but at most once per flush interval; and once per
//!   interval if it never is.
//!
//! Only after a sync has succeeded is its position reported as flushed, and that report is the
//! only source of the flush positions that the server is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pgwire_stream::{Lsn, SegmentName, SegmentSize, TimelineId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::open_segment::{OpenSegment, SegmentError, SyncData};
use crate::storage::ServerDir;

/// How often a full disk is tried again.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(500);

/// What a message costs besides its bytes: its own frame, and its place in the queue.
const MESSAGE_OVERHEAD: usize = 256;

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
    /// The thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// The thread is gone without a word.
    #[error("the writing thread ended unexpectedly")]
    Lost,
}

/// What the writer has to tell, from its own thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// Everything before this position is written.
    Written(Lsn),
    /// Everything before this position is durable.
    Flushed(Lsn),
    /// A segment is complete and waits for the archive.
    Completed(SegmentName),
    /// The disk is full, and the writer waits for room.
    DiskFull(bool),
}

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
    pub(crate) sync_data: SyncData,
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
    Data {
        at: Lsn,
        data: Bytes,
        _room: OwnedSemaphorePermit,
    },
    /// What was queued before is to be made durable.
    Flush,
}

/// The handle of the writing thread. Dropping it without [`finish`](Self::finish) makes the thread
/// end by itself, with everything synced that it was given.
pub(crate) struct WalWriter {
    orders: Sender<Order>,
    room: Arc<Semaphore>,
    budget: u32,
    /// A flush is queued, and nothing behind it.
    flush_queued: bool,
    hurry: Hurry,
    outcome: oneshot::Receiver<Result<Lsn, WriterError>>,
}

/// When dropped, tells the thread not to wait for room on a full disk.
struct Hurry(Arc<AtomicBool>);

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Room for one message in the queue.
pub(crate) struct Room(OwnedSemaphorePermit);

impl WalWriter {
    /// Starts the thread. `report` is called on it.
    pub(crate) fn spawn(
        assignment: Assignment,
        report: impl FnMut(Report) + Send + 'static,
    ) -> Result<Self, WriterError> {
        let (orders, queue) = mpsc::channel();
        let (tell, outcome) = oneshot::channel();
        let hurry = Arc::new(AtomicBool::new(false));
        let budget = assignment.budget;
        let room = Arc::new(Semaphore::new(budget as usize));
        let worker = Worker::new(assignment, queue, Arc::clone(&hurry), Box::new(report));
        thread::Builder::new()
            .name("wal-writer".to_owned())
            .spawn(move || {
                // Nobody listens any more if the handle was dropped.
                let _ = tell.send(worker.run());
            })
            .map_err(WriterError::Thread)?;
        Ok(Self { orders, room, budget, flush_queued: false, hurry: Hurry(hurry), outcome })
    }

    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes + MESSAGE_OVERHEAD).unwrap_or(u32::MAX).min(self.budget)
    }

    /// Room for so many bytes, if there is some now.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Room> {
        let permits = self.permits(bytes);
        Arc::clone(&self.room).try_acquire_many_owned(permits).ok().map(Room)
    }

    /// Waits until there is room for so many bytes. A message larger than the whole budget waits
    /// until the queue is empty. Can be dropped at any time.
    pub(crate) async fn reserve(&mut self, bytes: usize) -> Result<Room, WriterError> {
        let permits = self.permits(bytes);
        let room = Arc::clone(&self.room).acquire_many_owned(permits);
        tokio::select! {
            room = room => room.map(Room).map_err(|_| WriterError::Lost),
            error = self.failed() => Err(error),
        }
    }

    /// Queues received bytes.
    pub(crate) fn write(&mut self, at: Lsn, data: Bytes, room: Room) {
        self.flush_queued = false;
        // If the thread is gone, `failed` tells why.
        let _ = self.orders.send(Order::Data { at, data, _room: room.0 });
    }

    /// Makes everything durable that was queued before. Costs nothing while that is being done: a
    /// server that shuts down asks again as fast as it is answered, however long a sync takes.
    pub(crate) fn flush(&mut self) {
        if !std::mem::replace(&mut self.flush_queued, true) {
            // If the thread is gone, `failed` tells why.
            let _ = self.orders.send(Order::Flush);
        }
    }

    /// Waits for the thread to fail. Can be dropped at any time.
    pub(crate) async fn failed(&mut self) -> WriterError {
        match (&mut self.outcome).await {
            Ok(Err(error)) => error,
            // It ends well only when this handle is given up.
            Ok(Ok(_)) | Err(_) => WriterError::Lost,
        }
    }

    /// Ends the thread: everything queued is written and synced. Returns the position before which
    /// all is durable.
    pub(crate) async fn finish(self) -> Result<Lsn, WriterError> {
        let Self { orders, hurry, outcome, .. } = self;
        drop((orders, hurry));
        outcome.await.unwrap_or(Err(WriterError::Lost))
    }
}

/// The thread's side.
///
/// `flushed <= position` always; between them lies what was written, or found stored, but not yet
/// reported. `flushed <= durable`; between them lies what is stored and will come again to be
/// compared. `open` is the segment that holds the byte at `position`, and is absent at a segment's
/// border until its first byte comes.
struct Worker {
    assignment: Assignment,
    queue: Receiver<Order>,
    hurry: Arc<AtomicBool>,
    report: Box<dyn FnMut(Report) + Send>,
    open: Option<OpenSegment>,
    position: Lsn,
    flushed: Lsn,
    durable: Lsn,
    last_flush: Instant,
}

/// What to do next.
enum Next {
    Order(Order),
    Flush,
    End,
}

impl Worker {
    fn new(
        assignment: Assignment,
        queue: Receiver<Order>,
        hurry: Arc<AtomicBool>,
        report: Box<dyn FnMut(Report) + Send>,
    ) -> Self {
        let Assignment { from, durable, .. } = assignment;
        let last_flush = Instant::now();
        Self {
            assignment,
            queue,
            hurry,
            report,
            open: None,
            position: from,
            flushed: from,
            durable,
            last_flush,
        }
    }

    fn run(mut self) -> Result<Lsn, WriterError> {
        loop {
            match self.next() {
                Next::Order(Order::Data { at, data, _room }) => self.take(at, &data)?,
                Next::Order(Order::Flush) | Next::Flush => self.flush()?,
                Next::End => {
                    self.flush()?;
                    return Ok(self.flushed);
                }
            }
        }
    }

    fn next(&self) -> Next {
        let unflushed = self.flushed < self.position;
        let due = self.last_flush + self.assignment.policy.interval;
        if unflushed && Instant::now() >= due + self.assignment.policy.interval {
            // Never drained: the disk or this thread is the slow part.
            return Next::Flush;
        }
        match self.queue.try_recv() {
            Ok(order) => return Next::Order(order),
            Err(TryRecvError::Disconnected) => return Next::End,
            Err(TryRecvError::Empty) => {}
        }
        if !unflushed {
            return self.queue.recv().map_or(Next::End, Next::Order);
        }
        if self.assignment.policy.synchronous.load(Ordering::Relaxed) {
            return Next::Flush;
        }
        match self.queue.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(order) => Next::Order(order),
            Err(RecvTimeoutError::Timeout) => Next::Flush,
            Err(RecvTimeoutError::Disconnected) => Next::End,
        }
    }

    /// Writes a message, split at segment borders.
    fn take(&mut self, at: Lsn, data: &[u8]) -> Result<(), WriterError> {
        if at != self.position {
            return Err(WriterError::Position { expected: self.position, got: at });
        }
        for piece in self.assignment.segment_size.cut(at, data) {
            self.put(piece.offset, piece.data)?;
            self.position = self.position.saturating_add(piece.data.len() as u64);
            if piece.completes {
                self.complete()?;
            }
        }
        (self.report)(Report::Written(self.position));
        Ok(())
    }

    fn put(&mut self, offset: u32, data: &[u8]) -> Result<(), WriterError> {
        let mut segment = match self.open.take() {
            Some(segment) => segment,
            None => {
                let segment = self.retry_full_disk(|worker| {
                    let Assignment { dir, sync_data, segment_size, .. } = &worker.assignment;
                    let start = segment_size.start_of(segment_size.segment_of(worker.position));
                    OpenSegment::open(dir, worker.segment(), start, Arc::clone(sync_data))
                })?;
                self.durable = self.durable.max(segment.end());
                segment
            }
        };
        self.retry_full_disk(|_| segment.take(u64::from(offset), data))?;
        self.open = Some(segment);
        Ok(())
    }

    /// Tries again while there is no room on the disk: the server keeps what we do not take, and
    /// the connection lives on meanwhile.
    fn retry_full_disk<T>(
        &mut self,
        mut attempt: impl FnMut(&Self) -> Result<T, SegmentError>,
    ) -> Result<T, WriterError> {
        let mut told = false;
        loop {
            match attempt(self) {
                Err(error) if error.is_out_of_space() && !self.hurry.load(Ordering::Relaxed) => {
                    if !told {
                        tracing::error!(error = %error, "the disk is full, waiting for room");
                        (self.report)(Report::DiskFull(true));
                        told = true;
                    }
                    thread::sleep(FULL_DISK_PAUSE);
                }
                result => {
                    if told {
                        (self.report)(Report::DiskFull(false));
                    }
                    return result.map_err(|error| self.error(error));
                }
            }
        }
    }

    /// The last byte of a segment has come, so `position` is at its end.
    fn complete(&mut self) -> Result<(), WriterError> {
        let Some(segment) = self.open.take() else { return Ok(()) };
        let (name, durable) = (segment.name(), self.durable);
        segment.complete().map_err(|source| WriterError::Segment {
            segment: name,
            durable,
            source,
        })?;
        self.reached();
        (self.report)(Report::Completed(name));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriterError> {
        if self.flushed < self.position {
            if let Some(segment) = &mut self.open {
                segment.sync().map_err(|error| self.error(error))?;
            }
            self.reached();
        }
        Ok(())
    }

    /// Everything before `position` is durable now.
    fn reached(&mut self) {
        self.flushed = self.position;
        self.durable = self.durable.max(self.position);
        self.last_flush = Instant::now();
        (self.report)(Report::Flushed(self.flushed));
    }

    fn segment(&self) -> SegmentName {
        let Assignment { segment_size, timeline, .. } = self.assignment;
        SegmentName::new(timeline, segment_size.segment_of(self.position), segment_size)
    }

    fn error(&self, source: SegmentError) -> WriterError {
        WriterError::Segment { segment: self.segment(), durable: self.durable, source }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU64;

    use proptest::prelude::*;

    use super::*;
    use crate::receiver::open_segment::{fdatasync, replace};
    use crate::storage::{Access, Home};

    const MIB: usize = 1 << 20;

    fn store() -> (tempfile::TempDir, ServerDir) {
        let home = tempfile::tempdir().unwrap();
        let dir = Home::new(home.path(), Access::Private).server(&"main".parse().unwrap());
        dir.create().unwrap();
        (home, dir)
    }

    fn assignment(dir: &ServerDir, from: u64) -> Assignment {
        Assignment {
            dir: dir.clone(),
            timeline: TimelineId::FIRST,
            segment_size: SegmentSize::new(MIB as u64).unwrap(),
            from: Lsn::from_u64(from),
            durable: Lsn::from_u64(from),
            policy: FlushPolicy {
                interval: Duration::from_millis(1),
                synchronous: Arc::new(AtomicBool::new(false)),
            },
            budget: 64 << 10,
            sync_data: fdatasync(),
        }
    }

    /// WAL never repeats itself: each position has its own bytes.
    fn wal(from: usize, length: usize) -> Bytes {
        (from..from + length).map(|at| (at * 31 + at / 251) as u8 | 1).collect()
    }

    fn segment(number: u64) -> SegmentName {
        let size = SegmentSize::new(MIB as u64).unwrap();
        SegmentName::new(TimelineId::FIRST, pgwire_stream::SegmentNumber::from_u64(number), size)
    }

    type Reports = Arc<Mutex<Vec<Report>>>;

    fn spawn(assignment: Assignment) -> (WalWriter, Reports) {
        let reports = Reports::default();
        let sink = Arc::clone(&reports);
        let writer =
            WalWriter::spawn(assignment, move |report| sink.lock().unwrap().push(report)).unwrap();
        (writer, reports)
    }

    async fn feed(writer: &mut WalWriter, at: usize, data: Bytes) -> Result<(), WriterError> {
        let room = writer.reserve(data.len()).await?;
        writer.write(Lsn::from_u64(at as u64), data, room);
        Ok(())
    }

    async fn until(mut reached: impl FnMut() -> bool) {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn any_chunking_gives_the_same_files(
            chunks in proptest::collection::vec(1..200_000usize, 1..20),
        ) {
            let (_home, dir) = store();
            let total: usize = chunks.iter().sum();
            let (mut writer, reports) = spawn(assignment(&dir, MIB as u64));
            let end = block_on(async {
                let mut at = MIB;
                for &chunk in &chunks {
                    feed(&mut writer, at, wal(at, chunk)).await.unwrap();
                    at += chunk;
                }
                writer.finish().await.unwrap()
            });
            prop_assert_eq!(end, Lsn::from_u64((MIB + total) as u64));
            let mut stored = Vec::new();
            for number in 0..total / MIB {
                stored.extend(fs::read(dir.streaming_segment(segment(1 + number as u64))).unwrap());
            }
            if !total.is_multiple_of(MIB) {
                let last = segment(1 + (total / MIB) as u64);
                stored.extend(fs::read(dir.streaming_partial(last)).unwrap());
            }
            prop_assert!(stored == wal(MIB, total));
            let completed = reports.lock().unwrap().iter()
                .filter(|report| matches!(report, Report::Completed(_))).count();
            prop_assert_eq!(completed, total / MIB);
        }
    }

    #[test]
    fn nothing_is_reported_that_is_not_synced() {
        let (_home, dir) = store();
        let synced = Arc::new(AtomicU64::new(0));
        let mut assignment = assignment(&dir, 0);
        assignment.policy.synchronous.store(true, Ordering::Relaxed);
        let counter = Arc::clone(&synced);
        assignment.sync_data = Arc::new(move |file| {
            let length = file.metadata()?.len();
            file.sync_data()?;
            counter.fetch_max(length, Ordering::SeqCst);
            Ok(())
        });
        let highest = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&highest);
        let mut writer = WalWriter::spawn(assignment, move |report| {
            if let Report::Flushed(lsn) = report {
                assert!(lsn.as_u64() <= synced.load(Ordering::SeqCst));
                seen.store(lsn.as_u64(), Ordering::SeqCst);
            }
        })
        .unwrap();
        block_on(async {
            for number in 0..100 {
                feed(&mut writer, number * 1000, wal(number * 1000, 1000)).await.unwrap();
                if number % 10 == 9 {
                    writer.flush();
                    let wanted = (number as u64 + 1) * 1000;
                    until(|| highest.load(Ordering::SeqCst) == wanted).await;
                }
            }
            writer.finish().await.unwrap();
        });
    }

    #[test]
    fn what_comes_again_is_compared_and_not_written() {
        let (_home, dir) = store();
        fs::write(dir.streaming_partial(segment(0)), wal(0, 20_000)).unwrap();
        let (mut writer, reports) = spawn(assignment(&dir, 16_384));
        block_on(async {
            feed(&mut writer, 16_384, wal(16_384, 1000)).await.unwrap();
            writer.flush();
            // Not 20000, although that is stored: only what was compared counts.
            let compared = Some(Report::Flushed(Lsn::from_u64(17_384)));
            until(|| reports.lock().unwrap().last().copied() == compared).await;
            assert_eq!(fs::read(dir.streaming_partial(segment(0))).unwrap(), wal(0, 20_000));
            feed(&mut writer, 17_384, wal(17_384, 5000)).await.unwrap();
            writer.finish().await.unwrap();
        });
        assert_eq!(fs::read(dir.streaming_partial(segment(0))).unwrap(), wal(0, 22_384));
    }

    #[test]
    fn a_source_that_sends_something_else_is_refused() {
        let (_home, dir) = store();
        fs::write(dir.streaming_partial(segment(0)), wal(0, 20_000)).unwrap();
        let (mut writer, _) = spawn(assignment(&dir, 0));
        let error = block_on(async {
            let mut other = wal(0, 20_000).to_vec();
            other[9_000] ^= 2;
            feed(&mut writer, 0, other.into()).await.unwrap();
            writer.failed().await
        });
        let WriterError::Segment { source: SegmentError::Diverged { at, .. }, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(at, Lsn::from_u64(9_000));
        assert_eq!(fs::read(dir.streaming_partial(segment(0))).unwrap(), wal(0, 20_000));
    }

    #[test]
    fn a_hole_left_by_a_power_cut_is_received_anew() {
        let (_home, dir) = store();
        // Synced up to 5000; the rest of that block was lost, the next one was not.
        let mut torn = wal(0, 20_000).to_vec();
        torn[5_000..8_192].fill(0);
        fs::write(dir.streaming_partial(segment(0)), torn).unwrap();
        let (mut writer, _) = spawn(assignment(&dir, 0));
        block_on(async {
            feed(&mut writer, 0, wal(0, 30_000)).await.unwrap();
            writer.finish().await.unwrap();
        });
        assert_eq!(fs::read(dir.streaming_partial(segment(0))).unwrap(), wal(0, 30_000));
    }

    #[test]
    fn a_failed_sync_is_final_for_the_file() {
        let (_home, dir) = store();
        let failing = Arc::new(AtomicBool::new(false));
        let mut broken = assignment(&dir, 0);
        let fail = Arc::clone(&failing);
        broken.sync_data = Arc::new(move |file| match fail.load(Ordering::SeqCst) {
            true => Err(io::Error::other("I/O error")),
            false => file.sync_data(),
        });
        let (mut writer, reports) = spawn(broken);
        let error = block_on(async {
            feed(&mut writer, 0, wal(0, 10_000)).await.unwrap();
            writer.flush();
            let flushed = Report::Flushed(Lsn::from_u64(10_000));
            until(|| reports.lock().unwrap().last() == Some(&flushed)).await;
            failing.store(true, Ordering::SeqCst);
            feed(&mut writer, 10_000, wal(10_000, 10_000)).await.unwrap();
            writer.flush();
            writer.failed().await
        });
        let WriterError::Segment { segment: failed, durable, source: SegmentError::Sync(_) } =
            error
        else {
            panic!("{error:?}")
        };
        assert_eq!((failed, durable), (segment(0), Lsn::from_u64(10_000)));
        let flushed = Report::Flushed(Lsn::from_u64(10_000));
        let last =
            reports.lock().unwrap().iter().rfind(|r| matches!(r, Report::Flushed(_))).copied();
        assert_eq!(last, Some(flushed));

        // The bytes past the last successful sync can still be read, and are not believed.
        replace(&dir, failed, 10_000).unwrap();
        assert_eq!(fs::read(dir.streaming_partial(failed)).unwrap(), wal(0, 10_000));
    }

    #[test]
    fn wal_out_of_order_is_refused() {
        let (_home, dir) = store();
        let (mut writer, _) = spawn(assignment(&dir, 0));
        let error = block_on(async {
            feed(&mut writer, 8, wal(8, 8)).await.unwrap();
            writer.failed().await
        });
        assert!(matches!(error, WriterError::Position { .. }), "{error:?}");
    }

    #[test]
    fn the_queue_holds_no_more_than_its_budget() {
        let (_home, dir) = store();
        let hanging = Arc::new(AtomicBool::new(true));
        let mut slow = assignment(&dir, 0);
        slow.policy.synchronous.store(true, Ordering::Relaxed);
        let hangs = Arc::clone(&hanging);
        slow.sync_data = Arc::new(move |_| {
            while hangs.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        let (mut writer, reports) = spawn(slow);
        block_on(async {
            let mut at = 0;
            while let Ok(room) =
                tokio::time::timeout(Duration::from_millis(200), writer.reserve(8192)).await
            {
                writer.write(Lsn::from_u64(at as u64), wal(at, 8192), room.unwrap());
                at += 8192;
            }
            // The disk hangs: what is not written is as much of the budget as can be filled.
            let written = reports.lock().unwrap().iter().rev().find_map(|report| match report {
                Report::Written(lsn) => Some(lsn.as_u64() as usize),
                _ => None,
            });
            assert_eq!(at, written.unwrap() + 7 * 8192);
            assert!(writer.try_reserve(8192).is_none());
            // What is left of it, in the smallest messages.
            let mut small = 0;
            while let Some(room) = writer.try_reserve(1) {
                writer.write(Lsn::from_u64(at as u64), wal(at, 1), room);
                at += 1;
                small += 1;
            }
            assert!((1..=32).contains(&small), "{small}");
            hanging.store(false, Ordering::SeqCst);
            let end = writer.finish().await.unwrap();
            assert_eq!(end, Lsn::from_u64(at as u64));
        });
    }
}
