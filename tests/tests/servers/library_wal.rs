//! The library's WAL validator on the WAL of real servers, with `pg_waldump` as its judge.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use pgwire_stream::wal::{Content, Finding, Record, Start, WalOptions, WalValidator};
use pgwire_stream::{
    Config, Lsn, ReplicationClient, SegmentName, SegmentSize, ServerVersion, StartReplication,
    SystemId, TimelineId, WalEvent, WalFileName,
};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation, program, tools};

use crate::runtime::block_on;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .every_major("library_wal::archived_and_streamed_wal_is_valid", valid)
        .every_major("library_wal::timelines_are_followed_through_copied_segments", timelines)
        .every_major("library_wal::records_that_were_given_up_are_no_damage", given_up)
}

/// A server whose WAL is kept in small segments, where it can have such.
fn start(installation: &Installation) -> walrecv_tests::Result<Cluster> {
    let kept =
        if installation.major >= 13 { "wal_keep_size = '1GB'" } else { "wal_keep_segments = 64" };
    let mut options = Cluster::options(installation)
        .archive()
        .config("wal_level = logical")
        .config("max_prepared_transactions = 5")
        .config(kept);
    if installation.major >= 11 {
        options = options.wal_segment_megabytes(1);
    }
    options.start()
}

fn options(cluster: &Cluster, timeline: TimelineId) -> walrecv_tests::Result<WalOptions> {
    let size = cluster.value("SHOW wal_segment_size")?;
    let mut options = WalOptions::new(SegmentSize::from_setting(&size).unwrap());
    options.version = Some(ServerVersion::from_num(cluster.major() * 10_000));
    let id = cluster.value("SELECT system_identifier FROM pg_control_system()")?;
    options.system_id = Some(id.parse::<SystemId>().unwrap());
    options.timeline = Some(timeline);
    Ok(options)
}

/// The segments of a timeline in the server's archive, in order and without a gap, the last of
/// which has been switched.
fn archived(
    cluster: &Cluster,
    timeline: TimelineId,
    size: SegmentSize,
) -> walrecv_tests::Result<BTreeMap<u64, Vec<u8>>> {
    let switched: Lsn = cluster.value("SELECT pg_switch_wal()")?.parse().unwrap();
    let last = SegmentName::new(timeline, size.last_byte_segment_of(switched), size).to_string();
    let archive = cluster.archive_directory();
    cluster.wait_for("the last segment", |_| Ok(archive.join(&last).exists()))?;
    let mut segments = BTreeMap::new();
    for entry in std::fs::read_dir(&archive).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if let Ok(WalFileName::Segment(name)) = name.parse()
            && name.timeline() == timeline
        {
            let number = name.number(size).unwrap().as_u64();
            segments.insert(number, std::fs::read(&path).unwrap());
        }
    }
    let numbers: Vec<u64> = segments.keys().copied().collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    Ok(segments)
}

fn start_of(segments: &BTreeMap<u64, Vec<u8>>) -> Lsn {
    let (number, bytes) = segments.first_key_value().expect("there are segments");
    Lsn::from_u64(number * bytes.len() as u64)
}

/// What a validator says about segments that follow each other.
fn judge(options: &WalOptions, from: Lsn, pieces: &[&[u8]]) -> (Vec<Record>, Vec<Finding>) {
    let mut validator = WalValidator::new(options.clone(), Start::Anywhere(from));
    let (mut records, mut others) = (Vec::new(), Vec::new());
    for piece in pieces {
        validator.feed(piece, |finding| match finding {
            Finding::Record(record) => records.push(record),
            other => others.push(other),
        });
    }
    (records, others)
}

fn pieces(segments: &BTreeMap<u64, Vec<u8>>) -> Vec<&[u8]> {
    segments.values().map(Vec::as_slice).collect()
}

/// Everything but the rest of a record that began before `start`, and of those that the server gave
/// up when it crashed.
fn unexplained(start: Lsn, records: &[Record], others: &[Finding]) -> Vec<Finding> {
    let explained = |finding: &&Finding| match **finding {
        Finding::Unchecked { from, .. } => {
            let names = Some(Content::OverwriteContrecord { lsn: from });
            from == start || records.iter().any(|record| record.content == names)
        }
        _ => false,
    };
    others.iter().filter(|finding| !explained(finding)).cloned().collect()
}

/// The words of a line of `pg_waldump`, for comparison.
fn as_waldump(record: &Record) -> String {
    let header = &record.header;
    format!(
        "{} {} {} {:?} {:?}",
        header.resource_manager, header.total_len, header.xid, record.start, header.prev
    )
}

/// What `pg_waldump` reads between two positions; none if there is none for this major.
fn waldump(
    cluster: &Cluster,
    timeline: TimelineId,
    from: Lsn,
    until: Lsn,
) -> walrecv_tests::Result<Option<Vec<String>>> {
    let Some(judge) = tools::of_major("pg_waldump", cluster.major()) else {
        tools::missing("pg_waldump", &cluster.installation().name());
        return Ok(None);
    };
    let printed =
        program::run(Command::new(judge).arg("-p").arg(cluster.archive_directory()).args([
            "-t",
            &timeline.to_string(),
            "-s",
            &from.to_string(),
            "-e",
            &until.to_string(),
        ]))?;
    let lines = printed.lines().filter(|line| line.starts_with("rmgr:"));
    let read = lines.map(|line| {
        let field = |name: &str| {
            let (_, rest) = line.split_once(name).expect("pg_waldump prints this field");
            rest.split([',', ' ', '/']).find(|word| !word.is_empty()).unwrap().to_owned()
        };
        let lsn = |name: &str| {
            let (_, rest) = line.split_once(name).expect("pg_waldump prints this field");
            rest.split([',', ' ']).next().unwrap().parse::<Lsn>().unwrap()
        };
        let total = line.split_once("len (rec/tot):").unwrap().1.split_once('/').unwrap().1;
        let total = total.split(',').next().unwrap().trim();
        let (lsn, prev) = (lsn("lsn: "), lsn("prev "));
        format!("{} {total} {} {lsn:?} {prev:?}", field("rmgr: "), field("tx: "))
    });
    Ok(Some(read.collect()))
}

fn compare_with_waldump(
    cluster: &Cluster,
    timeline: TimelineId,
    records: &[Record],
) -> ScenarioResult {
    let (first, last) = (records.first().expect("records"), records.last().expect("records"));
    if let Some(expected) = waldump(cluster, timeline, first.start, last.end)? {
        let read: Vec<String> = records.iter().map(as_waldump).collect();
        for (read, expected) in read.iter().zip(&expected) {
            assert_eq!(read, expected);
        }
        assert_eq!(read.len(), expected.len());
    }
    Ok(())
}

/// Small transactions, a bulk load, full-page images, prepared transactions, logical messages
/// larger than pages and segments, switches, and a crash.
///
/// Returns where a base backup began that ended meanwhile.
fn load(cluster: &mut Cluster) -> walrecv_tests::Result<Lsn> {
    let mut session = cluster.session()?;
    session.query("CREATE TABLE small (id int PRIMARY KEY, t text)")?;
    for id in 0..200 {
        session.query(&format!("INSERT INTO small VALUES ({id}, repeat('x', {id}))"))?;
    }
    session.query("CREATE TABLE bulk (id int, t text)")?;
    session.query("COPY bulk (id) FROM PROGRAM 'seq 1 20000'")?;
    session.query("CREATE INDEX ON bulk (id)")?;
    session.query("CHECKPOINT")?;
    session.query("UPDATE small SET t = t || 'y'")?;
    session.query("UPDATE bulk SET t = md5(id::text) WHERE id % 3 = 0")?;
    session.query("SELECT pg_create_restore_point('before the switch')")?;
    session.query("SELECT pg_switch_wal()")?;
    session.query("BEGIN")?;
    session.query("INSERT INTO small VALUES (1000, 'kept')")?;
    session.query("PREPARE TRANSACTION 'kept'")?;
    session.query("COMMIT PREPARED 'kept'")?;
    session.query("BEGIN")?;
    session.query("INSERT INTO small VALUES (1001, 'lost')")?;
    session.query("PREPARE TRANSACTION 'lost'")?;
    session.query("ROLLBACK PREPARED 'lost'")?;
    session.query("BEGIN; INSERT INTO small VALUES (1002, 'lost'); ROLLBACK")?;
    session.query("SELECT pg_logical_emit_message(false, 'test', repeat('z', 20000))")?;
    session.query("SELECT pg_logical_emit_message(true, 'test', repeat('z', 2500000))")?;
    session.query("DELETE FROM bulk WHERE id % 2 = 0; TRUNCATE small; DROP TABLE small")?;
    session.query("VACUUM bulk")?;
    let (begin, end) = if cluster.major() >= 15 {
        ("pg_backup_start('b', true)", "pg_backup_stop(false)")
    } else {
        ("pg_start_backup('b', true, false)", "pg_stop_backup(false, false)")
    };
    let backup = session.value(&format!("SELECT {begin}"))?;
    session.query(&format!("SELECT {end}"))?;
    drop(session);
    cluster.kill9()?;
    cluster.start()?;
    cluster.execute("INSERT INTO bulk SELECT g FROM generate_series(1, 5000) g")?;
    Ok(backup.parse().expect("the position of the backup"))
}

fn valid(installation: &Installation) -> ScenarioResult {
    let mut cluster = start(installation)?;
    let options = options(&cluster, TimelineId::FIRST)?;
    let backup = load(&mut cluster)?;
    let segments = archived(&cluster, TimelineId::FIRST, options.segment_size)?;
    let start = start_of(&segments);
    let (records, others) = judge(&options, start, &pieces(&segments));
    assert_eq!(unexplained(start, &records, &others), []);
    compare_with_waldump(&cluster, TimelineId::FIRST, &records)?;
    contents_are_read(&cluster, &records, backup)?;

    // Each segment alone, and without knowing anything but the size of segments.
    let mut alone = 0;
    for (number, bytes) in &segments {
        let from = Lsn::from_u64(number * bytes.len() as u64);
        let (found, others) = judge(&WalOptions::new(options.segment_size), from, &[bytes]);
        assert_eq!(unexplained(from, &records, &others), []);
        alone += found.len();
    }
    let whole = |record: &&Record| {
        options.segment_size.segment_of(record.start)
            == options.segment_size.last_byte_segment_of(record.end)
    };
    assert_eq!(alone, records.iter().filter(whole).count());

    // As it is streamed.
    let end = records.last().expect("records").start;
    let mut validator = WalValidator::new(options.clone(), Start::Anywhere(start));
    let (mut streamed, mut others) = (Vec::new(), Vec::new());
    block_on(stream(&cluster, start, end, &mut validator, |finding| match finding {
        Finding::Record(record) => streamed.push(record),
        other => others.push(other),
    }))?;
    assert_eq!(unexplained(start, &streamed, &others), []);
    assert!(streamed.len() >= records.len() - 1, "{} {}", streamed.len(), records.len());
    assert!(streamed.iter().zip(&records).all(|(streamed, archived)| streamed == archived));

    a_changed_byte_is_found(&options, start, &segments, &records);
    Ok(())
}

async fn stream(
    cluster: &Cluster,
    from: Lsn,
    until: Lsn,
    validator: &mut WalValidator,
    mut found: impl FnMut(Finding),
) -> pgwire_stream::Result<()> {
    let config: Config = cluster.superuser_conninfo().parse()?;
    let client = ReplicationClient::connect(&config).await?;
    let mut stream = client.start_replication(StartReplication::new(from)).await?;
    while let Some(event) = stream.next().await? {
        if let WalEvent::Data(wal) = event {
            assert_eq!(validator.position().next, wal.start);
            validator.feed(&wal.data, &mut found);
            if wal.end() >= until {
                stream.stop()?;
            }
        }
    }
    stream.finish()?.0.close().await
}

fn contents_are_read(cluster: &Cluster, records: &[Record], backup: Lsn) -> ScenarioResult {
    let contents: Vec<&Content> = records.iter().filter_map(|r| r.content.as_ref()).collect();
    let now = cluster.value("SELECT extract(epoch FROM now())::bigint")?.parse::<i64>().unwrap();
    let is_recent = |time: &pgwire_stream::PgTimestamp| {
        (now - 600..=now).contains(&(time.as_unix_micros() / 1_000_000))
    };
    let (mut commits, mut aborts, mut switches, mut online) = (0, 0, 0, 0);
    let (mut points, mut backups, mut checkpoints) = (0, 0, Vec::new());
    for content in contents {
        match content {
            Content::Commit { time, .. } => {
                assert!(is_recent(time), "{time}");
                commits += 1;
            }
            Content::Abort { time, .. } => {
                assert!(is_recent(time), "{time}");
                aborts += 1;
            }
            Content::RestorePoint { time, name } => {
                assert!(is_recent(time) && name == "before the switch", "{time} {name}");
                points += 1;
            }
            Content::Checkpoint { shutdown, redo, timeline, next_xid } => {
                let known = |record: &Record| record.start == *redo;
                assert!(*shutdown || records.iter().any(known) || *redo < records[0].start);
                assert_eq!(*timeline, 1);
                checkpoints.push((*redo, *next_xid));
                online += u32::from(!shutdown);
            }
            Content::BackupEnd { start } => {
                assert_eq!(*start, backup);
                backups += 1;
            }
            Content::Switch => switches += 1,
            Content::OverwriteContrecord { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(commits > 200 && aborts >= 2, "{commits} {aborts}");
    assert_eq!((points, backups), (1, 1));
    assert!(switches >= 2 && online >= 1, "{switches} {online}");
    assert!(checkpoints.is_sorted(), "{checkpoints:?}");
    // The server's own word on the last one.
    let last = cluster.query("SELECT redo_lsn, next_xid FROM pg_control_checkpoint()")?;
    let (epoch, xid) = last[0][1].split_once(':').expect("epoch and transaction");
    let next_xid = epoch.parse::<u64>().unwrap() << 32 | xid.parse::<u64>().unwrap();
    assert_eq!(checkpoints.last(), Some(&(last[0][0].parse().unwrap(), next_xid)));
    Ok(())
}

fn a_changed_byte_is_found(
    options: &WalOptions,
    start: Lsn,
    segments: &BTreeMap<u64, Vec<u8>>,
    records: &[Record],
) {
    // What is wrong with the first one is told as part of what was passed over before it. Only what
    // follows tells damage in the last pages of WAL from its end.
    let last = options.segment_size.segment_of(records.last().expect("records").start);
    let followed = |record: &&Record| options.segment_size.last_byte_segment_of(record.end) < last;
    for record in records.iter().skip(1).step_by(records.len() / 10).filter(followed) {
        let mut changed = segments.clone();
        // The first bytes of a record, of its length, never lie on two pages.
        let at = record.start.as_u64() + 1;
        let size = u64::from(options.segment_size.bytes());
        changed.get_mut(&(at / size)).expect("it is there")[(at % size) as usize] ^= 0x10;
        let (left, others) = judge(options, start, &pieces(&changed));
        let others = unexplained(start, records, &others);
        let [Finding::Damage { lsn, .. }, Finding::Unchecked { from, to }] = others[..] else {
            panic!("{record:?}: {others:?}")
        };
        assert_eq!(from, record.start);
        assert!(from <= lsn && lsn < to && to >= record.end, "{record:?}: {others:?}");
        assert!(left.len() < records.len(), "{record:?}");
    }
}

fn timelines(installation: &Installation) -> ScenarioResult {
    let mut cluster = start(installation)?;
    cluster.execute("CREATE TABLE before AS SELECT g FROM generate_series(1, 5000) g")?;
    cluster.stop()?;
    cluster.recover_onto_a_new_timeline()?;
    cluster.start()?;
    cluster.wait_until_promoted()?;
    cluster.execute("CREATE TABLE after AS SELECT g FROM generate_series(1, 5000) g")?;
    let second = TimelineId::new(2).expect("it is not 0");
    let options = options(&cluster, second)?;
    let segments = archived(&cluster, second, options.segment_size)?;
    let (records, others) = judge(&options, start_of(&segments), &pieces(&segments));
    assert_eq!(unexplained(start_of(&segments), &records, &others), []);
    compare_with_waldump(&cluster, second, &records)?;
    let begins = |record: &Record| match record.content {
        Some(Content::EndOfRecovery { timeline, previous, .. }) => (timeline, previous) == (2, 1),
        Some(Content::Checkpoint { timeline, .. }) => timeline == 2,
        _ => false,
    };
    let first_of_second = records.iter().position(begins).expect("timeline 2 begins");
    assert!(first_of_second > 0, "the first segment begins with a copy of timeline 1");

    // It is not WAL of timeline 1.
    let mut wrong = options.clone();
    wrong.timeline = Some(TimelineId::FIRST);
    let (_, others) = judge(&wrong, start_of(&segments), &pieces(&segments));
    assert!(others.iter().any(|finding| matches!(finding, Finding::Damage { .. })));
    Ok(())
}

/// A server crashes after the first part of a record was archived, and the rest is lost.
fn given_up(installation: &Installation) -> ScenarioResult {
    let mut cluster = start(installation)?;
    let options = options(&cluster, TimelineId::FIRST)?;
    let size = options.segment_size;
    cluster.execute("SELECT pg_switch_wal()")?;
    let message =
        |len: u64| format!("SELECT pg_logical_emit_message(false, 'test', repeat('z', {len}))");
    // Nearly to the end of a segment, and far over it.
    let before: Lsn = cluster.value("SELECT pg_current_wal_insert_lsn()")?.parse().unwrap();
    let room = u64::from(size.bytes() - size.offset_in_segment(before));
    cluster.execute(&message(room - room / 100 - 20_000))?;
    let cut = cluster.value("SELECT pg_current_wal_insert_lsn()")?.parse::<Lsn>().unwrap();
    cluster.execute(&message(200_000))?;
    let after: Lsn = cluster.value("SELECT pg_current_wal_insert_lsn()")?.parse().unwrap();
    let (segment, lost) = (size.segment_of(cut), size.segment_of(after));
    assert_eq!(segment.next(), lost, "{cut} {after}");
    // A commit makes sure that it is on disk.
    cluster.execute("CREATE TABLE t ()")?;
    let name = |number| SegmentName::new(TimelineId::FIRST, number, size).to_string();
    let archive = cluster.archive_directory();
    cluster.wait_for("the cut segment", |_| Ok(archive.join(name(segment)).exists()))?;
    cluster.kill9()?;
    remove_newer(&cluster.data_directory().join("pg_wal"), &name(segment));
    cluster.start()?;
    cluster.execute("CREATE TABLE t ()")?;

    let segments = archived(&cluster, TimelineId::FIRST, size)?;
    let (records, others) = judge(&options, start_of(&segments), &pieces(&segments));
    assert_eq!(unexplained(start_of(&segments), &records, &others), []);
    let given_up = records.iter().find_map(|record| match record.content {
        Some(Content::OverwriteContrecord { lsn }) => Some(lsn),
        _ => None,
    });
    let given_up = given_up.expect("a record was given up");
    assert!(given_up >= cut && size.segment_of(given_up) == segment, "{given_up} {cut}");
    let passed_over =
        |finding: &Finding| matches!(finding, Finding::Unchecked { from, .. } if *from == given_up);
    assert!(others.iter().any(passed_over), "{others:?}");
    compare_with_waldump(&cluster, TimelineId::FIRST, &records)
}

fn remove_newer(directory: &Path, name: &str) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        if file.parse::<SegmentName>().is_ok() && file > name {
            std::fs::remove_file(path).unwrap();
        }
    }
}
