//! How fast a copy-both stream is decoded, from bytes in memory to messages.
//!
//! `decode` is the session and the message alone. `read_and_decode` first copies the bytes into the
//! input buffer, as a socket does: what it is slower by is the price of that copy, which is the
//! only one there is.
// A bench fails by panicking.
#![allow(clippy::expect_used, clippy::panic, missing_docs)]

use std::hint::black_box;

use bytes::{BufMut, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pgwire_stream::proto::{CopyBothMessage, Credentials, Event, ProtocolRange, Session};

/// The payloads: of small changes, of a base backup's size, and the most that a server sends.
const SIZES: [(&str, usize); 3] = [("100 B", 100), ("8 KiB", 8 << 10), ("128 KiB", 128 << 10)];

/// What is decoded in one go, at least.
const STRETCH: usize = 16 << 20;

/// A session to which streaming has begun.
fn streaming() -> Session {
    let credentials = Credentials::new("walrecv", None);
    let mut output = BytesMut::new();
    let mut session = Session::new(credentials, ProtocolRange::default(), [], &mut output)
        .expect("nothing is wrong with it");
    let mut input = BytesMut::from(&b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"[..]);
    while session.handle(&mut input, &mut output).expect("a login").is_some() {}
    session.query("START_REPLICATION 0/0", &mut output).expect("the session is idle");
    input.put_slice(b"W\0\0\0\x07\0\0\0");
    let begun = session.handle(&mut input, &mut output).expect("an answer");
    assert!(matches!(begun, Some(Event::CopyBoth)));
    session
}

/// Messages of WAL with payloads of this size.
fn stretch(payload: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(STRETCH + payload + 30);
    while bytes.len() < STRETCH {
        bytes.put_u8(b'd');
        bytes.put_u32(payload as u32 + 29);
        bytes.put_u8(b'w');
        bytes.put_bytes(0, 24);
        bytes.put_bytes(7, payload);
    }
    bytes
}

/// Decodes all that is there. The number of bytes of WAL.
fn decode(session: &mut Session, input: &mut BytesMut, output: &mut BytesMut) -> usize {
    let mut wal = 0;
    while let Some(event) = session.handle(input, output).expect("well-formed messages") {
        let Event::CopyData(payload) = event else { panic!("{event:?}") };
        match CopyBothMessage::decode(payload).expect("a message") {
            CopyBothMessage::Data(data) => wal += black_box(data).data.len(),
            other => panic!("{other:?}"),
        }
    }
    wal
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (name, size) in SIZES {
        let (bytes, mut session) = (stretch(size), streaming());
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || (BytesMut::from(&bytes[..]), BytesMut::new()),
                |(input, output)| decode(&mut session, input, output),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn reading_and_decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read_and_decode");
    for (name, size) in SIZES {
        let (bytes, mut session) = (stretch(size), streaming());
        let (mut input, mut output) = (BytesMut::with_capacity(8 << 10), BytesMut::new());
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (mut rest, mut wal) = (&bytes[..], 0);
                while !rest.is_empty() {
                    let room = input.capacity() - input.len();
                    let (read, unread) = rest.split_at(room.min(rest.len()));
                    input.put_slice(read);
                    rest = unread;
                    wal += decode(&mut session, &mut input, &mut output);
                }
                wal
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = decoding, reading_and_decoding
}
criterion_main!(benches);
