//! A stream in a task of its own.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{sleep, timeout};

use super::*;
use crate::{Misuse, SpawnedWalStream, spawn_wal_stream};

const SECOND: Duration = Duration::from_secs(1);

async fn spawned(budget: usize) -> (SpawnedWalStream<DuplexStream>, Server) {
    let (stream, server) = streaming(start()).await;
    (spawn_wal_stream(stream, budget), server)
}

async fn next_bytes(stream: &mut SpawnedWalStream<DuplexStream>) -> usize {
    match stream.next().await {
        Ok(Some(WalEvent::Data(data))) => data.data.len(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_session_lives_while_nobody_consumes() {
    let (mut stream, mut server) = spawned(1 << 20).await;
    server.says(&[wal(FROM, b"first"), keepalive(FROM + 5, true)]).await;
    let listen = async {
        let mut heard = 0;
        while let Ok(status) = timeout(11 * SECOND, server.hears_status()).await {
            heard += 1;
            if status.asks {
                server.says(&[keepalive(FROM + 5, false)]).await;
            }
        }
        heard
    };
    let heard = timeout(600 * SECOND, listen).await;
    assert!(heard.is_err(), "the reports ended: {heard:?}");

    // Another task stores and reports.
    let progress = stream.progress();
    assert_eq!(next_bytes(&mut stream).await, 5);
    tokio::spawn(async move { progress.flushed(lsn(FROM + 5)) }).await.unwrap().unwrap();
    while server.hears_status().await.flushed != FROM + 5 {}
    assert_eq!(stream.progress().positions().server_end, Lsn::from_u64(u64::MAX));
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_in_bytes_and_a_full_queue_reads_nothing() {
    let (mut stream, mut server) = spawned(10_000).await;
    let piece = [7; 1000];
    for i in 0..100 {
        server.says(&[wal(FROM + 1000 * i, &piece)]).await;
    }
    sleep(SECOND).await;
    let ahead = stream.queued();
    assert!((8_000..=10_000).contains(&ahead), "{ahead}");
    // The session is kept alive meanwhile.
    sleep(20 * SECOND).await;
    server.hears_status().await;
    for _ in 0..100 {
        assert_eq!(next_bytes(&mut stream).await, 1000);
    }
    assert_eq!(stream.queued(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_still_queued_cannot_be_reported_as_flushed() {
    let (mut stream, mut server) = spawned(10_000).await;
    server.says(&[wal(FROM, b"first"), wal(FROM + 5, b"second")]).await;
    sleep(SECOND).await;
    let progress = stream.progress();
    assert_eq!(progress.positions().received, lsn(FROM));
    assert_eq!(next_bytes(&mut stream).await, 5);
    assert_eq!(progress.positions().received, lsn(FROM + 5));
    assert!(progress.flushed(lsn(FROM + 11)).is_err());
    progress.flushed(lsn(FROM + 5)).unwrap();
    assert_eq!(next_bytes(&mut stream).await, 6);
    progress.flushed(lsn(FROM + 11)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn keepalives_count_and_large_events_pass() {
    let (mut stream, mut server) = spawned(1000).await;
    let flood: Vec<_> = (1..=1000).map(|i| keepalive(i, false)).collect();
    server.says(&flood).await;
    server.says(&[wal(FROM, &[7; 50_000]), wal(FROM + 50_000, b"x")]).await;
    sleep(SECOND).await;
    let read = stream.progress().positions().server_end;
    assert!(read < lsn(1000 / 50), "{read}");
    for _ in 0..1000 {
        assert!(matches!(stream.next().await, Ok(Some(WalEvent::Keepalive(_)))));
    }
    assert_eq!(next_bytes(&mut stream).await, 50_000);
    assert_eq!(next_bytes(&mut stream).await, 1);

    for budget in [0, usize::MAX] {
        let (mut stream, mut server) = spawned(budget).await;
        server.says(&[wal(FROM, b"first"), wal(FROM + 5, b"second")]).await;
        assert_eq!((next_bytes(&mut stream).await, next_bytes(&mut stream).await), (5, 6));
    }
}

#[tokio::test(start_paused = true)]
async fn next_can_be_dropped_at_any_time() {
    let (mut stream, mut server) = spawned(1000).await;
    for i in 0..20 {
        assert!(timeout(SECOND / 10, stream.next()).await.is_err());
        server.says(&[wal(FROM + i, b"x")]).await;
        assert_eq!(next_bytes(&mut stream).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_stopped_and_gives_the_client_back() {
    let (mut stream, mut server) = spawned(10).await;
    server.says(&[wal(FROM, b"first"), wal(FROM + 5, b"second")]).await;
    sleep(SECOND).await;
    stream.stop();
    server.says(&[copy_done(), complete("START_REPLICATION"), ready()]).await;
    assert_eq!((next_bytes(&mut stream).await, next_bytes(&mut stream).await), (5, 6));
    assert_eq!(stream.next().await.unwrap(), None);
    assert_eq!(stream.next().await.unwrap(), None, "an end stays an end");
    let (mut client, end) = stream.finish().unwrap();
    assert_eq!(end, StreamEnd::Stopped);
    server.says(&identification("3")).await;
    client.identify_system().await.unwrap();

    let (stream, _server) = spawned(10).await;
    assert!(matches!(stream.finish(), Err(Error::Misuse(Misuse::NotFinished))));
}

#[tokio::test(start_paused = true)]
async fn errors_come_after_the_events_before_them() {
    let (mut stream, mut server) = spawned(1000).await;
    server.says(&[wal(FROM, b"first"), error("ERROR", "57014"), ready()]).await;
    sleep(SECOND).await;
    assert_eq!(next_bytes(&mut stream).await, 5);
    assert_eq!(code(&stream.next().await.unwrap_err()), "57014");
    assert!(matches!(stream.next().await, Err(Error::Misuse(Misuse::Failed))));
    let mut client = stream.recover().unwrap();
    server.says(&identification("3")).await;
    client.identify_system().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropping_it_closes_the_connection() {
    // While it waits for the server, and while it waits for room.
    for waiting in [vec![], vec![wal(FROM, b"first"), wal(FROM + 5, b"second")]] {
        let (stream, mut server) = spawned(10).await;
        server.says(&waiting).await;
        sleep(SECOND).await;
        drop(stream);
        let mut rest = Vec::new();
        timeout(SECOND, server.pipe.read_to_end(&mut rest)).await.unwrap().unwrap();
    }
}

/// A transport that breaks its contract.
struct Panicking(DuplexStream, bool);

impl AsyncRead for Panicking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        assert!(!self.1, "the transport panics");
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Panicking {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        // A status update: streaming has begun.
        self.1 |= bytes.windows(5).any(|header| header == [b'd', 0, 0, 0, 38]);
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
#[should_panic(expected = "the transport panics")]
async fn a_panic_of_the_task_is_the_consumers() {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let mut server = Server { pipe: theirs, input: BytesMut::new() };
    server.says(&[authentication(0, b""), parameter("server_version", "15.20"), ready()]).await;
    server.says(&identification("3")).await;
    server.says(&[copy_response(b'W')]).await;
    let config: Config = "user=walrecv".parse().unwrap();
    let client = ReplicationClient::from_stream(Panicking(ours, false), &config).await.unwrap();
    let stream = client.start_replication(start()).await.unwrap();
    let mut stream = spawn_wal_stream(stream, 1000);
    let _ = stream.next().await;
}
