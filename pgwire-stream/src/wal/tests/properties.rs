//! WAL of any shape, in any pieces, with anything wrong.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What to append: a record with so many bytes, one that is given up, or a switch.
#[derive(Clone, Debug)]
enum Part {
    Record(usize),
    GivenUp(usize, u64),
    Switch,
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let part = prop_oneof![
        20 => (0..200_usize).prop_map(Part::Record),
        4 => (200..30_000_usize).prop_map(Part::Record),
        1 => (0..3_u64).prop_map(|pages| Part::GivenUp(300_000, pages)),
        1 => Just(Part::Switch),
    ];
    vec(part, 1..60)
}

/// WAL that begins up to eight pages before the end of a segment.
fn wal(
    segment_bits: u32,
    page_bits: u32,
    before_end: u64,
    headers_behind_switch: bool,
    parts: &[Part],
) -> (WalOptions, u64, WalBuilder) {
    let (segment, page) = (1 << segment_bits, 1 << page_bits);
    let start = u64::from(segment) * 9 - before_end * u64::from(page);
    let mut wal = WalBuilder::new(start, segment, page);
    wal.headers_behind_switch = headers_behind_switch;
    // Of switches alone, in large segments, nothing would be written.
    wal.record(10, 0, &[]);
    let mut byte = 0_u8;
    for part in parts {
        byte = byte.wrapping_add(37);
        match part {
            Part::Record(len) => wal.record(10, 0, &vec![byte; *len]),
            Part::GivenUp(len, pages) => wal.given_up_record(*len, *pages),
            // A whole segment is a lot to write when segments are large.
            Part::Switch if segment_bits <= 20 => wal.switch(),
            Part::Switch => &mut wal,
        };
    }
    (options(segment, page), start, wal)
}

prop_compose! {
    fn any_wal()(
        segment_bits in 20..=30_u32,
        page_bits in 10..=16_u32,
        before_end in 0..8_u64,
        headers in any::<bool>(),
        parts in parts(),
    ) -> (WalOptions, u64, WalBuilder) {
        wal(segment_bits, page_bits, before_end, headers, &parts)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_found((options, start, wal) in any_wal()) {
        let findings = judge(&options, start, [wal.bytes()]);
        let found: Vec<(u64, u64)> =
            records(&findings).iter().map(|r| (r.start.as_u64(), r.end.as_u64())).collect();
        prop_assert_eq!(found, wal.records());
        let given_up = |f: &&Finding| matches!(f, Finding::Unchecked { .. });
        prop_assert!(others(&findings).iter().all(given_up));
    }

    #[test]
    fn any_cut_gives_the_same(
        (options, start, wal) in any_wal(),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        skipped in 0..3000_usize,
        cuts in vec(1..5000_usize, 1..20),
    ) {
        let mut bytes = wal.bytes().to_vec();
        for (at, change) in flips {
            let len = bytes.len().min(100_000);
            bytes[at.index(len)] ^= change;
        }
        let skipped = skipped.min(bytes.len());
        let (start, bytes) = (start + skipped as u64, &bytes[skipped..]);
        let whole = judge(&options, start, [bytes]);
        let mut rest = bytes;
        let mut pieces = Vec::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, left) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = left;
        }
        prop_assert_eq!(&judge(&options, start, pieces), &whole);
        prop_assert_eq!(&judge(&options, start, bytes.chunks(1)), &whole);
    }

    #[test]
    fn a_changed_bit_in_large_wal_is_found(
        lens in vec(0..20_000_usize, 20..40),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let parts: Vec<Part> = lens.into_iter().map(Part::Record).collect();
        let (options, start, wal) = wal(24, 13, 3, false, &parts);
        // Records fill it but for their alignment: a byte in the middle of one is always covered.
        let (record, end) = wal.records()[at.index(wal.records().len() - 1)];
        let offset = (record + 1 - start) as usize;
        let followed = end + 2 * 8192 < wal.end();
        prop_assume!(followed);
        let mut bytes = wal.bytes().to_vec();
        bytes[offset] ^= 1 << bit;
        let findings = judge(&options, start, [&bytes[..]]);
        prop_assert_eq!(damage(&findings).len(), 1, "{:?}", others(&findings));
    }

    #[test]
    fn anything_is_survived(
        bytes in vec(any::<u8>(), 0..5000),
        start in any::<u64>(),
        record in any::<bool>(),
        segment_bits in 20..=30_u32,
    ) {
        let options = WalOptions::new(SegmentSize::new(1 << segment_bits).unwrap());
        let start = lsn(start);
        let start = if record { Start::Record(start) } else { Start::Anywhere(start) };
        let mut validator = WalValidator::new(options, start);
        validator.feed(&bytes, |finding| { let _ = format!("{finding:?}"); });
        let _ = validator.position();
    }
}
