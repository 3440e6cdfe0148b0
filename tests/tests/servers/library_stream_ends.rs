//! The ends of a stream: a promotion, the server's shutdown, its errors, a cancel request.

use std::fs;
use std::time::{Duration, Instant};

use pgwire_stream::{
    BackupEvent, BaseBackupOptions, Error, Lsn, ReplicationClient, SegmentSize, StartReplication,
    StreamEnd, TimelineId, WalEvent, WalStream, spawn_wal_stream,
};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation};

use crate::library_stream::{connect, lsn};
use crate::runtime::{aside, block_on};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .every_major("library_stream_ends_with_a_promotion", ends_with_a_promotion)
        .every_major("library_stream_ends_with_a_shutdown", ends_with_a_shutdown)
        .per_major("library_stream_survives_errors", &[10, 14, 19], survives_errors)
        .per_major("library_stream_is_cancelled", &[12, 16, 19], is_cancelled)
        .per_major("library_base_backup_is_cancelled", &[10, 15, 19], base_backup_is_cancelled)
}

type AnyResult<T> = Result<T, Box<dyn std::error::Error>>;

/// A stream of the current segment from its start.
async fn stream_now(cluster: &Cluster) -> AnyResult<WalStream> {
    let mut client = connect(cluster).await?;
    let size = client.wal_segment_size().await?;
    let now = client.identify_system().await?.flushed_to;
    let options = StartReplication::new(size.start_of(size.segment_of(now)));
    Ok(client.start_replication(options).await?)
}

/// Receives at least up to this position.
async fn receive_to(stream: &mut WalStream, position: Lsn) -> AnyResult<()> {
    while stream.positions().received < position {
        let event = tokio::time::timeout(Duration::from_secs(60), stream.next()).await??;
        assert!(event.is_some(), "the stream ended early");
    }
    Ok(())
}

fn code(error: &Error) -> String {
    error.sql_state().map(|code| code.to_string()).unwrap_or_default()
}

/// A standby without a primary is streamed from, and promoted meanwhile.
fn ends_with_a_promotion(installation: &Installation) -> ScenarioResult {
    let mut cluster = Cluster::start_new(installation)?;
    cluster.stop()?;
    let (file, text) = if installation.major >= 12 {
        ("standby.signal", "")
    } else {
        ("recovery.conf", "standby_mode = on\n")
    };
    let path = cluster.data_directory().join(file);
    fs::write(&path, text)?;
    cluster.account().owns(&path)?;
    cluster.start()?;

    block_on(async {
        let mut stream = stream_now(&cluster).await?;
        let replayed = aside(|| lsn(&cluster, "SELECT pg_last_wal_replay_lsn()"))?;
        receive_to(&mut stream, replayed).await?;
        aside(|| cluster.promote())?;
        while stream.next().await?.is_some() {}
        let received = stream.positions().received;
        let (mut client, end) = stream.finish()?;
        let StreamEnd::NextTimeline { timeline, start } = end else { panic!("{end:?}") };
        assert_eq!(timeline.get(), 2);
        assert!(start <= received && start >= replayed, "{replayed} {start} {received}");

        // On the same connection: the new timeline's history, and the new timeline.
        let history = client.timeline_history(timeline).await?.parse()?;
        assert_eq!(history.fork_from(TimelineId::FIRST), Some(start));
        let mut options = StartReplication::new(
            SegmentSize::DEFAULT.start_of(SegmentSize::DEFAULT.segment_of(start)),
        );
        options.timeline = Some(timeline);
        let mut stream = client.start_replication(options).await?;
        aside(|| cluster.execute("CREATE TABLE after_promotion (n int)"))?;
        let now = aside(|| lsn(&cluster, "SELECT pg_current_wal_flush_lsn()"))?;
        receive_to(&mut stream, now).await
    })?;
    Ok(())
}

/// How long a shutdown may take that waits for nobody.
const PROMPT: Duration = Duration::from_secs(2);

/// A fast shutdown while `consume` reads a stream to its end.
fn shut_down(
    cluster: &mut Cluster,
    consume: impl AsyncFnOnce(WalStream) -> AnyResult<StreamEnd>,
) -> ScenarioResult {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stream = runtime.block_on(stream_now(cluster))?;
    cluster.execute("CREATE TABLE IF NOT EXISTS t (n int)")?;
    cluster.execute("INSERT INTO t SELECT generate_series(1, 10000)")?;
    let began = Instant::now();
    let (stopped, end) = std::thread::scope(|scope| {
        let stopping = scope.spawn(|| cluster.stop());
        let end = runtime.block_on(consume(stream));
        (stopping.join().expect("it does not panic"), end)
    });
    let end = end.map_err(|error| format!("{error:?}; the log: {}", cluster.log()))?;
    assert_eq!(end, StreamEnd::ServerShutdown);
    stopped?;
    assert!(began.elapsed() < PROMPT, "the shutdown took {:?}", began.elapsed());
    cluster.start()?;
    Ok(())
}

fn ends_with_a_shutdown(installation: &Installation) -> ScenarioResult {
    let mut cluster = Cluster::start_new(installation)?;
    // Everything is made durable when the server asks for it, and not before.
    shut_down(&mut cluster, async |mut stream| {
        let progress = stream.progress();
        while let Some(event) = stream.next().await? {
            if let WalEvent::Keepalive(keepalive) = event
                && keepalive.reply_requested
            {
                progress.flushed(progress.positions().received)?;
            }
        }
        Ok(stream.finish()?.1)
    })?;
    // It becomes durable elsewhere, later, and the server asks only now and then.
    shut_down(&mut cluster, async |mut stream| {
        let progress = stream.progress();
        let storage = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                progress.flushed(progress.positions().received).expect("it has been received");
            }
        });
        while stream.next().await?.is_some() {}
        storage.abort();
        Ok(stream.finish()?.1)
    })?;
    // Nothing is ever made durable, but all of it is taken note of.
    shut_down(&mut cluster, async |mut stream| {
        let progress = stream.progress();
        while let Some(event) = stream.next().await? {
            if let WalEvent::Data(wal) = event {
                progress.written(wal.end());
            }
        }
        Ok(stream.finish()?.1)
    })?;
    // In a task of its own.
    shut_down(&mut cluster, async |stream| {
        let mut stream = spawn_wal_stream(stream, 1 << 20);
        let progress = stream.progress();
        while let Some(event) = stream.next().await? {
            if let WalEvent::Data(wal) = event {
                progress.flushed(wal.end())?;
            }
        }
        Ok(stream.finish()?.1)
    })
}

/// The stream fails; its client is as good as new.
async fn fails_with(stream: WalStream, expected: &str) -> AnyResult<ReplicationClient> {
    let mut stream = stream;
    let error = loop {
        match stream.next().await {
            Ok(event) => assert!(event.is_some(), "the stream ended well"),
            Err(error) => break error,
        }
    };
    assert_eq!(code(&error), expected, "{error}");
    let mut client = stream.recover().expect("the session is usable");
    client.identify_system().await?;
    Ok(client)
}

fn survives_errors(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    for _ in 0..8 {
        cluster.execute("CREATE TABLE gone (n int)")?;
        cluster.execute("DROP TABLE gone")?;
        cluster.execute("SELECT pg_switch_wal()")?;
        cluster.execute("CHECKPOINT")?;
    }
    block_on(async {
        // WAL that the server has removed.
        let client = connect(&cluster).await?;
        let first = Lsn::from_u64(u64::from(SegmentSize::DEFAULT.bytes()));
        let stream = client.start_replication(StartReplication::new(first)).await?;
        let mut client = fails_with(stream, "58P01").await?;

        // WAL that the server does not have yet.
        let now = client.identify_system().await?.flushed_to;
        let ahead = StartReplication::new(now.saturating_add(1 << 30));
        let mut client = fails_with(client.start_replication(ahead).await?, "XX000").await?;

        // And the next stream is an ordinary one.
        let now = client.identify_system().await?.flushed_to;
        let mut stream = client.start_replication(StartReplication::new(now)).await?;
        aside(|| cluster.execute("CREATE TABLE kept (n int)"))?;
        receive_to(&mut stream, now.saturating_add(1)).await
    })?;
    Ok(())
}

/// `pg_cancel_backend` does what a cancel request does.
async fn cancel(cluster: &Cluster) -> AnyResult<()> {
    let sql = "SELECT pg_cancel_backend(pid) FROM pg_stat_replication \
               WHERE pid <> pg_backend_pid()";
    assert_eq!(aside(|| cluster.value(sql))?, "t");
    Ok(())
}

fn is_cancelled(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    block_on(async {
        let stream = stream_now(&cluster).await?;
        cancel(&cluster).await?;
        let mut client = fails_with(stream, "57014").await?;
        let now = client.identify_system().await?.flushed_to;
        let mut stream = client.start_replication(StartReplication::new(now)).await?;
        aside(|| cluster.execute("CREATE TABLE kept (n int)"))?;
        receive_to(&mut stream, now.saturating_add(1)).await
    })?;
    Ok(())
}

fn base_backup_is_cancelled(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    block_on(async {
        let client = connect(&cluster).await?;
        let mut options = BaseBackupOptions::default();
        options.fast_checkpoint = true;
        // Slow enough to be caught.
        options.max_rate_kb = Some(1000);
        if installation.major < 13 {
            options.manifest = None;
        }
        let mut backup = client.base_backup(&options).await?;
        let mut cancelled = false;
        while let Some(event) = backup.next().await? {
            if let (BackupEvent::ArchiveData(_), false) = (event, cancelled) {
                cancel(&cluster).await?;
                cancelled = true;
            }
        }
        let failure = backup.failure().and_then(|failure| failure.code);
        assert_eq!(failure.map(|code| code.to_string()).as_deref(), Some("57014"));
        let mut client = backup.recover().expect("the session is usable");
        client.identify_system().await?;
        client.close().await?;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    Ok(())
}
