//! Speaks over a byte stream of one's own. This one keeps a record of what passes; a tunnel, a
//! simulated network or another TLS library is put in in the same way.
//!
//! ```sh
//! cargo run -p pgwire-stream-examples --bin custom_transport -- /run/postgresql/.s.PGSQL.5432 \
//!     "user=postgres"
//! ```

// Examples are for people at a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use pgwire_stream::{Config, ReplicationClient};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// One piece of the conversation.
enum Passed {
    ToServer(Vec<u8>),
    FromServer(Vec<u8>),
}

/// Shared, because the client owns the stream.
type Record = Arc<Mutex<Vec<Passed>>>;

/// A byte stream that remembers what passed.
struct Recorded<S> {
    inner: S,
    record: Record,
}

impl<S> Recorded<S> {
    fn note(&self, passed: Passed) {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).push(passed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let received = buf.filled().get(before..).unwrap_or_default();
        self.note(Passed::FromServer(received.to_vec()));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.note(Passed::ToServer(bytes.get(..count).unwrap_or_default().to_vec()));
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let socket = arguments.next().ok_or("usage: custom_transport SOCKET CONNINFO")?;
    let config: Config = arguments.next().unwrap_or_default().parse()?;

    let record = Record::default();
    let stream = Recorded { inner: UnixStream::connect(socket).await?, record: record.clone() };
    // Everything that a client can do, over any stream.
    let mut client = ReplicationClient::from_stream(stream, &config).await?;
    let system = client.identify_system().await?;
    println!("system identifier {}, timeline {}", system.system_id, system.timeline);
    client.close().await?;

    for passed in record.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        match passed {
            Passed::ToServer(bytes) => println!("> {}", bytes.escape_ascii()),
            Passed::FromServer(bytes) => println!("< {}", bytes.escape_ascii()),
        }
    }
    Ok(())
}
