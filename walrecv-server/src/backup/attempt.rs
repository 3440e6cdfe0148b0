//! One attempt: from the command on the connection to files that are durable and verified.

use std::num::NonZeroUsize;
use std::pin::pin;

use futures::stream;
use pgwire_stream::manifest::{ChecksumAlgorithm, WalRange};
use pgwire_stream::{
    BackupTablespace, BaseBackup, BaseBackupOptions, Config, Feature, ManifestChecksums,
    ReplicationClient, ServerCompression,
};
use tokio::sync::watch;

use super::archive::ArchiveOptions;
use super::blocking::blocking;
use super::config_files::Asked;
use super::contents::{ContentsWriter, ReceivedManifest};
use super::parent::{self, Incremental, Unfit};
use super::{BackupError, BackupRequest, config_files, made_manifest, receive, tablespace_names};
use crate::catalog::{
    BackupRecord, Catalog, ConfigFiles, EarlyLook, Identity, Manifest, ManifestOrigin, Position,
    Tablespace,
};
use crate::progress::ProgressSink;
use crate::settings::{BackupCompression, Compression, CompressionLocation};
use crate::storage::compression::Method;
use crate::storage::durable::AtomicFile;
use crate::storage::{BackupDir, Codec, Packing};

/// One backup under way.
pub(super) struct Attempt<'a> {
    pub(super) request: &'a BackupRequest,
    pub(super) backup: &'a BackupDir,
    pub(super) identity: &'a Identity,
    pub(super) config: &'a Config,
    pub(super) progress: &'a dyn ProgressSink,
}

impl Attempt<'_> {
    /// Fills the record in as far as it comes. When all of the backup is there, its WAL is looked for.
    pub(super) async fn run(
        &self,
        client: ReplicationClient,
        record: &mut BackupRecord,
        interrupted: &mut watch::Receiver<bool>,
    ) -> Result<EarlyLook, BackupError> {
        let mut config_files = Asked::of(self.conninfo());
        let mut stream = tokio::select! {
            stream = self.begin(client, record, &mut config_files) => stream?,
            () = receive::raised(interrupted) => return Err(BackupError::Interrupted),
        };
        let start = stream.start();
        record.begin = Some(Position { lsn: start.lsn, timeline: start.timeline });
        record.tablespaces = tablespaces(&stream);
        if !record.tablespaces.is_empty() {
            // One connection after the other: the server may have few.
            config_files.wait().await;
            tablespace_names::fill_in(&self.conninfo(), &mut record.tablespaces).await;
        }
        self.progress.begin("backup", estimate(&stream));
        let received = self.receive(&mut stream, record.clone(), interrupted).await;
        self.progress.finish();
        for warning in stream.warnings() {
            self.progress.note(&warning.to_string());
        }
        let contents = received?;
        let (client, end, wal) = match self.end(stream, record).await {
            Ok(ended) => ended,
            Err(error) => {
                receive::give_up(contents).await;
                return Err(error);
            }
        };
        let finish = async {
            let contents = blocking(move || contents.finish()).await?;
            let manifest = self.manifest(contents.manifest, wal).await?;
            Ok::<_, BackupError>((contents.archives, contents.damaged, manifest))
        };
        let ended = BackupRecord { end: Some(end), ..record.clone() };
        let look = async {
            // The backup is good with or without a goodbye, and its WAL has mostly come by then.
            let _ = client.close().await;
            Catalog::new(&self.request.server).look_early(&ended)
        };
        let (finished, look) = tokio::join!(finish, look);
        let (archives, damaged, manifest) = finished?;
        record.end = Some(end);
        record.manifest = Some(manifest);
        record.archives = archives;
        record.damaged_pages = Some(damaged).filter(|damaged| damaged.pages > 0);
        if let Some(damaged) = &record.damaged_pages {
            let (pages, files) = (damaged.pages, damaged.files.join(", "));
            self.progress.note(&format!(
                "{pages} pages of the server are damaged, or were caught while they were written, in \
                 {files}: the backup has them as they are"
            ));
        }
        let collected = tokio::select! {
            collected = config_files.end() => collected,
            () = receive::raised(interrupted) => return Err(BackupError::Interrupted),
        };
        match collected {
            Some(collected) => record.config_files = self.store_config_files(collected).await?,
            None => tracing::info!("configuration files are not kept: the server tells none"),
        }
        Ok(look)
    }

    /// The server's last word: where the backup ends, and, if it sends no manifest, which WAL one
    /// has to name. It comes before all that is found out about the files: a complaint about damaged
    /// pages comes after everything else, and one that ended an archive early is the reason for it.
    async fn end(
        &self,
        stream: BaseBackup,
        record: &BackupRecord,
    ) -> Result<(ReplicationClient, Position, Option<Vec<WalRange>>), BackupError> {
        let (mut client, end) = stream.finish()?;
        let end = Position { lsn: end.lsn, timeline: end.timeline };
        let wal = match self.sends_manifest() {
            true => None,
            false => Some(wal_needed(&mut client, record.begin, end).await?),
        };
        Ok((client, end, wal))
    }

    /// Where SQL is answered.
    fn conninfo(&self) -> String {
        self.request.settings.conninfo.as_str().to_owned()
    }

    /// Has the server begin the backup: on top of another, if that is wanted and possible.
    async fn begin(
        &self,
        mut client: ReplicationClient,
        record: &mut BackupRecord,
        config_files: &mut Asked,
    ) -> Result<BaseBackup, BackupError> {
        let mut options = self.options(record);
        let Some(wanted) = &self.request.incremental else {
            return self.start(client, &options, config_files).await;
        };
        let BackupRequest { server, settings, .. } = self.request;
        let chosen = parent::choose(&mut client, server, settings, self.identity, wanted).await?;
        let unfit = match chosen {
            Err(unfit) => unfit,
            Ok(parent) => {
                options.incremental = true;
                self.progress.note(&format!("building on backup {}", parent.id));
                let begun = match client.upload_manifest(parent.upload()).await {
                    Ok(()) => self.start(client, &options, config_files).await,
                    Err(error) => {
                        drop(client);
                        Err(error.into())
                    }
                };
                match begun {
                    Ok(stream) => {
                        record.parent = Some(parent.id);
                        return Ok(stream);
                    }
                    Err(BackupError::Server(error)) if is_unfit(&error) => {
                        config_files.wait().await;
                        client = self.connect_again().await?;
                        Unfit::Server(with_hint(&error))
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        match wanted {
            Incremental::Auto => {
                self.progress.note(&format!("taking a full backup: {unfit}"));
                options.incremental = false;
                self.start(client, &options, config_files).await
            }
            Incremental::On(backup) => {
                Err(BackupError::Parent { backup: backup.clone(), unfit: Box::new(unfit) })
            }
        }
    }

    /// Keeps what belongs to the server and lies elsewhere.
    async fn store_config_files(
        &self,
        collected: config_files::Collected,
    ) -> Result<Option<ConfigFiles>, BackupError> {
        let (directory, packing) = (self.backup.clone(), self.packing(NonZeroUsize::MIN));
        blocking(move || config_files::store(collected, &directory, &packing)).await
    }

    fn packing(&self, workers: NonZeroUsize) -> Packing {
        let settings = &self.request.settings;
        let compression = &settings.backup_compression;
        let method = Method::new(Codec::from(compression.codec), compression.level);
        Packing::new(method.with_workers(workers), &settings.encryption_recipients)
    }

    /// Another connection, to the same cluster.
    async fn connect_again(&self) -> Result<ReplicationClient, BackupError> {
        let (client, identity) = super::connect(self.config).await?;
        if identity.system_id != self.identity.system_id {
            return Err(BackupError::Disorder { what: "another system identifier than before" });
        }
        Ok(client)
    }

    async fn start(
        &self,
        client: ReplicationClient,
        options: &BaseBackupOptions,
        config_files: &mut Asked,
    ) -> Result<BaseBackup, BackupError> {
        self.progress.note("waiting for the server's checkpoint");
        // The time until then is theirs; a backup that fails has no use for them.
        config_files.begin();
        Ok(client.base_backup(options).await?)
    }

    fn options(&self, record: &BackupRecord) -> BaseBackupOptions {
        let settings = &self.request.settings;
        let mut options = BaseBackupOptions::default();
        options.label = record.label.clone();
        options.fast_checkpoint = settings.immediate_checkpoint;
        options.max_rate_kb = settings.bandwidth_limit_kb;
        options.verify_checksums = !self.request.accept_damaged_pages;
        options.compression = self.server_compression();
        options.manifest = self.sends_manifest().then_some(settings.manifest_checksums);
        options
    }

    /// How the server compresses, if it is to.
    fn server_compression(&self) -> Option<ServerCompression> {
        let BackupCompression { codec, level, workers, location } =
            self.request.settings.backup_compression;
        if location == CompressionLocation::Client || codec == Compression::None {
            return None;
        }
        if !self.identity.server_version.supports(Feature::ServerCompression) {
            self.progress.note("compressing here: servers before 15 do not compress backups");
            return None;
        }
        // Without threads of its own, unless somebody asked for some: they are the database's.
        let workers = Some(workers).filter(|workers| *workers > 1);
        Some(match codec {
            Compression::Gzip => ServerCompression::Gzip { level: Some(level) },
            Compression::Lz4 => ServerCompression::Lz4 { level: None },
            _ => ServerCompression::Zstd { level: Some(level), workers, long: false },
        })
    }

    /// Whether damaged pages are looked for here, where the server would end the backup over them.
    fn looks_at_pages(&self) -> bool {
        self.request.accept_damaged_pages && self.identity.data_checksums == Some(true)
    }

    fn sends_manifest(&self) -> bool {
        self.identity.server_version.supports(Feature::Manifest)
    }

    async fn receive(
        &self,
        backup: &mut BaseBackup,
        begun: BackupRecord,
        interrupted: &mut watch::Receiver<bool>,
    ) -> Result<ContentsWriter, BackupError> {
        let settings = &self.request.settings;
        let workers =
            usize::try_from(settings.backup_compression.workers).ok().and_then(NonZeroUsize::new);
        let workers = workers.unwrap_or(NonZeroUsize::MIN);
        let options = ArchiveOptions {
            packing: self.packing(workers),
            checksums: algorithm(settings.manifest_checksums),
            pages_before: begun.begin.map(|begin| begin.lsn).filter(|_| self.looks_at_pages()),
        };
        let (server, directory) = (self.request.server.clone(), self.backup.clone());
        let contents = move || {
            Catalog::new(&server).save(&begun)?;
            ContentsWriter::new(directory, begun.system_id, options)
        };
        let events = pin!(stream::unfold(backup, |backup| async move {
            backup.next().await.transpose().map(|event| (event, backup))
        }));
        receive::receive(events, contents, interrupted, self.progress).await
    }

    /// The record of the manifest. If the server has none, it is made here, of the WAL that is needed.
    async fn manifest(
        &self,
        received: ReceivedManifest,
        wal: Option<Vec<WalRange>>,
    ) -> Result<Manifest, BackupError> {
        let checksums = algorithm(self.request.settings.manifest_checksums);
        let (origin, stored) = match (received, wal) {
            (ReceivedManifest::Verified { stored }, _) => (ManifestOrigin::Server, stored),
            (ReceivedManifest::None { .. }, None) => {
                return Err(BackupError::Disorder { what: "no manifest" });
            }
            (ReceivedManifest::None { received }, Some(wal)) => {
                let backup = self.backup.clone();
                let write = move || {
                    let file = AtomicFile::create(&backup.manifest(), backup.access())?;
                    made_manifest::write(file, received, checksums, &wal)
                };
                (ManifestOrigin::Receipt, blocking(write).await?)
            }
        };
        Ok(Manifest {
            origin,
            checksum_algorithm: checksums.map(|algorithm| algorithm.name().to_owned()),
            size: stored.size,
            sha256: stored.sha256,
        })
    }
}

/// The WAL that the backup needs, the newest timeline first. More than one timeline if the server
/// is a standby that followed its primary onto a new one meanwhile.
async fn wal_needed(
    client: &mut ReplicationClient,
    begin: Option<Position>,
    end: Position,
) -> Result<Vec<WalRange>, BackupError> {
    let begin = begin.ok_or(BackupError::Disorder { what: "no begin" })?;
    if begin.timeline == end.timeline {
        return Ok(vec![WalRange { timeline: end.timeline, start: begin.lsn, end: end.lsn }]);
    }
    let history = client.timeline_history(end.timeline).await?;
    let history = history
        .parse()
        .map_err(|source| BackupError::History { timeline: end.timeline, source })?;
    made_manifest::wal_ranges(&history, begin, end)
        .ok_or(BackupError::Disorder { what: "an end that does not descend from the begin" })
}

/// What the server said, and what it advises.
fn with_hint(error: &pgwire_stream::Error) -> String {
    let hint = error.server_error().and_then(|error| error.hint.as_deref());
    hint.map_or_else(|| error.to_string(), |hint| format!("{error} ({hint})"))
}

/// Whether the server cannot build on the backup that it was given, and could take a full one:
/// summaries that are gone, a standby that is not far enough.
fn is_unfit(error: &pgwire_stream::Error) -> bool {
    matches!(error, pgwire_stream::Error::ManifestSource(_))
        || error.sql_state().is_some_and(|state| state.as_str() == "55000")
}

/// The server's estimate of the whole backup in bytes.
fn estimate(backup: &BaseBackup) -> Option<u64> {
    backup.tablespaces().iter().try_fold(0u64, |sum, tablespace| {
        Some(sum.saturating_add(tablespace.size_kb?.saturating_mul(1024)))
    })
}

fn tablespaces(backup: &BaseBackup) -> Vec<Tablespace> {
    let outside = |tablespace: &BackupTablespace| {
        Some(Tablespace {
            oid: tablespace.oid?,
            name: None,
            location: tablespace.location.clone().unwrap_or_default(),
        })
    };
    backup.tablespaces().iter().filter_map(outside).collect()
}

fn algorithm(checksums: ManifestChecksums) -> Option<ChecksumAlgorithm> {
    match checksums {
        ManifestChecksums::None => None,
        ManifestChecksums::Crc32c => Some(ChecksumAlgorithm::Crc32c),
        ManifestChecksums::Sha224 => Some(ChecksumAlgorithm::Sha224),
        ManifestChecksums::Sha256 => Some(ChecksumAlgorithm::Sha256),
        ManifestChecksums::Sha384 => Some(ChecksumAlgorithm::Sha384),
        ManifestChecksums::Sha512 => Some(ChecksumAlgorithm::Sha512),
    }
}
