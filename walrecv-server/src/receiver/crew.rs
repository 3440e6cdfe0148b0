//! Few threads for the little that hundreds of streams have to write.
//!
//! To wake a thread takes longer than to write what a stream has gathered. So a thread that is awake
//! does what there is for all streams, job after job. One of them may have to wait for a disk, and
//! the others must not wait with it: when one has waited for [`PATIENCE`], more threads join.

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
    /// How many threads are at work, or about to be.
    hands: usize,
    /// Somebody sees to it that none waits for long.
    watched: bool,
}

impl Jobs {
    /// How many more threads are needed now: as many as there are, but not more than have waited
    /// for long.
    fn wanted(&self, now: Instant) -> usize {
        let long = |(since, _): &&(Instant, Job)| now.duration_since(*since) >= PATIENCE;
        self.waiting.iter().take_while(long).take(self.hands).count()
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
            jobs.hands = 1;
            drop(jobs);
            self.join(runtime);
        } else if !std::mem::replace(&mut jobs.watched, true) {
            drop(jobs);
            runtime.spawn(Arc::clone(self).watch(runtime.clone()));
        }
    }

    /// One more thread, which is counted already.
    fn join(self: &Arc<Self>, runtime: &Handle) {
        let crew = Arc::clone(self);
        drop(runtime.spawn_blocking(move || {
            while let Some(job) = crew.next() {
                // Whoever left it sees that it is lost; the other jobs are not.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        }));
    }

    /// The next job. The thread that finds none is not counted any more.
    fn next(&self) -> Option<Job> {
        let mut jobs = self.jobs();
        let next = jobs.waiting.pop_front();
        if next.is_none() {
            jobs.hands -= 1;
        }
        next.map(|(_, job)| job)
    }

    async fn watch(self: Arc<Self>, runtime: Handle) {
        loop {
            tokio::time::sleep(PATIENCE).await;
            let wanted = {
                let mut jobs = self.jobs();
                jobs.watched = !jobs.waiting.is_empty();
                if !jobs.watched {
                    return;
                }
                let wanted = jobs.wanted(Instant::now());
                jobs.hands += wanted;
                wanted
            };
            for _ in 0..wanted {
                self.join(&runtime);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
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
        let (runtime, crew) = (runtime(), Arc::new(Crew::default()));
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
        // Nobody has watched yet.
        release.send(()).unwrap();
        let threads: BTreeSet<_> =
            (0..50).map(|_| format!("{:?}", told.recv_timeout(LIMIT).unwrap())).collect();
        assert!(threads.len() <= 2, "{threads:?}");
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
    fn threads_join_for_those_that_have_waited_and_at_most_as_many_as_there_are() {
        let now = Instant::now();
        let job = || Box::new(|| ()) as Job;
        let waiting = |long: usize, short: usize| {
            let long = (0..long).map(|_| (now, job()));
            long.chain((0..short).map(|_| (now + PATIENCE, job()))).collect()
        };
        for (long, short, hands, wanted) in [(0, 9, 4, 0), (2, 9, 4, 2), (9, 0, 4, 4)] {
            let jobs = Jobs { waiting: waiting(long, short), hands, watched: true };
            assert_eq!(jobs.wanted(now + PATIENCE), wanted, "{long} {short} {hands}");
        }
    }
}
