//! Why a restore is refused or fails, and what is possible instead.

use std::path::PathBuf;

use jiff::Timestamp;
use pgwire_stream::tablespace_map::TablespaceMapError;
use pgwire_stream::{Lsn, SegmentName, ServerVersion, TimelineId};

use super::destination::DestinationError;
use super::extract::ExtractError;
use super::get_wal::GetWalError;
use super::outside::OutsideError;
use super::standby::StandbyError;
use super::tablespaces::MappingError;
use crate::catalog::{BackupError, DocumentError, Gap, HistoryStoreError, SuspectRange, WalError};
use crate::failure::{Class, Failure};
use crate::settings::ServerName;
use crate::storage::{BackupId, DecryptionError, StorageError};

/// Why a restore is refused, or fails.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The user does not want it any more.
    #[error("the restore was interrupted; {} is incomplete", .destination.display())]
    Interrupted {
        /// The data directory that was to be.
        destination: PathBuf,
        /// The directories of its tablespaces.
        tablespaces: Vec<PathBuf>,
    },
    /// There is no such backup, or its record cannot be read.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The backup is being taken, or failed.
    #[error("backup `{backup}` is not complete: {why}")]
    Incomplete {
        /// The backup.
        backup: BackupId,
        /// What became of it.
        why: String,
    },
    /// A backup that this one builds on is not there.
    #[error("backup `{backup}` is broken: a backup that it builds on is gone or not complete")]
    BrokenChain {
        /// The backup.
        backup: BackupId,
    },
    /// A verification, or a restore, found it damaged.
    #[error("backup `{backup}` is damaged: it was found not to be what was stored")]
    Damaged {
        /// The backup.
        backup: BackupId,
    },
    /// WAL up to the end of the backup has not arrived yet.
    #[error("backup `{backup}` cannot be consistent yet: WAL from {missing} is still to come")]
    WaitingForWal {
        /// The backup.
        backup: BackupId,
        /// The first WAL that is missing.
        missing: Gap,
    },
    /// WAL between the begin and the end of the backup is lost.
    #[error("backup `{backup}` is broken: WAL from {missing} is {}", missing.absence)]
    Broken {
        /// The backup.
        backup: BackupId,
        /// The first WAL that is missing.
        missing: Gap,
    },
    /// WAL between the backup and the target is lost.
    #[error("WAL from {missing}, on the way from backup `{backup}` to {target}, is {}", missing.absence)]
    WalGap {
        /// The backup.
        backup: BackupId,
        /// The first WAL that is missing.
        missing: Gap,
        /// Where recovery was to go.
        target: String,
        /// The target that stands for all WAL in front of it, if that leads behind the backup.
        last_target: Option<Lsn>,
    },
    /// Recovery would come to WAL that PostgreSQL cannot replay.
    #[error("WAL from {} to {} in segment {segment} is suspect: {}", range.from, range.to, range.what)]
    SuspectWal {
        /// The segment.
        segment: SegmentName,
        /// What is wrong with it.
        range: SuspectRange,
    },
    /// The target lies within the backup.
    #[error("LSN {target} lies before the end of backup `{backup}` at {end}")]
    LsnBeforeEnd {
        /// The target.
        target: Lsn,
        /// The backup.
        backup: BackupId,
        /// Where it ends.
        end: Lsn,
    },
    /// The target lies behind the WAL that is held.
    #[error("LSN {target} lies behind the last WAL that is held, which ends at {last}")]
    LsnBeyondWal {
        /// The target.
        target: Lsn,
        /// Where the WAL ends.
        last: Lsn,
    },
    /// The target was before the backup was complete.
    #[error("{target} was before the end of backup `{backup}` at {end}")]
    TimeBeforeEnd {
        /// The target.
        target: Timestamp,
        /// The backup.
        backup: BackupId,
        /// When it ended.
        end: Timestamp,
    },
    /// No transaction that is held ended later.
    #[error(
        "no transaction that ended after {target} is held, and nobody knows that there was none"
    )]
    TimeBeyondWal {
        /// The target.
        target: Timestamp,
        /// Up to when it is known what happened.
        last: Option<Timestamp>,
    },
    /// The transaction ended before the backup was complete.
    #[error("transaction {xid} ended before the end of backup `{backup}`")]
    XidBeforeEnd {
        /// The transaction.
        xid: u64,
        /// The backup.
        backup: BackupId,
    },
    /// The transaction did not end in the WAL that is held.
    #[error("transaction {xid} does not end in the WAL that follows backup `{backup}`")]
    XidNotFound {
        /// The transaction.
        xid: u64,
        /// The backup.
        backup: BackupId,
    },
    /// The restore point was made before the backup was complete.
    #[error("restore point `{name}` was made before the end of backup `{backup}`")]
    NameBeforeEnd {
        /// The restore point.
        name: String,
        /// The backup.
        backup: BackupId,
    },
    /// There is no such restore point in the WAL that is held.
    #[error("there is no restore point `{name}` in the WAL that follows backup `{backup}`")]
    NameNotFound {
        /// The restore point.
        name: String,
        /// The backup.
        backup: BackupId,
    },
    /// No backup leads to the target.
    #[error("no backup leads to {target}")]
    NoBackupFor {
        /// The target.
        target: String,
        /// The backups, and why not.
        refused: Vec<(BackupId, String)>,
    },
    /// The target has not come yet.
    #[error("{target} lies in the future")]
    TimeInFuture {
        /// The target.
        target: Timestamp,
    },
    /// Servers learned this kind of target later.
    #[error("PostgreSQL {version} cannot recover to an LSN")]
    NoLsnTarget {
        /// The version of the server that was backed up.
        version: ServerVersion,
    },
    /// The history of a timeline is needed and not held.
    #[error(transparent)]
    History(#[from] HistoryStoreError),
    /// The timeline does not come from that of the backup.
    #[error("timeline {wanted} does not descend from timeline {of_backup} of backup `{backup}`")]
    NotADescendant {
        /// The timeline that was asked for.
        wanted: TimelineId,
        /// The backup.
        backup: BackupId,
        /// Its timeline.
        of_backup: TimelineId,
    },
    /// The timeline left that of the backup too early.
    #[error("timeline {wanted} forked off at {fork}, before the end of backup `{backup}` at {end}")]
    ForkedBeforeEnd {
        /// The timeline that was asked for.
        wanted: TimelineId,
        /// Where it forked off.
        fork: Lsn,
        /// The backup.
        backup: BackupId,
        /// Where it ends.
        end: Lsn,
    },
    /// A directory cannot be restored into.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// A tablespace would go back to where it was, and something is there.
    #[error("tablespace `{tablespace}` cannot go back to where it was")]
    TablespaceInPlace {
        /// Which one.
        tablespace: String,
        /// Why not.
        source: DestinationError,
    },
    /// The tablespace mapping does not fit the backup.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// Not enough room.
    #[error("`{}` has room for {available} bytes, and {needed} are to be written", path.display())]
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// What is needed on its file system.
        needed: u64,
        /// What is free on its file system.
        available: u64,
    },
    /// No such user.
    #[error("there is no user `{name}` on this machine")]
    UnknownOwner {
        /// What was asked for.
        name: String,
    },
    /// PostgreSQL refuses to run as root.
    #[error("the restored server would have to run as root, which PostgreSQL refuses")]
    RootOwner,
    /// Files can be given away by root only.
    #[error("only root can hand files to `{owner}`; this runs as `{current}`")]
    ForeignOwner {
        /// Who is to own the files.
        owner: String,
        /// Who runs this.
        current: String,
    },
    /// The restored server would not get at its WAL.
    #[error("the user `{owner}` may not read the store `{}`, and no daemon serves it", home.display())]
    WalUnreadable {
        /// Who is to run the server.
        owner: String,
        /// The store.
        home: PathBuf,
    },
    /// The restored server could not run this program.
    #[error("the user `{owner}` cannot run `{}`", program.display())]
    ProgramUnreachable {
        /// Who is to run the server.
        owner: String,
        /// This program.
        program: PathBuf,
    },
    /// A configuration file cannot hold such a path.
    #[error("`{}` is not valid UTF-8, and cannot be written into a configuration file", path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// The backup's own list of tablespaces is not that of its record.
    #[error("`tablespace_map` of backup `{backup}` does not name the tablespaces of its record")]
    TablespaceMap {
        /// The backup.
        backup: BackupId,
    },
    /// The backup's list of tablespaces cannot be read, or not be written anew.
    #[error("the `tablespace_map` of backup `{backup}` cannot be used")]
    MapFormat {
        /// The backup.
        backup: BackupId,
        /// Why not.
        source: TablespaceMapError,
    },
    /// The archives did not become files.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// WAL cannot be copied.
    #[error("cannot copy `{name}`")]
    CopyWal {
        /// The file of WAL.
        name: String,
        /// Why not.
        source: GetWalError,
    },
    /// What is stored is encrypted, and cannot be decrypted.
    #[error(transparent)]
    Decryption(#[from] DecryptionError),
    /// The restored server could not read the key to its WAL.
    #[error(
        "the user `{owner}` may not read the identity file `{}`, and the WAL is encrypted",
        keys.display()
    )]
    IdentityUnreadable {
        /// Who is to run the server.
        owner: String,
        /// The identity file.
        keys: PathBuf,
    },
    /// The restored server depends on a daemon that could not decrypt.
    #[error(
        "the user `{owner}` may not read the store `{}`, and the daemon that serves it cannot \
         decrypt the WAL of `{server}`",
        home.display()
    )]
    DaemonWithoutKeys {
        /// Who is to run the server.
        owner: String,
        /// The server that was backed up.
        server: ServerName,
        /// The store.
        home: PathBuf,
    },
    /// A document of the store cannot be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The server cannot go on as a standby.
    #[error(transparent)]
    Standby(#[from] StandbyError),
    /// Configuration files outside of the data directory cannot be restored.
    #[error(transparent)]
    Outside(#[from] OutsideError),
    /// The WAL cannot be read.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Failure for RestoreError {
    fn class(&self) -> Class {
        match self {
            Self::Interrupted { .. } => Class::Interrupted,
            Self::Backup(error) => error.class(),
            Self::Destination(error) | Self::TablespaceInPlace { source: error, .. } => {
                error.class()
            }
            Self::Mapping(error) => error.class(),
            Self::Extract(error) => error.class(),
            Self::CopyWal { source, .. } => source.class(),
            Self::Decryption(error) => error.class(),
            Self::Document(error) => error.class(),
            Self::Standby(error) => error.class(),
            Self::Outside(error) => error.class(),
            Self::Wal(error) => error.class(),
            Self::Storage(error) => error.class(),
            Self::UnknownOwner { .. } | Self::NotUtf8 { .. } | Self::NoLsnTarget { .. } => {
                Class::Usage
            }
            Self::NoRoom { .. } | Self::TablespaceMap { .. } | Self::MapFormat { .. } => {
                Class::Failed
            }
            _ => Class::Refused,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Interrupted { destination, tablespaces } => {
                let all = [destination].into_iter().chain(tablespaces);
                let all: Vec<_> = all.map(|path| path.display().to_string()).collect();
                format!(
                    "no server starts from it; remove it before the next try: {}",
                    all.join(" ")
                )
            }
            Self::Backup(error) => return error.hint(),
            Self::History(HistoryStoreError::Missing { path, .. }) => format!(
                "put `{}` back, or name a timeline whose history is there: `--target-tli current` \
                 stays on that of the backup",
                path.display()
            ),
            Self::History(error) => return error.hint(),
            Self::Destination(error) => return error.hint(),
            Self::Mapping(error) => return error.hint(),
            Self::Extract(error) => return error.hint(),
            Self::CopyWal { source, .. } => return source.hint(),
            Self::Decryption(error) => return error.hint(),
            Self::IdentityUnreadable { owner, .. } => format!(
                "give `{owner}` a copy of its own, with mode 0600, and name that with --identity; \
                 or let the daemon decrypt, with `encryption_identity` in its configuration; or \
                 copy the WAL with --no-get-wal"
            ),
            Self::DaemonWithoutKeys { owner, .. } => format!(
                "set `encryption_identity` in the daemon's configuration, or let the group of \
                 `{owner}` read the store with `group_access = true`, or copy the WAL with \
                 --no-get-wal"
            ),
            Self::Document(error) => return error.hint(),
            Self::Standby(error) => return error.hint(),
            Self::Outside(error) => return error.hint(),
            Self::Wal(error) => return error.hint(),
            Self::Storage(error) => return error.hint(),
            Self::Incomplete { .. } | Self::Broken { .. } | Self::BrokenChain { .. } => {
                "choose another backup; `list-backups` shows those that are DONE".to_owned()
            }
            Self::Damaged { backup } => format!(
                "restore another: `auto` looks for one that leads to the target. `verify-backup` \
                 names what is wrong with `{backup}`, and clears it if it is mended; `extract` \
                 fetches single files"
            ),
            Self::WaitingForWal { .. } => {
                "let the receiver run until the backup is DONE, or choose an earlier backup"
                    .to_owned()
            }
            Self::WalGap { backup, last_target: Some(lsn), .. } => format!(
                "with backup `{backup}`, `--target-lsn {lsn}` is the last that can be reached: all WAL \
                 in front of it; a later backup may begin behind it"
            ),
            Self::WalGap { backup, .. } => format!(
                "with backup `{backup}`, --target-immediate can be reached: what it has itself; a \
                 later backup may begin behind that WAL"
            ),
            Self::SuspectWal { range, .. } => format!(
                "it is what the server sent, and PostgreSQL cannot replay it. Any target before {} can \
                 be reached, such as --target-immediate, or a later backup may begin behind it; with \
                 --force the restore goes on, and recovery may end there",
                range.from
            ),
            Self::LsnBeforeEnd { end, .. } => format!(
                "with this backup no target before {end} can be reached; choose an earlier backup"
            ),
            Self::LsnBeyondWal { last, .. } => {
                format!("leave the target away to recover up to {last}, all there is")
            }
            Self::TimeBeforeEnd { end, .. } => format!(
                "with this backup no target before {end} can be reached; choose an earlier backup"
            ),
            Self::TimeBeyondWal { last: Some(last), .. } => format!(
                "any time up to {last} can be reached; leave the target away to recover all there is"
            ),
            Self::TimeBeyondWal { last: None, .. } | Self::XidNotFound { .. } => {
                "leave the target away to recover all there is".to_owned()
            }
            Self::XidBeforeEnd { .. } | Self::NameBeforeEnd { .. } => {
                "choose an earlier backup, or `auto`".to_owned()
            }
            Self::NameNotFound { .. } => "names are compared letter by letter; leave the target \
                                          away to recover all there is"
                .to_owned(),
            Self::NoBackupFor { refused, .. } if refused.is_empty() => {
                "no backup is complete; `walrecv-server list-backups` shows what there is"
                    .to_owned()
            }
            Self::NoBackupFor { refused, .. } => refused
                .iter()
                .map(|(backup, why)| format!("{backup}: {why}"))
                .collect::<Vec<_>>()
                .join("; "),
            Self::TimeInFuture { .. } => "leave the target away to recover all there is".to_owned(),
            Self::NoLsnTarget { .. } => "name a time, a transaction or a restore point".to_owned(),
            Self::NotADescendant { of_backup, .. } => format!(
                "`--target-tli current` recovers along timeline {of_backup}; a backup of the other \
                 timeline, or of one before the fork, leads there"
            ),
            Self::ForkedBeforeEnd { fork, .. } => {
                format!("choose a backup that ended before {fork}, or `--target-tli current`")
            }
            Self::TablespaceInPlace { tablespace, .. } => {
                format!("name a directory for it: `--tablespace {tablespace}:DIRECTORY`")
            }
            Self::NoRoom { .. } => "make room, or name a directory elsewhere".to_owned(),
            Self::UnknownOwner { .. } => {
                "name the user that PostgreSQL runs as, usually `postgres`".to_owned()
            }
            Self::RootOwner => {
                "name the user that PostgreSQL runs as: `--owner postgres`".to_owned()
            }
            Self::ForeignOwner { owner, .. } => format!("run this as root, or as `{owner}`"),
            Self::WalUnreadable { owner, .. } => format!(
                "run the daemon with `wal_readers = [\"{owner}\"]` (and reload one that runs), or let the group of `{owner}` \
                 read the store with `group_access = true`, or copy the WAL with --no-get-wal"
            ),
            Self::ProgramUnreachable { .. } => {
                "install the program where everybody may run it, such as `/usr/local/bin`, or copy \
                 the WAL with --no-get-wal"
                    .to_owned()
            }
            Self::NotUtf8 { .. } => "rename it, or copy the WAL with --no-get-wal".to_owned(),
            Self::MapFormat { source: TablespaceMapError::Unwritable { .. }, .. } => {
                "give the tablespace another directory".to_owned()
            }
            Self::TablespaceMap { .. } | Self::MapFormat { .. } => {
                "the stored backup cannot be trusted any more; remove what was restored and \
                 restore another backup"
                    .to_owned()
            }
        })
    }
}
