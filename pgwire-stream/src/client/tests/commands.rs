//! Commands that are answered with rows.

use super::*;
use crate::{
    AlterSlot, DropSlot, LogicalSlot, PhysicalSlot, SegmentSize, SlotName, SlotPosition, Snapshot,
    SystemId,
};

fn slot() -> SlotName {
    "walrecv".parse().unwrap()
}

fn is_column(error: &Error, name: &str) -> bool {
    matches!(error, Error::Violation(Violation::Column { column, .. }) if *column == name)
}

/// The answer to one command, and what was asked.
macro_rules! ask {
    ($version:expr, $answer:expr, |$client:ident| $call:expr) => {{
        let (mut $client, mut server) = logged_in($version).await;
        server.says(&$answer).await;
        let result = $call.await;
        (result, server.hears_query().await)
    }};
}

#[tokio::test]
async fn the_system_is_identified_in_every_spelling() {
    for (version, flushed) in
        [("10.23", "0/3000148"), ("15.20", "0/3000148"), ("19beta1", "0/03000148")]
    {
        let answer = rows(
            // A later version may have more columns, in another order.
            &["timeline", "systemid", "novelty", "xlogpos", "dbname"],
            &[&[Some("3"), Some("7357089276153"), None, Some(flushed), None]],
        );
        let (result, asked) = ask!(version, answer, |client| client.identify_system());
        let expected = SystemIdentification {
            system_id: SystemId::from_u64(7_357_089_276_153),
            timeline: TimelineId::new(3).unwrap(),
            flushed_to: lsn(0x300_0148),
            database: None,
        };
        assert_eq!((result.unwrap(), asked.as_str()), (expected, "IDENTIFY_SYSTEM"));
    }
}

#[tokio::test]
async fn what_must_be_there_is_missed() {
    for missing in ["systemid", "timeline", "xlogpos"] {
        let names: Vec<_> = ["systemid", "timeline", "xlogpos", "dbname"]
            .map(|name| if name == missing { "x" } else { name })
            .into();
        let values = [Some("1"), Some("3"), Some("0/3000148"), None];
        let answer = rows(&names, &[&values]);
        let (result, _) = ask!("15.20", answer, |client| client.identify_system());
        // The dummy column's value would be fine; its name is not.
        assert!(is_column(&result.unwrap_err(), missing), "{missing}");
    }
    let names = ["systemid", "timeline", "xlogpos", "dbname"];
    for values in [
        [None, Some("3"), Some("0/0"), None],
        [Some("1"), Some("0"), Some("0/0"), None],
        [Some("1"), Some("4294967296"), Some("0/0"), None],
        [Some("1"), Some("3"), Some("0-0"), None],
    ] {
        let answer = rows(&names, &[&values]);
        let (result, _) = ask!("15.20", answer, |client| client.identify_system());
        assert!(matches!(result, Err(Error::Violation(Violation::Column { .. }))), "{values:?}");
    }
    let (result, _) = ask!("15.20", rows(&names, &[]), |client| client.identify_system());
    assert!(result.is_err(), "no row");
}

#[tokio::test]
async fn settings_are_shown() {
    let answer = rows(&["wal_segment_size"], &[&[Some("64MB")]]);
    let (size, asked) = ask!("12.1", answer, |client| client.wal_segment_size());
    assert_eq!(size.unwrap(), SegmentSize::new(64 << 20).unwrap());
    assert_eq!(asked, "SHOW wal_segment_size");
    for answer in
        [rows(&["wal_segment_size"], &[&[Some("3MB")]]), rows(&["wal_segment_size"], &[&[None]])]
    {
        let (size, _) = ask!("12.1", answer, |client| client.wal_segment_size());
        assert!(matches!(size, Err(Error::Violation(_))));
    }
}

#[tokio::test]
async fn history_files_are_bytes() {
    let content = "1\t0/3000000\tno recovery target specified\n";
    let answer = |name| rows(&["filename", "content"], &[&[Some(name), Some(content)]]);
    let timeline = TimelineId::new(2).unwrap();
    let (file, asked) =
        ask!("13.1", answer("00000002.history"), |client| client.timeline_history(timeline));
    let file = file.unwrap();
    assert_eq!((file.timeline, &file.content[..]), (timeline, content.as_bytes()));
    assert_eq!(asked, "TIMELINE_HISTORY 2");
    for wrong in ["00000003.history", "../00000002.history", "000000010000000000000001"] {
        let (file, _) = ask!("13.1", answer(wrong), |client| client.timeline_history(timeline));
        assert!(is_column(&file.unwrap_err(), "filename"), "{wrong}");
    }
    // A server describes the row before it finds that there is no such file.
    let missing = [columns(&["filename", "content"]), error("ERROR", "58P01"), ready()];
    let (file, _) = ask!("13.1", missing, |client| client.timeline_history(timeline));
    assert!(file.unwrap_err().is_wal_removed());
}

const CREATED: [&str; 4] = ["slot_name", "consistent_point", "snapshot_name", "output_plugin"];

#[tokio::test]
async fn logical_slots_are_created_and_altered() {
    let snapshot = "00000003-0000001B-1";
    let values = [Some("walrecv"), Some("0/03000148"), Some(snapshot), Some("pgoutput")];
    let mut options = LogicalSlot::new("pgoutput");
    options.snapshot = Snapshot::Export;
    let created = rows(&CREATED, &[&values]);
    let (result, asked) =
        ask!("19beta1", created, |client| client.create_logical_slot(&slot(), &options));
    let expected = CreatedSlot {
        name: slot(),
        consistent_point: lsn(0x300_0148),
        snapshot_name: Some(snapshot.into()),
        plugin: Some("pgoutput".into()),
    };
    assert_eq!(result.unwrap(), expected);
    assert!(asked.ends_with("LOGICAL \"pgoutput\" (SNAPSHOT 'export')"), "{asked}");
    for missing in 0..2 {
        let mut values = values;
        values[missing] = None;
        let created = rows(&CREATED, &[&values]);
        let (result, _) =
            ask!("18.4", created, |client| client.create_logical_slot(&slot(), &options));
        assert!(is_column(&result.unwrap_err(), CREATED[missing]));
    }

    let changes = AlterSlot { failover: Some(false), two_phase: None };
    let altered = [complete("ALTER_REPLICATION_SLOT"), ready()];
    let (result, asked) = ask!("17.1", altered, |client| client.alter_slot(&slot(), changes));
    result.unwrap();
    assert_eq!(asked, "ALTER_REPLICATION_SLOT \"walrecv\" (FAILOVER false)");
}

#[tokio::test]
async fn slots_are_created_read_and_dropped() {
    let created = rows(&CREATED, &[&[Some("walrecv"), Some("0/0"), None, None]]);
    let options = PhysicalSlot { temporary: false, reserve_wal: true };
    let (result, asked) =
        ask!("18.4", created, |client| client.create_physical_slot(&slot(), options));
    let expected = CreatedSlot {
        name: slot(),
        consistent_point: Lsn::ZERO,
        snapshot_name: None,
        plugin: None,
    };
    assert_eq!(result.unwrap(), expected);
    assert_eq!(asked, "CREATE_REPLICATION_SLOT \"walrecv\" PHYSICAL (RESERVE_WAL)");

    // Servers before 13 complete the command twice.
    let dropped = [complete("DROP_REPLICATION_SLOT"), complete("DROP"), ready()];
    let (result, asked) =
        ask!("10.23", dropped, |client| client.drop_slot(&slot(), DropSlot::Wait));
    result.unwrap();
    assert_eq!(asked, "DROP_REPLICATION_SLOT \"walrecv\" WAIT");

    let names = ["slot_type", "restart_lsn", "restart_tli"];
    let at = SlotPosition { restart: Some((lsn(0x300_0028), TimelineId::FIRST)) };
    for (values, expected) in [
        ([None, None, None], None),
        ([Some("physical"), None, None], Some(SlotPosition { restart: None })),
        ([Some("physical"), Some("0/3000028"), Some("1")], Some(at)),
        ([Some("physical"), Some("0/03000028"), Some("1")], Some(at)),
    ] {
        let (result, _) =
            ask!("16.4", rows(&names, &[&values]), |client| client.read_slot(&slot()));
        assert_eq!(result.unwrap(), expected);
    }
    for values in [
        [Some("physical"), Some("0/3000028"), None],
        [Some("physical"), None, Some("1")],
        [Some("physical"), Some("x"), Some("1")],
    ] {
        let (result, _) =
            ask!("16.4", rows(&names, &[&values]), |client| client.read_slot(&slot()));
        assert!(matches!(result, Err(Error::Violation(Violation::Column { .. }))), "{values:?}");
    }
}

#[tokio::test]
async fn what_a_server_cannot_do_is_not_sent() {
    let (mut client, mut server) = logged_in("14.11").await;
    assert!(matches!(client.read_slot(&slot()).await, Err(Error::Unsupported(_))));
    assert!(server.hears_nothing().await);
}

#[tokio::test]
async fn the_next_command_works_after_an_error() {
    let (mut client, mut server) = logged_in("15.20").await;
    server.says(&[error("ERROR", "42704"), ready()]).await;
    let refused = client.drop_slot(&slot(), DropSlot::FailIfActive).await.unwrap_err();
    assert!(refused.is_slot_missing());
    server.says(&identification("1")).await;
    assert!(client.identify_system().await.is_ok());
}

#[tokio::test]
async fn an_abandoned_command_is_over_before_the_next_is_sent() {
    // Dropped before anything was sent, and in the middle of every part of the answer.
    let answer = rows(&["server_version_num"], &[&[Some("150020")]]).concat();
    for cut in 0..answer.len() {
        let (mut client, mut server) = logged_in("15.20").await;
        let (early, late) = answer.split_at(cut);
        server.pipe.write_all(early).await.unwrap();
        tokio::select! {
            biased;
            _ = client.query("SHOW server_version_num") => panic!("{cut}: it is not over"),
            () = std::future::ready(()) => {}
        }
        server.pipe.write_all(late).await.unwrap();
        assert_eq!(server.hears_query().await, "SHOW server_version_num");
        let answer = server.answers("IDENTIFY_SYSTEM", identification("1"));
        let (identified, ()) = tokio::join!(client.identify_system(), answer);
        assert!(identified.is_ok(), "{cut}");
    }
}

#[tokio::test]
async fn copies_by_plain_sql_are_refused_and_ended() {
    for (begin, rest) in [
        (copy_response(b'G'), vec![complete("COPY 0"), ready()]),
        (copy_response(b'W'), vec![copy_data(b"x"), copy_done(), complete("x"), ready()]),
        (copy_response(b'H'), vec![copy_data(b"x"), copy_done(), complete("COPY 1"), ready()]),
    ] {
        let (mut client, mut server) = logged_in("15.20").await;
        server.says(&[begin]).await;
        server.says(&rest).await;
        let refused = client.query("COPY t").await.unwrap_err();
        assert!(matches!(refused, Error::Violation(Violation::Unexpected { .. })), "{refused}");
        server.says(&identification("1")).await;
        assert!(client.identify_system().await.is_ok());
    }
}

#[tokio::test]
async fn a_last_word_explains_the_end_of_the_connection() {
    let (mut client, mut server) = logged_in("15.20").await;
    server.says(&[error("FATAL", "57P01")]).await;
    drop(server);
    assert_eq!(code(&client.identify_system().await.unwrap_err()), "57P01");

    let (mut client, server) = logged_in("15.20").await;
    drop(server);
    let error = client.identify_system().await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. } | Error::Io(_)), "{error}");
}

#[tokio::test]
async fn answers_are_bounded() {
    let (mut client, mut server) = logged_in("15.20").await;
    let flood = tokio::spawn(async move {
        let big = "x".repeat(3 << 20);
        let _ = server.pipe.write_all(&columns(&["x"])).await;
        while server.pipe.write_all(&row(&[Some(&big)])).await.is_ok() {}
    });
    let error = client.query("SELECT").await.unwrap_err();
    assert!(matches!(error, Error::Violation(Violation::TooLong { .. })), "{error}");
    drop(client);
    flood.await.unwrap();
}

#[tokio::test]
async fn saying_goodbye_is_heard() {
    let (client, mut server) = logged_in("15.20").await;
    client.close().await.unwrap();
    assert_eq!(server.hears().await, (b'X', vec![]));
}
