//! Few threads for the little that hundreds of streams have to write.
//!
//! To wake a thread takes longer than to write what a stream has gathered. So a thread that is awake
//! does what there is for all streams, job after job. One of them may have to wait for a disk, and
//! the others must not wait with it: while one has waited for [`PATIENCE`], more and more threads
//! join.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::workplace::Job;

/// How long a job waits before more threads join.
const PATIENCE: Duration = Duration::from_millis(5);

/// Those who share the threads. All of them are of one runtime.
#[derive(Default)]
pub(crate) struct Crew {
    jobs: Mutex<Jobs>,
}

#[derive(Default)]
struct Jobs {
    /// With the time at which each was offered.
    waiting: VecDeque<(Instant, Job)>,
    /// How many threads are at work, or will be.
    hands: usize,
    /// How many of them have not begun. A runtime that has no thread for them lets them wait.
    coming: usize,
    /// Somebody sees to it that none waits for long.
    watched: bool,
}

impl Jobs {
    /// How many jobs have waited for too long, and have nobody who comes for them.
    fn overdue(&self, now: Instant) -> usize {
        let long = |(since, _): &&(Instant, Job)| now.duration_since(*since) >= PATIENCE;
        self.waiting.iter().take_while(long).count().saturating_sub(self.coming)
    }
}

impl Crew {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a job done that may block, in its turn.
    pub(super) fn offer(self: &Arc<Self>, runtime: &Handle, job: Job) {
        let mut jobs = self.jobs();
        jobs.waiting.push_back((Instant::now(), job));
        if jobs.hands == 0 {
            let hand = Hand::new(self, &mut jobs);
            drop(jobs);
            hand.join(runtime);
        } else if !std::mem::replace(&mut jobs.watched, true) {
            drop(jobs);
            runtime.spawn(Arc::clone(self).watch(runtime.clone()));
        }
    }

    async fn watch(self: Arc<Self>, runtime: Handle) {
        // How many may join at once: one that waits for its disk says little, many say that it hangs.
        let mut most = 1;
        loop {
            tokio::time::sleep(PATIENCE).await;
            let hands: Vec<Hand> = {
                let mut jobs = self.jobs();
                jobs.watched = !jobs.waiting.is_empty();
                if !jobs.watched {
                    return;
                }
                let wanted = jobs.overdue(Instant::now()).min(most);
                (0..wanted).map(|_| Hand::new(&self, &mut jobs)).collect()
            };
            most = if hands.is_empty() { 1 } else { 2 * most };
            for hand in hands {
                // The runtime panics when it gets no thread, and it gets one sooner or later.
                let _ = catch_unwind(AssertUnwindSafe(|| hand.join(&runtime)));
            }
        }
    }
}

/// One thread.
struct Hand {
    crew: Arc<Crew>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Coming,
    AtWork,
    /// Nobody counts on it any more.
    Gone,
}

impl Hand {
    fn new(crew: &Arc<Crew>, jobs: &mut Jobs) -> Self {
        (jobs.hands, jobs.coming) = (jobs.hands + 1, jobs.coming + 1);
        Self { crew: Arc::clone(crew), stage: Stage::Coming }
    }

    fn join(mut self, runtime: &Handle) {
        drop(runtime.spawn_blocking(move || {
            while let Some(job) = self.next() {
                // Whoever left it sees that it is lost; the other jobs are not.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        }));
    }

    /// The next job. If there is none, the thread is gone.
    fn next(&mut self) -> Option<Job> {
        let crew = Arc::clone(&self.crew);
        let mut jobs = crew.jobs();
        if std::mem::replace(&mut self.stage, Stage::AtWork) == Stage::Coming {
            jobs.coming -= 1;
        }
        let next = jobs.waiting.pop_front();
        if next.is_none() {
            jobs.hands -= 1;
            self.stage = Stage::Gone;
        }
        next.map(|(_, job)| job)
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        if self.stage == Stage::Gone {
            return;
        }
        // The runtime ends, and has dropped what had not begun.
        let mut jobs = self.crew.jobs();
        jobs.hands -= 1;
        jobs.coming -= usize::from(self.stage == Stage::Coming);
        let lost =
            if jobs.hands == 0 { std::mem::take(&mut jobs.waiting) } else { VecDeque::new() };
        drop(jobs);
        drop(lost);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::mpsc;
    use std::thread::ThreadId;

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    /// What a job that was lost would keep a test waiting for.
    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn one_thread_does_what_comes_while_it_is_at_work() {
        // Nobody drives it, and so nobody watches.
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let crew = Arc::new(Crew::default());
        let (tell, told) = mpsc::channel::<ThreadId>();
        let (release, hang) = mpsc::channel::<()>();
        crew.offer(runtime.handle(), Box::new(move || hang.recv().unwrap()));
        for _ in 0..50 {
            let tell = tell.clone();
            crew.offer(
                runtime.handle(),
                Box::new(move || tell.send(std::thread::current().id()).unwrap()),
            );
        }
        release.send(()).unwrap();
        let threads: HashSet<_> = (0..50).map(|_| told.recv_timeout(LIMIT).unwrap()).collect();
        assert_eq!(threads.len(), 1);
    }

    #[test]
    fn jobs_that_hang_keep_no_others_whatever_their_number() {
        let (runtime, crew) = (runtime(), Arc::new(Crew::default()));
        let (hung, hangs) = mpsc::channel::<mpsc::Sender<()>>();
        for _ in 0..100 {
            let hung = hung.clone();
            crew.offer(
                runtime.handle(),
                Box::new(move || {
                    let (release, hang) = mpsc::channel::<()>();
                    hung.send(release).unwrap();
                    hang.recv().unwrap();
                }),
            );
        }
        let (tell, told) = mpsc::channel::<()>();
        crew.offer(runtime.handle(), Box::new(move || tell.send(()).unwrap()));
        told.recv_timeout(LIMIT).unwrap();
        let releases: Vec<_> = (0..100).map(|_| hangs.recv_timeout(LIMIT).unwrap()).collect();
        releases.iter().for_each(|release| release.send(()).unwrap());
    }

    #[test]
    fn a_job_that_panics_takes_no_other_along_and_no_thread_is_left_over() {
        let (runtime, crew) = (runtime(), Arc::new(Crew::default()));
        for _ in 0..3 {
            let (tell, told) = mpsc::channel::<()>();
            crew.offer(runtime.handle(), Box::new(|| panic!("on purpose")));
            crew.offer(runtime.handle(), Box::new(move || tell.send(()).unwrap()));
            told.recv_timeout(LIMIT).unwrap();
        }
        let began = Instant::now();
        while crew.jobs().hands > 0 {
            assert!(began.elapsed() < LIMIT);
            std::thread::yield_now();
        }
    }

    #[test]
    fn only_those_are_overdue_that_have_waited_and_for_whom_nobody_comes() {
        let now = Instant::now();
        let job = || Box::new(|| ()) as Job;
        let waiting = |long: usize, short: usize| {
            let long = (0..long).map(|_| (now, job()));
            long.chain((0..short).map(|_| (now + PATIENCE, job()))).collect()
        };
        for (long, short, coming, overdue) in
            [(0, 9, 0, 0), (2, 9, 0, 2), (9, 0, 4, 5), (2, 0, 4, 0)]
        {
            let jobs = Jobs { waiting: waiting(long, short), coming, ..Jobs::default() };
            assert_eq!(jobs.overdue(now + PATIENCE), overdue, "{long} {short} {coming}");
        }
    }

    #[test]
    fn a_runtime_that_ends_leaves_no_job_that_would_never_be_done() {
        struct Told(mpsc::Sender<()>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.send(()).unwrap();
            }
        }
        let (runtime, crew) = (runtime(), Arc::new(Crew::default()));
        let handle = runtime.handle().clone();
        drop(runtime);
        let (tell, told) = mpsc::channel();
        let kept = Told(tell);
        crew.offer(&handle, Box::new(move || drop(kept)));
        told.recv_timeout(LIMIT).unwrap();
        let jobs = crew.jobs();
        assert_eq!((jobs.hands, jobs.coming, jobs.waiting.len()), (0, 0, 0));
    }
}
