//! What a backup is worth: computed from its record and from the WAL that is there.

use std::fmt;

use pgwire_stream::TimelineHistory;
use serde::Serialize;

use super::backup_record::{BackupOutcome, BackupRecord, Position};
use super::backups::{BackupError, Catalog};
use super::coverage::{Gap, Reach};
use super::damage::Damage;
use super::history::{HistoryStore, HistoryStoreError};
use super::wal::WalStore;
use crate::storage::{LockKind, ServerDir, ServerLock};

/// What a backup is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BackupStatus {
    /// It is being taken.
    Started,
    /// It ended before everything was there.
    Failed,
    /// It is there, and WAL up to its end is still to come.
    WaitingForWals,
    /// It can be restored.
    Done,
    /// It is there, and WAL that it needs, or a backup that it builds on, is lost.
    Broken,
}

impl BackupStatus {
    /// Its name in lists and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "STARTED",
            Self::Failed => "FAILED",
            Self::WaitingForWals => "WAITING_FOR_WALS",
            Self::Done => "DONE",
            Self::Broken => "BROKEN",
        }
    }
}

impl fmt::Display for BackupStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A backup's status, and the WAL that it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The status.
    pub status: BackupStatus,
    /// The first WAL that it needs and that is not there.
    pub missing: Option<Gap>,
    /// Whether a verification found it damaged, or one that it builds on.
    pub damaged: bool,
}

/// Why a backup failed that nobody is taking any more.
pub(super) const INTERRUPTED: &str = "it was interrupted";

impl Standing {
    /// Why the backup of this record failed, if it did.
    pub fn error<'r>(&self, record: &'r BackupRecord) -> Option<&'r str> {
        match (&record.outcome, self.status) {
            (BackupOutcome::Failed { error }, _) => Some(error),
            (BackupOutcome::Started, BackupStatus::Failed) => Some(INTERRUPTED),
            _ => None,
        }
    }
}

/// How sure an answer about WAL must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certainty {
    /// As it looks now.
    Seen,
    /// As it will be after a power cut.
    Durable,
}

/// The timelines that a backup needs WAL of. One that begins and ends on one timeline needs nothing
/// of the older ones.
pub(crate) fn history_of(
    server: &ServerDir,
    begin: Position,
    end: Position,
) -> Result<TimelineHistory, HistoryStoreError> {
    if begin.timeline == end.timeline {
        Ok(TimelineHistory::root(end.timeline))
    } else {
        HistoryStore::new(server).ancestry(end.timeline)
    }
}

/// The standing of a backup that was being taken when its record was read.
fn unfinished(
    server: &ServerDir,
    record: &BackupRecord,
    certainty: Certainty,
) -> Result<Standing, BackupError> {
    let of = |status| Ok(Standing { status, missing: None, damaged: false });
    if ServerLock::is_held(server, LockKind::Backup)? {
        return of(BackupStatus::Started);
    }
    // Either its process died, or it has come to its end meanwhile.
    match BackupRecord::load(&server.backup(record.id))? {
        Some(record) if record.outcome != BackupOutcome::Started => {
            standing(server, &record, certainty)
        }
        _ => of(BackupStatus::Failed),
    }
}

/// The standing of a backup.
pub(super) fn standing(
    server: &ServerDir,
    record: &BackupRecord,
    certainty: Certainty,
) -> Result<Standing, BackupError> {
    let of = |status| Ok(Standing { status, missing: None, damaged: false });
    let (begin, end) = match (&record.outcome, record.begin, record.end) {
        (BackupOutcome::Started, ..) => return unfinished(server, record, certainty),
        (BackupOutcome::Copied, Some(begin), Some(end)) => (begin, end),
        // Copied without positions is a record that nobody wrote so.
        (BackupOutcome::Failed { .. } | BackupOutcome::Copied, ..) => {
            return of(BackupStatus::Failed);
        }
    };
    let Some(ancestors) = Catalog::new(server).ancestors(record)? else {
        return of(BackupStatus::Broken);
    };
    let damaged = std::iter::once(record)
        .chain(&ancestors)
        .any(|backup| Damage::is_known(&server.backup(backup.id)));
    let history = history_of(server, begin, end)?;
    let wal = WalStore::new(server, record.segment_size);
    let reach = match certainty {
        Certainty::Seen => wal.reach(&history, begin.lsn, end.lsn)?,
        Certainty::Durable => wal.durable_reach(&history, begin.lsn, end.lsn)?,
    };
    Ok(match reach {
        Reach::Covered => Standing { status: BackupStatus::Done, missing: None, damaged },
        Reach::Missing(gap) => {
            // The receiver goes forward only: what it has passed, or had and lost, never comes.
            let lost = record.done_at.is_some() || gap.passed;
            let status = if lost { BackupStatus::Broken } else { BackupStatus::WaitingForWals };
            Standing { status, missing: Some(gap), damaged }
        }
    })
}
