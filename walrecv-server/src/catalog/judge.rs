//! Validating segments of the store, one behind the other.

use std::io::{self, ErrorKind, Read};

use pgwire_stream::wal::{Start, WalOptions, WalValidator};
use pgwire_stream::{Lsn, SegmentName, SegmentNumber, SegmentSize, SystemId, TimelineId};

use super::wal_findings::{FindingsCollector, WalFindings};
use crate::storage::{ArchivedWal, Codec, Form, KeyFile, ServerDir, encryption};

/// How much is read at a time.
const CHUNK: usize = 256 << 10;

/// Validates segments that follow each other.
pub(crate) struct Judge {
    segment_size: SegmentSize,
    timeline: TimelineId,
    validator: WalValidator,
    findings: FindingsCollector,
}

impl Judge {
    /// Of a timeline's segments from `first` on.
    pub(crate) fn new(
        segment_size: SegmentSize,
        timeline: TimelineId,
        first: SegmentNumber,
    ) -> Self {
        Self::with_options(WalOptions::new(segment_size), timeline, first)
    }

    /// Of WAL that must be of this cluster.
    pub(crate) fn of_system(
        system_id: SystemId,
        segment_size: SegmentSize,
        timeline: TimelineId,
        first: SegmentNumber,
    ) -> Self {
        let mut options = WalOptions::new(segment_size);
        options.system_id = Some(system_id);
        Self::with_options(options, timeline, first)
    }

    fn with_options(mut options: WalOptions, timeline: TimelineId, first: SegmentNumber) -> Self {
        options.timeline = Some(timeline);
        let segment_size = options.segment_size;
        let start = segment_size.start_of(first);
        Self {
            segment_size,
            timeline,
            validator: WalValidator::new(options, Start::Anywhere(start)),
            findings: FindingsCollector::new(segment_size, start),
        }
    }

    /// Where the last valid record ends. `None` if nothing could be judged, which is not to say that
    /// anything is wrong.
    pub(crate) fn valid_to(&self) -> Option<Lsn> {
        let position = self.validator.position();
        match (position.valid_to, position.zeros_from) {
            (None, Some(zeros)) => Some(zeros),
            (valid_to, _) => valid_to,
        }
    }

    /// Whether this segment is the one that comes next.
    pub(crate) fn is_at(judge: Option<&Self>, number: SegmentNumber) -> bool {
        judge.is_some_and(|judge| {
            judge.validator.position().next == judge.segment_size.start_of(number)
        })
    }

    /// Takes the WAL that follows.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.validator.feed(bytes, |finding| self.findings.add(&finding));
    }

    /// What was found in a segment, if that is all there is or it is asked for `anyway`.
    pub(crate) fn findings(&mut self, segment: SegmentName, anyway: bool) -> Option<WalFindings> {
        let Ok(number) = segment.number(self.segment_size) else {
            return Some(WalFindings::default());
        };
        let position = self.validator.position();
        let known = anyway || self.findings.is_settled(number, &position);
        known.then(|| self.findings.take(number, &position))
    }

    /// Reads the segments behind the last one until all is known of this one, or as far as the
    /// keys go.
    pub(crate) fn read_on(
        &mut self,
        server: &ServerDir,
        keys: Option<&KeyFile>,
        segment: SegmentName,
    ) {
        let Ok(number) = segment.number(self.segment_size) else { return };
        while !self.findings.is_settled(number, &self.validator.position()) {
            let next = self.validator.position().next;
            let offset = self.segment_size.offset_in_segment(next);
            let name = SegmentName::new(
                self.timeline,
                self.segment_size.segment_of(next),
                self.segment_size,
            );
            let source = if offset == 0 { open_segment(server, keys, name) } else { None };
            let Some(source) = source else { return };
            let read = read_all(source, |bytes| {
                self.feed(bytes);
                !self.findings.is_settled(number, &self.validator.position())
            });
            if read.is_err() {
                return;
            }
        }
    }
}

/// Opens a segment of any directory, or one that is not archived yet, whatever is there of it.
fn open_segment(
    server: &ServerDir,
    keys: Option<&KeyFile>,
    segment: SegmentName,
) -> Option<Box<dyn Read + Send>> {
    let archived = |partial| {
        Form::ALL
            .into_iter()
            .map(move |form| (server.archived_file(ArchivedWal { segment, partial, form }), form))
    };
    let raw = [server.streaming_segment(segment), server.streaming_partial(segment)];
    let raw = raw.into_iter().map(|path| (path, Form::plain(Codec::None)));
    archived(false)
        .chain(raw)
        .chain(archived(true))
        .find_map(|(path, form)| encryption::open(&path, form, keys).ok())
}

/// Reads until `take` has enough.
pub(crate) fn read_all(
    mut source: impl Read,
    mut take: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match source.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                if !take(chunk.get(..read).unwrap_or_default()) {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
