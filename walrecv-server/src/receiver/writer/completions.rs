//! Segments that are complete: made durable and given their names, in order, while the next one
//! is being written.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use pgwire_stream::{Lsn, SegmentName};

use super::super::open_segment::{OpenSegment, SegmentError};
use super::{Desk, DirectSegment, Marks, Report, Reporter, WriterError};

/// How many segments may be under way. What is behind a slow disk must not grow.
const MOST: usize = 1;

/// A segment whose last byte has come.
pub(super) enum Complete {
    Raw(OpenSegment),
    Direct(Box<DirectSegment>),
}

impl Complete {
    fn name(&self) -> SegmentName {
        match self {
            Self::Raw(segment) => segment.name(),
            Self::Direct(segment) => segment.name(),
        }
    }

    /// Makes it durable, under its final name.
    fn finish(self) -> Result<Report, SegmentError> {
        let name = self.name();
        match self {
            Self::Raw(segment) => segment.complete().map(|()| Report::Completed(name)),
            Self::Direct(segment) => segment.complete().map(|()| Report::Archived(name)),
        }
    }
}

/// The segments that are being completed.
#[derive(Clone)]
pub(super) struct Completions(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// One is done, or one failed.
    news: Condvar,
    marks: Arc<Marks>,
    report: Reporter,
    desk: Weak<Desk>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Complete, Lsn)>,
    /// One is in work.
    working: bool,
    /// Somebody is at work, or about to be.
    attended: bool,
    /// One could not be completed, and none is any more.
    failed: Option<WriterError>,
}

impl Queue {
    fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.working)
    }
}

impl Completions {
    pub(super) fn new(marks: Arc<Marks>, report: Reporter, desk: Weak<Desk>) -> Self {
        let queue = Mutex::default();
        Self(Arc::new(Shared { queue, news: Condvar::new(), marks, report, desk }))
    }

    /// Takes a segment that ends at `end`; waits while too many are under way.
    pub(super) fn push(&self, segment: Complete, end: Lsn) -> Result<(), WriterError> {
        let mut queue = self.0.wait_while(|queue| queue.len() >= MOST);
        if let Some(error) = queue.failed.take() {
            return Err(error);
        }
        queue.waiting.push_back((segment, end));
        let unattended = !std::mem::replace(&mut queue.attended, true);
        drop(queue);
        if unattended {
            let shared = Arc::clone(&self.0);
            match self.0.desk.upgrade() {
                Some(desk) => drop(desk.runtime.spawn_blocking(move || shared.work())),
                None => shared.work(),
            }
        }
        Ok(())
    }

    /// Whether none is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.0.queue().len() == 0
    }

    /// Waits until none is under way.
    pub(super) fn drain(&self) -> Result<(), WriterError> {
        match self.0.wait_while(|queue| queue.len() > 0).failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Why one could not be completed.
    pub(super) fn failure(&self) -> Result<(), WriterError> {
        self.0.queue().failed.take().map_or(Ok(()), Err)
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as this holds and nothing has failed.
    fn wait_while(&self, holds: impl Fn(&Queue) -> bool) -> MutexGuard<'_, Queue> {
        let waits = |queue: &mut Queue| queue.failed.is_none() && holds(queue);
        self.news.wait_while(self.queue(), waits).unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let next = {
                let mut queue = self.queue();
                let next = queue.waiting.pop_front();
                queue.working = next.is_some();
                queue.attended = next.is_some();
                next
            };
            // Also when there was one more: somebody may wait for a place.
            self.news.notify_all();
            let Some((segment, end)) = next else { return };
            let name = segment.name();
            match segment.finish() {
                Ok(report) => {
                    self.marks.note_flushed(end);
                    (self.report)(Report::Flushed(end));
                    (self.report)(report);
                }
                Err(source) => {
                    let durable = self.marks.durable();
                    let mut queue = self.queue();
                    // Nothing behind it may be acknowledged, so nothing of it is kept.
                    let given_up = std::mem::take(&mut queue.waiting);
                    (queue.working, queue.attended) = (false, false);
                    queue.failed = Some(WriterError::Segment { segment: name, durable, source });
                    drop(queue);
                    drop(given_up);
                    self.news.notify_all();
                    // The worker may be at rest.
                    if let Some(desk) = self.desk.upgrade() {
                        let waiting = desk.waiting();
                        desk.wake(waiting);
                    }
                    return;
                }
            }
        }
    }
}
