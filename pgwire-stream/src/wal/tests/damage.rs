//! Each kind of damage, told where it is, and followed by what is right again.

use super::*;

/// Where pages of the sample begin: two in its first segment, and the first of its second.
const SECOND_PAGE: usize = 1024;
const SEGMENT: usize = 4 * 1024;

/// What is told after these bytes of the sample were overwritten.
fn told(offset: usize, bytes: &[u8]) -> (Lsn, WalDamage) {
    let (options, start, wal) = sample();
    let mut damaged = wal.bytes().to_vec();
    damaged[offset..offset + bytes.len()].copy_from_slice(bytes);
    let findings = judge(&options, start, [&damaged[..]]);
    let [Finding::Damage { lsn, what }, Finding::Unchecked { from, to }] = others(&findings)[..]
    else {
        panic!("{findings:?}")
    };
    assert!(from <= lsn && lsn < to, "{findings:?}");
    // Whatever lies outside the range in doubt was found to be right.
    let all = judge(&options, start, [wal.bytes()]);
    let right = records(&all).into_iter().filter(|r| r.end <= *from || r.start >= *to);
    assert_eq!(records(&findings), right.collect::<Vec<_>>());
    (*lsn, what.clone())
}

fn at(offset: usize) -> Lsn {
    let (_, start, _) = sample();
    lsn(start + offset as u64)
}

#[test]
fn of_pages() {
    let page = |what| (at(SECOND_PAGE), what);
    let found = lsn(0xABCD);
    assert_eq!(
        told(SECOND_PAGE + 8, &0xABCD_u64.to_le_bytes()),
        page(WalDamage::PageAddress { found })
    );
    let (expected, found) = (0xD118, 0xD119_u16);
    assert_eq!(
        told(SECOND_PAGE, &found.to_le_bytes()),
        page(WalDamage::PageMagic { expected, found })
    );
    assert_eq!(told(SECOND_PAGE + 2, &[0x7]), page(WalDamage::LongHeader { found: true }));
    let timeline = |found| page(WalDamage::Timeline { found, at_least: 1, at_most: Some(1) });
    assert_eq!(told(SECOND_PAGE + 4, &[0]), timeline(0));
    assert_eq!(told(SECOND_PAGE + 4, &[2]), timeline(2));
}

#[test]
fn of_how_a_page_goes_on() {
    let (options, start, wal) = sample();
    let page = at(SECOND_PAGE);
    let continued = judge(&options, start, [wal.bytes()]);
    let record = records(&continued).into_iter().find(|r| r.start < page && r.end > page);
    let record = record.expect("a record lies on both pages");
    let missing = wal.bytes()[SECOND_PAGE + 16];
    let (lsn, what) = told(SECOND_PAGE + 16, &[missing ^ 0x10]);
    assert!(matches!(what, WalDamage::Remaining { .. }), "{what}");
    assert_eq!(lsn, page);
    let remaining = u32::from_le_bytes(wal.bytes()[SECOND_PAGE + 16..][..4].try_into().unwrap());
    assert_eq!(
        told(SECOND_PAGE + 2, &[0x4]),
        (page, WalDamage::PageContradiction { info: 0x4, remaining })
    );
    assert_eq!(
        told(SECOND_PAGE + 2, &[0x4, 0, 1, 0, 0, 0]).1,
        WalDamage::PageContradiction { info: 0x4, remaining }
    );
    // A record cannot both go on and have been given up.
    assert_eq!(
        told(SECOND_PAGE + 2, &[0xD]),
        (page, WalDamage::PageContradiction { info: 0xD, remaining })
    );
    // The record's own length was wrong.
    let offset = (record.start.as_u64() - start) as usize;
    let wrong = (record.header.total_len + 8).to_le_bytes();
    let (expected, found) = (remaining + 8, remaining);
    assert_eq!(told(offset, &wrong), (page, WalDamage::Remaining { expected, found }));
}

#[test]
fn of_segments() {
    let page = |what| (at(SEGMENT), what);
    assert_eq!(told(SEGMENT + 2, &[0x5]), page(WalDamage::LongHeader { found: false }));
    let (expected, found) = (SystemId::from_u64(0x1122_3344_5566_7788), SystemId::from_u64(9));
    assert_eq!(
        told(SEGMENT + 24, &9_u64.to_le_bytes()),
        page(WalDamage::SystemId { expected, found })
    );
    let (expected, found) = (MEGABYTE, 7_u32);
    assert_eq!(
        told(SEGMENT + 32, &found.to_le_bytes()),
        page(WalDamage::SegmentSize { expected, found })
    );
    for found in [0, 1000, 2048_u32] {
        let what = WalDamage::PageSize { expected: 1024, found };
        assert_eq!(told(SEGMENT + 36, &found.to_le_bytes()), page(what));
    }
}

#[test]
fn of_records() {
    let (_, start, wal) = sample();
    let (first, second) = (wal.records()[0].0, wal.records()[1].0);
    let offset = (second - start) as usize;
    for found in [1, 23, 0x4000_0000, u32::MAX] {
        assert_eq!(
            told(offset, &found.to_le_bytes()),
            (lsn(second), WalDamage::RecordLength { found })
        );
    }
    let (expected, found) = (Some(lsn(first)), lsn(3));
    assert_eq!(
        told(offset + 8, &3_u64.to_le_bytes()),
        (lsn(second), WalDamage::Chain { expected, found })
    );
    let (at, what) = told(offset + 24, &[0]);
    assert!(matches!(what, WalDamage::RecordCrc { .. }), "{what}");
    assert_eq!(at, lsn(second));
    assert_eq!(told(offset, &[0; 8]), (lsn(second), WalDamage::Hole { resumes: lsn(second + 8) }));
}

#[test]
fn of_records_that_were_given_up() {
    let start = 0x30_0000;
    let mut wal = WalBuilder::new(start, MEGABYTE, 1024);
    wal.record(10, 0, &[1; 100]);
    let given_up = wal.end();
    wal.given_up_record(5000, 1).record(10, 0, &[2; 2000]);
    let (next, _) = wal.records()[1];
    let mut damaged = wal.bytes().to_vec();
    // The record that names the lost one names another, with a checksum that is right.
    let record = (next - start) as usize;
    damaged[record + 26] ^= 8;
    let crc = crc32c::crc32c(&damaged[record + 24..record + 42]);
    let crc = crc32c::crc32c_append(crc, &damaged[record..record + 20]);
    damaged[record + 20..record + 24].copy_from_slice(&crc.to_le_bytes());
    let findings = judge(&options(MEGABYTE, 1024), start, [&damaged[..]]);
    let expected = Some(lsn(given_up));
    assert_eq!(damage(&findings), [(lsn(next), &WalDamage::Overwrite { expected })]);
}

#[test]
fn an_early_end_of_a_record_is_not_the_end_of_wal() {
    let (options, start, wal) = sample();
    let mut damaged = wal.bytes().to_vec();
    damaged[SECOND_PAGE..2 * SECOND_PAGE].fill(0);
    let findings = judge(&options, start, [&damaged[..]]);
    let told = damage(&findings);
    let hole = WalDamage::Hole { resumes: at(2 * SECOND_PAGE) };
    assert!(
        matches!(told[..], [(lsn, what)] if *what == hole && lsn < at(SECOND_PAGE)),
        "{told:?}"
    );
}

#[test]
fn further_segments_are_judged_after_one_that_is_not_wal_at_all() {
    let (options, start, wal) = sample();
    let mut damaged = wal.bytes().to_vec();
    damaged[..SEGMENT].fill(0xEE);
    let findings = judge(&options, start, [&damaged[..]]);
    assert_eq!(damage(&findings).len(), 1);
    let first = wal.records().iter().find(|(record, _)| *record > at(SEGMENT).as_u64()).unwrap();
    assert_eq!(records(&findings)[0].start.as_u64(), first.0);
}
