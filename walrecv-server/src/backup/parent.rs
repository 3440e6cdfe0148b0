//! What an incremental backup is built on.
//!
//! The server sends what has changed since the backup whose manifest it is given, which it finds in
//! its summaries of the WAL. So that has to be a backup of this very cluster, on a timeline that
//! leads to where the server is now.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use futures::stream;
use pgwire_stream::{Feature, ReplicationClient, TimelineHistory, TimelineId};

use super::BackupError;
use super::blocking::blocking;
use crate::catalog::{
    self, BackupOutcome, BackupRecord, BackupStatus, Catalog, Identity, Manifest, ManifestOrigin,
};
use crate::failure::in_one_line;
use crate::settings::{IncrementalBase, ServerSettings};
use crate::storage::{BackupId, ServerDir, Sha256Sum};

/// What a backup is to be built on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incremental {
    /// The best that there is; if there is none, the backup is a full one.
    Auto,
    /// This one, or there is no backup.
    On(String),
}

/// Why nothing can be built on a backup, or on any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The server knows no incremental backups.
    Version,
    /// The server keeps no summaries of its WAL.
    Summaries,
    /// There is no backup.
    Nothing,
    /// It is not complete, or its WAL is not there.
    Status(BackupStatus),
    /// It is of another cluster.
    System,
    /// It is of another major version of the server.
    Major,
    /// Its manifest was made here, is gone, or is not what was stored.
    Manifest,
    /// What is known of it cannot be read.
    Unreadable(String),
    /// Data checksums have been switched on or off since.
    Checksums,
    /// A backup that it builds on is gone.
    Chain,
    /// There are as many backups on top of the full one as there may be.
    Length(u32),
    /// The server has left its timeline before its end.
    Timeline(TimelineId),
    /// The server says why.
    Server(String),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version => f.write_str("servers before 17 know no incremental backups"),
            Self::Summaries => f.write_str("summarize_wal is off on the server"),
            Self::Nothing => f.write_str("there is no backup to build on"),
            Self::Status(status) => write!(f, "it is {status}"),
            Self::System => f.write_str("it is of another cluster"),
            Self::Major => f.write_str("it is of another major version of PostgreSQL"),
            Self::Manifest => f.write_str("it has no manifest as the server sent it"),
            Self::Unreadable(why) => f.write_str(why),
            Self::Checksums => f.write_str("data checksums were switched on or off since"),
            Self::Chain => f.write_str("a backup that it builds on is gone"),
            Self::Length(most) => {
                write!(f, "{most} backups build on the full one already (incremental_chain_max)")
            }
            Self::Timeline(timeline) => {
                write!(f, "the server has left timeline {timeline} before its end")
            }
            Self::Server(said) => f.write_str(said),
        }
    }
}

/// A backup that can be built on.
#[derive(Clone, Debug)]
pub(super) struct Parent {
    pub(super) id: BackupId,
    path: PathBuf,
    manifest: Manifest,
}

/// Finds what a backup of this server is to be built on.
pub(super) async fn choose(
    client: &mut ReplicationClient,
    server: &ServerDir,
    settings: &ServerSettings,
    identity: &Identity,
    wanted: &Incremental,
) -> Result<Result<Parent, Unfit>, BackupError> {
    if !identity.server_version.supports(Feature::IncrementalBackup) {
        return Ok(Err(Unfit::Version));
    }
    if client.show("summarize_wal").await? != "on" {
        return Ok(Err(Unfit::Summaries));
    }
    let timeline = client.identify_system().await?.timeline;
    let history = if timeline == TimelineId::FIRST {
        TimelineHistory::root(timeline)
    } else {
        // A server may be without the file.
        let history = match client.timeline_history(timeline).await {
            Ok(history) => history,
            Err(error) if error.server_error().is_some() => {
                return Ok(Err(Unfit::Server(error.to_string())));
            }
            Err(error) => return Err(error.into()),
        };
        history.parse().map_err(|source| BackupError::History { timeline, source })?
    };
    let search = Search {
        catalog: Catalog::new(server),
        server: server.clone(),
        base: settings.incremental_base,
        most: settings.incremental_chain_max,
        identity: identity.clone(),
        history,
    };
    let wanted = wanted.clone();
    blocking(move || search.run(&wanted)).await
}

struct Search {
    catalog: Catalog,
    server: ServerDir,
    base: IncrementalBase,
    most: u32,
    identity: Identity,
    history: TimelineHistory,
}

impl Search {
    fn run(&self, wanted: &Incremental) -> Result<Result<Parent, Unfit>, BackupError> {
        if let Incremental::On(name) = wanted {
            return Ok(self.judge(&self.catalog.resolve(name)?));
        }
        let mut reason = Unfit::Nothing;
        let records = self.catalog.list()?.into_iter().rev().filter_map(|entry| entry.record.ok());
        for record in records {
            let is_candidate = record.outcome == BackupOutcome::Copied
                && (self.base == IncrementalBase::Latest || record.parent.is_none());
            if !is_candidate {
                continue;
            }
            match self.judge(&record) {
                Ok(parent) => return Ok(Ok(parent)),
                // What there is to say of the newest is what the operator wants to know. A chain
                // that is long enough is not continued further back.
                Err(unfit @ Unfit::Length(_)) => return Ok(Err(unfit)),
                Err(unfit) if reason == Unfit::Nothing => reason = unfit,
                Err(_) => {}
            }
        }
        Ok(Err(reason))
    }

    /// Whether a backup can be built on.
    fn judge(&self, record: &BackupRecord) -> Result<Parent, Unfit> {
        let (Some(end), Some(manifest)) = (record.end, &record.manifest) else {
            return Err(Unfit::Manifest);
        };
        let unreadable = |error: catalog::BackupError| Unfit::Unreadable(in_one_line(&error));
        let status = self.catalog.standing(record).map_err(unreadable)?.status;
        let ancestors = self.catalog.ancestors(record).map_err(unreadable)?.ok_or(Unfit::Chain)?;
        let path = self.server.backup(record.id).manifest();
        let differs = |one: Option<bool>, other: Option<bool>| {
            one.is_some() && other.is_some() && one != other
        };
        // Where the server went on elsewhere.
        let left = self.history.fork_from(end.timeline);
        let is_past = self.history.contains(end.timeline) && left.is_none_or(|at| end.lsn <= at);
        let unfit = if status != BackupStatus::Done {
            Unfit::Status(status)
        } else if record.system_id != self.identity.system_id {
            Unfit::System
        } else if record.server_version.major() != self.identity.server_version.major() {
            Unfit::Major
        } else if manifest.origin != ManifestOrigin::Server || !is_as_stored(&path, manifest) {
            Unfit::Manifest
        } else if differs(record.data_checksums, self.identity.data_checksums) {
            Unfit::Checksums
        } else if ancestors.len() + 1 > self.most as usize {
            Unfit::Length(self.most)
        } else if !is_past {
            Unfit::Timeline(end.timeline)
        } else {
            return Ok(Parent { id: record.id, path, manifest: manifest.clone() });
        };
        Err(unfit)
    }
}

impl Parent {
    /// Its manifest, piece by piece. The last piece is held back until all is known to be what was
    /// stored: half a manifest the server does not believe, an altered one it might.
    pub(super) fn upload(&self) -> impl Stream<Item = io::Result<Bytes>> + use<> {
        const PIECE: usize = 64 << 10;
        let (path, manifest) = (Arc::new(self.path.clone()), self.manifest.clone());
        stream::unfold(Some(0), move |at: Option<u64>| {
            let (path, manifest) = (Arc::clone(&path), manifest.clone());
            async move {
                let at = at?;
                let size = manifest.size;
                let end = size.min(at.saturating_add(PIECE as u64));
                let is_last = end == size;
                let read = tokio::task::spawn_blocking(move || {
                    if is_last && !is_as_stored(&path, &manifest) {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            format!("`{}` is not what was stored", path.display()),
                        ));
                    }
                    read_piece(&path, at, end)
                });
                let piece = read.await.map_err(io::Error::from).flatten();
                let next = if is_last || piece.is_err() { None } else { Some(end) };
                Some((piece, next))
            }
        })
    }
}

fn is_as_stored(path: &Path, manifest: &Manifest) -> bool {
    let stored = File::open(path).and_then(Sha256Sum::of_reader);
    stored.is_ok_and(|stored| (stored.size, stored.sha256) == (manifest.size, manifest.sha256))
}

fn read_piece(path: &Path, from: u64, to: u64) -> io::Result<Bytes> {
    use std::os::unix::fs::FileExt;
    let length = usize::try_from(to.saturating_sub(from)).map_err(io::Error::other)?;
    let mut piece = vec![0; length];
    File::open(path)?.read_exact_at(&mut piece, from)?;
    Ok(piece.into())
}
