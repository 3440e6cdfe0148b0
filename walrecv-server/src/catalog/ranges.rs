//! Sets of WAL, kept as the stretches that they are made of: what a million segments that follow
//! each other cost is what one costs.

use std::collections::BTreeMap;

use pgwire_stream::{Lsn, TimelineId};

/// WAL of one timeline, without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The timeline.
    pub timeline: TimelineId,
    /// Its first byte.
    pub start: Lsn,
    /// The byte behind its last.
    pub end: Lsn,
}

/// A set of WAL. No two stretches touch each other: they are merged when they come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// From the first byte of each stretch to the byte behind its last.
    stretches: BTreeMap<(TimelineId, Lsn), Lsn>,
}

impl Ranges {
    /// Adds WAL; parts of it may be in the set already.
    pub fn add(&mut self, timeline: TimelineId, from: Lsn, to: Lsn) {
        if from >= to {
            return;
        }
        let (mut start, mut end) = (from, to);
        // Those that begin at `to` or before it and end at `from` or behind it are one with it.
        // The newest is looked at first, so that nothing is looked at that stays.
        while let Some((&(other, other_start), &other_end)) =
            self.stretches.range(..=(timeline, end)).next_back()
            && other == timeline
            && other_end >= start
        {
            self.stretches.remove(&(timeline, other_start));
            (start, end) = (start.min(other_start), end.max(other_end));
        }
        self.stretches.insert((timeline, start), end);
    }

    /// The byte behind the stretch that holds the one at `lsn`.
    pub fn end_at(&self, timeline: TimelineId, lsn: Lsn) -> Option<Lsn> {
        let (&(other, _), &end) = self.stretches.range(..=(timeline, lsn)).next_back()?;
        (other == timeline && lsn < end).then_some(end)
    }

    /// The first byte of the set at `lsn` or behind it.
    pub fn first_from(&self, timeline: TimelineId, lsn: Lsn) -> Option<Lsn> {
        if self.end_at(timeline, lsn).is_some() {
            return Some(lsn);
        }
        let (&(other, start), _) = self.stretches.range((timeline, lsn)..).next()?;
        (other == timeline).then_some(start)
    }

    /// The byte behind the last of a timeline.
    pub fn end_of(&self, timeline: TimelineId) -> Option<Lsn> {
        let last = Lsn::from_u64(u64::MAX);
        let (&(other, _), &end) = self.stretches.range(..=(timeline, last)).next_back()?;
        (other == timeline).then_some(end)
    }

    /// The stretches, in the order of timelines and positions.
    pub fn spans(&self) -> impl Iterator<Item = Span> {
        self.stretches.iter().map(|(&(timeline, start), &end)| Span { timeline, start, end })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn tli(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn at(lsn: u64) -> Lsn {
        Lsn::from_u64(lsn)
    }

    #[test]
    fn what_follows_each_other_is_one_stretch_in_whatever_order_it_comes() {
        let mut ranges = Ranges::default();
        for number in (0..1000).map(|number| number * 7 % 1000) {
            ranges.add(tli(1), at(number * 16), at(number * 16 + 16));
        }
        let all = Span { timeline: tli(1), start: at(0), end: at(16_000) };
        assert_eq!(ranges.spans().collect::<Vec<_>>(), [all]);
        // The end of the address space is no exception.
        ranges.add(tli(1), at(u64::MAX - 1), at(u64::MAX));
        assert_eq!(ranges.end_of(tli(1)), Some(at(u64::MAX)));
        assert_eq!(ranges.end_at(tli(1), at(u64::MAX)), None);
    }

    proptest! {
        /// Against a set of bytes.
        #[test]
        fn a_set_of_ranges_is_a_set_of_bytes(
            added in prop::collection::vec((1u32..=2, 0u64..40, 0u64..12), 0..20),
        ) {
            let mut ranges = Ranges::default();
            let mut bytes = BTreeSet::new();
            for (timeline, from, length) in added {
                ranges.add(tli(timeline), at(from), at(from + length));
                bytes.extend((from..from + length).map(|byte| (timeline, byte)));
            }
            let spans: Vec<_> = ranges.spans().collect();
            for (a, b) in spans.iter().zip(spans.iter().skip(1)) {
                prop_assert!(a.timeline < b.timeline || a.end < b.start);
            }
            let of_spans: BTreeSet<_> = spans
                .iter()
                .flat_map(|s| (s.start.as_u64()..s.end.as_u64()).map(|b| (s.timeline.get(), b)))
                .collect();
            prop_assert_eq!(&of_spans, &bytes);
            for timeline in 1..=3 {
                let of = |from: u64| bytes.range((timeline, from)..(timeline + 1, 0)).map(|b| b.1);
                prop_assert_eq!(ranges.end_of(tli(timeline)), of(0).next_back().map(|b| at(b + 1)));
                for byte in 0..60 {
                    prop_assert_eq!(
                        ranges.first_from(tli(timeline), at(byte)),
                        of(byte).next().map(at)
                    );
                    let end = (byte..).find(|byte| !bytes.contains(&(timeline, *byte)));
                    prop_assert_eq!(
                        ranges.end_at(tli(timeline), at(byte)),
                        end.filter(|end| *end > byte).map(at)
                    );
                }
            }
        }
    }
}
