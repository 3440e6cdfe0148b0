//! Where recovery stops for a target: the WAL of a way, looked at.
//!
//! What the index notes of a segment tells where to look, and the records there are the answer.

use jiff::Timestamp;
use pgwire_stream::wal::{Content, Record};
use pgwire_stream::{Lsn, PgTimestamp, SegmentNumber};

use super::error::RestoreError;
use super::reach::{END_OF_WAL, Way};
use super::target::RecoveryTarget;
use crate::catalog::{CaughtUp, WalError, WalFindings, WalPath};

/// What was found for a target.
pub(super) enum Found {
    /// Recovery stops at a record that ends here.
    Stop(Lsn),
    /// Nobody can tell.
    Perhaps(String),
    /// It replays all there is, and whatever is still to come.
    Everything,
    /// It replays all that is held, up to the record that begins and ends here, and what the
    /// operator should know of that.
    Last { start: Lsn, end: Lsn, note: String },
    /// It would stop before the backup is consistent.
    TooEarly(Box<RestoreError>),
    /// It would not stop at all, as far as can be told.
    Nothing(Box<RestoreError>),
    /// WAL ends before it would stop.
    TooLate(Box<RestoreError>),
}

impl Found {
    fn too_early(error: RestoreError) -> Self {
        Self::TooEarly(Box::new(error))
    }

    fn nothing(error: RestoreError) -> Self {
        Self::Nothing(Box::new(error))
    }

    fn too_late(error: RestoreError) -> Self {
        Self::TooLate(Box::new(error))
    }
}

/// The WAL of a way, looked at.
pub(super) struct Survey<'a> {
    way: &'a Way<'a>,
    path: WalPath<'a>,
    held_to: Lsn,
    /// Whether some of it could not be looked into.
    blind: bool,
    /// When the last transaction ended that the backup has in any case, once that is known.
    before: Option<Option<PgTimestamp>>,
}

/// What may be behind a record that recovery stops at.
enum Hit {
    Before,
    Behind(Lsn),
}

impl<'a> Survey<'a> {
    /// Of WAL that is held up to there.
    pub(super) fn new(way: &'a Way<'a>, path: WalPath<'a>, held_to: Lsn) -> Self {
        Self { way, path, held_to, blind: false, before: None }
    }

    /// Whether some of it could not be looked into: what was not found may be there.
    pub(super) fn is_blind(&self) -> bool {
        self.blind
    }

    /// Where recovery stops for a target.
    pub(super) fn find(
        &mut self,
        target: &RecoveryTarget,
        inclusive: bool,
    ) -> Result<Found, RestoreError> {
        match target {
            RecoveryTarget::Latest => Ok(Found::Everything),
            // The record that ends it may reach into the segment behind.
            RecoveryTarget::Immediate => Ok(Found::Stop(self.way.end.lsn)),
            RecoveryTarget::Lsn(lsn) => self.lsn(*lsn),
            RecoveryTarget::Time(time) => self.time(time.instant, inclusive),
            RecoveryTarget::Xid(xid) => self.xid(*xid),
            RecoveryTarget::Name(name) => self.name(name),
        }
    }

    /// A server stops at the first record that begins there or later: there must be one.
    fn lsn(&mut self, target: Lsn) -> Result<Found, RestoreError> {
        let (backup, end) = (self.way.record.id, self.way.end.lsn);
        if target < end {
            return Ok(Found::too_early(RestoreError::LsnBeforeEnd { target, backup, end }));
        }
        if target > self.held_to {
            let last = self.held_to;
            return Ok(Found::too_late(RestoreError::LsnBeyondWal { target, last }));
        }
        let mut stop = None;
        self.look(target, END_OF_WAL, |record| {
            stop = Some(record.end);
            false
        })?;
        let last = self.held_to;
        Ok(match stop {
            Some(stop) => Found::Stop(stop),
            None if self.blind && target == last => {
                Found::too_late(RestoreError::LsnBeyondWal { target, last })
            }
            None if self.blind => Found::nothing(RestoreError::LsnBeyondWal { target, last }),
            None => self.last(format!("no record that is held begins at {target} or later"))?,
        })
    }

    /// A server stops at the first transaction that ended later.
    fn time(&mut self, target: Timestamp, inclusive: bool) -> Result<Found, RestoreError> {
        if target > Timestamp::now() {
            return Ok(Found::too_early(RestoreError::TimeInFuture { target }));
        }
        let limit = postgres_time(target);
        let stops = move |time: PgTimestamp| if inclusive { time > limit } else { time >= limit };
        let backup = self.way.record.id;
        let before = self.latest_end_in_backup()?;
        let too_early = match before {
            Some(time) => stops(time),
            // Nothing happened while it was taken: then what is in it had happened before.
            None => target < self.sure_time(),
        };
        if too_early {
            let end = before.map_or(self.sure_time(), timestamp);
            return Ok(Found::too_early(RestoreError::TimeBeforeEnd { target, backup, end }));
        }
        let hit = self.first(
            |findings| findings.latest_end.is_some_and(stops),
            |record| end_time(record).is_some_and(stops),
        )?;
        if let Some(Hit::Behind(end)) = hit {
            return Ok(Found::Stop(end));
        }
        // Nothing ended later. Was it heard of the server that there was no more?
        let seen = CaughtUp::load(self.way.server)?.filter(|seen| self.is_on_the_way(seen));
        if seen.is_some_and(|seen| seen.at >= limit) {
            return self.last(format!(
                "no transaction ended between the last one that is held and {target}"
            ));
        }
        let (_, last) = self.times()?;
        let last = last.or_else(|| before.map(timestamp));
        let seen = seen.map(|seen| timestamp(seen.at));
        Ok(Found::nothing(RestoreError::TimeBeyondWal { target, last: last.max(seen) }))
    }

    /// From when on the backup tells the truth, by our clock: what is all there is to go by if no
    /// transaction ended while it was taken.
    fn sure_time(&self) -> Timestamp {
        let record = self.way.record;
        record.ended_at.unwrap_or(record.began_at)
    }

    /// The last record that is held, for a target that stands for all there is.
    fn last(&mut self, why: String) -> Result<Found, RestoreError> {
        Ok(match self.last_held()? {
            Some((start, end)) => {
                let note = format!("{why}: all WAL up to {end} is replayed, and nothing behind");
                Found::Last { start, end, note }
            }
            None => Found::Perhaps(why),
        })
    }

    /// Where the last record begins that is held; `None` if nobody can tell.
    ///
    /// # Errors
    /// If WAL cannot be read.
    pub(super) fn last_record(&mut self) -> Result<Option<Lsn>, WalError> {
        let last = self.last_held()?;
        Ok(last.filter(|_| !self.blind).map(|(start, _)| start))
    }

    /// Where it begins and ends.
    fn last_held(&mut self) -> Result<Option<(Lsn, Lsn)>, WalError> {
        let size = self.way.record.segment_size;
        let begin = self.way.begin.lsn;
        for number in self.segments(begin).rev() {
            let mut last = None;
            self.look(size.start_of(number).max(begin), END_OF_WAL, |record| {
                last = Some((record.start, record.end));
                true
            })?;
            if last.is_some() {
                return Ok(last);
            }
        }
        Ok(None)
    }

    /// Shows records. Notes if WAL cannot be looked into.
    fn look(
        &mut self,
        from: Lsn,
        below: Lsn,
        see: impl FnMut(&Record) -> bool,
    ) -> Result<(), WalError> {
        match self.path.records(from, below, see) {
            Ok(understood) => self.blind |= !understood,
            Err(error) if error.is_for_want_of_keys() => self.blind = true,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether all WAL that the server had then is held, and on the way.
    fn is_on_the_way(&self, seen: &CaughtUp) -> bool {
        let history = self.way.history;
        seen.lsn <= self.held_to && history.timeline_at(seen.lsn) == seen.timeline
    }

    /// A server stops at the end of the transaction.
    fn xid(&mut self, xid: u64) -> Result<Found, RestoreError> {
        // The upper half counts the wraparounds of what WAL has.
        let wanted = (xid & 0xFFFF_FFFF) as u32;
        let hit = self.first_from_begin(
            |findings| {
                findings.prepared
                    || findings.xids.is_some_and(|(oldest, newest)| {
                        wanted.wrapping_sub(oldest) <= newest.wrapping_sub(oldest)
                    })
            },
            |record| end(record).is_some_and(|(_, xid)| xid == wanted),
        )?;
        let backup = self.way.record.id;
        Ok(match hit {
            Some(Hit::Behind(end)) => Found::Stop(end),
            Some(Hit::Before) => Found::too_early(RestoreError::XidBeforeEnd { xid, backup }),
            None => Found::nothing(RestoreError::XidNotFound { xid, backup }),
        })
    }

    /// A server stops at the first restore point of this name.
    fn name(&mut self, name: &str) -> Result<Found, RestoreError> {
        let hit = self.first_from_begin(
            |findings| {
                findings.more_restore_points
                    || findings.restore_points.iter().any(|point| point.name == name)
            },
            |record| {
                matches!(&record.content, Some(Content::RestorePoint { name: found, .. })
                    if found == name)
            },
        )?;
        let (name, backup) = (name.to_owned(), self.way.record.id);
        Ok(match hit {
            Some(Hit::Behind(end)) => Found::Stop(end),
            Some(Hit::Before) => Found::too_early(RestoreError::NameBeforeEnd { name, backup }),
            None => Found::nothing(RestoreError::NameNotFound { name, backup }),
        })
    }

    /// The first record on the way that recovery would stop at, from the begin of the backup on.
    fn first_from_begin(
        &mut self,
        may_have: impl FnMut(&WalFindings) -> bool,
        is_it: impl Fn(&Record) -> bool,
    ) -> Result<Option<Hit>, RestoreError> {
        self.first_between(self.way.begin.lsn, may_have, is_it)
    }

    /// The same from its end on.
    fn first(
        &mut self,
        may_have: impl FnMut(&WalFindings) -> bool,
        is_it: impl Fn(&Record) -> bool,
    ) -> Result<Option<Hit>, RestoreError> {
        self.first_between(self.way.end.lsn, may_have, is_it)
    }

    /// Looks at segments whose findings say that they may have the record, and at those of which
    /// nothing is noted.
    fn first_between(
        &mut self,
        from: Lsn,
        mut may_have: impl FnMut(&WalFindings) -> bool,
        is_it: impl Fn(&Record) -> bool,
    ) -> Result<Option<Hit>, RestoreError> {
        let size = self.way.record.segment_size;
        let end_of_backup = self.way.end.lsn;
        for number in self.segments(from) {
            if self.path.noted(number)?.is_some_and(|findings| !may_have(findings)) {
                continue;
            }
            let mut hit = None;
            let start = size.start_of(number).max(from);
            self.look(start, size.end_of(number), |record| {
                if is_it(record) {
                    let behind = record.start >= end_of_backup;
                    hit = Some(if behind { Hit::Behind(record.end) } else { Hit::Before });
                }
                hit.is_none()
            })?;
            if hit.is_some() {
                return Ok(hit);
            }
        }
        Ok(None)
    }

    /// The segments on the way from `from` on.
    fn segments(&self, from: Lsn) -> impl DoubleEndedIterator<Item = SegmentNumber> + use<> {
        let size = self.way.record.segment_size;
        let last = size.last_byte_segment_of(self.held_to.max(from.saturating_add(1)));
        (size.segment_of(from).as_u64()..=last.as_u64()).map(SegmentNumber::from_u64)
    }

    /// When the last transaction ended that the backup has in any case.
    fn latest_end_in_backup(&mut self) -> Result<Option<PgTimestamp>, WalError> {
        if let Some(known) = self.before {
            return Ok(known);
        }
        let size = self.way.record.segment_size;
        let (begin, end) = (self.way.begin.lsn, self.way.end.lsn);
        let mut latest = None;
        for number in self.segments(begin).take_while(|&number| size.start_of(number) < end) {
            let (from, to) = (size.start_of(number), size.end_of(number));
            match self.path.noted(number)? {
                // What is noted of the outermost is not all of the backup's time.
                Some(findings) if begin <= from && to <= end => {
                    latest = latest.max(findings.latest_end);
                }
                _ => self.look(from.max(begin), to.min(end), |record| {
                    latest = latest.max(end_time(record));
                    true
                })?,
            }
        }
        self.before = Some(latest);
        Ok(latest)
    }

    /// The first and the last time that can be reached, as far as transactions tell.
    pub(super) fn times(&mut self) -> Result<(Option<Timestamp>, Option<Timestamp>), WalError> {
        let size = self.way.record.segment_size;
        let end = self.way.end.lsn;
        let first = self.latest_end_in_backup()?;
        for number in self.segments(end).rev() {
            let mut latest = match self.path.noted(number)? {
                // What is noted of the segment in which the backup ends is not all behind it.
                Some(findings) if size.start_of(number) >= end => findings.latest_end,
                _ => {
                    let mut latest = None;
                    let start = size.start_of(number).max(end);
                    self.look(start, size.end_of(number), |record| {
                        latest = latest.max(end_time(record));
                        true
                    })?;
                    latest
                }
            };
            if let Some(last) = latest.take() {
                return Ok((first.map(timestamp), Some(timestamp(last))));
            }
        }
        Ok((first.map(timestamp), None))
    }
}

/// When a transaction was committed or rolled back, and which, if this is the record of that.
fn end(record: &Record) -> Option<(PgTimestamp, u32)> {
    match record.content {
        Some(Content::Commit { time, xid } | Content::Abort { time, xid }) => Some((time, xid)),
        _ => None,
    }
}

fn end_time(record: &Record) -> Option<PgTimestamp> {
    end(record).map(|(time, _)| time)
}

fn timestamp(time: PgTimestamp) -> Timestamp {
    let nearest = if time.as_unix_micros() < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_microsecond(time.as_unix_micros()).unwrap_or(nearest)
}

/// The moment in the microseconds that servers count. What is finer is left away, as they do.
fn postgres_time(time: Timestamp) -> PgTimestamp {
    PgTimestamp::from_unix_micros(time.as_microsecond())
}
