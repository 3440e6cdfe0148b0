//! The base backups of a server: begun, recorded, listed, found by name.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::PathBuf;

use jiff::Timestamp;
use pgwire_stream::{SegmentName, SegmentNumber};

use super::backup_record::{BackupOutcome, BackupRecord, Position};
use super::document::DocumentError;
use super::history::HistoryStoreError;
use super::status::{self, BackupStatus, Certainty, Standing};
use super::wal::{WalError, WalStore};
use crate::failure::{Class, Failure};
use crate::settings::ServerName;
use crate::storage::{BackupDir, BackupId, ServerDir, ServerLock, StorageError, durable};

/// The base backups of one server.
#[derive(Clone, Debug)]
pub struct Catalog {
    server: ServerDir,
}

/// A backup in the list; its record may be unreadable, which must not hide the others.
#[derive(Debug)]
pub struct CatalogEntry {
    /// The backup.
    pub id: BackupId,
    /// What is known of it.
    pub record: Result<BackupRecord, BackupError>,
}

/// Why a backup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is none by this name.
    #[error("server `{server}` has no backup `{wanted}`")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// The server.
        server: ServerName,
    },
    /// It has to be there, and is not.
    #[error("backup `{backup}` of server `{server}` is not where it was: `{}` is missing", path.display())]
    Vanished {
        /// The backup.
        backup: BackupId,
        /// The server.
        server: ServerName,
        /// Where it would be.
        path: PathBuf,
    },
    /// There is none at all that is complete.
    #[error("server `{server}` has no complete backup")]
    NoneComplete {
        /// The server.
        server: ServerName,
    },
    /// Its directory has no record.
    #[error("backup `{id}` has no record: `{}` is missing", path.display())]
    NoRecord {
        /// The backup.
        id: BackupId,
        /// Where the record would be.
        path: PathBuf,
    },
    /// Its record is that of another: somebody copied or renamed a directory.
    #[error("`{}` is the record of backup `{says}`", path.display())]
    Misplaced {
        /// The record.
        path: PathBuf,
        /// The backup that it is of.
        says: BackupId,
    },
    /// Nobody knows which backups have to be there.
    #[error("cannot tell which backups have to be there")]
    Register {
        /// Why not.
        source: DocumentError,
    },
    /// Its record cannot be read or written.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The history of its timeline cannot be read.
    #[error(transparent)]
    History(#[from] HistoryStoreError),
    /// The WAL that it needs cannot be read.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What can be done about a backup that somebody took away.
pub fn hint_to_vanished(backup: BackupId) -> String {
    format!(
        "mount that directory, or put back what was moved away; a backup that is gone for good is \
         forgotten by `walrecv-server delete SERVER {backup} --forget`"
    )
}

impl Failure for BackupError {
    fn class(&self) -> Class {
        match self {
            Self::History(error) => error.class(),
            _ => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { server, .. } => {
                Some(format!("`walrecv-server list-backups {server}` shows what there is"))
            }
            Self::Vanished { backup, .. } => Some(hint_to_vanished(*backup)),
            Self::NoneComplete { server } => {
                Some(format!("`walrecv-server backup {server}` takes one"))
            }
            Self::NoRecord { .. } => None,
            Self::Misplaced { says, .. } => {
                Some(format!("a backup's directory keeps its name: rename it to `{says}`"))
            }
            Self::Register { source } => source.hint().or_else(|| {
                Some("see that all backups are there, and remove that file: it is made anew".into())
            }),
            Self::Document(error) => error.hint(),
            Self::History(error) => error.hint(),
            Self::Wal(error) => error.hint(),
            Self::Storage(error) => error.hint(),
        }
    }
}

impl Catalog {
    /// The backups of a server.
    pub fn new(server: &ServerDir) -> Self {
        Self { server: server.clone() }
    }

    pub(super) fn server(&self) -> &ServerDir {
        &self.server
    }

    /// Makes the directory of a backup that begins at `now`, and its first record, which `record`
    /// makes for the id that was free. Durable on return.
    ///
    /// # Errors
    /// If the directory or the record cannot be written.
    pub fn begin(
        &self,
        now: Timestamp,
        _backup: &ServerLock,
        record: impl FnOnce(BackupId) -> BackupRecord,
    ) -> Result<(BackupDir, BackupRecord), BackupError> {
        durable::create_dir(&self.server.base(), self.server.access())?;
        let mut id = BackupId::at(now);
        // Nobody else makes one meanwhile.
        let backup = loop {
            let backup = self.server.backup(id);
            let taken = backup.path().try_exists();
            if !taken.map_err(StorageError::of("look at", backup.path()))? {
                break backup;
            }
            id = id.next();
        };
        let record = record(id);
        // A directory without a record would be taken for a backup that nobody understands.
        durable::create_dir_with(backup.path(), self.server.access(), |hidden| {
            record.save(&backup.at(hidden)).map_err(BackupError::from)
        })?;
        Ok((backup, record))
    }

    /// Writes a backup's record in place of the one there. Durable on return.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, record: &BackupRecord) -> Result<(), BackupError> {
        Ok(record.save(&self.server.backup(record.id))?)
    }

    /// What is known of a backup.
    ///
    /// # Errors
    /// If there is no such backup, or its record cannot be read.
    pub fn load(&self, id: BackupId) -> Result<BackupRecord, BackupError> {
        let backup = self.server.backup(id);
        match BackupRecord::load(&backup)? {
            Some(record) if record.id == id => Ok(record),
            Some(record) => Err(BackupError::Misplaced { path: backup.record(), says: record.id }),
            None if backup.path().is_dir() => {
                Err(BackupError::NoRecord { id, path: backup.record() })
            }
            None => Err(self.absent(id)),
        }
    }

    /// Every backup, in the order in which they began. One whose record cannot be read is put
    /// where its id says. One that is deleted meanwhile may be left out.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn list(&self) -> Result<Vec<CatalogEntry>, BackupError> {
        let mut entries: Vec<CatalogEntry> = durable::list_dir(&self.server.base())?
            .iter()
            .filter_map(|name| self.entry(name.to_str()?.parse().ok()?))
            .collect();
        entries.sort_by_cached_key(|entry| {
            let began_at = entry.record.as_ref().map(|record| record.began_at).ok();
            (began_at.unwrap_or_else(|| entry.id.time()), entry.id)
        });
        Ok(entries)
    }

    /// What there is under an id; `None` if it is gone. Nobody shows as damaged what was deleted
    /// between two looks.
    fn entry(&self, id: BackupId) -> Option<CatalogEntry> {
        let record = self.load(id);
        let is_there = record.is_ok() || self.server.backup(id).path().is_dir();
        is_there.then_some(CatalogEntry { id, record })
    }

    /// The backup that an operator means: an id, or `latest`, `last`, `first`, `oldest`,
    /// `latest-full` or `last-full` of those that were copied completely, or `last-failed`.
    ///
    /// # Errors
    /// If there is no such backup, or its record cannot be read.
    pub fn resolve(&self, wanted: &str) -> Result<BackupRecord, BackupError> {
        let complete = || -> Result<_, BackupError> {
            let readable = self.list()?.into_iter().filter_map(|entry| entry.record.ok());
            let mut complete: Vec<BackupRecord> =
                readable.filter(|record| record.outcome == BackupOutcome::Copied).collect();
            complete.reverse();
            Ok(complete)
        };
        let found = match wanted {
            "latest" | "last" => complete()?.into_iter().next(),
            "first" | "oldest" => complete()?.into_iter().next_back(),
            "latest-full" | "last-full" => {
                complete()?.into_iter().find(|record| record.parent.is_none())
            }
            "last-failed" => {
                let is_failed =
                    |record: &BackupRecord| matches!(record.outcome, BackupOutcome::Failed { .. });
                let readable = self.list()?.into_iter().filter_map(|entry| entry.record.ok());
                let failed = readable.filter(is_failed).last();
                return failed.ok_or_else(|| self.unknown(wanted));
            }
            word => match word.parse() {
                Ok(id) => return self.load(id),
                // The newest of those that were given this name.
                Err(_) => {
                    let named = |record: &BackupRecord| record.name.as_deref() == Some(word);
                    return complete()?.into_iter().find(named).ok_or_else(|| self.unknown(word));
                }
            },
        };
        found.ok_or_else(|| BackupError::NoneComplete { server: self.server.name().clone() })
    }

    /// The backup that an operator means to restore. As [`resolve`](Self::resolve), but a word
    /// stands for a backup whose WAL is there, and all that it builds on: one that still waits for
    /// it, has lost it, or is damaged, is chosen only if there is no other.
    ///
    /// # Errors
    /// If there is no such backup, or its record, the WAL or the histories cannot be read.
    pub fn resolve_restorable(&self, wanted: &str) -> Result<BackupRecord, BackupError> {
        let found = self.resolve(wanted)?;
        let full = matches!(wanted, "latest-full" | "last-full");
        if !full && !matches!(wanted, "latest" | "last" | "first" | "oldest") {
            return Ok(found);
        }
        let readable = self.list()?.into_iter().filter_map(|entry| entry.record.ok());
        let mut candidates: Vec<BackupRecord> =
            readable.filter(|record| !full || record.parent.is_none()).collect();
        if !matches!(wanted, "first" | "oldest") {
            candidates.reverse();
        }
        for candidate in candidates {
            let standing = self.standing(&candidate)?;
            if standing.status == BackupStatus::Done && !standing.damaged {
                return Ok(candidate);
            }
        }
        Ok(found)
    }

    /// What a backup is worth, as it looks now.
    ///
    /// # Errors
    /// If the WAL or the timeline histories cannot be read.
    pub fn standing(&self, record: &BackupRecord) -> Result<Standing, BackupError> {
        status::standing(&self.server, record, Certainty::Seen)
    }

    /// Marks the backups whose processes died as failed, and returns them. The lock proves that nobody
    /// is taking one.
    ///
    /// # Errors
    /// If a record cannot be written, or the directory cannot be read.
    pub fn fail_interrupted(&self, _backup: &ServerLock) -> Result<Vec<BackupId>, BackupError> {
        let mut failed = Vec::new();
        for entry in self.list()? {
            if let Ok(mut record) = entry.record
                && record.outcome == BackupOutcome::Started
            {
                let error = status::INTERRUPTED.to_owned();
                record.outcome = BackupOutcome::Failed { error };
                self.save(&record)?;
                failed.push(record.id);
            }
        }
        Ok(failed)
    }

    /// The stored size of the archived WAL of each backup: from where it begins to where the next
    /// complete one on its timeline does, or to the end of what is there. In the order given.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn wal_sizes(&self, records: &[&BackupRecord]) -> Result<Vec<u64>, BackupError> {
        let Some(size) = records.first().map(|record| record.segment_size) else {
            return Ok(Vec::new());
        };
        let first =
            |begin: Position| SegmentName::new(begin.timeline, size.segment_of(begin.lsn), size);
        let last = |begin: Position| {
            SegmentName::new(begin.timeline, SegmentNumber::from_u64(u64::MAX), size)
        };
        let begins: BTreeSet<SegmentName> = records
            .iter()
            .filter(|record| record.outcome == BackupOutcome::Copied)
            .filter_map(|record| record.begin.map(first))
            .collect();
        let borders = records.iter().filter_map(|record| record.begin.map(first)).collect();
        let sizes = WalStore::new(&self.server, size).stored_sizes(&borders)?;
        let size_of = |record: &&BackupRecord| {
            let Some(begin) = record.begin else { return 0 };
            let behind = (Bound::Excluded(first(begin)), Bound::Included(last(begin)));
            let end = match begins.range(behind).next() {
                Some(&next) => Bound::Excluded(next),
                None => Bound::Included(last(begin)),
            };
            sizes.range((Bound::Included(first(begin)), end)).map(|(_, size)| size).sum()
        };
        Ok(records.iter().map(size_of).collect())
    }

    /// There is no such backup, or not any more.
    fn absent(&self, backup: BackupId) -> BackupError {
        match self.vanished() {
            Ok(vanished) if vanished.contains(&backup) => BackupError::Vanished {
                backup,
                server: self.server.name().clone(),
                path: self.server.backup(backup).path().to_owned(),
            },
            _ => self.unknown(&backup.to_string()),
        }
    }

    pub(super) fn unknown(&self, wanted: &str) -> BackupError {
        let wanted = wanted.chars().take(40).collect();
        BackupError::Unknown { wanted, server: self.server.name().clone() }
    }
}

#[cfg(test)]
pub(super) mod tests;
