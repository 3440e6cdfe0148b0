//! What is known of segments before they are archived, and records of archived ones that wait for
//! what is yet to be known.
//!
//! The stream finds out what is in a segment while it writes it, and may be done after the segment
//! is archived: the last record of one may end in the next. So whichever comes second of the record
//! and the findings brings the two together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pgwire_stream::SegmentName;

use crate::catalog::{WalFindings, WalIndexRecord};
use crate::storage::Plain;

/// How many segments notes are kept of.
const MOST: usize = 64;

/// How many sums are kept: they are small, and those of a backlog are needed last.
const MOST_SUMS: usize = 4096;

/// Notes of one server's segments.
#[derive(Default)]
pub(super) struct Notes(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    /// The stream notes what it finds in segments from this one on, of its timeline.
    expected: Option<SegmentName>,
    findings: BTreeMap<SegmentName, WalFindings>,
    /// Checksums of what has come.
    sums: BTreeMap<SegmentName, Plain>,
    /// Records of segments that were archived before all was known of them.
    unfinished: BTreeMap<SegmentName, WalIndexRecord>,
    /// Records to be added to the index with the next one.
    finished: Vec<WalIndexRecord>,
    /// Segments that must not be archived yet.
    held: BTreeSet<SegmentName>,
    /// Segments that are not any more what the stream has seen, and are looked at again.
    mended: BTreeSet<SegmentName>,
}

impl Noted {
    fn is_expected(&self, segment: SegmentName) -> bool {
        let noted = |from: SegmentName| from <= segment && from.timeline() == segment.timeline();
        self.expected.is_some_and(noted) && !self.mended.contains(&segment)
    }
}

fn keep_some<T>(notes: &mut BTreeMap<SegmentName, T>) {
    while notes.len() > MOST {
        notes.pop_first();
    }
}

impl Notes {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is found in segments from this one on will be noted.
    pub(super) fn expect(&self, from: SegmentName) {
        self.noted().expected = Some(from);
    }

    /// Notes what the stream has found in a segment, archived or not.
    pub(super) fn note(&self, segment: SegmentName, findings: WalFindings) {
        let mut noted = self.noted();
        if noted.mended.contains(&segment) {
            return;
        }
        if let Some(record) = noted.unfinished.remove(&segment) {
            noted.finished.push(record.with(findings));
        } else {
            noted.findings.insert(segment, findings);
            keep_some(&mut noted.findings);
        }
    }

    /// Notes the checksum of a segment as it came.
    pub(super) fn note_sum(&self, segment: SegmentName, sum: Plain) {
        let mut noted = self.noted();
        // What is held may be replaced by what comes when it is asked for again.
        if !noted.mended.contains(&segment) && !noted.held.contains(&segment) {
            noted.sums.insert(segment, sum);
            while noted.sums.len() > MOST_SUMS {
                noted.sums.pop_first();
            }
        }
    }

    /// The checksum of a segment as it came, if nothing has happened to it since.
    pub(super) fn take_sum(&self, segment: SegmentName) -> Option<Plain> {
        self.noted().sums.remove(&segment)
    }

    /// What was noted may come again.
    pub(super) fn forget_sums(&self) {
        self.noted().sums.clear();
    }

    /// Keeps a segment from being archived, or no longer. What was found in it must be found anew
    /// if it was `mended`.
    pub(super) fn hold(&self, segment: SegmentName, held: bool, mended: bool) {
        let mut noted = self.noted();
        noted.sums.remove(&segment);
        if held {
            noted.held.insert(segment);
        } else {
            noted.held.remove(&segment);
        }
        if mended {
            noted.findings.remove(&segment);
            noted.mended.insert(segment);
        }
    }

    pub(super) fn is_held(&self, segment: SegmentName) -> bool {
        self.noted().held.contains(&segment)
    }

    /// Whether nobody has found out what is in a segment, or will.
    pub(super) fn is_unseen(&self, segment: SegmentName) -> bool {
        let noted = self.noted();
        !noted.findings.contains_key(&segment) && !noted.is_expected(segment)
    }

    /// Notes what was found in a segment that was [unseen](Self::is_unseen).
    pub(super) fn note_unseen(&self, segment: SegmentName, findings: WalFindings) {
        let mut noted = self.noted();
        noted.mended.remove(&segment);
        noted.findings.insert(segment, findings);
    }

    /// The record of a segment with what is known of it by now. What is yet to be known makes
    /// another one.
    pub(super) fn complete(&self, record: WalIndexRecord) -> WalIndexRecord {
        let segment = record.file.segment;
        let mut noted = self.noted();
        let expected = noted.is_expected(segment);
        match noted.findings.remove(&segment) {
            Some(findings) => record.with(findings),
            None => {
                if expected {
                    noted.unfinished.insert(segment, record.clone());
                    keep_some(&mut noted.unfinished);
                }
                record
            }
        }
    }

    /// The records that have become complete since the last time.
    pub(super) fn take_finished(&self) -> Vec<WalIndexRecord> {
        std::mem::take(&mut self.noted().finished)
    }
}
