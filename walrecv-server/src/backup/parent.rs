//! What an incremental backup is built on.
//!
//! The server sends what has changed since the backup whose manifest it is given, which it finds in
//! its summaries of the WAL. So that has to be a backup of this very cluster, on a timeline that
//! leads to where the server is now.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

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
    /// A verification found it damaged, or one that it builds on.
    Damaged,
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
            Self::Damaged => f.write_str("a verification found it damaged, or what it builds on"),
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
        let standing = self.catalog.standing(record).map_err(unreadable)?;
        let ancestors = self.catalog.ancestors(record).map_err(unreadable)?.ok_or(Unfit::Chain)?;
        let path = self.server.backup(record.id).manifest();
        let differs = |one: Option<bool>, other: Option<bool>| {
            one.is_some() && other.is_some() && one != other
        };
        // Where the server went on elsewhere.
        let left = self.history.fork_from(end.timeline);
        let is_past = self.history.contains(end.timeline) && left.is_none_or(|at| end.lsn <= at);
        let unfit = if standing.status != BackupStatus::Done {
            Unfit::Status(standing.status)
        } else if standing.damaged {
            Unfit::Damaged
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
    /// Its manifest, piece by piece. It was compared with what was stored when it was chosen.
    pub(super) fn upload(&self) -> impl Stream<Item = io::Result<Bytes>> + use<> {
        const PIECE: u64 = 64 << 10;
        let (path, size) = (self.path.clone(), self.manifest.size);
        stream::unfold(Some(0), move |at: Option<u64>| {
            let path = path.clone();
            async move {
                let at = at.filter(|at| *at < size)?;
                let end = size.min(at.saturating_add(PIECE));
                let read = tokio::task::spawn_blocking(move || read_piece(&path, at, end)).await;
                let piece = read.map_err(io::Error::from).flatten();
                let next = piece.is_ok().then_some(end);
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
    let length = usize::try_from(to.saturating_sub(from)).map_err(io::Error::other)?;
    let mut piece = vec![0; length];
    File::open(path)?.read_exact_at(&mut piece, from)?;
    Ok(piece.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Position;
    use crate::storage::{Access, Home, LockKind, ServerLock};
    use jiff::Timestamp;
    use pgwire_stream::{Lsn, SegmentSize, ServerVersion, SystemId};
    use std::fs;

    fn identity() -> Identity {
        Identity {
            system_id: SystemId::from_u64(7),
            segment_size: SegmentSize::new(1 << 20).unwrap(),
            server_version: ServerVersion::from_num(180_001),
            data_checksums: Some(true),
        }
    }

    /// A store with a full backup and one that builds on it, and all the WAL that they need.
    fn store(home: &Path) -> (Search, BackupRecord, BackupRecord) {
        let server = Home::new(home, Access::Private).server(&"main".parse().unwrap());
        server.create().unwrap();
        let lock = ServerLock::try_acquire(&server, LockKind::Backup).unwrap();
        let catalog = Catalog::new(&server);
        let size = identity().segment_size;
        let segment = pgwire_stream::SegmentName::new(
            TimelineId::FIRST,
            size.segment_of(Lsn::from_u64(1 << 20)),
            size,
        );
        fs::write(server.streaming_segment(segment), vec![0; 1 << 20]).unwrap();
        let at = |lsn: u64| Some(Position { lsn: Lsn::from_u64(lsn), timeline: TimelineId::FIRST });
        let take = |parent: Option<BackupId>| {
            let record = |id| BackupRecord {
                id,
                server: "main".parse().unwrap(),
                outcome: BackupOutcome::Copied,
                name: None,
                label: String::new(),
                parent,
                system_id: identity().system_id,
                segment_size: size,
                server_version: identity().server_version,
                data_checksums: Some(true),
                program_version: String::new(),
                began_at: Timestamp::now(),
                ended_at: None,
                done_at: None,
                begin: at((1 << 20) + 40),
                end: at((1 << 20) + 100),
                tablespaces: Vec::new(),
                archives: Vec::new(),
                manifest: Some(Manifest {
                    origin: ManifestOrigin::Server,
                    checksum_algorithm: None,
                    size: 1,
                    sha256: Sha256Sum::of(b"m"),
                }),
                config_files: None,
                damaged_pages: None,
            };
            let (dir, record) = catalog.begin(Timestamp::now(), &lock, record).unwrap();
            fs::write(dir.manifest(), b"m").unwrap();
            record
        };
        let full = take(None);
        let second = take(Some(full.id));
        let history = TimelineHistory::root(TimelineId::FIRST);
        let (base, most) = (IncrementalBase::Latest, 7);
        let search = Search { catalog, server, base, most, identity: identity(), history };
        (search, full, second)
    }

    fn chosen(search: &Search) -> Result<BackupId, Unfit> {
        search.run(&Incremental::Auto).unwrap().map(|parent| parent.id)
    }

    #[test]
    fn the_newest_that_fits_is_built_on() {
        let home = tempfile::tempdir().unwrap();
        let (mut search, full, second) = store(home.path());
        assert_eq!(chosen(&search), Ok(second.id));
        search.base = IncrementalBase::Full;
        assert_eq!(chosen(&search), Ok(full.id));
        search.base = IncrementalBase::Latest;
        search.most = 1;
        assert_eq!(chosen(&search), Err(Unfit::Length(1)));
        search.most = 7;

        // What is damaged is passed over.
        let manifest = search.server.backup(second.id).manifest();
        fs::write(&manifest, b"x").unwrap();
        assert_eq!(chosen(&search), Ok(full.id));
        fs::write(&manifest, b"m").unwrap();
        fs::write(search.server.backup(second.id).record(), b"{").unwrap();
        assert_eq!(chosen(&search), Ok(full.id));
        fs::remove_file(search.server.backup(full.id).manifest()).unwrap();
        assert_eq!(chosen(&search), Err(Unfit::Manifest));
    }

    #[test]
    fn another_cluster_or_past_is_not_built_on() {
        let home = tempfile::tempdir().unwrap();
        let (mut search, ..) = store(home.path());
        search.identity.system_id = SystemId::from_u64(8);
        assert_eq!(chosen(&search), Err(Unfit::System));
        search.identity = identity();
        search.identity.server_version = ServerVersion::from_num(190_000);
        assert_eq!(chosen(&search), Err(Unfit::Major));
        search.identity = identity();
        search.identity.data_checksums = Some(false);
        assert_eq!(chosen(&search), Err(Unfit::Checksums));
        search.identity = identity();
        // The server left timeline 1 before, or behind, the end of the backups.
        for (fork, fits) in [("0/100050", false), ("0/100064", true), ("0/200000", true)] {
            let text = format!("1\t{fork}\tno reason\n");
            let timeline = TimelineId::new(2).unwrap();
            search.history = TimelineHistory::parse(timeline, text.as_bytes()).unwrap();
            assert_eq!(chosen(&search).is_ok(), fits, "{fork}");
        }
    }
}
