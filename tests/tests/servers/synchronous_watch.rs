//! Commits that wait for the backup server, and how it finds out.

use std::thread;
use std::time::{Duration, Instant};

use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::walrecv::Daemon;
use walrecv_tests::{Cluster, Installation, Result};

use crate::site::Site;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("synchronous_while_running", &[10, 18], found_while_running).per_major(
        "synchronous_again",
        &[18],
        found_again,
    )
}

fn named(cluster: &Cluster, names: &str) -> Result<()> {
    cluster.execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"))?;
    cluster.reload()
}

/// A site whose receiver syncs so seldom that nobody takes it for a quick commit.
fn site(installation: &Installation, flush_interval: &str) -> Result<Site> {
    let site = Site::new(installation)?;
    site.cluster.execute("CREATE TABLE ledger (n serial PRIMARY KEY)")?;
    let conninfo = site.cluster.conninfo(crate::site::ROLE, crate::site::PASSWORD);
    site.walrecv.configure(&format!(
        "[servers.main]\nconninfo = \"{conninfo}\"\nflush_interval = \"{flush_interval}\"\n"
    ))?;
    Ok(site)
}

/// Commits wait for the receiver from now on.
fn begin_to_wait(cluster: &Cluster) -> Result<()> {
    named(cluster, "walrecv")?;
    cluster.wait_for("a synchronous receiver", |cluster| {
        let state = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        Ok(cluster.value(state)? == "1")
    })
}

/// Whether something happens while there is patience.
fn happens(patience: Duration, mut has_happened: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while !has_happened() {
        if begin.elapsed() >= patience {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
    true
}

/// Whether the daemon says something in time.
fn was_said(daemon: &Daemon, what: &str, patience: Duration) -> bool {
    happens(patience, || daemon.log().contains(what))
}

fn wait_until_said(daemon: &Daemon, what: &str, patience: Duration) {
    assert!(was_said(daemon, what, patience), "no `{what}` in:\n{}", daemon.log());
}

/// How long each of this many commits took.
fn commits(cluster: &Cluster, count: usize) -> Result<Vec<Duration>> {
    let mut session = cluster.session()?;
    let mut took = Vec::new();
    for _ in 0..count {
        let begin = Instant::now();
        session.query("INSERT INTO ledger DEFAULT VALUES")?;
        took.push(begin.elapsed());
    }
    Ok(took)
}

fn found_while_running(installation: &Installation) -> ScenarioResult {
    let site = site(installation, "2s")?;
    let cluster = &site.cluster;
    let daemon = site.run()?;
    commits(cluster, 5)?;
    site.settle()?;
    assert_eq!(cluster.value("SELECT max(sync_state) FROM pg_stat_replication")?, "async");

    // The stream looks like commits that wait long before the minute is over.
    begin_to_wait(cluster)?;
    let begin = Instant::now();
    let slow = commits(cluster, 6)?;
    assert!(slow.iter().any(|took| *took > Duration::from_secs(1)), "nothing waited: {slow:?}");
    wait_until_said(&daemon, "wait for us now", Duration::from_secs(10));
    let found = begin.elapsed();
    assert!(found < Duration::from_secs(30), "found after {found:?}, as a matter of routine");
    let quick = commits(cluster, 20)?;
    let slowest = quick.iter().max().copied().unwrap_or_default();
    assert!(slowest < Duration::from_secs(1), "{quick:?}");

    // That nobody waits any more shows in nothing, and is found within the minute.
    named(cluster, "")?;
    wait_until_said(&daemon, "no longer wait for us", Duration::from_secs(75));
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// A single commit looks like nothing. It is let go when the server is asked as a matter of routine,
/// though no WAL comes after it, and though its connection has had its own thread from the beginning.
fn found_again(installation: &Installation) -> ScenarioResult {
    let site = site(installation, "10min")?;
    let cluster = &site.cluster;
    // What else writes WAL would help.
    cluster.execute("ALTER SYSTEM SET autovacuum = off")?;
    named(cluster, "walrecv")?;
    let daemon = site.run()?;
    let quick = commits(cluster, 5)?;
    assert!(quick.iter().skip(1).all(|took| *took < Duration::from_secs(1)), "{quick:?}");

    named(cluster, "")?;
    wait_until_said(&daemon, "no longer wait for us", Duration::from_secs(75));
    begin_to_wait(cluster)?;
    thread::scope(|scope| {
        let commit = scope.spawn(|| commits(cluster, 1));
        let found = was_said(&daemon, "wait for us now", Duration::from_secs(75));
        let freed = found && happens(Duration::from_secs(20), || commit.is_finished());
        if !freed {
            // Nobody is kept waiting for the rest of the interval.
            named(cluster, "")?;
        }
        assert!(found, "not found out:\n{}", daemon.log());
        assert!(freed, "a commit still waited when it was known that it does");
        let took = commit.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        // The last look was right before: nothing else has let it go.
        assert!(took.iter().all(|took| *took > Duration::from_secs(40)), "{took:?}");
        Ok::<_, walrecv_tests::Failure>(())
    })?;
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}
