use pgwire_stream::TimelineId;
use pgwire_stream::wal::{Start, WalOptions, WalValidator};
use proptest::prelude::*;

use super::*;
use crate::catalog::test_wal::TestWal;

const MIB: u64 = 1 << 20;

fn size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

fn segment(number: u64) -> SegmentNumber {
    SegmentNumber::from_u64(number)
}

fn at(lsn: u64) -> Lsn {
    Lsn::from_u64(lsn)
}

fn micros(time: i64) -> PgTimestamp {
    PgTimestamp::from_micros(time)
}

/// A validator and what it found.
struct Judged {
    validator: WalValidator,
    findings: FindingsCollector,
}

impl Judged {
    fn new(start: u64) -> Self {
        let (start, mut options) = (at(start), WalOptions::new(size()));
        options.timeline = Some(TimelineId::FIRST);
        Self {
            validator: WalValidator::new(options, Start::Anywhere(start)),
            findings: FindingsCollector::new(size(), start),
        }
    }

    fn of(start: u64, wal: &[u8]) -> Self {
        let mut judged = Self::new(start);
        judged.feed(wal);
        judged
    }

    fn feed(&mut self, wal: &[u8]) {
        self.validator.feed(wal, |finding| self.findings.add(&finding));
    }

    fn is_settled(&self, number: u64) -> bool {
        self.findings.is_settled(segment(number), &self.validator.position())
    }

    fn take(&mut self, number: u64) -> WalFindings {
        self.findings.take(segment(number), &self.validator.position())
    }
}

#[test]
fn what_records_say_belongs_to_the_segment_in_which_they_begin() {
    let mut wal = TestWal::new(size(), MIB);
    let first = wal.commit(700, 11);
    wal.abort(699);
    wal.restore_point("one", micros(12));
    let end_of_one = wal.end();
    wal.commit(702, 13);
    // Transaction 0 is none.
    wal.commit(0, 14);
    wal.cross_into_next_segment();
    let second = wal.abort(u32::MAX);
    wal.commit(3, 15);
    wal.switch();
    let mut judged = Judged::of(MIB, wal.bytes());
    assert!(judged.is_settled(1) && judged.is_settled(2) && !judged.is_settled(3));
    let one = RestorePoint { name: "one".into(), lsn: end_of_one, at: micros(12) };
    assert_eq!(
        judged.take(1),
        WalFindings {
            validity: Some(Validity::Validated),
            first_record: Some(first),
            first_commit: Some(micros(11)),
            last_commit: Some(micros(14)),
            latest_end: Some(micros(14)),
            restore_points: vec![one],
            xids: Some((699, 702)),
            ..WalFindings::default()
        }
    );
    assert_eq!(
        judged.take(2),
        WalFindings {
            validity: Some(Validity::Validated),
            first_record: Some(second),
            first_commit: Some(micros(15)),
            last_commit: Some(micros(15)),
            latest_end: Some(micros(15)),
            xids: Some((u32::MAX, 3)),
            ..WalFindings::default()
        }
    );
}

#[test]
fn a_segment_is_done_when_its_last_record_is() {
    let mut wal = TestWal::new(size(), MIB);
    let crossing = wal.cross_into_next_segment();
    // The next record begins in segment 2 and fills all of 3.
    let long = wal.filler(2 * MIB as usize);
    wal.commit(5, 50);
    let whole = |from: u64, to: u64| &wal.bytes()[(from * MIB) as usize..(to * MIB) as usize];
    let mut judged = Judged::of(MIB, whole(0, 1));
    assert!(!judged.is_settled(1));
    let unsure = judged.take(1);
    assert_eq!(unsure.validity, None);
    assert!(unsure.first_record < Some(crossing));
    judged.feed(whole(1, 2));
    assert!(judged.is_settled(1) && !judged.is_settled(2));
    assert_eq!(judged.take(1).validity, Some(Validity::Validated));
    judged.feed(whole(2, 3));
    assert!(!judged.is_settled(2) && !judged.is_settled(3));
    judged.feed(&wal.bytes()[3 * MIB as usize..]);
    assert!(judged.is_settled(2) && judged.is_settled(3));
    assert_eq!(judged.take(2).first_record, Some(long));
    let inside = judged.take(3);
    assert_eq!((inside.validity, inside.first_record), (Some(Validity::Validated), None));
    // The tail that WAL ends in.
    let tail = judged.take(4);
    assert_eq!((tail.validity, tail.xids), (Some(Validity::Validated), Some((5, 5))));
}

#[test]
fn damage_is_suspect_in_every_segment_that_it_touches() {
    let mut wal = TestWal::new(size(), MIB);
    wal.commit(5, 50);
    let crossing = wal.cross_into_next_segment();
    let behind = wal.commit(6, 60);
    wal.switch();
    let mut bytes = wal.bytes().to_vec();
    // In the part of the record that lies in the second segment.
    bytes[MIB as usize + 100] ^= 1;
    let mut judged = Judged::of(MIB, &bytes);
    let one = judged.take(1);
    assert_eq!(one.validity, Some(Validity::Suspect));
    assert_eq!((one.suspect[0].from, one.suspect[0].to), (crossing, at(2 * MIB)));
    assert!(one.suspect[0].what.contains("CRC"), "{one:?}");
    let two = judged.take(2);
    assert_eq!(two.validity, Some(Validity::Suspect));
    assert_eq!((two.suspect[0].from, two.suspect[0].to), (at(2 * MIB), behind));
    assert_eq!((two.suspect.len(), two.first_record), (1, Some(behind)));
}

#[test]
fn damage_without_end_is_suspect_as_far_as_it_was_seen() {
    let mut wal = TestWal::new(size(), MIB);
    wal.commit(5, 50);
    let end = wal.end();
    let mut bytes = wal.bytes().to_vec();
    bytes.resize(3 * MIB as usize, 0xAB);
    let mut judged = Judged::new(MIB);
    for piece in bytes.chunks(MIB as usize) {
        judged.feed(piece);
        let number = judged.validator.position().next.as_u64() / MIB - 1;
        assert!(judged.is_settled(number));
        let taken = judged.take(number);
        assert_eq!(taken.validity, Some(Validity::Suspect));
        let from = end.max(at(number * MIB));
        assert_eq!((taken.suspect[0].from, taken.suspect[0].to), (from, at((number + 1) * MIB)));
    }
    // Nothing is kept of what was told.
    assert!(judged.findings.segments.is_empty());
    let mut wal = TestWal::new(size(), 4 * MIB);
    wal.commit(6, 60);
    judged.feed(wal.bytes());
    assert_eq!(judged.findings.segments.len(), 1);
    assert_eq!(judged.take(4).suspect, []);
}

#[test]
fn what_cannot_be_judged_is_not_called_valid() {
    let mut wal = TestWal::new(size(), MIB);
    wal.commit(5, 50);
    wal.cross_into_next_segment();
    wal.filler(2 * MIB as usize);
    wal.commit(6, 60);
    // From the middle of a segment on.
    let mut judged = Judged::of(MIB + 8192, &wal.bytes()[8192..]);
    let one = judged.take(1);
    assert_eq!((one.validity, one.xids), (None, None));
    assert_eq!(judged.take(2).validity, Some(Validity::Validated));
    // Within a record whose beginning is not there.
    let mut judged = Judged::of(3 * MIB, &wal.bytes()[2 * MIB as usize..]);
    assert_eq!(judged.take(3).validity, None);
    assert_eq!(judged.take(4).validity, Some(Validity::Validated));
    // Nothing at all is no WAL either.
    assert_eq!(Judged::of(MIB, &[0; MIB as usize]).take(1).validity, None);
    assert_eq!(Judged::of(MIB, &[1, 2, 3]).take(1).validity, None);
}

#[test]
fn restore_points_and_damage_are_bounded_and_shortened() {
    let mut wal = TestWal::new(size(), MIB);
    let mut broken = Vec::new();
    for number in 0..2 * MAX_RESTORE_POINTS {
        let start = wal.restore_point(&format!("{number}"), micros(0));
        if number % 10 == 5 {
            broken.push(start);
        }
    }
    wal.switch();
    let mut bytes = wal.bytes().to_vec();
    for start in &broken {
        bytes[(start.as_u64() - MIB) as usize + 30] ^= 1;
    }
    let mut findings = Judged::of(MIB, &bytes).take(1);
    assert_eq!(findings.restore_points.len(), MAX_RESTORE_POINTS);
    assert!(findings.more_restore_points && findings.more_suspect);
    assert_eq!(findings.suspect.len(), MAX_SUSPECT);
    let last = findings.suspect.last().unwrap();
    assert!(last.from > findings.suspect[MAX_SUSPECT - 2].to);
    assert!(last.to > *broken.last().unwrap());
    let end = last.to;
    findings.shorten();
    assert!(findings.restore_points.is_empty() && findings.more_suspect);
    assert_eq!(findings.suspect.len(), 1);
    assert_eq!((findings.suspect[0].from, findings.suspect[0].to), (broken[0], end));
}

proptest! {
    /// However the WAL is cut, and though part of it is fed again, the same is said.
    #[test]
    fn pieces_and_repetitions_do_not_matter(
        steps in prop::collection::vec((0u8..4, 1u32..9), 1..40),
        flip in prop::option::of(any::<prop::sample::Index>()),
        cuts in prop::collection::vec(1usize..300_000, 1..20),
    ) {
        let mut wal = TestWal::new(size(), MIB);
        for (kind, number) in steps {
            match kind {
                0 => wal.commit(number, number.into()),
                1 => wal.restore_point(&number.to_string(), micros(number.into())),
                2 => wal.filler(number as usize * 40_000),
                _ => wal.abort(number),
            };
        }
        wal.switch();
        let mut bytes = wal.bytes().to_vec();
        if let Some(flip) = &flip {
            let place = flip.index(bytes.len());
            bytes[place] ^= 1;
        }
        let segments = 1..=bytes.len() as u64 / MIB;
        let mut whole = Judged::of(MIB, &bytes);
        let expected: Vec<_> = segments.clone().map(|number| whole.take(number)).collect();
        if flip.is_none() {
            prop_assert!(expected.iter().all(|f| f.validity == Some(Validity::Validated)));
        }

        let mut judged = Judged::new(MIB);
        let mut cuts = cuts.iter().cycle();
        let mut rest = &bytes[..];
        let mut found = Vec::new();
        let mut number = 1;
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            judged.validator.feed(piece, |finding| {
                judged.findings.add(&finding);
                if matches!(finding, Finding::Record(_)) {
                    judged.findings.add(&finding);
                }
            });
            rest = later;
            // As soon as it can be told.
            while judged.is_settled(number) {
                found.push(judged.take(number));
                number += 1;
            }
        }
        while number <= *segments.end() {
            found.push(judged.take(number));
            number += 1;
        }
        // What damage will be found in the end is not known at once, but where it is.
        for (found, expected) in found.iter_mut().zip(&expected) {
            for (found, expected) in found.suspect.iter_mut().zip(&expected.suspect) {
                found.to = expected.to;
            }
        }
        prop_assert_eq!(found, expected);
    }
}
