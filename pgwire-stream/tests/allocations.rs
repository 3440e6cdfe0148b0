//! Receiving costs memory per read, not per message or byte: payloads are slices of the receive
//! buffer.
#![cfg(feature = "tokio")]
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use allocation_counter::AllocationInfo;
use bytes::{Buf, Bytes, BytesMut};
use pgwire_stream::proto::{
    AuthenticationRequest, BackendMessage, Columns, LONG_WAL_MESSAGE, Row, TransactionStatus,
};
use pgwire_stream::{Lsn, ReplicationClient, StartReplication, WalData, WalEvent, WalStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Where the stream begins.
const FROM: u64 = 0x300_0000;

/// The header of a message, of its `CopyData` and of its own.
const HEADER: usize = 30;

/// What the library's receive buffers hold, at least.
const BUFFER: usize = 256 << 10;

/// A server that sends WAL in messages of one length, as fast as it is read.
struct Server {
    greeting: Bytes,
    payload: usize,
    /// How much of the messages was read.
    sent: usize,
    reads: Rc<Cell<usize>>,
}

impl Server {
    fn header(&self, message: usize) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0] = b'd';
        header[1..5].copy_from_slice(&(self.payload as u32 + 29).to_be_bytes());
        header[5] = b'w';
        let start = FROM + (message * self.payload) as u64;
        header[6..14].copy_from_slice(&start.to_be_bytes());
        header
    }
}

impl AsyncRead for Server {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.greeting.has_remaining() {
            let length = self.greeting.len().min(buffer.remaining());
            buffer.put_slice(&self.greeting[..length]);
            self.greeting.advance(length);
            return Poll::Ready(Ok(()));
        }
        self.reads.set(self.reads.get() + 1);
        while buffer.remaining() > 0 {
            let (message, at) =
                (self.sent / (HEADER + self.payload), self.sent % (HEADER + self.payload));
            let before = buffer.remaining();
            if at < HEADER {
                let header = self.header(message);
                let length = (HEADER - at).min(buffer.remaining());
                buffer.put_slice(&header[at..at + length]);
            } else {
                let length = (HEADER + self.payload - at).min(buffer.remaining());
                buffer.initialize_unfilled_to(length).fill(7);
                buffer.advance(length);
            }
            self.sent += before - buffer.remaining();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Server {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A login, an identification of timeline 1, and the beginning of a stream.
fn greeting() -> Bytes {
    use BackendMessage as M;
    let ready = M::ReadyForQuery(TransactionStatus::Idle);
    let version = M::ParameterStatus { name: "server_version".into(), value: "15.20".into() };
    let columns = ["systemid", "timeline", "xlogpos", "dbname"];
    let row = [Some("1"), Some("1"), Some("0/3000000"), None];
    let mut bytes = BytesMut::new();
    for message in [
        M::Authentication(AuthenticationRequest::Ok),
        version,
        ready.clone(),
        M::RowDescription(Columns::of_text(&columns)),
        M::DataRow(Row::of_text(&row)),
        ready,
        M::CopyBothResponse,
    ] {
        message.encode(&mut bytes).expect("a message that can be sent");
    }
    bytes.freeze()
}

/// What `use_messages` costs on a stream of messages with this payload, and how many reads.
fn measure<F: AsyncFn(&mut WalStream<Server>)>(
    payload: usize,
    use_messages: F,
) -> (AllocationInfo, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime can be made");
    let reads = Rc::new(Cell::new(0));
    let server = Server { greeting: greeting(), payload, sent: 0, reads: Rc::clone(&reads) };
    runtime.block_on(async {
        let config = "user=walrecv".parse().expect("a configuration");
        let client = ReplicationClient::from_stream(server, &config).await.expect("a login");
        let options = StartReplication::new(Lsn::from_u64(FROM));
        let mut stream = client.start_replication(options).await.expect("a stream");
        next(&mut stream).await;
        reads.set(0);
        let mut using = std::pin::pin!(use_messages(&mut stream));
        // Nothing here ever waits.
        let mut context = Context::from_waker(std::task::Waker::noop());
        let info =
            allocation_counter::measure(|| while using.as_mut().poll(&mut context).is_pending() {});
        (info, reads.get())
    })
}

async fn next(stream: &mut WalStream<Server>) -> WalData {
    match stream.next().await {
        Ok(Some(WalEvent::Data(data))) => data,
        other => panic!("{other:?}"),
    }
}

/// Messages of small changes up to more than a server sends, and awkward ones.
const PAYLOADS: [usize; 6] = [100, 4000, 8 << 10, 100_000, 128 << 10, 1 << 20];

/// How many messages make this many bytes.
fn messages(bytes: usize, payload: usize) -> usize {
    bytes / payload
}

#[test]
fn allocations_are_per_read_and_not_per_message() {
    for payload in PAYLOADS {
        let (info, reads) = measure(payload, async |stream| {
            for _ in 0..messages(16 << 20, payload) {
                next(stream).await;
            }
        });
        assert!(reads >= (16 << 20) / BUFFER.max(payload) / 2, "{payload}: {reads} reads");
        let most = 3 * reads as u64;
        assert!(info.count_total <= most, "{payload}: {} in {reads} reads", info.count_total);
    }
}

#[test]
fn memory_does_not_grow_with_the_stream() {
    for payload in PAYLOADS {
        for total in [4 << 20, 16 << 20] {
            let (info, _) = measure(payload, async |stream| {
                for _ in 0..messages(total, payload) {
                    next(stream).await;
                }
            });
            let most = 3 * BUFFER.max(payload + HEADER) as u64;
            assert!(info.bytes_max <= most, "{payload}: {}", info.bytes_max);
        }
    }
}

#[test]
fn a_smaller_buffer_takes_less_memory() {
    for payload in [40_000, 128 << 10] {
        let (info, _) = measure(payload, async |stream| {
            stream.set_receive_buffer(LONG_WAL_MESSAGE);
            let mut held = next(stream).await;
            for _ in 0..messages(16 << 20, payload) {
                held = next(stream).await;
            }
            drop(held);
        });
        // One that is received into, and one of which a message is held.
        let most = 2 * LONG_WAL_MESSAGE as u64 + 1024;
        assert!(info.bytes_max <= most, "{payload}: {}", info.bytes_max);
    }
}

/// Buffers that the consumer still holds cannot be used again: each byte is allocated once, which
/// leaves no room for copies.
#[test]
fn what_the_consumer_keeps_is_not_copied() {
    const TOTAL: usize = 16 << 20;
    for payload in [100, 4000, 8 << 10, 100_000, 128 << 10] {
        let (info, _) = measure(payload, async |stream| {
            let mut kept = VecDeque::with_capacity(messages(1 << 20, payload) + 1);
            for _ in 0..messages(TOTAL, payload) {
                if kept.len() == kept.capacity() {
                    kept.pop_front();
                }
                kept.push_back(next(stream).await);
            }
        });
        // With the headers, and what the next buffer begins with.
        let most = TOTAL * (payload + HEADER) / payload * 11 / 10;
        assert!(info.bytes_total <= most as u64 + (2 << 20), "{payload}: {}", info.bytes_total);
    }
}

#[test]
fn neighbours_lie_side_by_side_in_one_buffer() {
    for payload in [100, 8 << 10, 128 << 10] {
        measure(payload, async |stream| {
            let (mut adjacent, count) = (0, messages(16 << 20, payload));
            let mut before = next(stream).await.data;
            for _ in 0..count {
                let data = next(stream).await.data;
                let gap = (data.as_ptr() as usize).wrapping_sub(before.as_ptr_range().end as usize);
                adjacent += usize::from(gap == HEADER);
                before = data;
            }
            // The last of a buffer has no neighbour.
            assert!(adjacent * 2 + 2 >= count, "{payload}: {adjacent} of {count}");
        });
    }
}
