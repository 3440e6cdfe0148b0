//! Why there is no backup.

use pgwire_stream::manifest::{ChecksumAlgorithm, ManifestError};
use pgwire_stream::{HistoryError, Lsn, SystemId, TimelineId};

use super::Unfit;
use crate::catalog::{self, IdentityError};
use crate::failure::{Class, Failure, in_one_line};
use crate::hooks::HookError;
use crate::receiver::ReceiverError;
use crate::settings::ServerName;
use crate::storage::tar::TarError;
use crate::storage::{LockError, StorageError};

/// Why a backup was not taken, or is not good.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The server, or the way to it, failed.
    #[error(transparent)]
    Server(#[from] pgwire_stream::Error),
    /// The connection string is not one.
    #[error(transparent)]
    Config(#[from] pgwire_stream::ConfigError),
    /// A file could not be written or read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Another process works on this server's backups.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The server is not the one whose backups are kept here.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The records of the backups cannot be used.
    #[error(transparent)]
    Catalog(#[from] catalog::BackupError),
    /// What is held of the WAL cannot be told.
    #[error(transparent)]
    Wal(#[from] catalog::WalError),
    /// An archive is not one that PostgreSQL sends, or breaks off.
    #[error("archive `{archive}` of the backup cannot be used: {source}")]
    Archive {
        /// The archive.
        archive: String,
        /// What is wrong with it.
        source: TarError,
    },
    /// An archive that the server has compressed cannot be unpacked.
    #[error("archive `{archive}`, as the server has compressed it, cannot be unpacked")]
    Unpack {
        /// The archive.
        archive: String,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// An archive breaks off within a file.
    #[error("archive `{archive}` of the backup breaks off in the middle of `{path}`")]
    CutFile {
        /// The archive.
        archive: String,
        /// The file.
        path: String,
    },
    /// The manifest is damaged.
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    /// The manifest is that of another cluster.
    #[error("the manifest is of system {stated}, but the backup was taken of system {expected}")]
    ForeignManifest {
        /// The system that the manifest names.
        stated: SystemId,
        /// The system that was asked.
        expected: SystemId,
    },
    /// A file is in the manifest but did not come.
    #[error("the manifest lists `{path}`, which was not received")]
    MissingFile {
        /// The file.
        path: String,
    },
    /// A file came but is not in the manifest.
    #[error("`{path}` was received, but the manifest does not list it there")]
    ExtraFile {
        /// The file.
        path: String,
    },
    /// A file has another size than it had on the server.
    #[error("`{path}` was received with {received} bytes, but the manifest lists {listed}")]
    FileSize {
        /// The file.
        path: String,
        /// The size that came.
        received: u64,
        /// The size in the manifest.
        listed: u64,
    },
    /// A file has another content than it had on the server.
    #[error("`{path}` was received with another {algorithm} checksum than the manifest lists")]
    FileChecksum {
        /// The file.
        path: String,
        /// How the checksum is computed.
        algorithm: ChecksumAlgorithm,
    },
    /// The manifest does not have the checksums that were asked for.
    #[error("the manifest lists `{path}` without the kind of checksum that was asked for")]
    ChecksumKind {
        /// The file.
        path: String,
    },
    /// The history of the timeline on which the backup ended is not one.
    #[error(
        "the history of timeline {timeline}, on which the backup ended, cannot be used: {source}"
    )]
    History {
        /// The timeline.
        timeline: TimelineId,
        /// What is wrong with it.
        source: HistoryError,
    },
    /// The parts of the backup came in an order that makes no sense.
    #[error("the server sent {what}")]
    Disorder {
        /// What came when.
        what: &'static str,
    },
    /// Nothing can be built on the backup that was named.
    #[error("no incremental backup can be built on `{backup}`: {unfit}")]
    Parent {
        /// The backup.
        backup: String,
        /// Why not.
        unfit: Box<Unfit>,
    },
    /// A script of the operator's does not allow it.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// The user wanted no backup any more.
    #[error("the backup was interrupted")]
    Interrupted,
    /// The backup is there, but the WAL that it needs did not come in time.
    #[error("the WAL up to {needed} did not arrive within {seconds} seconds")]
    NoWal {
        /// The end of the backup.
        needed: Lsn,
        /// How long was waited.
        seconds: u64,
    },
    /// WAL is not received, and will not be before somebody does something about it: what goes by until
    /// then is lost, and a backup is worth nothing without its WAL.
    #[error("its WAL would be lost, because none is received: {why}")]
    NotReceived {
        /// Why not, in one line.
        why: String,
        /// What can be done about it.
        advice: Option<String>,
    },
}

impl BackupError {
    /// What a receiver's refusal means for a backup.
    pub fn not_received(server: &ServerName, refusal: &ReceiverError) -> Self {
        let advice = refusal.hint_about(server.as_str());
        Self::NotReceived { why: in_one_line(refusal), advice }
    }
}

impl Failure for BackupError {
    fn class(&self) -> Class {
        match self {
            Self::Server(error) => error.class(),
            Self::Storage(error) => error.class(),
            Self::Lock(error) => error.class(),
            Self::Identity(error) => error.class(),
            Self::Catalog(error) => error.class(),
            Self::Wal(error) => error.class(),
            Self::Config(error) => error.class(),
            Self::Hook(error) => error.class(),
            Self::Interrupted => Class::Interrupted,
            Self::NotReceived { .. } => Class::Refused,
            _ => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Server(error) => error.hint(),
            Self::Storage(error) => error.hint(),
            Self::Lock(error) => error.hint(),
            Self::Identity(error) => error.hint(),
            Self::Catalog(error) => error.hint(),
            Self::Wal(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Hook(error) => error.hint(),
            Self::Archive { .. }
            | Self::Unpack { .. }
            | Self::CutFile { .. }
            | Self::Manifest(_)
            | Self::MissingFile { .. }
            | Self::ExtraFile { .. }
            | Self::FileSize { .. }
            | Self::FileChecksum { .. } => Some(
                "what was received differs from what the server sent: take the backup again, and \
                 suspect the network and this host's memory if it happens twice"
                    .to_owned(),
            ),
            Self::Parent { unfit, .. } => Some(match **unfit {
                Unfit::Summaries => "ALTER SYSTEM SET summarize_wal = on, reload, and take a full \
                                     backup first"
                    .to_owned(),
                _ => "take a full backup, or one with `--incremental auto`".to_owned(),
            }),
            Self::NotReceived { advice, .. } => advice.clone(),
            Self::NoWal { .. } => Some(
                "the backup is complete and becomes usable when the WAL arrives: see that \
                 `walrecv-server run` or `receive-wal` is running for this server"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
