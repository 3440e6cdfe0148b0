//! SIGKILL to the receiver, again and again, while the server writes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgwire_stream::{SegmentName, SegmentSize, TimelineId};
use walrecv_tests::Installation;
use walrecv_tests::run::{ScenarioResult, Scenarios};

use crate::site::{Site, lsn};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("receiver_is_killed", &[10, 14, 18], receiver_is_killed)
}

fn receiver_is_killed(installation: &Installation) -> ScenarioResult {
    let mut site = Site::new(installation)?;
    site.cluster.execute("CREATE TABLE load (n serial, t text)")?;
    let mut daemon = site.run()?;
    let slot = site.cluster.value("SELECT restart_lsn FROM pg_replication_slots")?;
    let begin = lsn(&slot)?;
    let id = site.backup()?;

    let enough = AtomicBool::new(false);
    let cluster = &site.cluster;
    daemon = std::thread::scope(|scope| -> Result<_, Box<dyn std::error::Error>> {
        let load = scope.spawn(|| -> walrecv_tests::Result<()> {
            let mut session = cluster.session()?;
            while !enough.load(Ordering::Relaxed) {
                session.query(
                    "INSERT INTO load (t) SELECT repeat(md5(g::text), 20) \
                     FROM generate_series(1, 200) AS g",
                )?;
            }
            Ok(())
        });
        let mut daemon = daemon;
        for round in 0..8 {
            std::thread::sleep(Duration::from_millis(150 + 70 * round));
            daemon.kill9()?;
            daemon = site.walrecv.spawn(&["run"])?;
        }
        site.wait_until_streaming()?;
        enough.store(true, Ordering::Relaxed);
        load.join().map_err(|_| "the load panicked")??;
        Ok(daemon)
    })?;

    let rows = site.cluster.value("SELECT count(*) FROM load")?;
    site.settle()?;
    let size = SegmentSize::from_setting(&site.cluster.value("SHOW wal_segment_size")?)?;
    let first = SegmentName::new(TimelineId::FIRST, size.segment_of(begin), size);
    assert!(site.compare_with_archive(&first)? >= 2);

    site.cluster.kill9()?;
    let restored = site.restore_and_start("restored", &[&id])?;
    assert_eq!(restored.value("SELECT count(*) FROM load")?, rows);
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}
