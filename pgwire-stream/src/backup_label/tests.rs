use proptest::prelude::*;

use super::*;
use crate::SegmentSize;

const PG10: ServerVersion = ServerVersion::from_num(100_023);
const PG18: ServerVersion = ServerVersion::from_num(180_004);
const PG19: ServerVersion = ServerVersion::from_num(190_000);

/// As PostgreSQL 18 writes it for an incremental backup.
const INCREMENTAL: &str = "START WAL LOCATION: 1/4000028 (file 000000020000000100000004)
CHECKPOINT LOCATION: 1/4000080
BACKUP METHOD: streamed
BACKUP FROM: standby
START TIME: 2026-11-20 11:03:39 UTC
LABEL: it's \"ni\tght\": \\ 
START TIMELINE: 2
INCREMENTAL FROM LSN: 0/2000028
INCREMENTAL FROM TLI: 1
";

fn parse(text: &str) -> Result<BackupLabel, BackupLabelError> {
    BackupLabel::parse(text.as_bytes())
}

fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

#[test]
fn a_label_is_read_as_the_server_meant_it() {
    let label = parse(INCREMENTAL).unwrap();
    let base = IncrementalFrom { lsn: Lsn::from_u64(0x0200_0028), timeline: tli(1) };
    assert_eq!(
        label,
        BackupLabel {
            start: WalLocation::new(Lsn::from_u64(0x1_0400_0028), tli(2), SegmentSize::DEFAULT),
            checkpoint: Lsn::from_u64(0x1_0400_0080),
            method: BackupMethod::Streamed,
            from: BackupFrom::Standby,
            start_time: "2026-11-20 11:03:39 UTC".to_owned(),
            label: b"it's \"ni\tght\": \\ ".to_vec(),
            incremental_from: Some(base),
        }
    );
    assert_eq!(label.write(PG18), INCREMENTAL.as_bytes());
}

#[test]
fn versions_differ_in_words_and_lines() {
    let old = INCREMENTAL.split_once("INCREMENTAL").unwrap().0.replace("standby", "master");
    let old = old.replace("START TIMELINE: 2\n", "");
    let label = parse(&old).unwrap();
    assert_eq!((label.from, label.start.timeline()), (BackupFrom::Primary, tli(2)));
    assert_eq!(label.write(PG10), old.as_bytes());
    let padded = label.write(PG19);
    assert!(padded.starts_with(b"START WAL LOCATION: 1/04000028 (file"));
    assert_eq!(BackupLabel::parse(&padded), Ok(label));
}

#[test]
fn what_is_combined_is_no_longer_incremental() {
    let full = without_incremental_lines(INCREMENTAL.as_bytes());
    let mut expected = parse(INCREMENTAL).unwrap();
    expected.incremental_from = None;
    assert_eq!(BackupLabel::parse(&full), Ok(expected));
    assert_eq!(without_incremental_lines(&full), full);
    assert!(INCREMENTAL.as_bytes().starts_with(&full));
}

#[test]
fn a_broken_label_is_refused_by_its_line() {
    use BackupLabelError::{Contradiction, Missing, Repeated, Unterminated, Value};
    let with = |from: &str, to: &str| parse(&INCREMENTAL.replacen(from, to, 1));
    let value = |line, key| Err(Value { line, key });
    assert_eq!(with("1/4000028 (", "1/4000028("), value(1, "START WAL LOCATION"));
    assert_eq!(with("1/4000028", "2/4000028"), value(1, "START WAL LOCATION"));
    assert_eq!(with("00000004)", "0000004)"), value(1, "START WAL LOCATION"));
    assert_eq!(with("1/4000080", "14000080"), value(2, "CHECKPOINT LOCATION"));
    assert_eq!(with("streamed", "copied"), value(3, "BACKUP METHOD"));
    assert_eq!(with("standby", "Standby"), value(4, "BACKUP FROM"));
    assert_eq!(with("TIMELINE: 2", "TIMELINE: 0"), value(7, "START TIMELINE"));
    let key = "START TIMELINE";
    assert_eq!(with("TIMELINE: 2", "TIMELINE: 3"), Err(Contradiction { key }));
    assert_eq!(with("CHECKPOINT", "CHECK"), Err(Missing { key: "CHECKPOINT LOCATION" }));
    let key = "INCREMENTAL FROM LSN";
    assert_eq!(with(key, "INCREMENTAL FROM lsn"), Err(Missing { key }));
    // A label with a line break: what looks like a line of the server's counts as one.
    assert_eq!(with("it's", "it's\nLABEL: 2"), Err(Repeated { line: 7, key: "LABEL" }));
    assert_eq!(with("it's", "it's\nsomething else").unwrap().label, b"it's");
    let cut = &INCREMENTAL[..INCREMENTAL.len() - 1];
    assert_eq!(parse(cut), Err(Unterminated { line: 9 }));
    assert_eq!(parse(""), Err(Unterminated { line: 1 }));
}

#[test]
fn a_history_file_is_as_servers_write_it() {
    let content = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
STOP WAL LOCATION: 0/2000120 (file 000000010000000000000002)
CHECKPOINT LOCATION: 0/2000060
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-20 11:03:39 UTC
LABEL: x
START TIMELINE: 1
STOP TIME: 2026-11-20 11:03:40 UTC
STOP TIMELINE: 1
";
    let history = BackupHistory::parse(content.as_bytes()).unwrap();
    assert_eq!(history.write(PG18), content.as_bytes());
    assert_eq!(history.stop.lsn, Lsn::from_u64(0x0200_0120));
    let name = history.file_name(SegmentSize::DEFAULT);
    assert_eq!(name, "000000010000000000000002.00000028.backup");
    let contradicted = content.replace("STOP TIMELINE: 1", "STOP TIMELINE: 2");
    assert!(BackupHistory::parse(contradicted.as_bytes()).is_err());
    let label = history.label.write(PG18);
    assert_eq!(
        BackupHistory::parse(&label),
        Err(BackupLabelError::Missing { key: "STOP WAL LOCATION" })
    );
}

fn any_location() -> impl Strategy<Value = WalLocation> {
    (any::<u64>(), 1u32.., 20u32..=30).prop_map(|(lsn, timeline, bits)| {
        let size = SegmentSize::new(1 << bits).unwrap();
        WalLocation::new(Lsn::from_u64(lsn), tli(timeline), size)
    })
}

fn any_label() -> impl Strategy<Value = BackupLabel> {
    let base = prop::option::of((any::<u64>(), 1u32..));
    let label = prop::collection::vec(any::<u8>().prop_filter("a line", |&b| b != b'\n'), 0..50);
    (any_location(), any::<u64>(), any::<[bool; 2]>(), "[^\n]{0,30}", label, base).prop_map(
        |(start, checkpoint, [streamed, primary], start_time, label, base)| BackupLabel {
            start,
            checkpoint: Lsn::from_u64(checkpoint),
            method: if streamed { BackupMethod::Streamed } else { BackupMethod::PgStartBackup },
            from: if primary { BackupFrom::Primary } else { BackupFrom::Standby },
            start_time,
            label,
            incremental_from: base.map(|(lsn, timeline)| IncrementalFrom {
                lsn: Lsn::from_u64(lsn),
                timeline: tli(timeline),
            }),
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        label in any_label(),
        stop in any_location(),
        stop_time in "[^\n]{0,30}",
        version in prop::sample::select(vec![PG10, PG18, PG19]),
    ) {
        prop_assert_eq!(BackupLabel::parse(&label.write(version)), Ok(label.clone()));
        let history = BackupHistory { label, stop, stop_time };
        prop_assert_eq!(BackupHistory::parse(&history.write(version)), Ok(history));
    }

    #[test]
    fn nothing_makes_it_panic(content: Vec<u8>, at in 0..INCREMENTAL.len(), byte: u8) {
        let _ = BackupHistory::parse(&content);
        let mut damaged = INCREMENTAL.as_bytes().to_vec();
        damaged[at] = byte;
        let _ = BackupLabel::parse(&damaged);
    }
}
