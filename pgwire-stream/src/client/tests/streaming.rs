//! WAL as it comes.

use std::pin::pin;

use super::*;
use crate::Misuse;

#[tokio::test(start_paused = true)]
async fn wal_comes_in_order_and_keepalives_are_shown() {
    let (mut stream, mut server) = streaming(start()).await;
    server.says(&[wal(FROM, b"first"), keepalive(FROM + 5, false)]).await;
    server.says(&[wal(FROM + 5, b"second")]).await;
    let first = next_data(&mut stream).await;
    assert_eq!(
        (first.start, &first.data[..], first.end()),
        (lsn(FROM), &b"first"[..], lsn(FROM + 5))
    );
    let Some(WalEvent::Keepalive(sign)) = stream.next().await.unwrap() else {
        panic!("no keepalive")
    };
    assert_eq!((sign.server_end, sign.reply_requested), (lsn(FROM + 5), false));
    assert_eq!(&next_data(&mut stream).await.data[..], b"second");
    assert_eq!(stream.positions().received, lsn(FROM + 11));
    assert!(server.hears_nothing().await, "nothing was asked");
}

#[tokio::test(start_paused = true)]
async fn the_system_is_identified_before_streaming_once() {
    let (mut client, mut server) = logged_in("10.23").await;
    server.says(&identification("3")).await;
    client.identify_system().await.unwrap();
    assert_eq!(server.hears_query().await, "IDENTIFY_SYSTEM");
    let command = "START_REPLICATION PHYSICAL 0/3000000 TIMELINE 3";
    let answer = server.answers(command, vec![copy_response(b'W')]);
    let (stream, ()) = tokio::join!(client.start_replication(start()), answer);
    stream.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_timeline_is_the_one_that_the_caller_knows_of() {
    let (mut client, mut server) = logged_in("15.20").await;
    server.says(&identification("3")).await;
    assert_eq!(client.identify_system().await.unwrap().timeline.get(), 3);
    assert_eq!(server.hears_query().await, "IDENTIFY_SYSTEM");
    // Meanwhile the server may be promoted; its WAL must not be taken for timeline 3's.
    let command = "START_REPLICATION PHYSICAL 0/3000000 TIMELINE 3";
    let answer = server.answers(command, vec![copy_response(b'W')]);
    let options = StartReplication::new(lsn(FROM));
    let (stream, ()) = tokio::join!(client.start_replication(options), answer);
    stream.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_gap_or_a_repetition_is_a_violation() {
    for wrong in [FROM + 6, FROM + 4, FROM, 0] {
        let (mut stream, mut server) = streaming(start()).await;
        server.says(&[wal(FROM, b"first"), wal(wrong, b"second")]).await;
        next_data(&mut stream).await;
        let error = stream.next().await.unwrap_err();
        let (expected, got) = (lsn(FROM + 5), lsn(wrong));
        assert!(
            matches!(&error, Error::Violation(violation)
                if *violation == Violation::WalPosition { expected, got }),
            "{error}"
        );
        // What has failed stays so.
        assert!(matches!(stream.next().await, Err(Error::Misuse(Misuse::Failed))));
        assert!(matches!(stream.hold(async {}).await, Err(Error::Misuse(Misuse::Failed))));
        assert!(matches!(stream.finish(), Err(Error::Misuse(Misuse::NotFinished))));
    }
}

#[tokio::test(start_paused = true)]
async fn next_can_be_dropped_anywhere() {
    let bytes = [wal(FROM, b"first"), keepalive(FROM, true), wal(FROM + 5, b"second")].concat();
    for cut in 0..bytes.len() {
        let (mut stream, mut server) = streaming(start()).await;
        let (early, late) = bytes.split_at(cut);
        let mut received = Vec::new();
        server.pipe.write_all(early).await.unwrap();
        while let Ok(event) = tokio::time::timeout(Duration::from_millis(1), stream.next()).await {
            received.push(event.unwrap().unwrap());
        }
        server.pipe.write_all(late).await.unwrap();
        while received.len() < 3 {
            received.push(stream.next().await.unwrap().unwrap());
        }
        assert!(
            matches!(&received[..], [WalEvent::Data(a), WalEvent::Keepalive(_), WalEvent::Data(b)]
                if a.data == "first" && b.data == "second"),
            "{cut}: {received:?}"
        );
        assert!(!server.hears_status().await.asks);
    }
}

#[tokio::test(start_paused = true)]
async fn events_are_a_stream_that_can_be_dropped_and_begun_anew() {
    use futures::TryStreamExt;

    let (mut stream, mut server) = streaming(start()).await;
    server.says(&[wal(FROM, b"first")]).await;
    {
        let mut events = pin!(stream.events());
        assert!(matches!(events.try_next().await, Ok(Some(WalEvent::Data(_)))));
        let waiting = tokio::time::timeout(Duration::from_millis(1), events.try_next());
        assert!(waiting.await.is_err(), "nothing more was sent");
    }
    // The second does not follow the first.
    server.says(&[wal(FROM + 5, b"second"), wal(FROM, b"again")]).await;
    let mut events = pin!(stream.events());
    assert!(matches!(events.try_next().await, Ok(Some(WalEvent::Data(_)))));
    assert!(matches!(events.try_next().await, Err(Error::Violation(_))));
    assert!(matches!(events.try_next().await, Ok(None)));
}

#[tokio::test(start_paused = true)]
async fn messages_larger_than_the_buffer_arrive_whole() {
    let (mut stream, mut server) = streaming(start()).await;
    let big: Vec<u8> = (0..700_000u32).map(|i| i as u8).collect();
    let script = tokio::spawn(async move {
        for i in 0..5 {
            server.says(&[wal(FROM + i * 700_000, &big)]).await;
        }
        (server, big)
    });
    for i in 0..5u64 {
        let data = next_data(&mut stream).await;
        assert_eq!((data.start, data.data.len()), (lsn(FROM + i * 700_000), 700_000));
        assert_eq!(data.data[12_345], 12_345u32 as u8);
    }
    script.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn errors_after_the_stream_has_begun_are_the_servers() {
    for (code, is_expected) in
        [("58P01", Error::is_wal_removed as fn(&Error) -> bool), ("XX000", |_| true)]
    {
        let (mut stream, mut server) = streaming(start()).await;
        server.says(&[error("ERROR", code), ready()]).await;
        let refused = stream.next().await.unwrap_err();
        assert!(is_expected(&refused) && super::code(&refused) == code, "{refused}");
        // No rest of an answer is awaited.
        assert!(matches!(stream.next().await, Err(Error::Misuse(Misuse::Failed))));
    }
}

#[tokio::test(start_paused = true)]
async fn errors_before_the_stream_are_the_servers() {
    for code in ["42704", "55006", "55000"] {
        let (client, mut server) = logged_in("15.20").await;
        server.says(&identification("3")).await;
        server.says(&[error("ERROR", code), ready()]).await;
        let Err(refused) = client.start_replication(start()).await else { panic!("it began") };
        assert_eq!(super::code(&refused), code);
        assert_eq!(
            (refused.is_slot_missing(), refused.is_slot_in_use()),
            (code == "42704", code == "55006")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_servers_last_word_is_worth_more_than_the_end_of_the_connection() {
    // An administrator, or the slot was invalidated; after an error; and while we could not send.
    for before in [vec![], vec![wal(FROM, b"first")], vec![error("ERROR", "58P01")]] {
        let (mut stream, mut server) = streaming(start()).await;
        let expected = if before == [error("ERROR", "58P01")] { "58P01" } else { "57P01" };
        server.says(&before).await;
        if expected == "57P01" {
            server.says(&[error("FATAL", "57P01")]).await;
        }
        drop(server);
        stream.progress().flushed(lsn(FROM)).unwrap();
        let error = loop {
            if let Err(error) = stream.next().await {
                break error;
            }
        };
        assert_eq!(code(&error), expected, "{error}");
    }
    let (mut stream, server) = streaming(start()).await;
    drop(server);
    let error = stream.next().await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn malformed_messages_end_the_stream() {
    for wrong in
        [copy_data(b""), copy_data(b"x"), wal(FROM, b""), wal(u64::MAX, b"x"), columns(&["x"])]
    {
        let (mut stream, mut server) = streaming(start()).await;
        server.says(&[wrong]).await;
        let error = stream.next().await.unwrap_err();
        assert!(matches!(error, Error::Decode(_) | Error::Violation(_)), "{error}");
    }
}
