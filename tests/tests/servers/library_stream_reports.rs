//! What a stream tells its server, hears from it, and does without it.

use std::time::{Duration, Instant};

use pgwire_stream::{
    Config, Error, HotStandbyFeedback, Intervals, LogicalSlot, Lsn, ReplicationClient, SlotName,
    StartLogical, StartReplication, WalEvent, WalStream, spawn_wal_stream,
};
use rustix::process::{Pid, Signal, kill_process};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation};

use crate::library_stream::lsn;
use crate::runtime::{aside, block_on};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .every_major("library_logical_stream", logical_stream)
        .per_major("library_hot_standby_feedback", &[10, 14, 19], hot_standby_feedback)
        .per_major("library_stream_notices_a_stopped_server", &[18], notices_a_stopped_server)
        .per_major("library_spawned_stream_is_bounded", &[18], spawned_stream_is_bounded)
}

type AnyResult<T> = Result<T, Box<dyn std::error::Error>>;

/// Of the receiver under test; SQL runs in walsenders, too.
const OURS: &str = "FROM pg_stat_replication WHERE application_name = 'ours'";

async fn connect_as_ours(cluster: &Cluster) -> pgwire_stream::Result<ReplicationClient> {
    let conninfo = format!("{} application_name=ours", cluster.superuser_conninfo());
    ReplicationClient::connect(&conninfo.parse()?).await
}

/// The next event, which comes soon.
async fn next(stream: &mut WalStream) -> AnyResult<WalEvent> {
    let event = tokio::time::timeout(Duration::from_secs(60), stream.next()).await??;
    Ok(event.ok_or("the stream ended early")?)
}

fn logical_stream(installation: &Installation) -> ScenarioResult {
    let mut cluster = Cluster::options(installation).config("wal_level = logical").start()?;
    cluster.execute("CREATE TABLE t (word text)")?;
    cluster.execute("CREATE PUBLICATION words FOR TABLE t")?;
    let slot: SlotName = "words".parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut stream = runtime.block_on(async {
        let config: Config = cluster.superuser_conninfo().parse()?;
        let mut client = ReplicationClient::connect_database(&config).await?;
        let created = client.create_logical_slot(&slot, &LogicalSlot::new("pgoutput")).await?;
        assert!(created.consistent_point > Lsn::ZERO);
        aside(|| cluster.execute("INSERT INTO t VALUES ('first'), ('second')"))?;

        let mut options = StartLogical::new(slot.clone());
        options.options = vec![
            ("proto_version".to_owned(), Some("1".to_owned())),
            ("publication_names".to_owned(), Some("\"words\"".to_owned())),
        ];
        // An answer is given at once; nothing else waits for so long.
        options.intervals = Intervals { status: None, receive: Some(Duration::from_secs(2)) };
        let mut stream = client.start_logical_replication(options).await?;
        let progress = stream.progress();
        let (mut kinds, mut words) = (Vec::new(), Vec::new());
        while kinds.last() != Some(&b'C') {
            if let WalEvent::Data(message) = next(&mut stream).await? {
                kinds.push(message.data[0]);
                words.extend_from_slice(&message.data);
            }
        }
        assert_eq!(kinds, b"BRIIC");
        for word in ["first", "second"] {
            assert!(words.windows(word.len()).any(|part| part == word.as_bytes()));
        }

        // What is decoded and not published can be confirmed as well.
        aside(|| cluster.execute("CREATE TABLE unpublished AS SELECT generate_series(1, 1000) n"))?;
        let now = aside(|| lsn(&cluster, "SELECT pg_current_wal_flush_lsn()"))?;
        while progress.positions().received < now {
            next(&mut stream).await?;
        }
        let beyond = progress.positions().received;
        assert!(progress.flushed(beyond.saturating_add(1)).is_err());
        progress.flushed(beyond)?;
        next(&mut stream).await?;
        let confirmed = "SELECT confirmed_flush_lsn FROM pg_replication_slots";
        assert_eq!(aside(|| lsn(&cluster, confirmed))?, beyond);

        primary_status(&mut stream, &cluster).await?;
        Ok::<_, Box<dyn std::error::Error>>(stream)
    })?;

    // A shutdown waits for the last position, too.
    let began = Instant::now();
    let (stopped, ended) = std::thread::scope(|scope| {
        let stopping = scope.spawn(|| cluster.stop());
        let ended = runtime.block_on(async {
            let progress = stream.progress();
            while stream.next().await?.is_some() {
                progress.flushed(progress.positions().received)?;
            }
            Ok::<_, Error>(())
        });
        (stopping.join().expect("it does not panic"), ended)
    });
    ended?;
    stopped?;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    Ok(())
}

/// Servers from 19 on tell a receiver how far their transactions are.
async fn primary_status(stream: &mut WalStream, cluster: &Cluster) -> AnyResult<()> {
    let asked = stream.request_primary_status();
    if cluster.major() < 19 {
        assert!(matches!(asked, Err(Error::Unsupported(_))));
        return Ok(());
    }
    asked?;
    let next_transaction: u64 = aside(|| cluster.value("SELECT txid_current()"))?.parse()?;
    loop {
        if let WalEvent::PrimaryStatus(status) = next(stream).await? {
            assert!(status.next_transaction > next_transaction, "{status:?}");
            assert!(status.oldest_committing <= status.next_transaction);
            assert!(status.written >= stream.positions().received);
            return Ok(());
        }
    }
}

fn hot_standby_feedback(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    let xmin: u64 = cluster.value("SELECT txid_current()")?.parse()?;
    let shown = format!("SELECT coalesce(backend_xmin::text, 'none') {OURS}");
    block_on(async {
        let mut client = connect_as_ours(&cluster).await?;
        let now = client.identify_system().await?.flushed_to;
        let mut stream = client.start_replication(StartReplication::new(now)).await?;
        for (feedback, expected) in [
            (HotStandbyFeedback { xmin, catalog_xmin: 0 }, xmin.to_string()),
            (HotStandbyFeedback::default(), "none".to_owned()),
        ] {
            stream.send_hot_standby_feedback(feedback);
            let seen = tokio::task::spawn_blocking({
                let (conninfo, shown) = (cluster.superuser_conninfo(), shown.clone());
                move || {
                    let mut session = walrecv_tests::sql::Session::connect(&conninfo)?;
                    let begin = Instant::now();
                    while begin.elapsed() < Duration::from_secs(30) {
                        if session.value(&shown)? == expected {
                            return Ok(());
                        }
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    Err(walrecv_tests::Failure::new(format!("`{expected}` is not seen")))
                }
            });
            stream.hold(seen).await???;
        }
        // A physical stream may ask as well.
        primary_status(&mut stream, &cluster).await
    })?;
    Ok(())
}

fn notices_a_stopped_server(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    block_on(async {
        let mut client = connect_as_ours(&cluster).await?;
        let mut options = StartReplication::new(client.identify_system().await?.flushed_to);
        options.intervals = Intervals { status: None, receive: Some(Duration::from_secs(2)) };
        let mut stream = client.start_replication(options).await?;
        let walsender: i32 = aside(|| cluster.value(&format!("SELECT pid {OURS}")))?.parse()?;
        let walsender = Pid::from_raw(walsender).ok_or("no process")?;
        // It answers as long as it runs, though there is no WAL.
        for _ in 0..2 {
            let WalEvent::Keepalive(_) = next(&mut stream).await? else { continue };
        }
        kill_process(walsender, Signal::STOP)?;
        let began = Instant::now();
        let error = loop {
            if let Err(error) = stream.next().await {
                break error;
            }
        };
        kill_process(walsender, Signal::CONT)?;
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
        let waited = began.elapsed().as_secs_f32();
        assert!((1.0..4.0).contains(&waited), "{waited}");
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    Ok(())
}

/// A consumer that is slower than the server's patience, and a budget that is smaller than the WAL.
fn spawned_stream_is_bounded(installation: &Installation) -> ScenarioResult {
    const BUDGET: u64 = 1 << 20;
    let cluster = Cluster::options(installation).config("wal_sender_timeout = 1s").start()?;
    block_on(async {
        let mut client = connect_as_ours(&cluster).await?;
        let from = client.identify_system().await?.flushed_to;
        let mut options = StartReplication::new(from);
        options.intervals.status = Some(Duration::from_millis(300));
        let stream = client.start_replication(options).await?;
        let mut stream = spawn_wal_stream(stream, BUDGET as usize);
        let load = tokio::task::spawn_blocking({
            let conninfo = cluster.superuser_conninfo();
            move || {
                let mut session = walrecv_tests::sql::Session::connect(&conninfo)?;
                session.query(
                    "CREATE TABLE load AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)",
                )?;
                session.value("SELECT pg_current_wal_flush_lsn()")
            }
        });
        let until: Lsn = load.await??.parse()?;
        assert!(until.bytes_since(from) > 10 * BUDGET);

        tokio::time::sleep(Duration::from_secs(3)).await;
        let progress = stream.progress();
        let ahead = stream.queued() as u64;
        assert!((BUDGET / 2..=BUDGET).contains(&ahead), "{ahead} bytes were received ahead");
        assert_eq!(progress.positions().received, from, "nobody has seen any of it");
        let mut received = from;
        while received < until {
            match stream.next().await? {
                Some(WalEvent::Data(wal)) => {
                    assert_eq!(wal.start, received);
                    received = wal.end();
                    progress.flushed(received)?;
                }
                Some(_) => {}
                None => panic!("the stream ended early"),
            }
        }
        stream.stop();
        while stream.next().await?.is_some() {}
        let (mut client, _) = stream.finish()?;
        client.identify_system().await?;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    Ok(())
}
