//! Following the WAL that is written: is it WAL, and what does it say?
//!
//! It comes after the writing, and after the sync where commits wait for that: what it finds
//! delays no acknowledgement and refuses nothing, for the server would keep what we do not take
//! until its disk is full.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use pgwire_stream::wal::{Finding, Start, WalOptions, WalValidator};
use pgwire_stream::{Lsn, SegmentNumber, SegmentSize};

use crate::catalog::{FindingsCollector, SuspectRange, WalFindings};

/// How much is read at a time of what is on the disk already.
const CHUNK: usize = 256 << 10;

/// What came to light.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Bytes that PostgreSQL could not replay.
    Suspect(SuspectRange),
    /// All that will be known of a segment.
    Segment(SegmentNumber, WalFindings),
}

/// The validator of one stream.
#[derive(Debug)]
pub(super) struct Validation {
    size: SegmentSize,
    validator: WalValidator,
    collector: FindingsCollector,
    /// Why WAL is in doubt that the validator has not come to the end of.
    damage: Option<String>,
    /// Segments that were seen to their ends, but whose last record may go on.
    unsettled: VecDeque<SegmentNumber>,
}

impl Validation {
    /// Of the WAL from the beginning of the segment that holds `from`.
    pub(super) fn new(options: WalOptions, from: Lsn) -> Self {
        let size = options.segment_size;
        let start = size.start_of(size.segment_of(from));
        Self {
            size,
            validator: WalValidator::new(options, Start::Anywhere(start)),
            collector: FindingsCollector::new(size, start),
            damage: None,
            unsettled: VecDeque::new(),
        }
    }

    /// The byte that it wants next.
    pub(super) fn next(&self) -> Lsn {
        self.validator.position().next
    }

    /// Takes what is on the disk of a segment, up to `end`.
    pub(super) fn read(&mut self, path: &Path, end: Lsn, tell: &mut impl FnMut(News)) {
        let Ok(file) = File::open(path) else { return };
        let mut content = file.take(end.bytes_since(self.next()));
        let mut chunk = vec![0; CHUNK];
        // What cannot be read is passed over: it was not received on this connection.
        while let Ok(read @ 1..) = content.read(&mut chunk) {
            self.feed(chunk.get(..read).unwrap_or_default(), tell);
        }
    }

    /// Takes what follows.
    pub(super) fn feed(&mut self, bytes: &[u8], tell: &mut impl FnMut(News)) {
        let Self { validator, collector, damage, .. } = self;
        let before = validator.position().next;
        validator.feed(bytes, |finding| {
            collector.add(&finding);
            match finding {
                Finding::Damage { what, .. } => *damage = Some(what.to_string()),
                Finding::Unchecked { from, to } => {
                    if let Some(what) = damage.take() {
                        tell(News::Suspect(SuspectRange { from, to, what }));
                    }
                }
                Finding::Warning { lsn, what } => {
                    tracing::warn!(%lsn, warning = %what, "the WAL is unusual");
                }
                _ => {}
            }
        });
        let position = self.validator.position();
        let ended =
            self.size.segment_of(before).as_u64()..self.size.segment_of(position.next).as_u64();
        self.unsettled.extend(ended.map(SegmentNumber::from_u64));
        while let Some(&first) = self.unsettled.front() {
            if !self.collector.is_settled(first, &position) {
                break;
            }
            self.unsettled.pop_front();
            tell(News::Segment(first, self.collector.take(first, &position)));
        }
    }
}
