//! What the server is told, and when; what its silence means.

use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::Misuse;

const SECOND: Duration = Duration::from_secs(1);

fn written(written: u64, flushed: u64) -> Status {
    Status { written, flushed, applied: 0, asks: false }
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_is_answered_before_the_caller_comes_back() {
    let (mut stream, mut server) = streaming(start()).await;
    server.says(&[wal(FROM, b"first"), keepalive(FROM + 5, true), wal(FROM + 5, b"x")]).await;
    next_data(&mut stream).await;
    stream.progress().written(lsn(FROM + 5));
    assert!(matches!(stream.next().await.unwrap(), Some(WalEvent::Keepalive(_))));
    assert_eq!(server.hears_status().await, written(FROM + 5, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_durable_is_reported_at_once() {
    let (mut stream, mut server) = streaming(start()).await;
    let progress = stream.progress();
    server.says(&[wal(FROM, b"first")]).await;
    next_data(&mut stream).await;
    let storage = tokio::spawn(async move {
        sleep(3 * SECOND).await;
        progress.flushed(lsn(FROM + 5)).unwrap();
        progress.applied(lsn(FROM + 2));
    });
    let began = Instant::now();
    let told = tokio::select! {
        _ = stream.next() => panic!("nothing comes"),
        status = server.hears_status() => status,
    };
    assert_eq!((told.written, told.flushed), (FROM + 5, FROM + 5));
    assert_eq!(began.elapsed().as_secs(), 3);
    storage.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_durable_is_reported_under_load_too() {
    let (mut stream, mut server) = streaming(start()).await;
    let progress = stream.progress();
    for i in 0..100 {
        // There is always something to receive.
        server.says(&[wal(FROM + 2 * i, b"a"), wal(FROM + 2 * i + 1, b"b")]).await;
        let data = next_data(&mut stream).await;
        progress.flushed(data.end()).unwrap();
        next_data(&mut stream).await;
        assert_eq!(server.hears_status().await.flushed, data.end().as_u64());
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_comes_every_interval() {
    let (mut stream, mut server) = streaming(start()).await;
    let began = Instant::now();
    for i in 1..=2 {
        tokio::select! {
            _ = stream.next() => panic!("nothing comes"),
            status = server.hears_status() => assert_eq!(status, written(0, 0)),
        }
        assert!(matches!(i * 10 - began.elapsed().as_secs(), 0..=1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_durable_before_is_reported_from_the_start() {
    let options = StartReplication { already_flushed: lsn(FROM + 100), ..start() };
    let (stream, _server) = streaming(options).await;
    stream.progress().flushed(lsn(FROM + 100)).unwrap();
    let (reported, received) = (lsn(FROM + 101), lsn(FROM + 100));
    let refused = stream.progress().flushed(reported);
    assert_eq!(refused, Err(Misuse::FlushedBeyondReceived { reported, received }));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_asked_and_then_given_up() {
    let (mut stream, mut server) = streaming(start()).await;
    let began = Instant::now();
    let listen = async {
        let mut asked_after = None;
        loop {
            if server.hears_status().await.asks {
                assert_eq!(asked_after.replace(began.elapsed().as_secs()), None, "asked twice");
            }
            if began.elapsed() > 45 * SECOND {
                break asked_after;
            }
        }
    };
    let (result, asked_after) = tokio::join!(stream.next(), listen);
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Timeout { limit, .. } if limit == 60 * SECOND), "{error}");
    assert!(matches!(asked_after, Some(29..=30)), "{asked_after:?}");
    assert!(matches!(began.elapsed().as_secs(), 59..=60));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_enough_to_go_on() {
    let (mut stream, mut server) = streaming(start()).await;
    for _ in 0..10 {
        let answer = async {
            while !server.hears_status().await.asks {}
            server.says(&[keepalive(FROM, false)]).await;
        };
        let (event, ()) = tokio::join!(stream.next(), answer);
        assert!(matches!(event.unwrap(), Some(WalEvent::Keepalive(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn ticks_that_interrupt_do_not_hide_a_dead_server() {
    let (mut stream, server) = streaming(start()).await;
    let began = Instant::now();
    let error = loop {
        match timeout(SECOND / 2, stream.next()).await {
            Ok(result) => break result.unwrap_err(),
            Err(_) => stream.hold(async {}).await.unwrap(),
        }
    };
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(began.elapsed() <= 61 * SECOND);
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn hold_reports_and_reads_nothing() {
    let (mut stream, mut server) = streaming(start()).await;
    server.says(&[wal(FROM, b"first"), keepalive(FROM, true)]).await;
    let listen = async {
        let mut heard = Vec::new();
        while let Ok(status) = timeout(11 * SECOND, server.hears_status()).await {
            heard.push(status);
        }
        heard
    };
    let (held, heard) = tokio::join!(stream.hold(sleep(3600 * SECOND)), listen);
    held.unwrap();
    // Unasked: what it asks meanwhile stands unread.
    assert!(matches!(heard.len(), 3599..=3601), "{}", heard.len());
    // Whoever does not listen does not ask.
    assert!(heard.iter().all(|status| *status == written(0, 0)));
    assert_eq!(stream.positions().received, lsn(FROM));
    next_data(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn hold_reports_what_becomes_durable() {
    let (mut stream, mut server) = streaming(start()).await;
    let progress = stream.progress();
    server.says(&[wal(FROM, b"first")]).await;
    next_data(&mut stream).await;
    let storage = async {
        sleep(SECOND / 2).await;
        progress.flushed(lsn(FROM + 5)).unwrap();
        assert_eq!(server.hears_status().await, written(FROM + 5, FROM + 5));
        "stored"
    };
    assert_eq!(stream.hold(storage).await.unwrap(), "stored");
}

#[tokio::test(start_paused = true)]
async fn a_long_hold_is_not_held_against_the_server() {
    for abandoned in [false, true] {
        let (mut stream, server) = streaming(start()).await;
        let hour = 3600 * SECOND;
        let mut hold = Box::pin(stream.hold(sleep(2 * hour)));
        let _ = timeout(if abandoned { hour } else { 3 * hour }, &mut hold).await;
        drop(hold);
        let began = Instant::now();
        // Another minute of silence is.
        let error = stream.next().await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
        assert!(matches!(began.elapsed().as_secs(), 59..=60), "{:?}", began.elapsed());
        drop(server);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_caller_reads_first_and_asks_before_giving_up() {
    let (mut stream, mut server) = streaming(start()).await;
    server.says(&[wal(FROM, b"first")]).await;
    sleep(300 * SECOND).await;
    next_data(&mut stream).await;

    sleep(300 * SECOND).await;
    let answer = async {
        while !server.hears_status().await.asks {}
        sleep(20 * SECOND).await;
        server.says(&[keepalive(FROM, false)]).await;
    };
    let (event, ()) = tokio::join!(stream.next(), answer);
    assert!(matches!(event.unwrap(), Some(WalEvent::Keepalive(_))));
}

#[tokio::test(start_paused = true)]
async fn a_slow_caller_leaves_the_server_time_to_end_the_stream() {
    for stopped in [true, false] {
        let (mut stream, mut server) = streaming(start()).await;
        server.says(&[wal(FROM, b"first")]).await;
        if !stopped {
            server.says(&[copy_done()]).await;
        }
        next_data(&mut stream).await;
        sleep(300 * SECOND).await;
        if stopped {
            stream.stop().unwrap();
        }
        let end = async {
            while server.hears().await.0 != b'c' {}
            sleep(20 * SECOND).await;
            if stopped {
                server.says(&[copy_done(), complete("COPY 0"), ready()]).await;
            } else {
                let next: &[Option<&str>] = &[Some("4"), Some("0/3000005")];
                server.says(&rows(&["next_tli", "next_tli_startpos"], &[next])).await;
            }
        };
        let (event, ()) = tokio::join!(stream.next(), end);
        assert_eq!(event.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_no_reports_is_given_up_when_it_falls_silent() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let mut server = Server { pipe: theirs, input: BytesMut::new() };
    let greeting = [authentication(0, b""), parameter("server_version", "15.20"), ready()];
    server.says(&greeting).await;
    server.says(&identification("3")).await;
    server.says(&[copy_response(b'W')]).await;
    let client = Client::from_stream(ours, &"user=walrecv".parse().unwrap()).await.unwrap();
    let intervals = Intervals { status: Some(SECOND / 10), receive: Some(60 * SECOND) };
    let mut stream =
        client.start_replication(StartReplication { intervals, ..start() }).await.unwrap();
    stream.hold(sleep(10_000 * SECOND)).await.unwrap();
    let result = timeout(61 * SECOND, stream.next()).await.expect("it waits for ever");
    assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_no_reports_is_not_buried_in_them() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let mut server = Server { pipe: theirs, input: BytesMut::new() };
    let greeting = [authentication(0, b""), parameter("server_version", "15.20"), ready()];
    server.says(&greeting).await;
    server.says(&identification("3")).await;
    server.says(&[copy_response(b'W')]).await;
    let client = Client::from_stream(ours, &"user=walrecv".parse().unwrap()).await.unwrap();
    let intervals = Intervals { status: Some(SECOND / 100), receive: None };
    let mut stream =
        client.start_replication(StartReplication { intervals, ..start() }).await.unwrap();
    stream.hold(sleep(10_000 * SECOND)).await.unwrap();
    let queued = stream.client.connection.queued();
    assert!((4096..6000).contains(&queued), "{queued}");
    // Once it listens again, it hears the newest position.
    server.says(&[wal(FROM, b"first")]).await;
    next_data(&mut stream).await;
    stream.progress().flushed(lsn(FROM + 5)).unwrap();
    let hears = async {
        while server.input.len() < 100 {
            server.pipe.read_buf(&mut server.input).await.unwrap();
        }
        let startup = u32::from_be_bytes(server.input[..4].try_into().unwrap());
        server.input.advance(startup as usize);
        server.hears_query().await;
        server.hears_query().await;
        while server.hears_status().await.flushed != FROM + 5 {}
    };
    let held = stream.hold(timeout(60 * SECOND, hears)).await.unwrap();
    assert!(held.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_begins_is_given_up() {
    let (client, mut server) = logged_in("15.20").await;
    server.says(&identification("3")).await;
    let Err(error) = client.start_replication(start()).await else { panic!("it began") };
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_during_a_hold_is_told_afterwards() {
    let (mut stream, mut server) = streaming(start()).await;
    server.says(&[error("FATAL", "57P01")]).await;
    drop(server);
    assert_eq!(
        stream
            .hold(async {
                sleep(100 * SECOND).await;
                7
            })
            .await
            .unwrap(),
        7
    );
    assert_eq!(code(&stream.next().await.unwrap_err()), "57P01");
}
