//! Which parts of the WAL are held, and whether they reach from one place to another.

use std::fmt;

use pgwire_stream::{Lsn, SegmentName, SegmentNumber, SegmentSize, TimelineHistory, TimelineId};
use serde::Serialize;

use super::ranges::{Ranges, Span};

/// Which WAL is held: of each segment as much as is there, from its beginning on. And what is
/// known of WAL that is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    size: SegmentSize,
    held: Ranges,
    retired: Ranges,
    left_out: Ranges,
}

/// The first WAL that is needed and not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The timeline whose WAL is missing.
    pub timeline: TimelineId,
    /// The first byte that is missing.
    pub from: Lsn,
    /// The byte behind the last that is needed of this segment.
    pub to: Lsn,
    /// The segment that it belongs to.
    pub segment: SegmentName,
    /// Whether WAL behind it is held on the way: then it is lost, not just late.
    pub passed: bool,
    /// Why it is not held.
    pub absence: Absence,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} in segment {}", self.from, self.to, self.segment)
    }
}

/// Why WAL is not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Absence {
    /// Nobody knows.
    Missing,
    /// It was removed because nothing needed it.
    Retired,
    /// It was never received, because the operator said to go on without it.
    LeftOut,
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Retired => "retired",
            Self::LeftOut => "left out, as was asked for",
        })
    }
}

/// A timeline on the way of a history.
struct Life {
    timeline: TimelineId,
    /// The beginning of the segment in which it began, which it has from its parent.
    from: Lsn,
    /// Where it was left, as far as the history goes.
    left: Lsn,
}

/// Whether WAL reaches from one place to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every byte is held.
    Covered,
    /// Something is missing.
    Missing(Gap),
}

impl Coverage {
    /// Nothing is held, of segments of this size.
    pub fn new(size: SegmentSize) -> Self {
        let none = Ranges::default;
        Self { size, held: none(), retired: none(), left_out: none() }
    }

    /// The same with what is known of WAL that is not held: retired, or left out.
    #[must_use]
    pub fn knowing(self, retired: Ranges, left_out: Ranges) -> Self {
        Self { retired, left_out, ..self }
    }

    /// The size of its segments.
    pub fn segment_size(&self) -> SegmentSize {
        self.size
    }

    /// Notes that the first `length` bytes of a segment are held. The larger of two lengths holds;
    /// the name of a segment that cannot be one of this size is passed over.
    pub fn add(&mut self, segment: SegmentName, length: u64) {
        if let Ok(start) = segment.start(self.size) {
            let end = start.saturating_add(length.min(self.size.bytes().into()));
            self.held.add(segment.timeline(), start, end);
        }
    }

    /// Notes that whole segments are held, the last one included.
    pub(super) fn add_all(
        &mut self,
        timeline: TimelineId,
        first: SegmentNumber,
        last: SegmentNumber,
    ) {
        self.held.add(timeline, self.size.start_of(first), self.size.end_of(last));
    }

    /// How much of a segment is held.
    pub fn length(&self, timeline: TimelineId, number: SegmentNumber) -> u64 {
        let start = self.size.start_of(number);
        let end = self.held.end_at(timeline, start).unwrap_or(start);
        end.bytes_since(start).min(self.size.bytes().into())
    }

    /// What is held, in the order of timelines and positions.
    pub fn spans(&self) -> Vec<Span> {
        self.held.spans().collect()
    }

    /// The newest position that is held of a timeline.
    pub fn end_of(&self, timeline: TimelineId) -> Option<Lsn> {
        self.held.end_of(timeline)
    }

    /// Why a byte is not held, if it is not.
    pub fn absence(&self, timeline: TimelineId, lsn: Lsn) -> Absence {
        if self.retired.end_at(timeline, lsn).is_some() {
            Absence::Retired
        } else if self.left_out.end_at(timeline, lsn).is_some() {
            Absence::LeftOut
        } else {
            Absence::Missing
        }
    }

    /// Whether all WAL of a history from `from` to `to` is held. Takes a step for each stretch
    /// that is held, however long it is.
    ///
    /// Around a switch of timelines the segment of the older timeline or of the newer one will do:
    /// PostgreSQL copies the beginning of the segment to the new timeline, so that the newer one
    /// holds the older one's WAL up to the switch as well.
    pub fn reach(&self, history: &TimelineHistory, from: Lsn, to: Lsn) -> Reach {
        let lives = self.lives(history);
        let mut at = from;
        while at < to {
            let held = lives
                .iter()
                .filter(|life| life.from <= at && at < life.left)
                .filter_map(|life| Some(self.held.end_at(life.timeline, at)?.min(life.left)))
                .max();
            match held {
                Some(end) => at = end,
                None => return Reach::Missing(self.gap(history, at, to)),
            }
        }
        Reach::Covered
    }

    fn gap(&self, history: &TimelineHistory, from: Lsn, to: Lsn) -> Gap {
        let number = self.size.segment_of(from);
        let timeline = history.timeline_at(from);
        Gap {
            timeline,
            from,
            to: self.size.end_of(number).min(to),
            segment: SegmentName::new(timeline, number, self.size),
            passed: self.resumes(history, number).is_some(),
            absence: self.absence(timeline, from),
        }
    }

    /// The timelines of a history whose files may hold bytes of this segment.
    pub(super) fn candidates(
        &self,
        history: &TimelineHistory,
        number: SegmentNumber,
    ) -> Vec<TimelineId> {
        history.timelines_between(self.size.start_of(number), self.size.end_of(number))
    }

    /// Where WAL of this history is held behind a segment, which tells lost from late.
    pub fn resumes(&self, history: &TimelineHistory, number: SegmentNumber) -> Option<Lsn> {
        let behind = self.size.end_of(number);
        self.lives(history)
            .iter()
            .filter_map(|life| {
                let first = self.held.first_from(life.timeline, behind)?;
                (first < life.left).then_some(first)
            })
            .min()
    }

    /// The timelines of a history, each with the WAL that its files may hold of it; the newest
    /// first.
    fn lives(&self, history: &TimelineHistory) -> Vec<Life> {
        let mut lives = Vec::with_capacity(history.switches().len() + 1);
        let (mut timeline, mut left) = (history.timeline(), Lsn::from_u64(u64::MAX));
        for switch in history.switches().iter().rev() {
            let began = switch.switch_point;
            let from = self.size.start_of(self.size.segment_of(began));
            lives.push(Life { timeline, from, left });
            (timeline, left) = (switch.timeline, left.min(began));
        }
        lives.push(Life { timeline, from: Lsn::ZERO, left });
        lives
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn size() -> SegmentSize {
        SegmentSize::new(MIB).unwrap()
    }

    fn tli(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn at(quarter_mib: u64) -> Lsn {
        Lsn::from_u64(quarter_mib * MIB / 4)
    }

    fn name(timeline: u32, number: u64) -> SegmentName {
        SegmentName::new(tli(timeline), SegmentNumber::from_u64(number), size())
    }

    #[test]
    fn contiguous_segments_are_one_span() {
        let mut coverage = Coverage::new(size());
        for number in [1, 2, 5] {
            coverage.add(name(1, number), MIB);
        }
        coverage.add(name(1, 6), 100);
        coverage.add(name(1, 7), 0);
        coverage.add(name(2, 3), MIB);
        let spans = coverage.spans();
        let span = |timeline, start, end| Span { timeline: tli(timeline), start, end };
        assert_eq!(
            spans,
            [
                span(1, at(4), at(12)),
                span(1, at(20), at(24).saturating_add(100)),
                span(2, at(12), at(16)),
            ]
        );
        assert_eq!(coverage.end_of(tli(1)), Some(at(24).saturating_add(100)));
        assert_eq!(coverage.end_of(tli(3)), None);
    }

    #[test]
    fn the_first_missing_byte_is_named() {
        let mut coverage = Coverage::new(size());
        coverage.add(name(1, 1), MIB);
        coverage.add(name(1, 2), MIB / 4);
        let root = TimelineHistory::root(tli(1));
        assert_eq!(coverage.reach(&root, at(5), at(9)), Reach::Covered);
        let absence = Absence::Missing;
        let segment = name(1, 2);
        let gap =
            |passed| Gap { timeline: tli(1), from: at(9), to: at(12), segment, passed, absence };
        assert_eq!(coverage.reach(&root, at(5), at(20)), Reach::Missing(gap(false)));
        coverage.add(name(1, 3), 1);
        assert_eq!(coverage.reach(&root, at(5), at(20)), Reach::Missing(gap(true)));
        // Nothing is needed of an empty range.
        assert_eq!(coverage.reach(&root, at(40), at(40)), Reach::Covered);
    }

    #[test]
    fn a_child_holds_its_parents_last_segment() {
        // Timeline 1 is left in the middle of segment 2.
        let history = TimelineHistory::parse(tli(2), b"1\t0/280000\tr\n").unwrap();
        let mut coverage = Coverage::new(size());
        coverage.add(name(1, 1), MIB);
        coverage.add(name(2, 2), MIB);
        assert_eq!(coverage.reach(&history, at(4), at(12)), Reach::Covered);
        // The parent's own file does not reach beyond the switch, however much is in it.
        let mut coverage = Coverage::new(size());
        coverage.add(name(1, 2), MIB);
        assert_eq!(coverage.reach(&history, at(8), at(10)), Reach::Covered);
        let Reach::Missing(gap) = coverage.reach(&history, at(8), at(12)) else { panic!() };
        assert_eq!((gap.timeline, gap.from, gap.segment), (tli(2), at(10), name(2, 2)));
    }

    #[test]
    fn nothing_is_held_of_what_was_left_before_it_began() {
        // Timeline 3 was forked before timeline 2 was: of 1 and 2 nothing counts from there on.
        let history = TimelineHistory::parse(tli(3), b"1\t0/500000\tr\n2\t0/280000\tr\n");
        let history = history.unwrap();
        let mut coverage = Coverage::new(size());
        for number in 0..6 {
            coverage.add(name(1, number), MIB);
        }
        coverage.add(name(2, 5), MIB);
        let gap = |coverage: &Coverage| match coverage.reach(&history, at(0), at(24)) {
            Reach::Missing(gap) => (gap.timeline, gap.from, gap.passed),
            Reach::Covered => panic!(),
        };
        assert_eq!(gap(&coverage), (tli(3), at(10), false));
        coverage.add(name(3, 2), MIB);
        assert_eq!(gap(&coverage), (tli(3), at(12), false));
    }

    #[test]
    fn what_is_not_held_is_retired_or_left_out_or_missing() {
        let range = |from, to| {
            let mut ranges = Ranges::default();
            ranges.add(tli(1), at(from), at(to));
            ranges
        };
        let mut coverage = Coverage::new(size()).knowing(range(4, 8), range(12, 13));
        coverage.add(name(1, 2), MIB);
        let root = TimelineHistory::root(tli(1));
        let absence = |from| match coverage.reach(&root, at(from), at(40)) {
            Reach::Missing(gap) => gap.absence,
            Reach::Covered => panic!(),
        };
        let found = [0, 4, 7, 8, 13].map(absence);
        let (missing, retired, left_out) = (Absence::Missing, Absence::Retired, Absence::LeftOut);
        assert_eq!(found, [missing, retired, retired, left_out, missing]);
    }

    proptest! {
        /// Against a model that asks, byte for quarter segment, whether any file has it.
        #[test]
        fn reach_is_what_counting_says(
            held in prop::collection::btree_map((1u32..=3, 0u64..6), 0u64..=4, 0..16),
            (one, two) in (0u64..24, 0u64..24),
            from in 0u64..24,
            length in 0u64..24,
        ) {
            let text = format!("1\t{}\tr\n2\t{}\tr\n", at(one), at(two));
            let history = TimelineHistory::parse(tli(3), text.as_bytes()).unwrap();
            let mut coverage = Coverage::new(size());
            for (&(timeline, number), &quarters) in &held {
                coverage.add(name(timeline, number), quarters * MIB / 4);
            }
            let to = from + length;
            // (timeline, first quarter that can be in its files, quarter behind its last)
            let lives =
                [(1, 0, one.min(two)), (2, one / 4 * 4, two), (3, two / 4 * 4, u64::MAX)];
            let has = |quarter: u64| {
                lives.iter().any(|&(timeline, start, end)| {
                    let number = quarter / 4;
                    quarter >= start && quarter < end
                        && held.get(&(timeline, number)).is_some_and(|q| quarter % 4 < *q)
                })
            };
            let missing = (from..to).find(|&quarter| !has(quarter));
            match coverage.reach(&history, at(from), at(to)) {
                Reach::Covered => prop_assert_eq!(missing, None),
                Reach::Missing(gap) => {
                    prop_assert_eq!(Some(gap.from), missing.map(at));
                    let segment = missing.unwrap() / 4;
                    prop_assert_eq!(gap.to, at((segment * 4 + 4).min(to)));
                    let behind = held.iter().any(|(&(timeline, number), &quarters)| {
                        let (.., left) = lives[timeline as usize - 1];
                        number > segment && quarters > 0 && number * 4 < left
                    });
                    prop_assert_eq!(gap.passed, behind);
                }
            }
        }
    }
}
