//! Validating WAL, beside the least that it can cost: the checksums of the same records.
//!
//! `PGWIRE_BENCH_WAL=DIR` names a directory of real WAL: each directory in it is one input and
//! holds segments as a server archives them, without a gap. Without it the inputs are made up.

#![allow(missing_docs, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgwire_stream::wal::{Finding, RecordHeader, Start, WalOptions, WalValidator};
use pgwire_stream::{Lsn, SegmentName, SegmentSize};

// Only the tests need everything that it can write.
#[allow(dead_code)]
#[path = "../src/wal/tests/builder.rs"]
mod builder;

const PAGE: usize = 8192;
/// How much WAL a server sends at once (`MAX_SEND_SIZE`).
const MESSAGE: usize = 16 * PAGE;

struct Input {
    name: String,
    segment_size: SegmentSize,
    start: Lsn,
    wal: Vec<u8>,
}

impl Input {
    fn read(directory: &Path) -> Self {
        let mut paths: Vec<_> = std::fs::read_dir(directory)
            .expect("the directory can be read")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        paths.sort();
        let wal: Vec<Vec<u8>> =
            paths.iter().map(|path| std::fs::read(path).expect("a segment")).collect();
        let segment_size = SegmentSize::new(wal[0].len() as u64).expect("segments");
        let first = paths[0].file_name().and_then(|name| name.to_str()).expect("a name");
        let first: SegmentName = first.parse().expect("a segment");
        Self {
            name: directory.file_name().expect("a name").to_string_lossy().into_owned(),
            segment_size,
            start: first.start(segment_size).expect("a position"),
            wal: wal.concat(),
        }
    }

    /// 32 MB of records with these lengths, again and again.
    fn make_up(name: &str, lens: &[usize]) -> Self {
        let start = 0x500_0000;
        let segment_size = SegmentSize::DEFAULT;
        let mut wal = builder::WalBuilder::new(start, segment_size.bytes(), PAGE as u32);
        for len in lens.iter().cycle() {
            wal.record(10, 0, &vec![0xA5; *len]);
            if wal.bytes().len() > 32 << 20 {
                break;
            }
        }
        let wal = wal.bytes().to_vec();
        Self { name: name.to_owned(), segment_size, start: Lsn::from_u64(start), wal }
    }

    fn all() -> Vec<Self> {
        if let Some(directory) = std::env::var_os("PGWIRE_BENCH_WAL") {
            let entries = std::fs::read_dir(directory).expect("the directory can be read");
            let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
            paths.sort();
            return paths.iter().map(|path| Self::read(path)).collect();
        }
        vec![
            Self::make_up("small-rows", &[35, 48, 40, 22, 130]),
            Self::make_up("images", &[8220, 40, 7900, 3000, 22]),
            Self::make_up("bulk", &[5800, 5790, 64]),
        ]
    }

    fn validate(&self, mut found: impl FnMut(Finding)) {
        let options = WalOptions::new(self.segment_size);
        let mut validator = WalValidator::new(options, Start::Anywhere(self.start));
        for message in self.wal.chunks(MESSAGE) {
            validator.feed(message, &mut found);
        }
    }

    /// The pieces of every record, body first, as its checksum covers them.
    fn records(&self) -> Vec<Vec<(usize, usize)>> {
        let mut records = Vec::new();
        self.validate(|finding| match finding {
            Finding::Record(record) => {
                let mut at = record.start.bytes_since(self.start) as usize;
                let mut parts = [RecordHeader::LEN - 4, 4, 0];
                parts[2] = record.header.total_len as usize - RecordHeader::LEN;
                let [header, _, mut body] = parts.map(|len| self.pieces(&mut at, len));
                body.extend(header);
                records.push(body);
            }
            Finding::Unchecked { .. } => {}
            other => panic!("{}: {other:?}", self.name),
        });
        records
    }

    /// The next `len` bytes of a record, cut by pages.
    fn pieces(&self, at: &mut usize, mut len: usize) -> Vec<(usize, usize)> {
        let mut pieces = Vec::new();
        while len > 0 {
            if at.is_multiple_of(PAGE) {
                let long = at.is_multiple_of(self.segment_size.bytes() as usize);
                *at += if long { 40 } else { 24 };
            }
            let piece = len.min(PAGE - *at % PAGE);
            pieces.push((*at, *at + piece));
            *at += piece;
            len -= piece;
        }
        pieces
    }
}

fn benchmark(c: &mut Criterion) {
    for input in Input::all() {
        let mut group = c.benchmark_group(&input.name);
        group.throughput(Throughput::Bytes(input.wal.len() as u64)).sample_size(20);
        let records = input.records();
        // One list, so that following it costs as little as possible.
        let pieces: Vec<(usize, usize, bool)> = records
            .iter()
            .flat_map(|pieces| {
                let last = pieces.len() - 1;
                pieces.iter().enumerate().map(move |(index, &(from, to))| (from, to, index == last))
            })
            .collect();
        group.bench_function("validate", |b| {
            b.iter(|| {
                let mut count = 0;
                input.validate(|finding| {
                    if let Finding::Record(record) = finding {
                        count += u64::from(black_box(&record).header.xid > 0);
                    }
                });
                count
            });
        });
        group.bench_function("crc32c", |b| {
            b.iter(|| {
                let mut crc = 0;
                for &(from, to, last) in &pieces {
                    crc = crc32c::crc32c_append(crc, &input.wal[from..to]);
                    if last {
                        black_box(crc);
                        crc = 0;
                    }
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
