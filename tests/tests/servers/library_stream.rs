//! The library's commands on every major: slots, WAL, timelines, base backups.

use std::collections::BTreeMap;
use std::time::Duration;

use pgwire_stream::manifest::ManifestReader;
use pgwire_stream::{
    BackupEvent, BaseBackupOptions, Config, DropSlot, Feature, Lsn, PhysicalSlot,
    ReplicationClient, SegmentName, SegmentSize, SlotName, StartReplication, StreamEnd, TimelineId,
    WalEvent,
};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation};

use crate::runtime::block_on;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .every_major("library_identifies", identifies)
        .every_major("library_slots", slots)
        .every_major("library_stream_equals_archive", stream_equals_archive)
        .every_major("library_follows_timelines", follows_timelines)
        .every_major("library_base_backup", base_backup)
}

pub(crate) async fn connect(cluster: &Cluster) -> pgwire_stream::Result<ReplicationClient> {
    let config: Config = cluster.superuser_conninfo().parse()?;
    ReplicationClient::connect(&config).await
}

pub(crate) fn lsn(cluster: &Cluster, sql: &str) -> walrecv_tests::Result<Lsn> {
    let text = cluster.value(sql)?;
    text.parse().map_err(|error| walrecv_tests::Failure::new(format!("{sql}: {error}")))
}

fn identifies(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    let control = "SELECT system_identifier FROM pg_control_system()";
    let expected = cluster.value(control)?;
    block_on(async {
        let mut client = connect(&cluster).await?;
        assert_eq!(client.server_version().major(), installation.major);
        let system = client.identify_system().await?;
        assert_eq!(system.system_id.to_string(), expected);
        assert_eq!((system.timeline, system.database), (TimelineId::FIRST, None));
        assert_eq!(client.wal_segment_size().await?, SegmentSize::DEFAULT);
        assert_eq!(client.show("wal_level").await?, "replica");

        let error = client.show("no_such_setting").await.unwrap_err();
        assert_eq!(error.sql_state().map(|code| code.to_string()), Some("42704".into()));
        // Timeline 1 has no history; the session survives.
        assert!(client.timeline_history(TimelineId::FIRST).await.unwrap_err().is_wal_removed());
        assert!(client.query("SELECT 1").await.is_err(), "SQL on a physical connection");
        client.identify_system().await?;
        client.close().await?;

        let config: Config = cluster.superuser_conninfo().parse()?;
        let mut client = ReplicationClient::connect_database(&config).await?;
        let rows = client.query("SELECT 'one', NULL, 3 UNION ALL SELECT 'x', 'y', 4").await?;
        assert_eq!(rows.rows.len(), 2);
        assert_eq!(rows.rows[0].text(0), Some("one"));
        assert_eq!(rows.rows[0].bytes(1), None);
        assert_eq!(client.identify_system().await?.database.as_deref(), Some("postgres"));
        client.close().await
    })?;
    Ok(())
}

fn slots(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    let name: SlotName = "walrecv_slot".parse()?;
    block_on(async {
        let mut client = connect(&cluster).await?;
        let reads = client.server_version().supports(Feature::ReadSlot);
        if reads {
            assert_eq!(client.read_slot(&name).await?, None);
        } else {
            assert!(client.read_slot(&name).await.is_err());
        }
        let mut reserved = PhysicalSlot::default();
        reserved.reserve_wal = true;
        client.create_physical_slot(&name, reserved).await?;
        let again = client.create_physical_slot(&name, reserved).await.unwrap_err();
        assert!(again.is_slot_present(), "{again}");
        if reads {
            let position = client.read_slot(&name).await?.and_then(|slot| slot.restart);
            let (restart, timeline) = position.expect("WAL is reserved");
            let now = client.identify_system().await?.flushed_to;
            assert!(restart > Lsn::ZERO && restart <= now && timeline == TimelineId::FIRST);
        }

        // Somebody else streams from it.
        let from = client.identify_system().await?.flushed_to;
        let mut options = StartReplication::new(from);
        options.slot = Some(name.clone());
        let mut stream = connect(&cluster).await?.start_replication(options.clone()).await?;
        let error = connect(&cluster).await?.start_replication(options.clone()).await.err();
        assert!(error.is_some_and(|error| error.is_slot_in_use()));
        let error = client.drop_slot(&name, DropSlot::FailIfActive).await.unwrap_err();
        assert!(error.is_slot_in_use(), "{error}");
        stream.stop()?;
        while stream.next().await?.is_some() {}
        let (streamed, end) = stream.finish()?;
        assert_eq!(end, StreamEnd::Stopped);
        streamed.close().await?;

        client.drop_slot(&name, DropSlot::Wait).await?;
        let error = client.drop_slot(&name, DropSlot::FailIfActive).await.unwrap_err();
        assert!(error.is_slot_missing(), "{error}");
        let error = client.start_replication(options).await.err();
        assert!(error.is_some_and(|error| error.is_slot_missing()));
        Ok::<_, pgwire_stream::Error>(())
    })?;
    Ok(())
}

/// Receives until `until`, into whole segments by name.
async fn receive(
    cluster: &Cluster,
    from: Lsn,
    until: Lsn,
) -> pgwire_stream::Result<(SegmentSize, BTreeMap<u64, Vec<u8>>)> {
    let mut client = connect(cluster).await?;
    let size = client.wal_segment_size().await?;
    let mut segments: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut stream = client
        .start_replication(StartReplication::new(size.start_of(size.segment_of(from))))
        .await?;
    let progress = stream.progress();
    while let Some(event) = stream.next().await? {
        let WalEvent::Data(wal) = event else { continue };
        let mut at = wal.start;
        let mut data = &wal.data[..];
        while !data.is_empty() {
            let room = (size.bytes() - size.offset_in_segment(at)) as usize;
            let (piece, rest) = data.split_at(room.min(data.len()));
            segments.entry(size.segment_of(at).as_u64()).or_default().extend(piece);
            at = at.saturating_add(piece.len() as u64);
            data = rest;
        }
        progress.written(wal.end());
        progress.flushed(wal.end())?;
        if wal.end() >= until {
            stream.stop()?;
        }
    }
    let (client, end) = stream.finish()?;
    assert_eq!(end, StreamEnd::Stopped);
    client.close().await?;
    Ok((size, segments))
}

fn stream_equals_archive(installation: &Installation) -> ScenarioResult {
    let mut options = Cluster::options(installation).archive();
    if installation.major >= 11 {
        options = options.wal_segment_megabytes(1);
    }
    let cluster = options.start()?;
    let from = lsn(&cluster, "SELECT pg_current_wal_lsn()")?;
    cluster.execute(
        "CREATE TABLE load AS SELECT g, repeat('x', 200) t FROM generate_series(1, 20000) g",
    )?;
    cluster.execute("UPDATE load SET g = g + 1")?;
    let until = lsn(&cluster, "SELECT pg_switch_wal()")?;

    let (size, segments) = block_on(receive(&cluster, from, until))?;
    let mut compared = 0;
    for (number, bytes) in &segments {
        if bytes.len() < size.bytes() as usize {
            continue;
        }
        let number = pgwire_stream::SegmentNumber::from_u64(*number);
        let name = SegmentName::new(TimelineId::FIRST, number, size).to_string();
        let archived = cluster.archive_directory().join(&name);
        cluster.wait_for("the archived segment", |_| Ok(archived.exists()))?;
        assert!(std::fs::read(&archived)? == *bytes, "{name} differs from the server's archive");
        compared += 1;
    }
    // A segment that was switched early is complete only with the zeros behind the switch, which
    // a server sends as the next segment begins.
    assert!(compared >= 1, "no complete segment was received");
    Ok(())
}

fn follows_timelines(installation: &Installation) -> ScenarioResult {
    let mut cluster = Cluster::start_new(installation)?;
    cluster.execute("CREATE TABLE before_promotion (n int)")?;
    let from = lsn(&cluster, "SELECT pg_current_wal_lsn()")?;
    cluster.stop()?;
    cluster.recover_onto_a_new_timeline()?;
    cluster.start()?;
    cluster.wait_until_promoted()?;
    cluster.execute("CREATE TABLE after_promotion (n int)")?;

    block_on(async {
        let mut client = connect(&cluster).await?;
        let second = client.identify_system().await?.timeline;
        assert_eq!(second.get(), 2);
        let history = client.timeline_history(second).await?.parse()?;
        let fork = history.fork_from(TimelineId::FIRST).expect("timeline 1 is the parent");

        // The old timeline ends in the new one.
        let size = client.wal_segment_size().await?;
        let mut options = StartReplication::new(size.start_of(size.segment_of(from)));
        options.timeline = Some(TimelineId::FIRST);
        let mut stream = client.start_replication(options.clone()).await?;
        let progress = stream.progress();
        let mut received = Lsn::ZERO;
        while let Some(event) = stream.next().await? {
            if let WalEvent::Data(wal) = event {
                received = wal.end();
                progress.flushed(received)?;
            }
        }
        assert!(received >= fork);
        let (client, end) = stream.finish()?;
        assert_eq!(end, StreamEnd::NextTimeline { timeline: second, start: fork });

        // From the very fork, the server answers with the next timeline at once.
        options.from = fork;
        let mut stream = client.start_replication(options.clone()).await?;
        assert!(stream.next().await?.is_none());
        let (client, end) = stream.finish()?;
        assert_eq!(end, StreamEnd::NextTimeline { timeline: second, start: fork });

        // The new one goes on.
        options.timeline = Some(second);
        let mut stream = client.start_replication(options.clone()).await?;
        let event = tokio::time::timeout(Duration::from_secs(30), stream.next()).await;
        assert!(matches!(event, Ok(Ok(Some(_)))), "{event:?}");

        // Beyond the fork, the old timeline is not part of the server's history.
        let mut options = StartReplication::new(fork.saturating_add(1));
        options.timeline = Some(TimelineId::FIRST);
        let error = connect(&cluster).await?.start_replication(options).await.err();
        assert!(error.is_some_and(|error| error.sql_state().is_some()));
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    Ok(())
}

fn base_backup(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    let location = cluster.new_directory("elsewhere")?;
    cluster.execute(&format!("CREATE TABLESPACE elsewhere LOCATION '{}'", location.display()))?;
    cluster.execute("CREATE TABLE t TABLESPACE elsewhere AS SELECT generate_series(1, 10000) n")?;
    let oid = cluster.value("SELECT oid FROM pg_tablespace WHERE spcname = 'elsewhere'")?;

    block_on(async {
        let client = connect(&cluster).await?;
        let manifest = client.server_version().supports(Feature::Manifest);
        let mut options = BaseBackupOptions::default();
        options.label = "it's a label".into();
        options.fast_checkpoint = true;
        if !manifest {
            options.manifest = None;
        }
        let mut backup = client.base_backup(&options).await?;
        let (start, tablespaces) = (backup.start(), backup.tablespaces().to_vec());
        assert_eq!(tablespaces.len(), 2);
        assert_eq!(tablespaces[0].oid.map(|oid| oid.to_string()).as_ref(), Some(&oid));
        assert_eq!(tablespaces[0].location.as_deref(), location.to_str());
        assert!(tablespaces[1].size_kb.is_some_and(|size| size > 1000));

        let mut archives: Vec<(String, usize)> = Vec::new();
        let mut ended = 0;
        let mut reader = manifest.then(ManifestReader::new);
        let mut listed = 0;
        while let Some(event) = backup.next().await? {
            match event {
                BackupEvent::ArchiveStart(archive) => archives.push((archive.name, 0)),
                BackupEvent::ArchiveData(data) => archives.last_mut().unwrap().1 += data.len(),
                BackupEvent::ArchiveEnd => ended += 1,
                BackupEvent::ManifestData(data) => {
                    let items = reader.as_mut().unwrap().feed(&data)?;
                    listed += items.len();
                }
                BackupEvent::ManifestStart | BackupEvent::Progress(_) => {}
            }
        }
        let (mut client, end) = backup.finish()?;
        assert!(end.lsn > start.lsn && end.timeline == start.timeline);
        let names: Vec<&str> = archives.iter().map(|(name, _)| name.as_str()).collect();
        let mut expected = [format!("{oid}.tar"), "base.tar".to_owned()];
        // The server decides on the order, but the data directory comes last.
        expected.sort();
        assert_eq!(names, expected);
        assert_eq!(ended, 2);
        assert!(archives[0].1 > 300_000 && archives[1].1 > 1_000_000, "{archives:?}");
        if let Some(reader) = reader {
            reader.finish()?;
            assert!(listed > 500);
        }

        // The session is as good as new.
        client.identify_system().await?;
        client.close().await?;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    Ok(())
}
