//! Which parts of the WAL are held, and whether they reach from one place to another.

use std::collections::BTreeMap;
use std::fmt;

use pgwire_stream::{Lsn, SegmentName, SegmentNumber, SegmentSize, TimelineHistory, TimelineId};

/// How much of each segment is held, from its beginning on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    size: SegmentSize,
    held: BTreeMap<(TimelineId, SegmentNumber), u32>,
}

/// WAL that is held without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The timeline.
    pub timeline: TimelineId,
    /// Its first byte.
    pub start: Lsn,
    /// The byte behind its last.
    pub end: Lsn,
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
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} in segment {}", self.from, self.to, self.segment)
    }
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
        Self { size, held: BTreeMap::new() }
    }

    /// The size of its segments.
    pub fn segment_size(&self) -> SegmentSize {
        self.size
    }

    /// Notes that the first `length` bytes of a segment are held. The larger of two lengths holds;
    /// the name of a segment that cannot be one of this size is passed over.
    pub fn add(&mut self, segment: SegmentName, length: u64) {
        if let Ok(number) = segment.number(self.size) {
            let length = u32::try_from(length).unwrap_or(u32::MAX).min(self.size.bytes());
            let held = self.held.entry((segment.timeline(), number)).or_default();
            *held = length.max(*held);
        }
    }

    /// How much of a segment is held.
    pub fn length(&self, timeline: TimelineId, number: SegmentNumber) -> u64 {
        self.held.get(&(timeline, number)).copied().unwrap_or(0).into()
    }

    /// What is held, in the order of timelines and positions.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for (&(timeline, number), &length) in &self.held {
            if length == 0 {
                continue;
            }
            let start = self.size.start_of(number);
            let end = start.saturating_add(length.into());
            match spans.last_mut() {
                Some(last) if last.timeline == timeline && last.end == start => last.end = end,
                _ => spans.push(Span { timeline, start, end }),
            }
        }
        spans
    }

    /// The newest position that is held of a timeline.
    pub fn end_of(&self, timeline: TimelineId) -> Option<Lsn> {
        let last = SegmentNumber::from_u64(u64::MAX);
        let held = self.held.range((timeline, SegmentNumber::from_u64(0))..=(timeline, last));
        held.rev()
            .find(|(_, length)| **length > 0)
            .map(|(&(_, number), &length)| self.size.start_of(number).saturating_add(length.into()))
    }

    /// Whether all WAL of a history from `from` to `to` is held.
    ///
    /// Around a switch of timelines the segment of the older timeline or of the newer one will do:
    /// PostgreSQL copies the beginning of the segment to the new timeline, so that the newer one
    /// holds the older one's WAL up to the switch as well.
    pub fn reach(&self, history: &TimelineHistory, from: Lsn, to: Lsn) -> Reach {
        let mut at = from;
        while at < to {
            let number = self.size.segment_of(at);
            let needed = self.size.end_of(number).min(to);
            let held = self.held_until(history, number);
            if held < needed {
                let from = held.max(at);
                let timeline = history.timeline_at(from);
                let segment = SegmentName::new(timeline, number, self.size);
                let passed = self.holds_behind(history, number);
                return Reach::Missing(Gap { timeline, from, to: needed, segment, passed });
            }
            at = needed;
        }
        Reach::Covered
    }

    /// The timelines of a history whose files may hold bytes of this segment.
    pub(super) fn candidates(
        &self,
        history: &TimelineHistory,
        number: SegmentNumber,
    ) -> Vec<TimelineId> {
        history.timelines_between(self.size.start_of(number), self.size.end_of(number))
    }

    /// Up to where the bytes of a segment are held that belong to this history.
    fn held_until(&self, history: &TimelineHistory, number: SegmentNumber) -> Lsn {
        let start = self.size.start_of(number);
        self.candidates(history, number)
            .into_iter()
            .map(|timeline| {
                let held = start.saturating_add(self.length(timeline, number));
                history.fork_from(timeline).map_or(held, |left| held.min(left))
            })
            .max()
            .unwrap_or(start)
    }

    /// Whether a later segment of this history is held.
    pub(super) fn holds_behind(&self, history: &TimelineHistory, number: SegmentNumber) -> bool {
        self.held.iter().any(|(&(timeline, later), &length)| {
            later > number
                && length > 0
                && history.contains(timeline)
                && history.fork_from(timeline).is_none_or(|left| self.size.start_of(later) < left)
        })
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
        let gap =
            |passed| Gap { timeline: tli(1), from: at(9), to: at(12), segment: name(1, 2), passed };
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
                Reach::Missing(gap) => prop_assert_eq!(Some(gap.from), missing.map(at)),
            }
        }
    }
}
