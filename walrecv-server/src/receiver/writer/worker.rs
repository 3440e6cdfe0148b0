//! What is done with the orders.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pgwire_stream::{Lsn, SegmentName, SegmentNumber};
use tokio::sync::oneshot;

use super::super::breath::is_unhurried;
use super::super::open_segment::{OpenSegment, SegmentError};
use super::completions::{Complete, Completions};
use super::patience::Patience;
use super::sums::Sums;
use super::validation::{News, Validation};
use super::{
    Assignment, Desk, DirectSegment, Marks, Order, Received, Report, Reporter, WriterError,
};

/// How long a synchronous stream is quiet before its segment's file is cut to its content.
const SETTLE: Duration = Duration::from_secs(1);

/// Writes the WAL of one timeline.
///
/// `flushed <= position` always; between them lies what was written, or found stored, but not yet
/// reported. `flushed <= durable`; between them lies what is stored and will come again to be
/// compared. `open` is the segment that holds the byte at `position`, and is absent at a segment's
/// border until its first byte comes.
pub(super) struct Worker {
    assignment: Assignment,
    report: Reporter,
    patience: Patience,
    completions: Completions,
    marks: Arc<Marks>,
    open: Option<Open>,
    position: Lsn,
    /// How far the server could have sent.
    server_end: Lsn,
    /// The flush position when it was last looked at, and since when it is that.
    flushed: (Lsn, Instant),
    /// When the first byte of the open segment came, and how long the last one took.
    segment_began: Instant,
    segment_took: Option<Duration>,
    last_order: Instant,
    validation: Option<Validation>,
    /// Where the archive keeps what comes.
    sums: Option<Sums>,
    /// What was written and is yet to be looked at. Its room is still taken.
    unseen: Vec<Received>,
    /// Who is told how it ended; they know that it is lost when this is.
    tell: oneshot::Sender<Result<Lsn, WriterError>>,
}

enum Open {
    Raw(OpenSegment),
    Direct(Box<DirectSegment>),
}

/// What a worker without orders does.
pub(super) enum Rest {
    /// It rests until there are some.
    Long,
    /// It waits for them until then.
    Until(Instant),
    /// It has something to do.
    None,
}

impl Worker {
    pub(super) fn new(
        mut assignment: Assignment,
        report: Reporter,
        hurry: Arc<AtomicBool>,
        desk: Weak<Desk>,
        tell: oneshot::Sender<Result<Lsn, WriterError>>,
    ) -> Self {
        let Assignment { from, durable, .. } = assignment;
        let now = Instant::now();
        let marks = Arc::new(Marks::new(from, durable));
        let validation = assignment.validation.take().map(|options| Validation::new(options, from));
        let archive = assignment.archive.as_ref();
        let archive = archive.filter(|archive| archive.keeps_them_as_they_come());
        let sums = archive.map(|archive| {
            archive.notes().forget_sums();
            Sums::new(assignment.segment_size)
        });
        Self {
            patience: Patience::new(hurry, Arc::clone(&report)),
            completions: Completions::new(Arc::clone(&marks), Arc::clone(&report), desk),
            assignment,
            report,
            marks,
            open: None,
            position: from,
            server_end: from,
            flushed: (from, now),
            segment_began: now,
            segment_took: None,
            last_order: now,
            validation,
            sums,
            unseen: Vec::new(),
            tell,
        }
    }

    /// Whether commits wait for what comes next.
    pub(super) fn is_waited_for(&self) -> bool {
        self.is_synchronous() && !self.is_far_behind()
    }

    /// Whether it may wait some milliseconds until a thread has time for it.
    pub(super) fn may_wait_its_turn(&self) -> bool {
        let unhurried = is_unhurried(self.assignment.policy.interval);
        unhurried && !self.is_synchronous() && !self.is_far_behind()
    }

    /// What to do if there are no orders. Does not block.
    pub(super) fn rest(&mut self) -> Result<Rest, WriterError> {
        self.completions.failure()?;
        if self.is_flushed() {
            return Ok(match &self.open {
                Some(Open::Raw(segment)) if segment.is_ahead_of_its_content() => {
                    let settle = self.last_order + SETTLE;
                    if Instant::now() < settle { Rest::Until(settle) } else { Rest::None }
                }
                _ => Rest::Long,
            });
        }
        // All that is left is being completed, and that is reported where it is done.
        if self.open.is_none() {
            return Ok(Rest::Long);
        }
        let due = self.flush_due(Instant::now());
        let now = self.is_synchronous() || Instant::now() >= due;
        Ok(if now { Rest::None } else { Rest::Until(due) })
    }

    /// Does what [`rest`](Self::rest) said.
    pub(super) fn catch_up(&mut self) -> Result<(), WriterError> {
        if self.is_flushed() { self.settle() } else { self.flush() }
    }

    /// Carries out orders.
    pub(super) fn work(&mut self, orders: &mut VecDeque<Order>) -> Result<(), WriterError> {
        self.completions.failure()?;
        self.last_order = Instant::now();
        let before = self.position;
        let mut flush = false;
        let received: Vec<Received> = orders
            .drain(..)
            .filter_map(|order| match order {
                Order::Data(received) => Some(received),
                Order::Flush => {
                    flush = true;
                    None
                }
            })
            .collect();
        let came = received.first().map_or(self.last_order, |received| received.came);
        let mut overdue = self.flush_due(came);
        self.write(&received)?;
        if let Some(Open::Direct(_)) = self.open {
            // What it has is written once more as it came, if it does not become whole soon.
            overdue += self.assignment.policy.interval;
        }
        if flush || self.is_waited_for() || (!self.is_flushed() && Instant::now() >= overdue) {
            self.flush()?;
        }
        // What is flushed is written.
        if self.position > before && !self.is_flushed() {
            (self.report)(Report::Written(self.position));
        }
        if self.validation.is_some() || self.sums.is_some() {
            self.unseen.extend(received);
        }
        Ok(())
    }

    /// Looks at what was written, which may be durable and acknowledged by now.
    pub(super) fn look(&mut self) {
        let written = std::mem::take(&mut self.unseen);
        if !written.is_empty() {
            // What is damaged is held before its sum is noted.
            self.validate(&written);
            self.sum(&written);
        }
    }

    fn sum(&mut self, written: &[Received]) {
        let Some(sums) = &mut self.sums else { return };
        let Assignment { timeline, segment_size, archive: Some(archive), .. } = &self.assignment
        else {
            return;
        };
        for received in written {
            sums.feed(received.at, &received.data, |number, sum| {
                archive.notes().note_sum(SegmentName::new(*timeline, number, *segment_size), sum);
            });
        }
    }

    fn validate(&mut self, written: &[Received]) {
        let Some(validation) = &mut self.validation else { return };
        let Assignment { dir, from, timeline, segment_size, archive, .. } = &self.assignment;
        let mut tell = |news| match news {
            News::Suspect(range) => (self.report)(Report::Suspect(range)),
            News::Segment(number, findings) => {
                if let Some(archive) = archive {
                    archive
                        .notes()
                        .note(SegmentName::new(*timeline, number, *segment_size), findings);
                }
            }
        };
        if validation.next() < *from {
            // The stream began within a segment.
            let segment =
                SegmentName::new(*timeline, segment_size.segment_of(*from), *segment_size);
            validation.read(&dir.streaming_partial(segment), *from, &mut tell);
            if validation.next() < *from {
                tracing::warn!(%segment, "WAL is not validated: what is stored of it cannot be read");
                self.validation = None;
                return;
            }
        }
        for received in written {
            validation.feed(&received.data, &mut tell);
        }
    }

    /// Gives back all that it holds but the one who is told how it ended.
    pub(super) fn dismiss(self) -> oneshot::Sender<Result<Lsn, WriterError>> {
        self.tell
    }

    /// Makes all durable that was written.
    pub(super) fn end(&mut self) -> Result<Lsn, WriterError> {
        self.flush()?;
        self.settle()?;
        Ok(self.marks.flushed())
    }

    pub(super) fn is_synchronous(&self) -> bool {
        self.assignment.policy.synchronous.load(Ordering::Relaxed)
    }

    fn is_flushed(&self) -> bool {
        self.marks.flushed() >= self.position
    }

    /// When something must be synced that came after what is flushed, `came` at the earliest.
    fn flush_due(&mut self, came: Instant) -> Instant {
        let flushed = self.marks.flushed();
        if self.flushed.0 != flushed {
            self.flushed = (flushed, came);
        }
        self.flushed.1 + self.assignment.policy.interval
    }

    /// Whether the server has more than a whole segment for us beyond the one that is open.
    fn is_far_behind(&self) -> bool {
        let size = self.assignment.segment_size;
        let next = size.segment_of(self.position).next();
        size.end_of(next) <= self.server_end
    }

    /// Writes what follows the position, cut at the borders of segments.
    fn write(&mut self, received: &[Received]) -> Result<(), WriterError> {
        // What belongs together: bytes of one segment, in order.
        let mut together: Vec<Bytes> = Vec::new();
        let mut end = self.position;
        for Received { at, data, server_end, .. } in received {
            if *at != end {
                return Err(WriterError::Position { expected: end, got: *at });
            }
            self.server_end = self.server_end.max(*server_end);
            for piece in self.assignment.segment_size.cut(*at, data) {
                together.push(data.slice_ref(piece.data));
                end = end.saturating_add(piece.data.len() as u64);
                if piece.completes {
                    self.put(&together)?;
                    together.clear();
                    self.complete()?;
                }
            }
        }
        if together.is_empty() { Ok(()) } else { self.put(&together) }
    }

    /// Puts bytes that begin at the position into the segment that it lies in.
    fn put(&mut self, pieces: &[Bytes]) -> Result<(), WriterError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open()?,
        };
        let offset = u64::from(self.assignment.segment_size.offset_in_segment(self.position));
        let written = match &mut open {
            Open::Raw(segment) => {
                self.patience.retry(SegmentError::is_out_of_space, || segment.take(offset, pieces))
            }
            Open::Direct(segment) => segment.write(pieces),
        };
        written.map_err(|error| self.error(error))?;
        self.open = Some(open);
        let length: usize = pieces.iter().map(Bytes::len).sum();
        self.position = self.position.saturating_add(length as u64);
        Ok(())
    }

    /// Opens the segment that the position lies in.
    fn open(&mut self) -> Result<Open, WriterError> {
        self.segment_began = Instant::now();
        let name = self.segment();
        let start = self.assignment.segment_size.start_of(self.number());
        let is_new = !self.assignment.dir.streaming_partial(name).exists();
        if let Some(archive) = &self.assignment.archive
            && is_new
            && self.may_go_direct(start)
        {
            let direct = DirectSegment::create(archive, name, start, self.patience.clone());
            if let Some(direct) = direct.map_err(|error| self.error(error))? {
                return Ok(Open::Direct(Box::new(direct)));
            }
        }
        let ahead = is_new && !self.completions.is_idle();
        if !ahead {
            self.completions.drain()?;
        }
        self.create_raw(name, start, ahead).map(Open::Raw)
    }

    fn create_raw(
        &self,
        name: SegmentName,
        start: Lsn,
        ahead: bool,
    ) -> Result<OpenSegment, WriterError> {
        let Assignment { dir, sync_data, segment_size, .. } = &self.assignment;
        let open = || {
            let sync_data = Arc::clone(sync_data);
            if ahead {
                OpenSegment::create_ahead(dir, name, start, *segment_size, sync_data)
            } else {
                OpenSegment::open(dir, name, start, *segment_size, sync_data)
            }
        };
        let segment = self.patience.retry(SegmentError::is_out_of_space, open);
        let segment = segment.map_err(|error| self.error(error))?;
        if !ahead {
            self.marks.note_durable(segment.end());
        }
        Ok(segment)
    }

    /// Whether the segment that begins here may be compressed as it comes. Nothing of it is durable
    /// before all of it is, so that must not take long.
    fn may_go_direct(&self, start: Lsn) -> bool {
        let quick = self.segment_took.is_some_and(|took| took <= self.assignment.policy.interval);
        quick && self.position == start && self.is_far_behind()
    }

    /// The last byte of a segment has come, so `position` is at its end.
    fn complete(&mut self) -> Result<(), WriterError> {
        self.segment_took = Some(self.segment_began.elapsed());
        match self.open.take() {
            Some(Open::Raw(segment)) => {
                self.completions.push(Complete::Raw(segment), self.position)
            }
            Some(Open::Direct(segment)) => {
                self.completions.push(Complete::Direct(segment), self.position)
            }
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), WriterError> {
        // What lies before the open segment first.
        self.completions.drain()?;
        if self.is_flushed() {
            return Ok(());
        }
        match self.open.take() {
            Some(Open::Raw(segment)) => self.sync(segment),
            Some(Open::Direct(segment)) => {
                // Once more as raw bytes, which can be made durable as far as they go.
                let mut raw = self.create_raw(segment.name(), segment.start(), false)?;
                let copied = segment.copy_into(&mut raw);
                copied.map_err(|error| self.error(error))?;
                self.sync(raw)
            }
            None => Ok(()),
        }
    }

    fn sync(&mut self, mut segment: OpenSegment) -> Result<(), WriterError> {
        segment.sync().map_err(|error| self.error(error))?;
        self.marks.note_flushed(self.position);
        (self.report)(Report::Flushed(self.position));
        if self.is_waited_for() {
            segment.prepare();
        }
        self.open = Some(Open::Raw(segment));
        Ok(())
    }

    /// Nothing comes for a while: the file becomes as long as what was received.
    fn settle(&mut self) -> Result<(), WriterError> {
        match &mut self.open {
            Some(Open::Raw(segment)) => segment.settle().map_err(|source| self.error(source)),
            _ => Ok(()),
        }
    }

    fn number(&self) -> SegmentNumber {
        self.assignment.segment_size.segment_of(self.position)
    }

    fn segment(&self) -> SegmentName {
        let Assignment { segment_size, timeline, .. } = self.assignment;
        SegmentName::new(timeline, self.number(), segment_size)
    }

    fn error(&self, source: SegmentError) -> WriterError {
        WriterError::Segment { segment: self.segment(), durable: self.marks.durable(), source }
    }
}
