//! Reading connection strings of both forms, from text to a checked configuration.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pgwire_stream::Config;

const KEYWORDS: &str = "host=db1.example,db2.example port=5432,5433 user=backup dbname=postgres \
    password='it\\'s secret' sslmode=verify-full sslrootcert=/etc/ssl/pg.crt connect_timeout=10 \
    application_name=archive target_session_attrs=primary require_auth=scram-sha-256";

const URI: &str = "postgresql://backup:it%27s%20secret@db1.example:5432,db2.example:5433/postgres\
    ?sslmode=verify-full&sslrootcert=%2Fetc%2Fssl%2Fpg.crt&connect_timeout=10\
    &application_name=archive&target_session_attrs=primary&require_auth=scram-sha-256";

fn conninfo(criterion: &mut Criterion) {
    // It is the same work, and it is done.
    assert_eq!(KEYWORDS.parse::<Config>().unwrap(), URI.parse::<Config>().unwrap());
    let mut group = criterion.benchmark_group("conninfo");
    for (name, text) in [("keywords", KEYWORDS), ("uri", URI)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(text).parse::<Config>());
        });
    }
    group.finish();
}

criterion_group!(benches, conninfo);
criterion_main!(benches);
