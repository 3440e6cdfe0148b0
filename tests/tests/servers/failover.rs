//! A standby becomes the primary: its WAL follows without a gap, or somebody hears of the gap.

use std::time::{Duration, Instant};

use pgwire_stream::Lsn;
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::walrecv::{Daemon, Walrecv};
use walrecv_tests::{Cluster, Context, Installation, Result};

use crate::site::{PASSWORD, ROLE, Site, lsn};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("failover_with_slots_on_all_hosts", &[10, 13, 15, 18], with_slots_on_all_hosts)
        .per_major("slots_on_all_hosts_know_their_place", &[10, 18], slots_know_their_place)
        .per_major("failover_with_a_slot_of_the_cluster", &[13, 18], with_a_slot_of_the_cluster)
        .per_major("failover_without_a_slot", &[10, 18], without_a_slot)
        .per_major("failover_to_a_host_that_forgot", &[10, 18], to_a_host_that_forgot)
}

/// A primary that is backed up, and its standby.
struct Pair {
    site: Site,
    standby: Cluster,
}

impl Pair {
    /// Both run; the backup server knows both hosts, and these settings.
    fn new(installation: &Installation, settings: &str) -> Result<Self> {
        let keep =
            if installation.major >= 13 { "wal_keep_size = 0" } else { "wal_keep_segments = 0" };
        // Nothing but a slot keeps WAL.
        let mut options = Cluster::options(installation)
            .config(keep)
            .config("min_wal_size = 32MB")
            .config("max_wal_size = 32MB");
        if installation.major >= 11 {
            options = options
                .wal_segment_megabytes(1)
                .config("min_wal_size = 2MB")
                .config("max_wal_size = 2MB");
        }
        let primary = options.start()?;
        primary.execute("CREATE TABLE ledger (n serial PRIMARY KEY)")?;
        primary.create_role(ROLE, PASSWORD, "REPLICATION")?;
        let mut primary = primary;
        primary.stop()?;
        let mut standby = primary.make_standby()?;
        primary.start()?;
        standby.start()?;
        let walrecv = Walrecv::new(&configuration(&[&primary, &standby], settings))?;
        let pair = Self { site: Site { cluster: primary, walrecv }, standby };
        pair.caught_up()?;
        Ok(pair)
    }

    fn insert(cluster: &Cluster) -> Result<()> {
        cluster.execute("INSERT INTO ledger SELECT FROM generate_series(1, 10)")
    }

    /// Waits until the standby has replayed everything.
    fn caught_up(&self) -> Result<()> {
        let wanted = self.site.position()?;
        self.standby.wait_for("the standby", |standby| {
            let replayed = standby.value("SELECT pg_last_wal_replay_lsn()")?;
            Ok(!replayed.is_empty() && lsn(&replayed)? >= wanted)
        })
    }

    /// The daemon, streaming; the standby is the other one who does.
    fn run(&self) -> Result<Daemon> {
        let daemon = self.site.walrecv.spawn(&["run"])?;
        self.received()?;
        Ok(daemon)
    }

    /// Waits until the backup server has acknowledged everything.
    fn received(&self) -> Result<Lsn> {
        let wanted = self.site.position()?;
        acknowledged(&self.site.cluster, wanted)?;
        Ok(wanted)
    }

    /// Both hosts go on for so long that they need none of the WAL from before any more.
    fn go_on(&self) -> Result<()> {
        for _ in 0..6 {
            for _ in 0..2 {
                Self::insert(&self.site.cluster)?;
                self.site.cluster.execute("SELECT pg_switch_wal()")?;
            }
            self.site.cluster.execute("CHECKPOINT")?;
            self.caught_up()?;
            self.standby.execute("CHECKPOINT")?;
        }
        Ok(())
    }

    /// The primary's machine is lost, and the standby takes over.
    fn fail_over(&mut self) -> Result<()> {
        self.caught_up()?;
        self.site.cluster.kill9()?;
        self.standby.promote()?;
        Self::insert(&self.standby)
    }

    /// Restores from before the failover to the last commit, and counts.
    fn nothing_is_missing(mut self) -> Result<()> {
        let rows = self.standby.value("SELECT count(*) FROM ledger")?;
        let wanted = lsn(&self.standby.value("SELECT pg_current_wal_flush_lsn()")?)?;
        acknowledged(&self.standby, wanted)?;
        std::mem::swap(&mut self.site.cluster, &mut self.standby);
        let restored = self.site.restore_and_start("restored", &["latest"])?;
        assert_eq!(restored.value("SELECT count(*) FROM ledger")?, rows);
        Ok(())
    }
}

/// The backup server's: it knows these hosts.
fn configuration(hosts: &[&Cluster], settings: &str) -> String {
    let ports: Vec<_> = hosts.iter().map(|host| host.port().to_string()).collect();
    format!(
        "wal_readers = [\"{}\"]\n[servers.main]\nconninfo = \"host={} port={} user={ROLE} \
         password={PASSWORD} dbname=postgres sslmode=disable target_session_attrs=primary\"\n\
         immediate_checkpoint = true\n{settings}\n",
        hosts[0].account().name,
        vec!["127.0.0.1"; ports.len()].join(","),
        ports.join(",")
    )
}

/// Waits until the backup server has acknowledged this much.
fn acknowledged(cluster: &Cluster, wanted: Lsn) -> Result<()> {
    cluster.wait_for("the acknowledgement", |cluster| {
        let rows = cluster.query(
            "SELECT flush_lsn FROM pg_stat_replication \
             WHERE state = 'streaming' AND application_name = 'walrecv'",
        )?;
        let flushed = rows.first().and_then(|row| row.first()).cloned().unwrap_or_default();
        Ok(!flushed.is_empty() && lsn(&flushed)? >= wanted)
    })
}

/// Where the standby's slot is.
fn slot_at(standby: &Cluster) -> Result<Option<Lsn>> {
    let sql = "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'walrecv'";
    let rows = standby.query(sql)?;
    let at = rows.first().and_then(|row| row.first()).filter(|at| !at.is_empty());
    at.map(|at| lsn(at)).transpose()
}

fn with_slots_on_all_hosts(installation: &Installation) -> ScenarioResult {
    let mut pair = Pair::new(installation, "slot_on_all_hosts = true")?;
    let daemon = pair.run()?;
    pair.site.backup()?;
    // The slot is made there, and moves on with what is durable here.
    for _ in 0..2 {
        Pair::insert(&pair.site.cluster)?;
        let received = pair.received()?;
        pair.caught_up()?;
        pair.standby.wait_for("the slot on the standby", |standby| {
            Ok(slot_at(standby)?.is_some_and(|at| at >= received))
        })?;
    }
    let check = pair.site.walrecv.run(&["check", "main"])?.success()?;
    let told = format!("slots on other hosts: OK (127.0.0.1:{} keeps WAL", pair.standby.port());
    assert!(check.stdout.contains(&told), "{}", check.stdout);
    assert_eq!(daemon.stop()?, 0);
    let at = slot_at(&pair.standby)?.context(|| "no slot".to_owned())?;
    assert!(at <= pair.site.position()?, "{at}");

    // The backup server is away while both hosts go on, and then one of them is lost.
    pair.go_on()?;
    assert_eq!(slot_at(&pair.standby)?, Some(at));
    pair.fail_over()?;
    let daemon = pair.site.walrecv.spawn(&["run"])?;
    let wanted = lsn(&pair.standby.value("SELECT pg_current_wal_flush_lsn()")?)?;
    acknowledged(&pair.standby, wanted)?;
    // What the other host is like is known as well.
    let log = daemon.log();
    assert!(log.contains("the slot of another host is not kept"), "{log}");
    assert_eq!(pair.standby.value("SELECT count(*) FROM pg_replication_slots")?, "1");
    pair.nothing_is_missing()?;
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// No slot passes what is durable here, and none is made in another cluster.
fn slots_know_their_place(installation: &Installation) -> ScenarioResult {
    // Nothing that comes is durable before its segment is complete.
    let settings = "slot_on_all_hosts = true\nflush_interval = \"1h\"";
    let pair = Pair::new(installation, "")?;
    let stranger = Cluster::start_new(installation)?;
    stranger.create_role(ROLE, PASSWORD, "REPLICATION")?;
    let primary = &pair.site.cluster;
    let hosts = [primary, &pair.standby, &stranger];
    pair.site.walrecv.configure(&configuration(&hosts, settings))?;
    let daemon = pair.site.walrecv.spawn(&["run"])?;
    pair.standby.wait_for("the slot on the standby", |standby| Ok(slot_at(standby)?.is_some()))?;
    // It begins at the standby's last restart point.
    let made = slot_at(&pair.standby)?.context(|| "no slot".to_owned())?;
    Pair::insert(primary)?;
    let end = pair.site.position()?;
    pair.caught_up()?;
    // The next visit comes after ten seconds.
    std::thread::sleep(Duration::from_secs(13));
    let at = slot_at(&pair.standby)?.context(|| "no slot".to_owned())?;
    let ours = slot_at(primary)?.context(|| "no slot".to_owned())?;
    assert!(ours < end, "{ours} is durable, which is all up to {end}");
    assert!(at <= ours.max(made), "the standby's slot is at {at}, and {ours} is durable");

    assert_eq!(slot_at(&stranger)?, None);
    let check = pair.site.walrecv.run(&["check", "main"])?.success()?;
    for told in ["slots on other hosts: WARNING", "another cluster"] {
        assert!(check.stdout.contains(told), "{}", check.stdout);
    }
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// As cluster managers do: they make the slot, and move it.
fn with_a_slot_of_the_cluster(installation: &Installation) -> ScenarioResult {
    let mut pair = Pair::new(installation, "create_slot = \"manual\"")?;
    for cluster in [&pair.site.cluster, &pair.standby] {
        cluster.execute("SELECT pg_create_physical_replication_slot('walrecv', true)")?;
    }
    let daemon = pair.run()?;
    pair.site.backup()?;
    let received = pair.received()?;
    assert_eq!(daemon.stop()?, 0);
    pair.caught_up()?;
    pair.standby
        .execute(&format!("SELECT pg_replication_slot_advance('walrecv', '{received}')"))?;
    pair.go_on()?;
    pair.fail_over()?;
    let daemon = pair.site.walrecv.spawn(&["run"])?;
    pair.nothing_is_missing()?;
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// The WAL is still there, and the slot is made.
fn without_a_slot(installation: &Installation) -> ScenarioResult {
    let mut pair = Pair::new(installation, "")?;
    let daemon = pair.run()?;
    pair.site.backup()?;
    Pair::insert(&pair.site.cluster)?;
    pair.received()?;
    assert_eq!(slot_at(&pair.standby)?, None);
    pair.fail_over()?;
    let wanted = lsn(&pair.standby.value("SELECT pg_current_wal_flush_lsn()")?)?;
    acknowledged(&pair.standby, wanted)?;
    assert!(slot_at(&pair.standby)?.is_some());
    pair.nothing_is_missing()?;
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// The WAL is gone: nobody streams on as if it were not.
fn to_a_host_that_forgot(installation: &Installation) -> ScenarioResult {
    let mut pair = Pair::new(installation, "")?;
    let daemon = pair.run()?;
    assert_eq!(daemon.stop()?, 0);
    pair.go_on()?;
    pair.fail_over()?;
    let daemon = pair.site.walrecv.spawn(&["run"])?;
    let begin = Instant::now();
    while !["no longer has the WAL that follows", "--reset"]
        .iter()
        .all(|words| daemon.log().contains(words))
    {
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(slot_at(&pair.standby)?, None);
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}
