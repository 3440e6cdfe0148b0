//! Reading a manifest of a million files, against what cannot be avoided: the SHA-256 of the same
//! bytes.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgwire_stream::SystemId;
use pgwire_stream::manifest::{
    ChecksumAlgorithm, ManifestFile, ManifestItem, ManifestReader, ManifestWriter,
};
use sha2::{Digest, Sha256};

const FILES: u32 = 1_000_000;

/// As a server lists relations, with the checksums that it makes when it is not asked for others.
fn manifest() -> Vec<u8> {
    let mut writer = ManifestWriter::version_2(Vec::new(), SystemId::from_u64(7)).unwrap();
    for number in 0..FILES {
        writer
            .file(&ManifestFile {
                path: format!("base/{}/{}", 16384 + number % 7, 100_000 + number).into_bytes(),
                size: 8192 * u64::from(number % 4096),
                modified: "2026-11-20 11:03:39 GMT".to_owned(),
                checksum: Some((
                    ChecksumAlgorithm::Crc32c,
                    number.wrapping_mul(0x9E37_79B9).to_le_bytes().to_vec(),
                )),
            })
            .unwrap();
    }
    writer.finish(&[]).unwrap()
}

fn read(manifest: &[u8]) -> u32 {
    let mut reader = ManifestReader::new();
    let mut files = 0;
    for piece in manifest.chunks(64 * 1024) {
        for item in reader.feed(piece).unwrap() {
            files += u32::from(matches!(item, ManifestItem::File(_)));
        }
    }
    reader.finish().unwrap();
    files
}

fn benches(criterion: &mut Criterion) {
    let manifest = manifest();
    assert_eq!(read(&manifest), FILES);

    let mut group = criterion.benchmark_group("manifest");
    group.sample_size(10).warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Bytes(manifest.len() as u64));
    group.bench_function("sha256", |bencher| bencher.iter(|| Sha256::digest(black_box(&manifest))));
    group.bench_function("read", |bencher| bencher.iter(|| read(black_box(&manifest))));
    group.bench_function("serde_json", |bencher| {
        bencher.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(&manifest)).unwrap())
    });
    group.throughput(Throughput::Elements(FILES.into()));
    group.bench_function("entries", |bencher| bencher.iter(|| read(black_box(&manifest))));
    group.finish();
}

criterion_group!(manifest_benches, benches);
criterion_main!(manifest_benches);
