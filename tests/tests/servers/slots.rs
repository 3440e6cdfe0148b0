//! Everything that a replication slot can be other than what it should: each is told as what it
//! is, and none leaves a gap that nobody hears of.

use std::time::{Duration, Instant};

use pgwire_stream::{
    Config, Lsn, ReplicationClient, SegmentName, SegmentSize, StartReplication, TimelineId,
};
use rustix::process::Signal;
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::walrecv::Daemon;
use walrecv_tests::{Cluster, Context, Installation, Result, strace};

use crate::site::{PASSWORD, ROLE, Site, lsn};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("slot_in_use", &[10, 13, 15, 18], in_use)
        .per_major("slot_logical", &[10, 13, 15, 18], logical)
        .per_major("slot_dropped_while_streaming", &[10, 13, 15, 18], dropped_while_streaming)
        .per_major("slot_dropped_before_anything_came", &[15, 18], dropped_before_anything_came)
        .per_major("slot_lost_with_its_wal", &[13, 15, 18], lost_with_its_wal)
        .per_major("slot_lost_and_restored_up_to_the_gap", &[15, 18], restored_up_to_a_gap)
        .per_major("slot_lost_without_a_gap", &[18], lost_without_a_gap)
}

/// A site whose server has these settings.
fn site(installation: &Installation, settings: &[&str]) -> Result<Site> {
    let mut options = Cluster::options(installation).archive();
    if installation.major >= 11 {
        options = options.wal_segment_megabytes(1);
    }
    for line in settings {
        options = options.config(*line);
    }
    Site::around(options.start()?)
}

fn configure(site: &Site, more: &str) -> Result<()> {
    let conninfo = site.cluster.conninfo(ROLE, PASSWORD);
    site.walrecv.configure(&format!("[servers.main]\nconninfo = \"{conninfo}\"\n{more}\n"))
}

fn wait_until_said(daemon: &Daemon, words: &[&str]) {
    let begin = Instant::now();
    while !words.iter().all(|word| daemon.log().contains(word)) {
        assert!(begin.elapsed() < Duration::from_secs(60), "no {words:?} in:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Writes some segments of WAL.
fn write_wal(cluster: &Cluster, segments: usize) -> Result<()> {
    for _ in 0..segments {
        // An empty segment is never left.
        cluster.execute("SELECT txid_current()")?;
        cluster.execute("SELECT pg_switch_wal()")?;
    }
    Ok(())
}

/// Compares every segment from this position on with what the server has archived, once that is
/// as many as there must be.
fn nothing_is_missing(site: &Site, from: Lsn, least: usize) -> Result<()> {
    let size = SegmentSize::from_setting(&site.cluster.value("SHOW wal_segment_size")?)
        .context(|| "the server has no segment size".to_owned())?;
    let first = SegmentName::new(TimelineId::FIRST, size.segment_of(from), size);
    site.cluster
        .wait_for("the server's archive", |_| Ok(site.compare_with_archive(&first)? >= least))
}

fn wal_status(cluster: &Cluster) -> Result<String> {
    cluster.value("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'walrecv'")
}

/// Writes WAL until the server gives the slot up.
fn until_lost(cluster: &Cluster) -> Result<()> {
    cluster.wait_for("the loss of the slot", |cluster| {
        write_wal(cluster, 4)?;
        cluster.execute("CHECKPOINT")?;
        Ok(wal_status(cluster)? == "lost")
    })
}

fn in_use(installation: &Installation) -> ScenarioResult {
    let site = site(installation, &[])?;
    configure(&site, "")?;
    site.cluster.execute("SELECT pg_create_physical_replication_slot('walrecv', true)")?;
    let mut config: Config = site.cluster.conninfo(ROLE, PASSWORD).parse()?;
    config.application_name = Some("the-other-host".to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _stream = runtime.block_on(async {
        let mut client = ReplicationClient::connect(&config).await?;
        let mut start = StartReplication::new(client.identify_system().await?.flushed_to);
        start.slot = Some("walrecv".parse()?);
        Ok::<_, Box<dyn std::error::Error>>(client.start_replication(start).await?)
    })?;
    let process = site.cluster.value("SELECT active_pid FROM pg_replication_slots")?;
    let output = site.walrecv.run(&["receive-wal", "main"])?.code(1)?;
    for word in [
        &format!("in use by process {process} (`the-other-host` at 127.0.0.1"),
        "slot_name",
        &format!("pg_terminate_backend({process})"),
    ] {
        assert!(output.stderr.contains(word), "no `{word}` in:\n{}", output.stderr);
    }
    Ok(())
}

fn logical(installation: &Installation) -> ScenarioResult {
    let site = site(installation, &["wal_level = logical"])?;
    site.cluster.execute("SELECT pg_create_logical_replication_slot('walrecv', 'pgoutput')")?;
    // The second cannot be asked about the slot beforehand on servers before 15.
    let conninfo = site.cluster.conninfo(ROLE, PASSWORD);
    for conninfo in [conninfo.clone(), conninfo.replace("dbname=postgres ", "")] {
        site.walrecv.configure(&format!("[servers.main]\nconninfo = \"{conninfo}\"\n"))?;
        let output = site.walrecv.run(&["receive-wal", "main"])?.code(1)?;
        for word in ["`walrecv` is a logical one", "slot_name"] {
            assert!(output.stderr.contains(word), "no `{word}` in:\n{}", output.stderr);
        }
    }
    Ok(())
}

/// Takes the slot away from whoever uses it.
const DROP: &str = "DO $$ BEGIN LOOP BEGIN \
     PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots; \
     PERFORM pg_drop_replication_slot('walrecv'); EXIT; \
     EXCEPTION WHEN object_in_use THEN PERFORM pg_sleep(0.001); END; END LOOP; END $$";

fn dropped_while_streaming(installation: &Installation) -> ScenarioResult {
    // What the receiver had not got when its slot went is kept without it, or the gap is real.
    let keep =
        if installation.major >= 13 { "wal_keep_size = 1GB" } else { "wal_keep_segments = 999" };
    let site = site(installation, &[keep])?;
    configure(&site, "")?;
    let cluster = &site.cluster;
    let daemon = site.run()?;
    let begin = lsn(&cluster.value("SELECT restart_lsn FROM pg_replication_slots")?)?;
    for _ in 0..3 {
        site.wait_until_streaming()?;
        write_wal(cluster, 2)?;
        cluster.execute(DROP)?;
        cluster.execute("CHECKPOINT")?;
    }
    // It is made anew, and nothing is missing.
    site.wait_until_streaming()?;
    write_wal(cluster, 2)?;
    site.settle()?;
    assert_eq!(cluster.value("SELECT count(*) FROM pg_replication_slots WHERE active")?, "1");
    nothing_is_missing(&site, begin, 8)?;
    daemon.stop()?;

    // By hand, it is asked for, and nothing is missing either.
    configure(&site, "create_slot = \"manual\"")?;
    cluster.execute("SELECT pg_drop_replication_slot('walrecv')")?;
    let daemon = site.walrecv.spawn(&["run"])?;
    wait_until_said(&daemon, &["no replication slot `walrecv`", "--create-slot"]);
    write_wal(cluster, 1)?;
    site.walrecv.run(&["receive-wal", "main", "--create-slot"])?.success()?;
    site.settle()?;
    nothing_is_missing(&site, begin, 9)?;
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// A slot that goes before anything is stored takes nothing along that the server still has.
fn dropped_before_anything_came(installation: &Installation) -> ScenarioResult {
    if !strace::is_possible("a slot that goes while the disk is slow") {
        return Ok(());
    }
    let site = site(installation, &["wal_keep_size = 1GB"])?;
    configure(&site, "")?;
    let cluster = &site.cluster;
    // The first message is a long one: with the sizes that sockets have by default, all of it comes
    // only to who reads.
    cluster.execute("SELECT txid_current()")?;
    cluster.execute("SELECT pg_switch_wal()")?;
    cluster.execute("CHECKPOINT")?;
    cluster.execute(
        "CREATE TABLE filler AS SELECT n, repeat('x', 100) FROM generate_series(1, 4000) n",
    )?;
    // Making the store takes longer than everything that happens meanwhile.
    let trace = site.walrecv.directory().join("trace");
    let slow = ["-e", "trace=fsync", "-e", "inject=fsync:delay_enter=300000"];
    let daemon = site.walrecv.spawn_behind(&strace::in_front(&trace, &slow), &["run"])?;
    cluster.wait_for("the stream", |cluster| {
        let sql = "SELECT count(*) FROM pg_replication_slots JOIN pg_stat_replication \
                   ON pid = active_pid WHERE state <> 'startup'";
        Ok(cluster.value(sql)? == "1")
    })?;
    let begin = lsn(&cluster.value("SELECT restart_lsn FROM pg_replication_slots")?)?;
    write_wal(cluster, 2)?;
    cluster.execute(DROP)?;
    assert!(!daemon.log().contains("receiving WAL from="), "{}", daemon.log());
    cluster.execute("CHECKPOINT")?;
    site.wait_until_streaming()?;
    site.settle()?;
    nothing_is_missing(&site, begin, 2)?;
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// A server that keeps little WAL for slots.
fn forgetful(installation: &Installation) -> Result<Site> {
    let keep = if installation.major >= 13 { "wal_keep_size = 0" } else { "wal_keep_segments = 0" };
    let settings =
        ["max_slot_wal_keep_size = 2MB", "max_wal_size = 2MB", "min_wal_size = 2MB", keep];
    site(installation, &settings)
}

/// Has the slot lost, and the WAL that follows what was received.
fn lose_wal(cluster: &Cluster) -> Result<()> {
    until_lost(cluster)?;
    for _ in 0..5 {
        write_wal(cluster, 8)?;
        cluster.execute("CHECKPOINT")?;
    }
    Ok(())
}

fn lost_with_its_wal(installation: &Installation) -> ScenarioResult {
    let site = forgetful(installation)?;
    configure(&site, "")?;
    let cluster = &site.cluster;
    let daemon = site.run()?;
    write_wal(cluster, 2)?;
    site.settle()?;

    // The backup host is away for too long, with its connection open.
    daemon.signal(Signal::STOP)?;
    lose_wal(cluster)?;
    daemon.signal(Signal::CONT)?;
    wait_until_said(&daemon, &["no longer has the WAL that follows", "--reset"]);
    let checked = site.walrecv.run(&["check", "main"])?.code(1)?.stdout;
    assert!(checked.contains("`walrecv-server receive-wal main --reset`"), "{checked}");
    daemon.stop()?;
    // Nobody streams on behind a gap without having been told to.
    let output = site.walrecv.run(&["receive-wal", "main"])?.code(3)?;
    assert!(output.stderr.contains("--reset"), "{}", output.stderr);
    // Nor is a backup taken that could never be restored.
    let output = site.walrecv.run(&["backup", "main"])?.code(3)?;
    assert!(output.stderr.contains("would be lost"), "{}", output.stderr);
    assert!(
        output.stderr.contains("`walrecv-server receive-wal main --reset`"),
        "{}",
        output.stderr
    );
    let listed = site.walrecv.run(&["list-backups", "main", "--minimal"])?.success()?;
    assert_eq!(listed.stdout, "");

    // Told to, it leaves the gap, and does no more than see WAL come again.
    let output = site.walrecv.run(&["receive-wal", "main", "--reset"])?.success()?;
    for word in ["left out", "`walrecv-server backup main`", "It comes again"] {
        assert!(output.stdout.contains(word), "no `{word}` in:\n{}", output.stdout);
    }
    let again = site.walrecv.run(&["receive-wal", "main", "--reset"])?.success()?;
    assert!(again.stdout.contains("Nothing is missing"), "{}", again.stdout);
    let end = site.position()?;
    write_wal(cluster, 1)?;
    let end = end.to_string();
    site.walrecv.run(&["receive-wal", "main", "--reset", "--endpos", &end])?.success()?;
    let daemon = site.run()?;
    write_wal(cluster, 2)?;
    site.settle()?;
    cluster.wait_for("a slot that keeps WAL", |cluster| Ok(wal_status(cluster)? == "reserved"))?;
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// What was received before a gap can be restored to its last record.
fn restored_up_to_a_gap(installation: &Installation) -> ScenarioResult {
    let site = forgetful(installation)?;
    let cluster = &site.cluster;
    cluster.execute("CREATE TABLE t (n int)")?;
    let daemon = site.run()?;
    let backup = site.backup()?;
    cluster.execute("INSERT INTO t SELECT generate_series(1, 1000)")?;
    let target = site.position()?.to_string();
    cluster.execute("INSERT INTO t VALUES (0)")?;
    site.settle()?;
    daemon.signal(Signal::STOP)?;
    lose_wal(cluster)?;
    daemon.kill9()?;
    let reset = site.walrecv.spawn(&["receive-wal", "main", "--reset"])?;
    let flows = cluster.wait_for("WAL behind the gap", |cluster| {
        write_wal(cluster, 1)?;
        // Two segments must last until a stream can begin there, on a disk that is slow, too.
        std::thread::sleep(Duration::from_millis(300));
        Ok(reset.log().contains("It comes again"))
    });
    flows.context(|| format!("receive-wal says:\n{}", reset.log()))?;
    drop(reset);
    let daemon = site.run()?;
    write_wal(cluster, 2)?;
    site.settle()?;
    // What is refused says how far it goes.
    let refused = site.restore("latest", &[&backup])?.1.code(3)?.stderr;
    let last = refused.split("`--target-lsn ").nth(1).and_then(|rest| rest.split('`').next());
    let last = last.map(str::to_owned).context(|| refused)?;
    for (name, target, more, rows) in [
        ("fetched", &target, &[][..], "1000"),
        ("copied", &target, &["--no-get-wal"][..], "1000"),
        ("all", &last, &[][..], "1001"),
    ] {
        let mut arguments = vec![backup.as_str(), "--target-lsn", target];
        arguments.extend(["--target-action", "promote"]);
        arguments.extend(more);
        let restored = site.restore_and_start(name, &arguments)?;
        assert_eq!(restored.value("SELECT count(*) FROM t")?, rows, "{name}");
    }
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

fn lost_without_a_gap(installation: &Installation) -> ScenarioResult {
    let settings = ["idle_replication_slot_timeout = 1s", "wal_keep_size = 200MB"];
    let site = site(installation, &settings)?;
    configure(&site, "")?;
    let cluster = &site.cluster;
    let daemon = site.run()?;
    let begin = lsn(&cluster.value("SELECT restart_lsn FROM pg_replication_slots")?)?;
    write_wal(cluster, 2)?;
    site.settle()?;
    daemon.stop()?;
    std::thread::sleep(Duration::from_secs(2));
    until_lost(cluster)?;

    // Whoever makes slots by hand is told what became of theirs.
    configure(&site, "create_slot = \"manual\"")?;
    let output = site.walrecv.run(&["receive-wal", "main"])?.code(1)?;
    for word in ["has given up the replication slot `walrecv` (idle_timeout)", "create_slot"] {
        assert!(output.stderr.contains(word), "no `{word}` in:\n{}", output.stderr);
    }
    // Else it is made anew, because the server still has everything.
    configure(&site, "")?;
    let daemon = site.run()?;
    site.settle()?;
    assert_eq!(wal_status(cluster)?, "reserved");
    nothing_is_missing(&site, begin, 6)?;
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}
