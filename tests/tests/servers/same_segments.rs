//! Every segment is, byte for byte, what the server archives and what `pg_receivewal` receives:
//! with every size of segments, after mixed work, switched early or full.

use std::collections::BTreeSet;
use std::path::Path;

use pgwire_stream::{SegmentName, TimelineId};
use walrecv_tests::pg_receivewal::PgReceivewal;
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::stored_wal::StoredWal;
use walrecv_tests::{Cluster, Context, Installation, Result};

use crate::site::{Site, write_wal};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .every_major("same_segments_of_16_mb", |installation| {
            compare(installation, None, &[mixed, switched, filled, switched])
        })
        .per_major("same_segments_of_1_mb", &[11, 15, 18, 19], |installation| {
            compare(installation, Some(1), &[mixed, switched, switched, mixed, switched])
        })
        .per_major("same_segments_of_1_gb", &[18], |installation| {
            compare(installation, Some(1024), &[mixed, switched])
        })
}

type Work = fn(&Cluster) -> Result<()>;

fn compare(installation: &Installation, megabytes: Option<u32>, work: &[Work]) -> ScenarioResult {
    // `pg_receivewal` has no slot to hold what it has not got yet.
    let keep = match installation.major {
        ..=12 => "wal_keep_segments = 1000",
        _ => "wal_keep_size = '8GB'",
    };
    let mut options = Cluster::options(installation).archive().config(keep);
    if let Some(megabytes) = megabytes {
        options = options.wal_segment_megabytes(megabytes);
        if megabytes > 16 && installation.major >= 12 {
            options = options.config("wal_init_zero = off");
        }
    }
    let site = Site::around(options.start()?)?;
    let cluster = &site.cluster;
    let daemon = site.run()?;
    let other = PgReceivewal::start(cluster)?;
    cluster.execute("CREATE TABLE mixed (n serial PRIMARY KEY, t text)")?;
    for work in work {
        work(cluster)?;
    }
    // A switch is over when the next segment has begun.
    cluster.execute("INSERT INTO mixed (t) VALUES ('the end')")?;
    let size = site.segment_size()?;
    let open = size.start_of(size.segment_of(site.position()?));
    let last = SegmentName::new(TimelineId::FIRST, size.last_byte_segment_of(open), size);
    wait_for_segment(cluster, &cluster.archive_directory(), last)?;
    let stored = StoredWal::new(site.walrecv.home().join("main"));
    let mut directories = vec![cluster.archive_directory()];
    if let Some(other) = &other {
        wait_for_segment(cluster, other.directory(), last)?;
        directories.push(other.directory().to_owned());
    }
    // Since all three of them were there.
    let sets: Vec<BTreeSet<SegmentName>> = directories.iter().map(|d| segments_in(d)).collect();
    let first = sets.iter().filter_map(|set| set.first()).max().copied();
    let first = first.ok_or("nothing was archived")?;
    let mut compared = 0;
    for (directory, set) in directories.iter().zip(&sets) {
        for segment in set.range(first..=last) {
            let theirs = directory.join(segment.to_string());
            let mut same = None;
            cluster.wait_for("the stored segment", |_| {
                same = stored.equals(*segment, &theirs)?;
                Ok(same.is_some())
            })?;
            assert_eq!(same, Some(true), "{segment} differs from {}", theirs.display());
            compared += 1;
        }
    }
    let wanted = work.iter().filter(|work| std::ptr::fn_addr_eq(**work, switched as Work)).count();
    assert!(compared >= wanted * directories.len(), "only {compared} before {open}");
    drop(other);
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// Whatever writes WAL of different kinds.
fn mixed(cluster: &Cluster) -> Result<()> {
    let mut session = cluster.session()?;
    for sql in [
        "INSERT INTO mixed (t) SELECT repeat(md5(g::text), g % 60) FROM generate_series(1, 1000) g",
        "UPDATE mixed SET t = t || 'x' WHERE n % 3 = 0",
        "DELETE FROM mixed WHERE n % 7 = 0",
        "CREATE INDEX IF NOT EXISTS mixed_t ON mixed (md5(t))",
        "BEGIN",
        "SAVEPOINT one",
        "INSERT INTO mixed (t) VALUES ('undone')",
        "ROLLBACK TO one",
        "INSERT INTO mixed (t) SELECT string_agg(md5(g::text), '') FROM generate_series(1, 5000) g",
        "COMMIT",
        "BEGIN",
        "TRUNCATE mixed",
        "ROLLBACK",
        "SELECT pg_logical_emit_message(false, 'test', repeat('y', 100000))",
        "SELECT pg_create_restore_point('here')",
        "VACUUM mixed",
        "CHECKPOINT",
        "UPDATE mixed SET t = 'whole pages' WHERE n % 50 = 1",
    ] {
        session.query(sql)?;
    }
    Ok(())
}

fn switched(cluster: &Cluster) -> Result<()> {
    cluster.execute("INSERT INTO mixed (t) VALUES ('something to switch away from')")?;
    cluster.value("SELECT pg_switch_wal()").map(drop)
}

/// More than a segment of 16 MB.
fn filled(cluster: &Cluster) -> Result<()> {
    write_wal(cluster, 18)
}

fn segments_in(directory: &Path) -> BTreeSet<SegmentName> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn wait_for_segment(cluster: &Cluster, directory: &Path, segment: SegmentName) -> Result<()> {
    let path = directory.join(segment.to_string());
    cluster
        .wait_for("a complete segment", |_| Ok(path.exists()))
        .context(|| format!("{} did not come", path.display()))
}
