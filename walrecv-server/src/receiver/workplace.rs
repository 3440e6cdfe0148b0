//! A thread of its own for a connection whose commits wait for us.
//!
//! Handing received WAL to a thread that waits for disks, and the news of its sync back, would cost
//! every commit two wake-ups, which can take as long as the sync. So one thread does both: it
//! *drives* the connection until that has nothing to say, does the [`Job`] that was offered
//! meanwhile, and drives on.
//!
//! A disk that is full or hangs keeps it at its job. Then somebody stands in: the connection is
//! driven by another thread until the job is done, so the server is answered whatever the disk
//! does.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};

use super::{ReceiverError, blocking};

/// How often is looked whether somebody must stand in.
const LOOK: Duration = Duration::from_millis(500);

/// How long a job may take before somebody stands in.
const LONG: Duration = Duration::from_millis(500);

/// What may block.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// Where a connection is driven, and jobs for the same thread are left.
pub(super) struct Workplace {
    desk: Mutex<Desk>,
    /// The runtime of everybody else.
    common: Handle,
}

#[derive(Default)]
struct Desk {
    jobs: VecDeque<Job>,
    /// Since when a job is being done.
    busy: Option<Instant>,
    /// The connection has something to say.
    called: bool,
    /// Whom to wake if it has; nobody while no thread sleeps.
    asleep: Option<Waker>,
    /// Nobody waits for the connection any more.
    abandoned: bool,
    /// The thread has ended.
    closed: bool,
}

/// What the connection calls. Whoever drives it between two jobs looks at it anyway, and is not
/// woken: that would be two system calls more for each commit.
impl Wake for Workplace {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut desk = self.desk();
        desk.called = true;
        self.wake_sleeper(desk);
    }
}

impl Workplace {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_sleeper(&self, mut desk: MutexGuard<'_, Desk>) {
        let asleep = desk.asleep.take();
        drop(desk);
        if let Some(asleep) = asleep {
            asleep.wake();
        }
    }

    /// Leaves a job for the thread. When that has ended, others do it.
    pub(super) fn offer(&self, job: Job) {
        let mut desk = self.desk();
        if desk.closed {
            drop(self.common.spawn_blocking(job));
            return;
        }
        desk.jobs.push_back(job);
        self.wake_sleeper(desk);
    }

    /// The runtime in which things may be left that outlive the connection.
    pub(super) fn common_runtime(&self) -> &Handle {
        &self.common
    }

    /// Does a job that waits. Whether there was one.
    fn work(&self) -> bool {
        let mut desk = self.desk();
        let Some(job) = desk.jobs.pop_front() else { return false };
        desk.busy = Some(Instant::now());
        drop(desk);
        let _busy = Busy(self);
        job();
        true
    }

    /// Ends the work when nothing is left of it.
    fn close(&self) {
        while self.work() {}
        let mut desk = self.desk();
        desk.closed = true;
        let late = std::mem::take(&mut desk.jobs);
        drop(desk);
        late.into_iter().for_each(|job| job());
    }

    fn is_kept(&self) -> bool {
        self.desk().busy.is_some_and(|since| since.elapsed() >= LONG)
    }
}

/// A job is being done, as long as this lives.
struct Busy<'a>(&'a Workplace);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut desk = self.0.desk();
        desk.busy = None;
        // Whoever stood in.
        self.0.wake_sleeper(desk);
    }
}

/// Somebody waits for a connection, as long as this lives.
struct Awaited(Arc<Workplace>);

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut desk = self.0.desk();
        desk.abandoned = true;
        self.0.wake_sleeper(desk);
    }
}

/// A connection, and who drives it.
struct Apart<T> {
    place: Arc<Workplace>,
    connection: Mutex<Connection<T>>,
    runtime: OwnRuntime,
}

enum Connection<T> {
    Going(Pin<Box<dyn Future<Output = T> + Send>>),
    /// With what it came to, until that is taken.
    Over(Option<T>),
}

/// The runtime of a connection, given up wherever it is dropped.
pub(super) struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    pub(super) fn new() -> Result<Self, ReceiverError> {
        let built = Builder::new_current_thread().enable_all().build();
        let runtime = built.map_err(|error| ReceiverError::Task(error.to_string()))?;
        Ok(Self(Some(runtime)))
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Has a thread of its own drive what `connection` makes of the thread's workplace.
///
/// Dropped, the connection is dropped, and what it leaves behind is done.
pub(super) async fn apart<T, F>(
    runtime: OwnRuntime,
    connection: impl FnOnce(Arc<Workplace>) -> F,
) -> Result<T, ReceiverError>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let place = Arc::new(Workplace { desk: Mutex::default(), common: Handle::current() });
    let connection = Connection::Going(Box::pin(connection(Arc::clone(&place))));
    let _awaited = Awaited(Arc::clone(&place));
    let apart = Arc::new(Apart { place, connection: Mutex::new(connection), runtime });
    let thread = Arc::clone(&apart);
    let mut thread = std::pin::pin!(blocking(move || thread.live()));
    loop {
        tokio::select! {
            output = &mut thread => return output?.ok_or_else(lost),
            () = tokio::time::sleep(LOOK) => {}
        }
        if apart.place.is_kept() {
            let apart = Arc::clone(&apart);
            blocking(move || apart.stand_in()).await?;
        }
    }
}

fn lost() -> ReceiverError {
    ReceiverError::Task("a connection was lost".to_owned())
}

impl<T> Apart<T> {
    /// Drives and works in turn, to the end.
    fn live(&self) -> Option<T> {
        let lived = catch_unwind(AssertUnwindSafe(|| {
            while !self.drive(|desk| !desk.jobs.is_empty()) {
                self.place.work();
            }
        }));
        let over = std::mem::replace(&mut *self.connection(), Connection::Over(None));
        let output = match over {
            Connection::Over(output) => output,
            Connection::Going(going) => {
                drop(going);
                None
            }
        };
        // What the connection left behind.
        self.place.close();
        lived.map_or_else(|panic| resume_unwind(panic), |()| output)
    }

    /// Drives while the thread is at its job.
    fn stand_in(&self) {
        tracing::debug!("the disk keeps a synchronous stream, somebody else answers the server");
        self.drive(|desk| desk.busy.is_none());
    }

    fn connection(&self) -> MutexGuard<'_, Connection<T>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drives the connection while it has something to say, and then until `enough`. Whether it is
    /// over.
    fn drive(&self, enough: impl Fn(&Desk) -> bool) -> bool {
        let mut connection = self.connection();
        let Some(runtime) = &self.runtime.0 else { return true };
        let waker = Waker::from(Arc::clone(&self.place));
        runtime.block_on(poll_fn(|context| {
            loop {
                let Connection::Going(going) = &mut *connection else { return Poll::Ready(true) };
                {
                    let mut desk = self.place.desk();
                    if desk.abandoned {
                        return Poll::Ready(true);
                    }
                    (desk.called, desk.asleep) = (false, None);
                }
                if let Poll::Ready(output) = going.as_mut().poll(&mut Context::from_waker(&waker)) {
                    *connection = Connection::Over(Some(output));
                    return Poll::Ready(true);
                }
                let mut desk = self.place.desk();
                if enough(&desk) {
                    return Poll::Ready(false);
                }
                if !desk.called && !desk.abandoned {
                    desk.asleep = Some(context.waker().clone());
                    return Poll::Pending;
                }
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    #[test]
    fn jobs_are_done_by_the_thread_that_drives_when_there_is_nothing_to_say() {
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&done);
        let output = runtime().block_on(apart(OwnRuntime::new().unwrap(), |place| async move {
            let thread = std::thread::current().id();
            for number in 0..100 {
                let (done, news) = (Arc::clone(&count), Arc::new(tokio::sync::Notify::new()));
                let tell = Arc::clone(&news);
                place.offer(Box::new(move || {
                    assert_eq!(std::thread::current().id(), thread);
                    done.fetch_add(1, Ordering::SeqCst);
                    tell.notify_one();
                }));
                // Not before this one waits.
                assert_eq!(count.load(Ordering::SeqCst), number);
                news.notified().await;
            }
            7
        }));
        assert_eq!((output.unwrap(), done.load(Ordering::SeqCst)), (7, 100));
    }

    #[test]
    fn a_job_from_elsewhere_wakes_the_thread() {
        let output = runtime().block_on(apart(OwnRuntime::new().unwrap(), |place| async move {
            let (tell, told) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                place.offer(Box::new(move || tell.send(5).unwrap()));
            });
            told.await.unwrap()
        }));
        assert_eq!(output.unwrap(), 5);
    }

    #[test]
    fn a_job_that_hangs_does_not_keep_the_connection() {
        let (release, hang) = mpsc::channel::<()>();
        let answered = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&answered);
        runtime()
            .block_on(apart(OwnRuntime::new().unwrap(), |place| async move {
                let (tell, mut told) = tokio::sync::oneshot::channel();
                place.offer(Box::new(move || {
                    hang.recv().unwrap();
                    assert!(seen.load(Ordering::SeqCst));
                    tell.send(()).unwrap();
                }));
                for _ in 0..3 {
                    assert!(told.try_recv().is_err());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                // Only somebody who stands in gets here.
                answered.store(true, Ordering::SeqCst);
                release.send(()).unwrap();
                told.await.unwrap();
            }))
            .unwrap();
    }

    #[test]
    fn what_is_left_when_it_is_over_is_done() {
        let done = Arc::new(AtomicBool::new(false));
        let job = Arc::clone(&done);
        runtime()
            .block_on(apart(OwnRuntime::new().unwrap(), |place| async move {
                place.offer(Box::new(move || job.store(true, Ordering::SeqCst)));
            }))
            .unwrap();
        assert!(done.load(Ordering::SeqCst));
    }

    #[test]
    fn a_job_that_panics_while_somebody_stands_in_ends_it() {
        let lost: Result<(), _> = runtime().block_on(apart(OwnRuntime::new().unwrap(), |place| {
            place.offer(Box::new(|| {
                std::thread::sleep(3 * LONG);
                panic!("on purpose");
            }));
            std::future::pending()
        }));
        assert!(matches!(lost, Err(ReceiverError::Task(_))));
    }

    #[test]
    fn one_that_nobody_waits_for_is_dropped_and_its_jobs_are_done() {
        let runtime = runtime();
        let done = Arc::new(AtomicBool::new(false));
        let job = Arc::clone(&done);
        runtime.block_on(async {
            let apart = apart(OwnRuntime::new().unwrap(), |place| async move {
                let left =
                    LeftBehind(place, Some(Box::new(move || job.store(true, Ordering::SeqCst))));
                std::future::pending::<()>().await;
                drop(left);
            });
            assert!(tokio::time::timeout(Duration::from_millis(50), apart).await.is_err());
        });
        // Waits for all threads.
        drop(runtime);
        assert!(done.load(Ordering::SeqCst));
    }

    struct LeftBehind(Arc<Workplace>, Option<Job>);

    impl Drop for LeftBehind {
        fn drop(&mut self) {
            self.0.offer(self.1.take().unwrap());
        }
    }

    #[test]
    fn a_connection_that_panics_is_lost_alone() {
        let panics = |_| async { panic!("on purpose") };
        let lost: Result<(), _> = runtime().block_on(apart(OwnRuntime::new().unwrap(), panics));
        assert!(matches!(lost, Err(ReceiverError::Task(_))));
    }
}
