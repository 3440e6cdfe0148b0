//! The client and a scripted server, joined by a pipe in memory; the clock is the test's.

mod backup;
mod commands;
mod ending;
mod feedback;
mod logical;
#[cfg(feature = "tokio-rt")]
mod spawned;
mod streaming;
mod timeouts;
mod upload_manifest;

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::proto::tests::said::*;
use crate::{Config, Intervals, Lsn, StartReplication, WalData};

type Client = ReplicationClient<DuplexStream>;
type Stream = WalStream<DuplexStream>;

/// What the pipe holds: all that a script says at once.
const PIPE: usize = 1 << 20;

fn lsn(address: u64) -> Lsn {
    Lsn::from_u64(address)
}

/// The server's end.
struct Server {
    pipe: DuplexStream,
    input: BytesMut,
}

/// A status update.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    written: u64,
    flushed: u64,
    applied: u64,
    asks: bool,
}

impl Server {
    async fn says(&mut self, messages: &[Vec<u8>]) {
        self.pipe.write_all(&messages.concat()).await.unwrap();
    }

    /// The client's next message.
    async fn hears(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some(length) = self.input.get(1..5) {
                let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
                if self.input.len() > length {
                    let mut message = self.input.split_to(length + 1);
                    let tag = message.get_u8();
                    message.advance(4);
                    return (tag, message.to_vec());
                }
            }
            assert_ne!(self.pipe.read_buf(&mut self.input).await.unwrap(), 0, "the client left");
        }
    }

    async fn hears_query(&mut self) -> String {
        let (tag, mut body) = self.hears().await;
        assert_eq!((tag, body.pop()), (b'Q', Some(0)));
        String::from_utf8(body).unwrap()
    }

    async fn answers(&mut self, query: &str, messages: Vec<Vec<u8>>) {
        let asked = self.hears_query().await;
        assert!(asked.starts_with(query), "{asked}");
        self.says(&messages).await;
    }

    async fn hears_status(&mut self) -> Status {
        let (tag, body) = self.hears().await;
        let mut body = body.as_slice();
        assert_eq!((tag, body.len(), body.get_u8()), (b'd', 34, b'r'));
        let (written, flushed, applied) = (body.get_u64(), body.get_u64(), body.get_u64());
        body.advance(8);
        Status { written, flushed, applied, asks: body.get_u8() == 1 }
    }

    /// Whether the client has nothing to say now.
    async fn hears_nothing(&mut self) -> bool {
        let wait = Duration::from_millis(1);
        self.input.is_empty()
            && tokio::time::timeout(wait, self.pipe.read_buf(&mut self.input)).await.is_err()
    }
}

/// A client that is logged in to a server of this version.
async fn logged_in(version: &str) -> (Client, Server) {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let mut server = Server { pipe: theirs, input: BytesMut::new() };
    let greeting =
        [authentication(0, b""), parameter("server_version", version), message(b'K', &[0; 8])];
    server.says(&greeting).await;
    server.says(&[ready()]).await;
    let config: Config = "user=walrecv".parse().unwrap();
    let client = Client::from_stream(ours, &config).await.unwrap();
    let length = server.pipe.read_u32().await.unwrap();
    let mut startup = vec![0; length as usize - 4];
    server.pipe.read_exact(&mut startup).await.unwrap();
    assert!(startup.windows(17).any(|part| part == b"replication\0true\0"));
    (client, server)
}

fn identification(timeline: &str) -> Vec<Vec<u8>> {
    vec![
        columns(&["systemid", "timeline", "xlogpos", "dbname"]),
        row(&[Some("7357089276153"), Some(timeline), Some("0/3000148"), None]),
        complete("IDENTIFY_SYSTEM"),
        ready(),
    ]
}

/// Where the tests' streams begin.
const FROM: u64 = 0x300_0000;

fn start() -> StartReplication {
    StartReplication { timeline: TimelineId::new(3), ..StartReplication::new(lsn(FROM)) }
}

/// A stream that has begun and has reported for the first time.
async fn streaming(options: StartReplication) -> (Stream, Server) {
    let (client, mut server) = logged_in("15.20").await;
    let flushed = options.already_flushed.as_u64();
    let script = async {
        server.answers("IDENTIFY_SYSTEM", identification("3")).await;
        server.answers("START_REPLICATION", vec![copy_response(b'W')]).await;
    };
    let (stream, ()) = tokio::join!(client.start_replication(options), script);
    let mut stream = stream.unwrap();
    assert!(idle(&mut stream).await);
    let first = Status { written: flushed, flushed, applied: 0, asks: false };
    assert_eq!(server.hears_status().await, first);
    (stream, server)
}

/// Whether there is nothing to receive.
async fn idle(stream: &mut Stream) -> bool {
    tokio::time::timeout(Duration::from_millis(1), stream.next()).await.is_err()
}

fn wal(start: u64, data: &[u8]) -> Vec<u8> {
    let positions = [start.to_be_bytes(), u64::MAX.to_be_bytes(), 7u64.to_be_bytes()].concat();
    copy_data(&[b"w", positions.as_slice(), data].concat())
}

fn keepalive(server_end: u64, reply_requested: bool) -> Vec<u8> {
    let numbers = [server_end.to_be_bytes(), 7u64.to_be_bytes()].concat();
    copy_data(&[b"k", numbers.as_slice(), &[u8::from(reply_requested)]].concat())
}

async fn next_data(stream: &mut Stream) -> WalData {
    match stream.next().await {
        Ok(Some(WalEvent::Data(data))) => data,
        other => panic!("{other:?}"),
    }
}

/// The rows of an answer that ends well.
fn rows(names: &[&str], values: &[&[Option<&str>]]) -> Vec<Vec<u8>> {
    let mut messages = vec![columns(names)];
    messages.extend(values.iter().map(|values| row(values)));
    messages.extend([complete("SELECT"), ready()]);
    messages
}

fn error(severity: &str, code: &str) -> Vec<u8> {
    report(b'E', severity, code, "as the server words it")
}

fn code(error: &Error) -> String {
    error.sql_state().map(|code| code.to_string()).unwrap_or_default()
}
