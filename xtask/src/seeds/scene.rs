//! A server with a past, and the conversations that are written down.

use std::future::Future;
use std::sync::mpsc;
use std::thread;

use futures::stream;
use pgwire_stream::proto::{BaseBackupOptions, DropSlot, LogicalSlot, PhysicalSlot, StartLogical};
use pgwire_stream::{
    BackupEvent, Config, Lsn, ReplicationClient, Result as ClientResult, SlotName,
    StartReplication, TimelineId, WalEvent,
};
use walrecv_tests::recorder::{self, Conversation};
use walrecv_tests::{Cluster, Context, Failure, Installation, Result};

/// The role that logs in, and its password.
const ROLE: &str = "walrecv";
const PASSWORD: &str = "secret";

/// A server that is on its second timeline, has a tablespace, and lets in everybody who is named
/// after the way in.
pub(super) struct Scene {
    pub(super) cluster: Cluster,
    /// Where its second timeline begins.
    fork: Lsn,
}

impl Scene {
    pub(super) fn set(installation: &Installation) -> Result<Self> {
        let mut options = Cluster::options(installation)
            .config("wal_level = logical")
            .hba(format!("host all,replication {ROLE} 127.0.0.1/32 trust"))
            .hba("host all,replication md5 127.0.0.1/32 md5");
        if installation.major >= 11 {
            options = options.wal_segment_megabytes(1);
        }
        options = options.config(match installation.major {
            10..=12 => "wal_keep_segments = 32",
            _ => "wal_keep_size = '32MB'",
        });
        if installation.major >= 17 {
            options = options.config("summarize_wal = on");
        }
        let mut cluster = options.start()?;
        for role in [ROLE, "scram"] {
            cluster.create_role(role, PASSWORD, "SUPERUSER")?;
        }
        cluster.execute(&format!(
            "SET password_encryption = 'md5'; CREATE ROLE md5 LOGIN REPLICATION PASSWORD '{PASSWORD}'"
        ))?;
        let location = cluster.new_directory("elsewhere")?;
        cluster
            .execute(&format!("CREATE TABLESPACE elsewhere LOCATION '{}'", location.display()))?;
        cluster.execute("CREATE TABLE t TABLESPACE elsewhere AS SELECT generate_series(1, 9) n")?;
        cluster.execute("CREATE PUBLICATION everything FOR ALL TABLES")?;
        cluster.stop()?;
        cluster.recover_onto_a_new_timeline()?;
        cluster.start()?;
        cluster.wait_until_promoted()?;
        let fork = cluster
            .value("SELECT split_part(pg_read_file('pg_wal/00000002.history'), E'\\t', 2)")?;
        let fork = fork.parse().context(|| format!("cannot understand the fork `{fork}`"))?;
        Ok(Self { cluster, fork })
    }

    /// Everything that is written down. The server is stopped behind it.
    pub(super) fn record(&mut self) -> Result<Vec<(&'static str, Conversation)>> {
        let fork = self.fork;
        let mut all = vec![
            ("login_scram", self.talk("scram", log_in)?),
            ("login_md5", self.talk("md5", log_in)?),
            ("commands", self.talk(ROLE, commands)?),
            ("sql", self.talk(ROLE, sql)?),
            ("timelines", self.talk(ROLE, async |config| timelines(config, fork).await)?),
            ("logical", self.talk(ROLE, logical)?),
            (
                "base_backup",
                self.talk(ROLE, async |config| take_backup(config, None).await.map(drop))?,
            ),
        ];
        if self.cluster.major() >= 17 {
            let manifest = self.take_backup(None)?.manifest;
            let talk = async |config| take_backup(config, manifest).await.map(drop);
            all.push(("incremental", self.talk(ROLE, talk)?));
        }
        let shutdown = recorder::record(self.cluster.port(), |port| {
            let config = config(port, ROLE)?;
            let (streaming, begun) = mpsc::channel();
            thread::scope(|scope| {
                let stream = scope.spawn(|| block_on(stream_to_the_end(config, streaming)));
                // It hangs up without a word if it fails before.
                if begun.recv().is_ok() {
                    self.cluster.stop()?;
                }
                stream.join().unwrap_or_else(|_| Err(Failure::new("the stream panicked")))
            })
        })?;
        all.push(("shutdown", shutdown));
        Ok(all)
    }

    /// The data directory's archive and the manifest, in memory; of an incremental backup if the
    /// manifest of a prior one is given.
    pub(super) fn take_backup(&self, prior: Option<Vec<u8>>) -> Result<Backup> {
        let config = config(self.cluster.port(), ROLE)?;
        let backup = take_backup(config, prior);
        block_on(async { backup.await.context(|| "the base backup".to_owned()) })
    }

    fn talk<F>(&self, role: &str, say: impl FnOnce(Config) -> F) -> Result<Conversation>
    where
        F: Future<Output = ClientResult<()>>,
    {
        recorder::record(self.cluster.port(), |port| {
            let config = config(port, role)?;
            block_on(async { say(config).await.context(|| format!("the talk of {role}")) })
        })
    }
}

fn config(port: u16, role: &str) -> Result<Config> {
    format!(
        "host=127.0.0.1 port={port} user={role} password={PASSWORD} dbname=postgres sslmode=disable"
    )
    .parse()
    .context(|| "the connection string is wrong".to_owned())
}

fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().context(|| "cannot make a runtime".to_owned())?.block_on(future)
}

async fn log_in(config: Config) -> ClientResult<()> {
    let mut client = ReplicationClient::connect(&config).await?;
    client.identify_system().await?;
    client.close().await
}

/// What is answered with rows, and with errors; those are part of it.
async fn commands(config: Config) -> ClientResult<()> {
    let mut client = ReplicationClient::connect(&config).await?;
    let second = client.identify_system().await?.timeline;
    client.wal_segment_size().await?;
    let _ = client.show("no_such_setting").await;
    client.timeline_history(second).await?;
    let _ = client.timeline_history(TimelineId::FIRST).await;
    let slot: SlotName = "kept".parse().unwrap_or_else(|_| unreachable!());
    let mut options = PhysicalSlot::default();
    options.reserve_wal = true;
    client.create_physical_slot(&slot, options).await?;
    let _ = client.create_physical_slot(&slot, options).await;
    let _ = client.read_slot(&slot).await;
    client.drop_slot(&slot, DropSlot::Wait).await?;
    client.close().await
}

async fn sql(config: Config) -> ClientResult<()> {
    let mut client = ReplicationClient::connect_database(&config).await?;
    client.query("SELECT 1, NULL, 'three' UNION ALL SELECT 4, 'five', NULL; SELECT").await?;
    let _ = client.query("SELECT\n1/0").await;
    client.query("DO 'BEGIN RAISE WARNING USING MESSAGE = ''Achtung'', HINT = ''ä''; END'").await?;
    client.close().await
}

/// The last bytes of the first timeline, its end, and the next one until we have had enough.
async fn timelines(config: Config, fork: Lsn) -> ClientResult<()> {
    let mut client = ReplicationClient::connect(&config).await?;
    let mut options = StartReplication::new(Lsn::from_u64(fork.as_u64() - 200));
    options.timeline = Some(TimelineId::FIRST);
    let mut stream = client.start_replication(options.clone()).await?;
    while stream.next().await?.is_some() {}
    client = stream.finish()?.0;
    options.timeline = TimelineId::new(2);
    let mut stream = client.start_replication(options).await?;
    let progress = stream.progress();
    while let Some(event) = stream.next().await? {
        if let WalEvent::Data(wal) = event {
            progress.flushed(wal.end())?;
            stream.stop()?;
        }
    }
    stream.finish()?.0.close().await
}

/// Changes of a table, decoded.
async fn logical(config: Config) -> ClientResult<()> {
    let mut client = ReplicationClient::connect_database(&config).await?;
    let slot: SlotName = "decoded".parse().unwrap_or_else(|_| unreachable!());
    let mut options = LogicalSlot::new("pgoutput");
    options.temporary = true;
    client.create_logical_slot(&slot, &options).await?;
    client.query("INSERT INTO t VALUES (10), (NULL)").await?;
    let mut start = StartLogical::new(slot);
    start.options = [("proto_version", "1"), ("publication_names", "everything")]
        .map(|(name, value)| (name.to_owned(), Some(value.to_owned())))
        .into();
    let mut stream = client.start_logical_replication(start).await?;
    while let Some(event) = stream.next().await? {
        // The commit.
        if let WalEvent::Data(change) = event
            && change.data.starts_with(b"C")
        {
            stream.stop()?;
        }
    }
    stream.finish()?.0.close().await
}

/// A base backup, as far as seeds are made of it.
#[derive(Default)]
pub(super) struct Backup {
    /// The archive of the data directory.
    pub(super) base: Vec<u8>,
    /// The manifest, which servers have from 13 on.
    pub(super) manifest: Option<Vec<u8>>,
}

async fn take_backup(config: Config, prior: Option<Vec<u8>>) -> ClientResult<Backup> {
    let mut client = ReplicationClient::connect(&config).await?;
    let mut options = BaseBackupOptions::default();
    if let Some(manifest) = prior {
        client.upload_manifest(stream::iter([Ok(manifest.into())])).await?;
        options.incremental = true;
    }
    options.fast_checkpoint = true;
    options.progress = true;
    if client.server_version().major() < 13 {
        options.manifest = None;
    }
    let mut events = client.base_backup(&options).await?;
    let mut backup = Backup::default();
    while let Some(event) = events.next().await? {
        match event {
            // The data directory comes last.
            BackupEvent::ArchiveStart(_) => backup.base.clear(),
            BackupEvent::ArchiveData(data) => backup.base.extend_from_slice(&data),
            BackupEvent::ManifestData(data) => {
                backup.manifest.get_or_insert_default().extend_from_slice(&data);
            }
            _ => {}
        }
    }
    events.finish()?.0.close().await?;
    Ok(backup)
}

/// A stream that ends because the server does; says when it has begun.
async fn stream_to_the_end(config: Config, begun: mpsc::Sender<()>) -> Result<()> {
    let about = || "the talk with a server that stops".to_owned();
    let mut client = ReplicationClient::connect(&config).await.context(about)?;
    let from = client.identify_system().await.context(about)?.flushed_to;
    let mut stream = client.start_replication(StartReplication::new(from)).await.context(about)?;
    let progress = stream.progress();
    begun.send(()).context(about)?;
    while let Some(event) = stream.next().await.context(about)? {
        if let WalEvent::Data(wal) = event {
            progress.flushed(wal.end()).context(about)?;
        }
    }
    Ok(())
}
