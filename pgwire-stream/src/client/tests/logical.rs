//! Logical streams, and the messages that are not WAL.

use super::*;
use crate::{HotStandbyFeedback, Misuse, StartLogical};

async fn decoding() -> (Stream, Server) {
    let (client, mut server) = logged_in("19.1").await;
    let script = async {
        server.answers("IDENTIFY_SYSTEM", identification("3")).await;
        let command = "START_REPLICATION SLOT \"changes\" LOGICAL 0/";
        server.answers(command, vec![copy_response(b'W')]).await;
    };
    let options = StartLogical::new("changes".parse().unwrap());
    let (stream, ()) = tokio::join!(client.start_logical_replication(options), script);
    let mut stream = stream.unwrap();
    assert!(idle(&mut stream).await);
    server.hears_status().await;
    (stream, server)
}

fn change(at: u64, data: &[u8]) -> Vec<u8> {
    let positions = [at.to_be_bytes(), at.to_be_bytes(), 7u64.to_be_bytes()].concat();
    copy_data(&[b"w", positions.as_slice(), data].concat())
}

fn primary_status() -> Vec<u8> {
    let numbers = [FROM, 17, 19, 7].map(u64::to_be_bytes).concat();
    copy_data(&[b"s".as_slice(), &numbers].concat())
}

#[tokio::test(start_paused = true)]
async fn changes_come_in_any_distance_and_are_confirmed() {
    let (mut stream, mut server) = decoding().await;
    let progress = stream.progress();
    // Only the last message of a transaction has a position in some plugins, and some are empty.
    server.says(&[change(FROM, b"BEGIN"), change(0, b"row"), change(FROM + 900, b"")]).await;
    for (at, data) in [(FROM, &b"BEGIN"[..]), (0, b"row"), (FROM + 900, b"")] {
        let message = next_data(&mut stream).await;
        assert_eq!((message.start, &message.data[..]), (lsn(at), data));
    }
    assert_eq!(progress.positions().received, lsn(FROM + 900));
    let (reported, received) = (lsn(FROM + 901), lsn(FROM + 900));
    let refused = progress.flushed(reported);
    assert_eq!(refused, Err(Misuse::FlushedBeyondReceived { reported, received }));

    // What the server has decoded and found unwanted can be confirmed, too.
    server.says(&[keepalive(FROM + 5000, false)]).await;
    stream.next().await.unwrap();
    progress.flushed(lsn(FROM + 5000)).unwrap();
    assert!(progress.flushed(lsn(FROM + 5001)).is_err());
    assert!(idle(&mut stream).await);
    assert_eq!(server.hears_status().await.flushed, FROM + 5000);
}

#[tokio::test(start_paused = true)]
async fn a_logical_stream_stops_or_is_shut_down_but_has_no_next_timeline() {
    let (mut stream, mut server) = decoding().await;
    stream.stop().unwrap();
    server.says(&[copy_done(), complete("COPY 0"), ready()]).await;
    assert_eq!(stream.next().await.unwrap(), None);
    assert_eq!(stream.finish().unwrap().1, StreamEnd::Stopped);

    let (mut stream, mut server) = decoding().await;
    server.says(&[complete("COPY 0")]).await;
    assert_eq!(stream.next().await.unwrap(), None);
    assert_eq!(stream.finish().unwrap().1, StreamEnd::ServerShutdown);

    let (mut stream, mut server) = decoding().await;
    server.says(&[copy_done(), columns(&["next_tli", "next_tli_startpos"])]).await;
    server.says(&[row(&[Some("4"), Some("0/0")]), complete("x"), ready()]).await;
    let error = stream.next().await.unwrap_err();
    assert!(matches!(error, Error::Violation(Violation::NextTimeline)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_last_hot_standby_feedback_is_sent() {
    let (mut stream, mut server) = streaming(start()).await;
    stream.send_hot_standby_feedback(HotStandbyFeedback { xmin: 1, catalog_xmin: 2 });
    let feedback = HotStandbyFeedback { xmin: 5 << 32 | 3, catalog_xmin: 0 };
    stream.send_hot_standby_feedback(feedback);
    stream.hold(async {}).await.unwrap();
    assert!(idle(&mut stream).await);
    let (tag, payload) = server.hears().await;
    assert_eq!((tag, payload[0], payload.len()), (b'd', b'h', 25));
    assert_eq!(payload[9..], [0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(server.hears_nothing().await);

    // It is taken back before our CopyDone; after it that would be a protocol error.
    stream.send_hot_standby_feedback(HotStandbyFeedback::default());
    stream.stop().unwrap();
    stream.send_hot_standby_feedback(feedback);
    assert!(idle(&mut stream).await);
    let (tag, payload) = server.hears().await;
    assert_eq!((tag, payload[0], &payload[9..]), (b'd', b'h', &[0; 16][..]));
    server.hears_status().await;
    assert_eq!(server.hears().await.0, b'c');
    assert!(server.hears_nothing().await);
}

#[tokio::test(start_paused = true)]
async fn a_primary_tells_its_status_when_asked() {
    let (mut stream, mut server) = decoding().await;
    for _ in 0..2 {
        stream.request_primary_status().unwrap();
        assert!(idle(&mut stream).await);
        // Asked already.
        stream.request_primary_status().unwrap();
        assert!(idle(&mut stream).await);
        let (tag, payload) = server.hears().await;
        assert_eq!((tag, payload[0], payload.len()), (b'd', b'p', 9));
        assert!(server.hears_nothing().await);
        server.says(&[primary_status()]).await;
        let Some(WalEvent::PrimaryStatus(status)) = stream.next().await.unwrap() else {
            panic!("no status")
        };
        assert_eq!(
            (status.written, status.oldest_committing, status.next_transaction),
            (lsn(FROM), 17, 19)
        );
    }
    server.says(&[primary_status()]).await;
    let error = stream.next().await.unwrap_err();
    assert!(matches!(error, Error::Violation(Violation::Unexpected { .. })), "{error}");
}

#[tokio::test(start_paused = true)]
async fn older_servers_are_not_asked_for_their_status() {
    let (mut stream, mut server) = streaming(start()).await;
    let refused = stream.request_primary_status().unwrap_err();
    assert!(matches!(refused, Error::Unsupported(_)), "{refused}");
    assert!(idle(&mut stream).await);
    assert!(server.hears_nothing().await);
}
