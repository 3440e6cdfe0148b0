//! The ends of a stream.

use super::*;
use crate::Misuse;

fn next_timeline(timeline: &str, start: &str) -> Vec<Vec<u8>> {
    vec![
        columns(&["next_tli", "next_tli_startpos"]),
        row(&[Some(timeline), Some(start)]),
        complete("START_STREAMING"),
        complete("START_REPLICATION"),
        ready(),
    ]
}

/// Reads to the end.
async fn drained(stream: &mut Stream) -> Result<u64> {
    let mut bytes = 0;
    while let Some(event) = stream.next().await? {
        if let WalEvent::Data(data) = event {
            bytes += data.data.len() as u64;
        }
    }
    Ok(bytes)
}

async fn still_usable(mut client: Client, mut server: Server) {
    server.says(&identification("4")).await;
    assert_eq!(client.identify_system().await.unwrap().timeline.get(), 4);
}

#[tokio::test(start_paused = true)]
async fn stopping_delivers_what_is_on_its_way_and_says_no_more() {
    let (mut stream, mut server) = streaming(start()).await;
    server.says(&[wal(FROM, b"first")]).await;
    next_data(&mut stream).await;
    stream.progress().flushed(lsn(FROM + 5)).unwrap();
    stream.stop().unwrap();
    stream.stop().unwrap();
    server.says(&[wal(FROM + 5, b"second"), keepalive(FROM + 11, true), copy_done()]).await;
    server.says(&[complete("START_STREAMING"), complete("START_REPLICATION"), ready()]).await;
    assert_eq!(drained(&mut stream).await.unwrap(), 6);
    assert_eq!(server.hears_status().await.flushed, FROM + 5);
    assert_eq!(server.hears().await, (b'c', vec![]));
    assert!(stream.next().await.unwrap().is_none(), "an end stays an end");
    let (client, end) = stream.finish().unwrap();
    assert_eq!(end, StreamEnd::Stopped);
    assert!(server.hears_nothing().await);
    still_usable(client, server).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_stops_is_given_up() {
    let (mut stream, server) = streaming(start()).await;
    stream.stop().unwrap();
    let error = stream.next().await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn a_timeline_ends_and_names_the_next() {
    // Half a record at the end of the old timeline is not part of the new one.
    for at in ["0/3000003", "0/3000005", "0/03000005"] {
        let (mut stream, mut server) = streaming(start()).await;
        server.says(&[wal(FROM, b"first"), copy_done()]).await;
        server.says(&next_timeline("4", at)).await;
        assert_eq!(drained(&mut stream).await.unwrap(), 5);
        assert_eq!(server.hears().await, (b'c', vec![]));
        let (client, end) = stream.finish().unwrap();
        let (timeline, start) = (TimelineId::new(4).unwrap(), at.parse().unwrap());
        assert_eq!(end, StreamEnd::NextTimeline { timeline, start });
        still_usable(client, server).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_on_the_timeline_is_an_empty_stream() {
    let (client, mut server) = logged_in("14.11").await;
    server.says(&identification("4")).await;
    server.says(&next_timeline("4", "0/3000000")).await;
    let mut stream = client.start_replication(start()).await.unwrap();
    assert!(stream.next().await.unwrap().is_none());
    let (client, end) = stream.finish().unwrap();
    let timeline = TimelineId::new(4).unwrap();
    assert_eq!(end, StreamEnd::NextTimeline { timeline, start: lsn(FROM) });
    still_usable(client, server).await;
}

#[tokio::test(start_paused = true)]
async fn an_impossible_next_timeline_is_a_violation() {
    for (timeline, at) in [("4", "0/3000006"), ("3", "0/3000005"), ("2", "0/3000005"), ("0", "0/0")]
    {
        for asked in [TimelineId::new(3), None] {
            let options = StartReplication { timeline: asked, ..start() };
            let (mut stream, mut server) = streaming(options).await;
            server.says(&[wal(FROM, b"first"), copy_done()]).await;
            server.says(&next_timeline(timeline, at)).await;
            let error = drained(&mut stream).await.unwrap_err();
            assert!(matches!(error, Error::Violation(_)), "{timeline} {at}: {error}");
        }
    }
    // An end without a reason, and two of them.
    let (mut stream, mut server) = streaming(start()).await;
    server.says(&[copy_done(), complete("START_STREAMING"), ready()]).await;
    assert!(matches!(drained(&mut stream).await, Err(Error::Violation(Violation::NextTimeline))));
    let (mut stream, mut server) = streaming(start()).await;
    let twice = [row(&[Some("4"), Some("0/0")]), row(&[Some("4"), Some("0/0")])];
    server.says(&[copy_done(), columns(&["next_tli", "next_tli_startpos"])]).await;
    server.says(&twice).await;
    assert!(matches!(drained(&mut stream).await, Err(Error::Violation(_))));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_confirmed_and_ends_the_stream() {
    let (mut stream, mut server) = streaming(start()).await;
    server.says(&[wal(FROM, b"checkpoint"), keepalive(FROM + 10, true)]).await;
    next_data(&mut stream).await;
    assert!(matches!(stream.next().await.unwrap(), Some(WalEvent::Keepalive(_))));
    assert_eq!(server.hears_status().await.flushed, 0);
    // The caller makes it durable now, as the keepalive tells it to.
    stream.progress().flushed(lsn(FROM + 10)).unwrap();
    let confirm = async {
        assert_eq!(server.hears_status().await.flushed, FROM + 10);
        server.says(&[complete("COPY 0")]).await;
        drop(server);
    };
    let (end, ()) = tokio::join!(stream.next(), confirm);
    assert!(end.unwrap().is_none());
    let (mut client, end) = stream.finish().unwrap();
    assert_eq!(end, StreamEnd::ServerShutdown);
    let error = client.identify_system().await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. } | Error::Io(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_while_we_stop_is_a_shutdown() {
    let (mut stream, mut server) = streaming(start()).await;
    stream.stop().unwrap();
    server.says(&[wal(FROM, b"last"), complete("COPY 0")]).await;
    drop(server);
    assert_eq!(drained(&mut stream).await.unwrap(), 4);
    assert_eq!(stream.finish().map(|(_, end)| end).unwrap(), StreamEnd::ServerShutdown);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_ends_only_the_stream_leaves_the_client() {
    // Cancelled, even while we stop, its WAL gone, its start ahead of the server's end.
    for (stopping, code) in [(false, "57014"), (true, "57014"), (false, "58P01"), (false, "XX000")]
    {
        let (mut stream, mut server) = streaming(start()).await;
        if stopping {
            stream.stop().unwrap();
        }
        server.says(&[wal(FROM, b"first"), error("ERROR", code), ready()]).await;
        next_data(&mut stream).await;
        assert_eq!(super::code(&stream.next().await.unwrap_err()), code);
        still_usable(stream.recover().unwrap(), server).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_recovered_from_a_broken_connection_or_a_living_stream() {
    for last_words in [
        vec![error("FATAL", "57P01")],
        vec![error("ERROR", "58P01")],
        vec![wal(FROM + 1, b"gap")],
        vec![copy_data(b"x")],
        vec![complete("COPY 0")],
    ] {
        let (mut stream, mut server) = streaming(start()).await;
        server.says(&last_words).await;
        drop(server);
        let _ = stream.next().await;
        assert!(stream.recover().is_none(), "{last_words:?}");
    }
    let (stream, _server) = streaming(start()).await;
    assert!(stream.recover().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_has_failed_cannot_be_stopped() {
    let (mut stream, mut server) = streaming(start()).await;
    server.says(&[wal(FROM + 1, b"gap")]).await;
    stream.next().await.unwrap_err();
    assert!(matches!(stream.stop(), Err(Misuse::Failed)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_not_finished_before_its_end() {
    let (stream, _server) = streaming(start()).await;
    assert!(matches!(stream.finish(), Err(Error::Misuse(Misuse::NotFinished))));
}

#[tokio::test(start_paused = true)]
async fn holding_at_the_end_waits_and_does_not_spin() {
    let (mut stream, mut server) = streaming(start()).await;
    stream.stop().unwrap();
    server.says(&[copy_done(), complete("x"), ready()]).await;
    let mut turns = 0;
    let counting = std::future::poll_fn(|_| {
        turns += 1;
        std::task::Poll::<()>::Pending
    });
    let hour = Duration::from_secs(3600);
    let _ = tokio::time::timeout(hour, stream.hold(counting)).await;
    assert!(turns < 10, "{turns}");
    drained(&mut stream).await.unwrap();
}
