//! A sync that fails is survived once, and ends reception the second time; and what was
//! acknowledged is there in any case, as a power cut right afterwards shows.

use std::path::Path;
use std::time::Duration;

use walrecv_tests::disk::FileSystem;
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::strace::{self, Disturbance};
use walrecv_tests::walrecv::Daemon;
use walrecv_tests::{Context, Installation, Result};

use crate::site::lsn;
use crate::synchronous::{CLIENTS, Synchronous};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("failing_syncs", &[18], failing_syncs)
}

fn failing_syncs(installation: &Installation) -> ScenarioResult {
    if !strace::is_possible("a sync that fails") {
        return Ok(());
    }
    let Some(mut watched) = Synchronous::new(installation, Some(FileSystem::Ext4))? else {
        return Ok(());
    };
    watched.daemon = Some(watched.site.walrecv.spawn(&["receive-wal", "main"])?);
    watched.site.wait_until_streaming()?;
    let writers = watched.ledger.write(&watched.site.cluster, CLIENTS)?;

    // Once: reception goes on, in a new file.
    let once = disturb(&watched, Disturbance::of_present_threads, "fdatasync:error=EIO:when=1")?;
    once.wait()?;
    // `strace` counts for each thread, and another may have begun to sync before all were let go.
    let failed = once.count();
    assert!((1..=2).contains(&failed), "{failed} syncs were made to fail");
    drop(once);
    let (at, before) = (watched.site.position()?, watched.ledger.acknowledged());
    watched.site.cluster.wait_for("what comes behind the failed sync", |cluster| {
        let flushed = "SELECT flush_lsn FROM pg_stat_replication WHERE state = 'streaming'";
        let rows = cluster.query(flushed)?;
        let flushed = rows.first().and_then(|row| row.first()).cloned().unwrap_or_default();
        Ok(!flushed.is_empty() && lsn(&flushed)? > at)
    })?;
    assert!(watched.ledger.acknowledged() > before);
    watched.cut_power()?;
    watched.restore_power()?;
    assert_eq!(watched.first_loss()?, None, "acknowledged WAL was lost by one failed sync");

    // Again and again: reception ends, and acknowledging with it.
    watched.daemon = Some(watched.site.walrecv.spawn(&["receive-wal", "main"])?);
    watched.site.wait_until_streaming()?;
    std::thread::sleep(Duration::from_millis(300));
    let always = disturb(&watched, Disturbance::of_all_threads, "fdatasync:error=EIO")?;
    let daemon = watched.daemon.as_mut().ok_or("no receiver")?;
    assert_ne!(daemon.wait(Duration::from_secs(20))?, 0);
    drop((always, watched.daemon.take()));
    watched.cut_power()?;
    watched.restore_power()?;
    assert_eq!(watched.first_loss()?, None, "acknowledged WAL was lost by failing syncs");

    // With another disk all goes on.
    watched.start()?;
    std::thread::sleep(Duration::from_millis(300));
    writers.expect_death();
    watched.site.cluster.kill9()?;
    watched.kill_receiver()?;
    writers.join()?;
    watched.judge()
}

fn disturb(
    watched: &Synchronous,
    attach: fn(&Daemon, &Path, &str) -> Result<Disturbance>,
    injection: &str,
) -> Result<Disturbance> {
    let daemon = watched.daemon.as_ref().context(|| "no receiver".to_owned())?;
    attach(daemon, &watched.site.walrecv.directory().join("disturbed.trace"), injection)
}
