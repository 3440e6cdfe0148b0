//! What a validator found, segment by segment: what the index keeps of it.
//!
//! A record belongs to the segment in which it begins, and so does what it says; damage, to every
//! segment that it touches. A record may end in a later segment, so what is known of a segment is
//! complete only when the validator is some way into the next ([`FindingsCollector::is_settled`]).

use std::collections::BTreeMap;
use std::ops::Range;

use pgwire_stream::wal::{Content, Finding, PageHeader, Record, WalPosition};
use pgwire_stream::{Lsn, PgTimestamp, SegmentNumber, SegmentSize};
use serde::{Deserialize, Serialize};

/// How many suspect ranges are told apart in a segment.
const MAX_SUSPECT: usize = 100;

/// How many restore points of a segment are kept.
const MAX_RESTORE_POINTS: usize = 1000;

/// How much is kept of the reason why a range is suspect, in characters.
const MAX_REASON: usize = 200;

/// What a validator found in a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalFindings {
    /// What it thought of the WAL; absent if it has not seen all of it, or could not judge it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity: Option<Validity>,
    /// What PostgreSQL could not replay, in the order of positions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspect: Vec<SuspectRange>,
    /// Whether there was too much of that to tell it apart: then the last range reaches from the
    /// first place that is not told to the last.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more_suspect: bool,
    /// Where the first record that begins in the segment does. What lies before it belongs to one
    /// that began in an earlier segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_record: Option<Lsn>,
    /// When the first commit in it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_commit: Option<PgTimestamp>,
    /// When the last commit in it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_commit: Option<PgTimestamp>,
    /// The latest time at which a transaction in it was committed or rolled back: clocks are not
    /// always in the order of WAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_end: Option<PgTimestamp>,
    /// The restore points in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restore_points: Vec<RestorePoint>,
    /// Whether there were more than are kept.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more_restore_points: bool,
    /// The transactions that ended in it: the oldest and the newest id, as the server counts them,
    /// round and round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xids: Option<(u32, u32)>,
    /// Whether prepared transactions ended in it that are not among those: earlier versions of this
    /// program did not know which they were.
    #[serde(default, skip_serializing_if = "is_false")]
    pub prepared: bool,
}

/// Whether what was received looked like WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validity {
    /// Every page, and every record that begins in the segment, was in order.
    Validated,
    /// Something was not.
    Suspect,
    /// A later version of this program knows.
    #[serde(other)]
    Unknown,
}

/// WAL that PostgreSQL could not replay, although it is what the server sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspectRange {
    /// Its first byte.
    pub from: Lsn,
    /// The byte behind it.
    pub to: Lsn,
    /// What is wrong with it.
    pub what: String,
}

/// A named point that recovery can stop at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    /// Its name.
    pub name: String,
    /// The end of its record.
    pub lsn: Lsn,
    /// When it was made.
    pub at: PgTimestamp,
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// Whether a transaction is older than another, as the server counts: half of all ids are.
fn is_older(xid: u32, than: u32) -> bool {
    xid.wrapping_sub(than).cast_signed() < 0
}

impl WalFindings {
    fn add_record(&mut self, record: &Record) {
        self.first_record = Some(self.first_record.map_or(record.start, |r| r.min(record.start)));
        match &record.content {
            Some(Content::Commit { time, xid }) => {
                self.first_commit.get_or_insert(*time);
                self.last_commit = Some(*time);
                self.add_end(*time, *xid);
            }
            Some(Content::Abort { time, xid }) => self.add_end(*time, *xid),
            Some(Content::RestorePoint { time, name }) => {
                let told = self.restore_points.last().is_some_and(|last| last.lsn >= record.end);
                if !told && self.restore_points.len() < MAX_RESTORE_POINTS {
                    let (name, lsn, at) = (name.clone(), record.end, *time);
                    self.restore_points.push(RestorePoint { name, lsn, at });
                } else if !told {
                    self.more_restore_points = true;
                }
            }
            _ => {}
        }
    }

    fn add_end(&mut self, time: PgTimestamp, xid: u32) {
        self.latest_end = self.latest_end.max(Some(time));
        if xid != 0 {
            let (oldest, newest) = self.xids.unwrap_or((xid, xid));
            self.xids = Some((
                if is_older(xid, oldest) { xid } else { oldest },
                if is_older(newest, xid) { xid } else { newest },
            ));
        }
    }

    fn add_suspect(&mut self, from: Lsn, to: Lsn, what: &str) {
        let full = self.suspect.len() >= MAX_SUSPECT;
        match self.suspect.last_mut() {
            // Told again, or further on than before.
            Some(last) if last.from == from && last.what == what => last.to = last.to.max(to),
            Some(last) if full => {
                last.to = last.to.max(to);
                self.more_suspect = true;
            }
            _ => self.suspect.push(SuspectRange { from, to, what: what.to_owned() }),
        }
    }

    /// Leaves out what takes room, and says so.
    pub(super) fn shorten(&mut self) {
        self.more_restore_points |= !self.restore_points.is_empty();
        self.restore_points.clear();
        let end = self.suspect.iter().map(|range| range.to).max();
        if self.suspect.len() > 1
            && let (Some(first), Some(end)) = (self.suspect.first_mut(), end)
        {
            first.to = end;
            self.more_suspect = true;
            self.suspect.truncate(1);
        }
    }
}

/// Takes what one validator finds, and gives what is known of each segment.
#[derive(Debug)]
pub struct FindingsCollector {
    segment_size: SegmentSize,
    /// Where the validator began.
    start: Lsn,
    /// Why WAL is in doubt that the validator has not come to the end of.
    damage: Option<String>,
    segments: BTreeMap<SegmentNumber, Known>,
    /// The segment that the last record of note begins in.
    begun: Range<Lsn>,
    /// The last segment that was asked for.
    asked: Option<SegmentNumber>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    findings: WalFindings,
    /// Whether the validator passed over all of it.
    passed_over: bool,
}

impl FindingsCollector {
    /// For a validator that begins at `start`.
    pub fn new(segment_size: SegmentSize, start: Lsn) -> Self {
        Self {
            segment_size,
            start,
            damage: None,
            segments: BTreeMap::new(),
            begun: start..start,
            asked: None,
        }
    }

    /// Takes a finding. Told again, it changes nothing.
    pub fn add(&mut self, finding: &Finding) {
        match finding {
            // Nearly every record: neither the first of its segment nor one that says anything.
            Finding::Record(record)
                if record.content.is_none() && self.begun.contains(&record.start) => {}
            Finding::Record(record) => {
                let segment = self.segment_size.segment_of(record.start);
                self.begun = self.segment_size.start_of(segment)..self.segment_size.end_of(segment);
                self.segments.entry(segment).or_default().findings.add_record(record);
            }
            Finding::Damage { what, .. } => {
                self.damage = Some(what.to_string().chars().take(MAX_REASON).collect());
            }
            Finding::Unchecked { from, to } => {
                let damage = self.damage.take();
                self.pass_over(*from, *to, damage.as_deref());
            }
            _ => {}
        }
    }

    /// Notes WAL that the validator passed over, and why, if it was for damage. Without that it
    /// is none: the rest of a record that began before the start, or one that the server gave up.
    fn pass_over(&mut self, from: Lsn, to: Lsn, damage: Option<&str>) {
        let size = self.segment_size;
        // The header of the page in which WAL makes sense again was in order.
        let page = size.start_of(size.segment_of(to));
        let header = PageHeader::LONG_LEN as u64;
        let to = if from < page && to.bytes_since(page) == header { page } else { to };
        let first = size.segment_of(from).as_u64();
        let last = size.last_byte_segment_of(to).as_u64();
        for number in (first..=last).map(SegmentNumber::from_u64) {
            // What was asked for and is not here any more has been told to its end.
            if self.asked >= Some(number) && !self.segments.contains_key(&number) {
                continue;
            }
            let (start, end) = (size.start_of(number), size.end_of(number));
            let known = self.segments.entry(number).or_default();
            match damage {
                Some(what) => known.findings.add_suspect(from.max(start), to.min(end), what),
                None => known.passed_over |= from <= start && end <= to,
            }
        }
    }

    /// Whether all that a validator at `position` will ever say of this segment is said. It may
    /// take more WAL than the segment: as much as the last record that begins in it has.
    pub fn is_settled(&self, segment: SegmentNumber, position: &WalPosition) -> bool {
        let settled = match position.unchecked_from {
            // The doubt goes on to where the validator is, and lasts. That there is damage may
            // still turn out, but for the rest of a record whose beginning was never fed.
            Some(from) if self.damage.is_some() || from <= self.start => position.next,
            Some(from) => from,
            None => position.valid_to.unwrap_or(self.start),
        };
        settled >= self.segment_size.end_of(segment)
    }

    /// What is known of a segment that a validator at `position` has seen to its end, or to the
    /// end of WAL if that is in it.
    ///
    /// Its validity is absent if the validator began within the segment, found nothing that it could
    /// judge, or is not done with it. In the last case it can be asked for again when it
    /// [is settled](Self::is_settled), with what has come to light since.
    pub fn take(&mut self, segment: SegmentNumber, position: &WalPosition) -> WalFindings {
        let (start, end) = (self.segment_size.start_of(segment), self.segment_size.end_of(segment));
        // In a tail that WAL ends in, the last record may well be cut.
        let settled = position.next < end || self.is_settled(segment, position);
        self.asked = self.asked.max(Some(segment));
        let mut known = if settled {
            self.segments.remove(&segment).unwrap_or_default()
        } else {
            self.segments.entry(segment).or_default().clone()
        };
        if let Some(from) = position.unchecked_from.filter(|from| *from < end) {
            match &self.damage {
                Some(what) => {
                    known.findings.add_suspect(from.max(start), end.min(position.next), what);
                }
                None => known.passed_over |= from <= start && position.next >= end,
            }
        }
        let judged =
            settled && !known.passed_over && self.start <= start && position.valid_to.is_some();
        known.findings.validity = if !known.findings.suspect.is_empty() {
            Some(Validity::Suspect)
        } else {
            judged.then_some(Validity::Validated)
        };
        known.findings
    }
}

#[cfg(test)]
mod tests;
