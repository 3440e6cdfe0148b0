//! Base backups of the library with every option, judged by PostgreSQL's own programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use pgwire_stream::{
    BackupEvent, BackupTarget, BaseBackup, BaseBackupOptions, CompressionMethod, Config, Error,
    Feature, ManifestChecksums, ReplicationClient, ServerCompression,
};
use walrecv_tests::installation::{self, Source};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation, program, tools};

use crate::runtime::block_on;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .every_major("library_base_backups_with_every_option", every_option)
        .per_major("library_base_backups_compressed_by_the_server", &TYPED, compressed)
        .per_major("library_base_backups_to_other_targets", &TYPED, targets)
        .per_major("library_incremental_base_backups", &INCREMENTAL, incremental)
}

const TYPED: [u32; 5] = [15, 16, 17, 18, 19];
const INCREMENTAL: [u32; 3] = [17, 18, 19];

type AnyResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

async fn connect(cluster: &Cluster) -> pgwire_stream::Result<ReplicationClient> {
    let config: Config = cluster.superuser_conninfo().parse()?;
    ReplicationClient::connect(&config).await
}

fn code(error: &Error) -> String {
    error.sql_state().map(|code| code.to_string()).unwrap_or_default()
}

/// Options for a quick backup; with a manifest if the server can.
fn quick(client: &ReplicationClient) -> BaseBackupOptions {
    let mut options = BaseBackupOptions::default();
    options.fast_checkpoint = true;
    if !client.server_version().supports(Feature::Manifest) {
        options.manifest = None;
    }
    options
}

/// What came of a backup.
#[derive(Default)]
struct Received {
    archives: BTreeMap<String, Vec<u8>>,
    manifest: Vec<u8>,
    progress: Vec<u64>,
}

async fn receive(mut backup: BaseBackup) -> pgwire_stream::Result<(ReplicationClient, Received)> {
    let mut received = Received::default();
    let mut name = String::new();
    let mut terminated = true;
    while let Some(event) = backup.next().await? {
        match event {
            BackupEvent::ArchiveStart(archive) => {
                (name, terminated) = (archive.name, archive.terminated);
                let suffix = archive.compression.map_or("", CompressionMethod::suffix);
                assert!(name.ends_with(&format!(".tar{suffix}")), "{name}");
            }
            BackupEvent::ArchiveData(data) => {
                received.archives.entry(name.clone()).or_default().extend_from_slice(&data);
            }
            BackupEvent::ArchiveEnd => {
                let end = if terminated { 0 } else { 1024 };
                received.archives.entry(name.clone()).or_default().extend_from_slice(&vec![0; end]);
            }
            BackupEvent::ManifestStart => {}
            BackupEvent::ManifestData(data) => received.manifest.extend_from_slice(&data),
            BackupEvent::Progress(done) => received.progress.push(done),
        }
    }
    let (client, end) = backup.finish()?;
    assert!(end.lsn > pgwire_stream::Lsn::ZERO);
    Ok((client, received))
}

impl Received {
    /// Unpacks the backup of a cluster without tablespaces, as a restore does.
    fn unpack(&self, cluster: &Cluster, name: &str) -> AnyResult<PathBuf> {
        let directory = cluster.base_directory().join(name);
        for (archive, bytes) in &self.archives {
            let path = cluster.base_directory().join(archive);
            std::fs::write(&path, bytes)?;
            tools::unpack(&path, &directory)?;
        }
        if !self.manifest.is_empty() {
            std::fs::write(directory.join("backup_manifest"), &self.manifest)?;
        }
        Ok(directory)
    }
}

fn every_option(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::options(installation).data_checksums().start()?;
    cluster.execute("CREATE TABLE spoiled AS SELECT generate_series(1, 1000) n")?;
    cluster.execute("CHECKPOINT")?;
    let spoiled = cluster.value("SELECT pg_relation_filepath('spoiled')")?;
    let spoiled = cluster.data_directory().join(spoiled);
    block_on(async {
        let client = connect(&cluster).await?;
        let mut options = quick(&client);
        options.label = "it's \\ a\nlabel".into();
        // Without archiving there is a notice instead of a wait.
        (options.wal, options.wait) = (true, true);
        options.max_rate_kb = Some(1 << 20);
        options.tablespace_map = false;
        options.manifest = options.manifest.map(|_| ManifestChecksums::Sha512);
        options.force_encode = true;
        let backup = client.base_backup(&options).await?;
        assert!(backup.tablespaces()[0].size_kb.is_some_and(|size| size > 1000));
        let (client, received) = receive(backup).await?;
        let directory = received.unpack(&cluster, "with_wal")?;
        let label = std::fs::read_to_string(directory.join("backup_label"))?;
        assert!(label.contains("\nLABEL: it's \\ alabel\n"), "{label}");
        let wal = std::fs::read_dir(directory.join("pg_wal"))?.count();
        assert!(wal >= 2, "the WAL is there beside archive_status");
        if options.manifest.is_some() {
            let manifest = String::from_utf8(received.manifest.clone())?;
            assert!(manifest.contains("\"Encoded-Path\"") && manifest.contains("\"SHA512\""));
        }
        tools::verify_backup(cluster.major(), &directory, Some(&directory.join("pg_wal")))?;

        // The other half of the options, on the same connection.
        let mut options = quick(&client);
        (options.progress, options.verify_checksums) = (false, false);
        options.manifest = options.manifest.map(|_| ManifestChecksums::None);
        spoil(&spoiled)?;
        let backup = client.base_backup(&options).await?;
        assert_eq!(backup.tablespaces()[0].size_kb, None);
        let (client, received) = receive(backup).await?;
        let directory = received.unpack(&cluster, "without_wal")?;
        assert!(directory.join("backup_label").exists());
        tools::verify_backup(cluster.major(), &directory, None)?;

        // Where the server remembers that nothing was verified, the client does, too.
        let (version, options) = (client.server_version(), quick(&client));
        let failure = verified(client, &options).await.err();
        if version.supports(Feature::OptionLists) {
            assert_eq!(failure.as_ref().map(code).as_deref(), Some("XX001"), "{failure:?}");
        } else if version.supports(Feature::ChecksumVerification) {
            assert!(matches!(failure, Some(Error::Misuse(_))), "{failure:?}");
            let failure = verified(connect(&cluster).await?, &options).await.err();
            assert_eq!(failure.as_ref().map(code).as_deref(), Some("XX001"), "{failure:?}");
        } else {
            assert!(failure.is_none(), "{failure:?}");
        }
        AnyResult::Ok(())
    })?;
    Ok(())
}

async fn verified(
    client: ReplicationClient,
    options: &BaseBackupOptions,
) -> pgwire_stream::Result<()> {
    receive(client.base_backup(options).await?).await.map(drop)
}

/// Spoils a page of a table that nobody reads.
fn spoil(path: &Path) -> std::io::Result<()> {
    let mut bytes = std::fs::read(path)?;
    bytes[4000] ^= 1;
    std::fs::write(path, bytes)
}

/// Whether the server was built without a method, by what it says.
fn is_not_built_in(error: &Error) -> bool {
    error.to_string().contains("this build does not support")
}

fn compressed(installation: &Installation) -> ScenarioResult {
    // Distributions build with every method, others with gzip alone.
    let is_complete = |other: &&Installation| {
        other.major == installation.major && matches!(other.source, Source::System | Source::Debian)
    };
    let installation = installation::all().iter().find(is_complete).unwrap_or(installation);
    let cluster = Cluster::start_new(installation)?;
    block_on(async {
        let long = installation.major >= 16;
        for compression in [
            ServerCompression::Gzip { level: None },
            ServerCompression::Gzip { level: Some(1) },
            ServerCompression::Lz4 { level: Some(1) },
            ServerCompression::Zstd { level: Some(-3), workers: Some(2), long },
        ] {
            let client = connect(&cluster).await?;
            let mut options = quick(&client);
            options.compression = Some(compression);
            let method = compression.method();
            let backup = match client.base_backup(&options).await {
                Ok(backup) => backup,
                Err(error) if is_not_built_in(&error) => {
                    assert_ne!(method, CompressionMethod::Gzip);
                    tools::missing(&format!("server with {}", method.name()), "its compression");
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let (client, received) = receive(backup).await?;
            let name = format!("base.tar{}", method.suffix());
            assert_eq!(received.archives.keys().collect::<Vec<_>>(), [&name]);
            let done = received.progress.last().copied().unwrap_or_default();
            assert!(done > 2 * received.archives[&name].len() as u64, "it is smaller");
            let directory = received.unpack(&cluster, method.name())?;
            tools::verify_backup(cluster.major(), &directory, None)?;
            std::fs::remove_dir_all(&directory)?;
            client.close().await?;
        }
        AnyResult::Ok(())
    })?;
    Ok(())
}

fn targets(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    let on_the_server = cluster.base_directory().join("on_the_server");
    block_on(async {
        let client = connect(&cluster).await?;
        let mut options = quick(&client);
        options.target = BackupTarget::Blackhole;
        let backup = client.base_backup(&options).await?;
        let (client, received) = receive(backup).await?;
        assert!(received.archives.is_empty() && received.manifest.is_empty());
        assert!(received.progress.last().is_some_and(|&done| done > 1_000_000));

        let path = on_the_server.to_str().unwrap().to_owned();
        options.target = BackupTarget::Server(path);
        options.compression = Some(ServerCompression::Gzip { level: Some(1) });
        let backup = client.base_backup(&options).await?;
        let (_, received) = receive(backup).await?;
        assert!(received.archives.is_empty() && received.manifest.is_empty());
        let directory = cluster.base_directory().join("unpacked");
        tools::unpack(&on_the_server.join("base.tar.gz"), &directory)?;
        let manifest = on_the_server.join("backup_manifest");
        std::fs::copy(manifest, directory.join("backup_manifest"))?;
        tools::verify_backup(cluster.major(), &directory, None)?;

        // It is not empty any more; and there is no such target.
        let error = connect(&cluster).await?.base_backup(&options).await.err();
        assert_eq!(error.as_ref().map(code).as_deref(), Some("58P02"), "{error:?}");
        options.target = BackupTarget::Extension { name: "nowhere".into(), detail: None };
        let error = connect(&cluster).await?.base_backup(&options).await.err();
        assert_eq!(error.as_ref().map(code).as_deref(), Some("0A000"), "{error:?}");
        AnyResult::Ok(())
    })?;
    Ok(())
}

fn incremental(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::options(installation).config("summarize_wal = on").start()?;
    cluster.execute("CREATE TABLE t AS SELECT generate_series(1, 50000) n")?;
    let stranger = Cluster::start_new(installation)?;
    block_on(async {
        let client = connect(&cluster).await?;
        let options = quick(&client);
        let (mut client, full) = receive(client.base_backup(&options).await?).await?;
        let foreign = connect(&stranger).await?.base_backup(&options).await?;
        let (_, foreign) = receive(foreign).await?;

        // Manifests that the server cannot use; it says why, and the client goes on.
        let manifest = full.manifest.as_slice();
        let first = String::from_utf8(manifest.to_vec())?.replace(
            "\"PostgreSQL-Backup-Manifest-Version\": 2",
            "\"PostgreSQL-Backup-Manifest-Version\": 1",
        );
        for (wrong, what) in [
            (first.into_bytes(), "of version 1"),
            (manifest[..manifest.len() / 2].to_vec(), "cut off"),
            (foreign.manifest, "of another cluster"),
            (Vec::new(), "empty"),
            (b"x".repeat(1 << 17), "of one letter"),
        ] {
            let error = client.upload_manifest(pieces(&wrong)).await.unwrap_err();
            assert!(error.sql_state().is_some(), "{what}: {error}");
            client.identify_system().await?;
        }
        // A source that fails, and one that is dropped in the middle.
        let failing = stream::iter([Err(std::io::ErrorKind::NotFound.into())]);
        let error = client.upload_manifest(failing).await.unwrap_err();
        assert!(matches!(error, Error::ManifestSource(_)), "{error}");
        let endless = pieces(manifest).chain(stream::pending());
        let wait = Duration::from_millis(200);
        assert!(tokio::time::timeout(wait, client.upload_manifest(endless)).await.is_err());
        client.identify_system().await?;

        let mut options = options;
        options.incremental = true;
        let error = connect(&cluster).await?.base_backup(&options).await.err();
        assert_eq!(error.as_ref().map(code).as_deref(), Some("55000"), "{error:?}");

        let config: Config = cluster.superuser_conninfo().parse()?;
        let mut session = ReplicationClient::connect_database(&config).await?;
        session.query("UPDATE t SET n = -n WHERE n < 100").await?;
        client.upload_manifest(pieces(manifest)).await?;
        let (client, increment) = receive(client.base_backup(&options).await?).await?;
        client.close().await?;
        let sizes = [&full, &increment].map(|backup| backup.archives["base.tar"].len());
        assert!(sizes[1] * 2 < sizes[0], "it is smaller: {sizes:?}");

        let directories =
            [full.unpack(&cluster, "full")?, increment.unpack(&cluster, "increment")?];
        let label = std::fs::read_to_string(directories[1].join("backup_label"))?;
        assert!(label.contains("INCREMENTAL FROM LSN: "), "{label}");
        combine(&cluster, &directories)
    })?;
    Ok(())
}

/// The manifest in pieces of an odd size.
fn pieces(manifest: &[u8]) -> impl futures::Stream<Item = std::io::Result<Bytes>> {
    let pieces: Vec<_> = manifest.chunks(10_007).map(Bytes::copy_from_slice).map(Ok).collect();
    stream::iter(pieces)
}

/// Has PostgreSQL make a data directory of a full and an incremental backup, and verify it.
fn combine(cluster: &Cluster, directories: &[PathBuf; 2]) -> AnyResult {
    let Some(judge) = tools::of_major("pg_combinebackup", cluster.major()) else {
        tools::missing("pg_combinebackup", &cluster.installation().name());
        return Ok(());
    };
    let combined: &Path = &cluster.base_directory().join("combined");
    program::run(Command::new(judge).args(directories).arg("-o").arg(combined))?;
    tools::verify_backup(cluster.major(), combined, None)?;
    Ok(())
}
