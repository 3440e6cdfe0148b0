//! WAL that is right: records where they are, and what they say.

use super::*;
use crate::PgTimestamp;
use crate::wal::{Content, WalWarning};

#[test]
fn records_are_where_they_were_written() {
    let (options, start, wal) = sample();
    let findings = judge(&options, start, [wal.bytes()]);
    assert_eq!(
        others(&findings),
        [&Finding::Damage { lsn: Lsn::ZERO, what: WalDamage::RecordLength { found: 0 } }; 0]
    );
    let found: Vec<(u64, u64)> = records(&findings)
        .iter()
        .map(|record| (record.start.as_u64(), record.end.as_u64()))
        .collect();
    assert_eq!(found, wal.records());
    for pair in records(&findings).windows(2) {
        assert_eq!(pair[1].header.prev, pair[0].start);
        assert_eq!((pair[0].header.xid, pair[0].header.resource_manager.number()), (700, 10));
    }
}

#[test]
fn a_record_may_be_far_larger_than_what_is_kept() {
    let mut wal = WalBuilder::new(0x100_0000, MEGABYTE, 8192);
    wal.record(21, 0, &vec![7; 5 << 20]).record(10, 0, &[1]);
    let findings = judge(&options(MEGABYTE, 8192), 0x100_0000, wal.bytes().chunks(100_000));
    assert_eq!((records(&findings).len(), others(&findings).len()), (2, 0));
    assert!(size_of::<WalValidator>() < 500, "{}", size_of::<WalValidator>());
}

#[test]
fn nothing_is_known_but_the_size_of_segments() {
    let mut wal = WalBuilder::new(0x100_0000, MEGABYTE, 4096);
    wal.timeline = 7;
    wal.record(10, 0, &[1; 10_000]).record(10, 0, &[2]);
    let options = WalOptions::new(SegmentSize::new(MEGABYTE.into()).unwrap());
    let findings = judge(&options, 0x100_0000, [wal.bytes()]);
    assert_eq!((records(&findings).len(), others(&findings).len()), (2, 0), "{findings:?}");
}

#[test]
fn the_rest_of_a_record_that_began_before_is_passed_over() {
    let (options, start, wal) = sample();
    let all = judge(&options, start, [wal.bytes()]);
    for skipped in 1..wal.bytes().len() as u64 {
        let from = start + skipped;
        let page = from.next_multiple_of(1024);
        let Some((first, _)) = wal.records().iter().find(|(start, _)| *start > page) else {
            assert!(skipped > 6000, "there is nothing to go on with");
            break;
        };
        let findings = judge(&options, from, [&wal.bytes()[skipped as usize..]]);
        let found = records(&findings);
        let [unchecked] = others(&findings)[..] else {
            // A page begins here, and with it a record.
            assert!(
                others(&findings).is_empty() && from.is_multiple_of(1024),
                "{from}: {findings:?}"
            );
            continue;
        };
        let to = found[0].start;
        assert_eq!(*unchecked, Finding::Unchecked { from: lsn(from), to });
        assert_eq!(found, records(&all).split_off(all.len() - found.len()));
        assert_eq!(to.as_u64(), *first, "no more is passed over than has to be");
    }
}

#[test]
fn it_goes_on_where_a_record_begins() {
    let (options, start, wal) = sample();
    for (index, (record, _)) in wal.records().iter().enumerate() {
        let mut validator = WalValidator::new(options.clone(), Start::Record(lsn(*record)));
        let mut findings = Vec::new();
        let rest = &wal.bytes()[(record - start) as usize..];
        validator.feed(rest, |finding| findings.push(finding));
        assert!(others(&findings).is_empty(), "{findings:?}");
        assert_eq!(records(&findings).len(), wal.records().len() - index);
    }
}

#[test]
fn the_rest_of_a_switched_segment_is_empty() {
    for headers in [false, true] {
        let start = 0x30_0000;
        let mut wal = WalBuilder::new(start, MEGABYTE, 8192);
        wal.headers_behind_switch = headers;
        wal.record(10, 0, &[1; 100]).switch().record(10, 0, &[2; 100]).switch();
        let findings = judge(&options(MEGABYTE, 8192), start, [wal.bytes()]);
        assert!(others(&findings).is_empty(), "{findings:?}");
        let ends: Vec<u64> = records(&findings).iter().map(|r| r.end.as_u64()).collect();
        assert_eq!((ends[1], ends[3]), (start + 0x10_0000, start + 0x20_0000));
        assert_eq!(records(&findings)[1].content, Some(Content::Switch));

        // Nobody reads what else may be there.
        let mut bytes = wal.bytes().to_vec();
        for offset in [300, 8192 + 9, 8192 + 300, 0x8_0000] {
            bytes[offset] = 1;
        }
        let findings = judge(&options(MEGABYTE, 8192), start, [&bytes[..]]);
        let what = WalWarning::NotEmpty;
        assert_eq!(others(&findings), [&Finding::Warning { lsn: lsn(start + 300), what }]);
        assert_eq!(records(&findings).len(), 4);
    }
}

#[test]
fn it_starts_behind_a_switch_it_did_not_see() {
    for headers in [false, true] {
        let start = 0x30_0000;
        let mut wal = WalBuilder::new(start, MEGABYTE, 8192);
        (wal.magic, wal.headers_behind_switch) = (if headers { 0xD097 } else { 0xD118 }, headers);
        wal.record(10, 0, &[1; 100]).switch().record(10, 0, &[2; 100]);
        let mut options = options(MEGABYTE, 8192);
        options.version = None;
        let next = start + 0x10_0000;
        for from in [8192, 8192 * 9, 8192 * 127, 8192 + 8, 300] {
            let rest = &wal.bytes()[from as usize..];
            let findings = judge(&options, start + from, [rest]);
            let record = lsn(next + 40);
            let [Finding::Unchecked { to, .. }] = others(&findings)[..] else {
                panic!("{headers} {from}: {findings:?}")
            };
            assert_eq!((*to, records(&findings)[0].start), (record, record));
        }

        // Where a record is said to begin, there has been no switch.
        let at = wal.records()[1].0 + 32;
        let mut validator = WalValidator::new(options.clone(), Start::Record(lsn(at)));
        let mut findings = Vec::new();
        validator.feed(&wal.bytes()[(at - start) as usize..], |finding| findings.push(finding));
        assert!(
            matches!(damage(&findings)[..], [(from, WalDamage::Hole { .. })] if from == lsn(at))
        );

        // A switch leaves neither the beginning of a segment empty, nor a part of one.
        for from in [start, start - 8192] {
            let mut empty = vec![0; (next - from) as usize];
            empty.extend_from_slice(&wal.bytes()[0x10_0000..]);
            let what = WalDamage::Hole { resumes: lsn(next) };
            assert_eq!(damage(&judge(&options, from, [&empty[..]])), [(lsn(from), &what)]);
        }
        let mut wal = WalBuilder::new(start + 8192, MEGABYTE, 8192);
        wal.record(10, 0, &[1; 20_000]);
        let mut part = wal.bytes().to_vec();
        part[..8192].fill(0);
        let what = WalDamage::Hole { resumes: lsn(start + 16_384) };
        let findings = judge(&options, start + 8192, [&part[..]]);
        assert_eq!(damage(&findings), [(lsn(start + 8192), &what)]);
    }
}

#[test]
fn a_switch_may_end_in_the_segment_behind_the_one_it_begins_in() {
    // The header of a record can lie on two pages, in pieces of 8 bytes, or end with its page.
    for room in [8, 16, 24] {
        let start = 0x30_0000;
        let mut wal = WalBuilder::new(start, MEGABYTE, 8192);
        while wal.end() + 16_000 < start + 0x10_0000 {
            wal.record(10, 0, &[1; 8000]);
        }
        let fill = start + 0x10_0000 - room - wal.end();
        // On the last page but one is the rest of the fill, and another header.
        wal.record(10, 0, &vec![2; fill as usize - 24 - 24 * usize::from(fill > 8192)]);
        assert_eq!(wal.end(), start + 0x10_0000 - room);
        wal.switch().record(10, 0, &[3; 100]);
        let findings = judge(&options(MEGABYTE, 8192), start, [wal.bytes()]);
        assert!(others(&findings).is_empty(), "{findings:?}");
        let [.., switch, last] = &records(&findings)[..] else { panic!() };
        let end = if room < 24 { start + 0x20_0000 } else { start + 0x10_0000 };
        assert_eq!(switch.content, Some(Content::Switch));
        assert_eq!((switch.end, last.start), (lsn(end), lsn(end + 40)));
    }
}

#[test]
fn a_record_that_was_given_up_is_no_damage() {
    for pages in 0..3 {
        let start = 0x30_0000;
        let mut wal = WalBuilder::new(start, MEGABYTE, 1024);
        wal.record(10, 0, &[1; 100]);
        let given_up = wal.end();
        wal.given_up_record(5000, pages).record(10, 0, &[2; 2000]);
        let findings = judge(&options(MEGABYTE, 1024), start, [wal.bytes()]);
        let overwrite = records(&findings)[1];
        let lsn = lsn(given_up);
        assert_eq!(overwrite.content, Some(Content::OverwriteContrecord { lsn }));
        assert_eq!(overwrite.header.prev.as_u64(), start + 40);
        assert_eq!(others(&findings), [&Finding::Unchecked { from: lsn, to: overwrite.start }]);
        assert_eq!(records(&findings).len(), 3);
    }
}

#[test]
fn a_segment_begins_with_a_copy_of_its_parent() {
    let start = 0x30_0000;
    let mut wal = WalBuilder::new(start, MEGABYTE, 1024);
    wal.record(10, 0, &[1; 3000]);
    wal.timeline = 2;
    wal.record(10, 0, &[2; 3000]);
    let mut second = options(MEGABYTE, 1024);
    second.timeline = TimelineId::new(2);
    assert!(others(&judge(&second, start, [wal.bytes()])).is_empty());
    let findings = judge(&options(MEGABYTE, 1024), start, [wal.bytes()]);
    let what = WalDamage::Timeline { found: 2, at_least: 1, at_most: Some(1) };
    assert_eq!(damage(&findings), [(lsn(start + 4096), &what)]);
}

#[test]
fn wal_may_end_anywhere_and_zeros_may_follow() {
    let (options, start, wal) = sample();
    for (record, end) in wal.records() {
        let mut bytes = wal.bytes().to_vec();
        let zeros = (end - start) as usize;
        bytes[zeros..].fill(0);
        let mut validator = WalValidator::new(options.clone(), Start::Anywhere(lsn(start)));
        let mut findings = Vec::new();
        validator.feed(&bytes, |finding| findings.push(finding));
        assert!(others(&findings).is_empty(), "{findings:?}");
        let position = validator.position();
        assert_eq!(position.last_record, Some(lsn(*record)));
        assert_eq!(position.valid_to, Some(lsn(*end)));
        assert_eq!(position.next.as_u64(), start + bytes.len() as u64);
        let is_end = *end == wal.end();
        assert_eq!(position.zeros_from, (!is_end).then_some(lsn(*end)));

        // Unless WAL goes on.
        if let Some(last) = bytes.last_mut().filter(|_| !is_end) {
            *last = 1;
            let resumes = lsn(start + wal.bytes().len() as u64 - 1);
            let findings = judge(&options, start, [&bytes[..]]);
            let hole = WalDamage::Hole { resumes };
            assert_eq!(damage(&findings), [(lsn(*end), &hole)]);
        }
    }
}

/// The body of a record with nothing but main data.
fn main_data(data: &[&[u8]]) -> Vec<u8> {
    let data = data.concat();
    let mut body = vec![0xFF, u8::try_from(data.len()).unwrap()];
    body.extend(data);
    body
}

#[test]
fn what_records_say_is_read_however_they_are_cut() {
    let time = 800_000_000_000_000_i64;
    let (le_time, at) = (time.to_le_bytes(), PgTimestamp::from_micros(time));
    let mut name = [0; 64];
    name[..4].copy_from_slice(b"here");
    let checkpoint = [
        &0x500_0028_u64.to_le_bytes()[..],
        &[3, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
        &0x1_0000_02BC_u64.to_le_bytes(),
        &[0; 60],
    ];
    // Behind the origin and the top-level transaction, and with a long header.
    let mut commit = vec![0xFD, 1, 0, 0xFC, 9, 0, 0, 0, 0xFE, 200, 0, 0, 0];
    commit.extend(le_time);
    commit.extend([0; 192]);
    // What may be in the end of a prepared transaction: database, subtransactions, relations,
    // statistics, invalidations, and behind the transaction its name and origin.
    let word = u32::to_le_bytes;
    let lists = |flags: u32, stats: usize, invalidations: usize| {
        let mut data = [&le_time[..], &word(flags), &[0xDB; 8]].concat();
        let mut list = |flag: u32, items: usize, size: usize| {
            if flags & flag != 0 {
                data.extend(word(items as u32));
                data.extend(std::iter::repeat_n(0x77, items * size));
            }
        };
        list(1 << 1, 300, 4);
        list(1 << 2, 2, 12);
        list(1 << 8, 3, stats);
        list(1 << 3, invalidations, 16);
        data.extend(word(4711));
        data.extend(b"name\0");
        data.extend([0x88; 16]);
        data
    };
    let long = |data: Vec<u8>| [&[0xFE][..], &word(data.len() as u32), &data].concat();
    let all = lists(0x1BF, 16, 100);
    let mut committed = vec![0xFD, 1, 0];
    committed.extend(long(all));
    let rolled_back = long(lists(0x1B5, 16, 0));
    let nearly_nothing = main_data(&[&le_time, &word(1 << 4), &word(4711)]);
    let unnamed = main_data(&[&le_time, &word(0), &word(4711)]);
    let (start, redo) = (lsn(0x500_0028), lsn(0x500_0028));
    let next_xid = 0x1_0000_02BC;
    let cases = [
        (1, 0x80, commit, Some(Content::Commit { time: at, xid: 700 })),
        (1, 0x20, main_data(&[&le_time]), Some(Content::Abort { time: at, xid: 700 })),
        (1, 0xB0, committed, Some(Content::Commit { time: at, xid: 4711 })),
        (1, 0xC0, rolled_back, Some(Content::Abort { time: at, xid: 4711 })),
        (1, 0xB0, nearly_nothing, Some(Content::Commit { time: at, xid: 4711 })),
        (1, 0xB0, unnamed, None),
        (1, 0x30, main_data(&[&le_time]), None),
        (1, 0x10, main_data(&[&le_time]), None),
        (1, 0x00, main_data(&[&[1]]), None),
        (1, 0x00, vec![], None),
        (0, 0x70, main_data(&[&le_time, &name]), {
            Some(Content::RestorePoint { time: at, name: "here".to_owned() })
        }),
        (0, 0x00, main_data(&checkpoint), {
            Some(Content::Checkpoint { shutdown: true, redo, timeline: 3, next_xid })
        }),
        (0, 0x10, main_data(&checkpoint), {
            Some(Content::Checkpoint { shutdown: false, redo, timeline: 3, next_xid })
        }),
        (0, 0x50, main_data(&[&start.as_u64().to_le_bytes()]), Some(Content::BackupEnd { start })),
        (0, 0x90, main_data(&[&le_time, &[2, 0, 0, 0, 1, 0, 0, 0]]), {
            Some(Content::EndOfRecovery { time: at, timeline: 2, previous: 1 })
        }),
        (0, 0xA0, vec![0; 50], None),
        (10, 0x00, main_data(&[&le_time]), None),
    ];
    let origin = 0x30_0000;
    let mut wal = WalBuilder::new(origin, MEGABYTE, 1024);
    for (resource_manager, info, body, _) in &cases {
        wal.record(*resource_manager, *info, body);
    }
    let expected: Vec<Option<Content>> = cases.into_iter().map(|(.., content)| content).collect();
    for cut in [1, 3, 100, 10_000] {
        let findings = judge(&options(MEGABYTE, 1024), origin, wal.bytes().chunks(cut));
        let found: Vec<Option<Content>> =
            records(&findings).iter().map(|record| record.content.clone()).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn what_is_unknown_is_warned_of_once() {
    let start = 0x30_0000;
    let mut wal = WalBuilder::new(start, MEGABYTE, 1024);
    (wal.magic, wal.flags) = (0xD1FF, 0x40);
    for _ in 0..3 {
        wal.record(77, 0, &[1; 1000]).record(200, 0, &[]);
    }
    let findings = judge(&options(MEGABYTE, 1024), start, [wal.bytes()]);
    let at = |address, what| Finding::Warning { lsn: lsn(address), what };
    let expected = Some(0xD118);
    assert_eq!(
        others(&findings),
        [
            &at(start, WalWarning::Magic { found: 0xD1FF, expected }),
            &at(start, WalWarning::Flags { unknown: 0x40 }),
            &at(start + 40, WalWarning::ResourceManager { number: 77 }),
        ]
    );
    assert_eq!(records(&findings).len(), 6);

    // 19 has one flag less.
    let mut wal = WalBuilder::new(start, MEGABYTE, 1024);
    (wal.magic, wal.flags, wal.overwrite_flag) = (0xD122, 0, 0x4);
    wal.record(22, 0, &[1; 10]).given_up_record(5000, 1).record(10, 0, &[1; 10]);
    let mut newer = options(MEGABYTE, 1024);
    newer.version = None;
    let findings = judge(&newer, start, [wal.bytes()]);
    assert!(matches!(others(&findings)[..], [Finding::Unchecked { .. }]), "{findings:?}");
}

#[test]
fn big_endian_wal_is_not_judged() {
    let mut page = vec![0; 8192];
    page[..2].copy_from_slice(&0xD118_u16.to_be_bytes());
    page[8..16].copy_from_slice(&0x30_0000_u64.to_be_bytes());
    let findings = judge(&options(MEGABYTE, 8192), 0x30_0000, [&page[..], &[7; 100_000]]);
    let what = WalWarning::ByteOrder;
    assert_eq!(findings, [Finding::Warning { lsn: lsn(0x30_0000), what }]);
}
