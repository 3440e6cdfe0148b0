//! Which backup a restore begins with, along which timelines it goes on, and how far it comes.

use pgwire_stream::{TimelineHistory, TimelineId};

use super::error::RestoreError;
use super::plan::Request;
use super::reach::{Reached, Way};
use super::standby;
use super::target::TimelineChoice;
use crate::catalog::{
    BackupOutcome, BackupRecord, BackupStatus, Catalog, HistoryStore, Position, SuspectWal,
    WalStore,
};
use crate::failure::in_one_line;
use crate::storage::ServerDir;

/// The word for whatever backup leads to the target.
const AUTO: &str = "auto";

/// A backup, and how it leads to the target.
pub(super) struct Choice {
    pub(super) record: BackupRecord,
    /// What it builds on: its parent first, the full backup last.
    pub(super) ancestors: Vec<BackupRecord>,
    pub(super) history: TimelineHistory,
    /// The timeline that the server is told to follow; `None` for that of the backup, whose history
    /// nobody knows.
    pub(super) timeline: Option<TimelineId>,
    pub(super) reached: Reached,
}

/// Finds the backup that is asked for, and the way to the target.
///
/// # Errors
/// If it does not lead there; with `auto`, if none does.
pub(super) fn choose(server: &ServerDir, request: &Request) -> Result<Choice, RestoreError> {
    let catalog = Catalog::new(server);
    if request.backup != AUTO {
        return begin_with(server, catalog.resolve_restorable(&request.backup)?, request);
    }
    let mut refused = Vec::new();
    // The newest that leads there has the shortest way.
    for entry in catalog.list()?.into_iter().rev() {
        let choice = match entry.record {
            Ok(record) if record.outcome == BackupOutcome::Copied => {
                begin_with(server, record, request)
            }
            Ok(_) => continue,
            Err(error) => Err(error.into()),
        };
        match choice {
            Ok(choice) => return Ok(choice),
            Err(error) => refused.push((entry.id, in_one_line(&error))),
        }
    }
    Err(RestoreError::NoBackupFor { target: request.target.to_string(), refused })
}

fn begin_with(
    server: &ServerDir,
    record: BackupRecord,
    request: &Request,
) -> Result<Choice, RestoreError> {
    let (begin, end) = check_backup(server, &record)?;
    let ancestors = Catalog::new(server).ancestors(&record)?;
    let ancestors = ancestors.ok_or(RestoreError::BrokenChain { backup: record.id })?;
    let wanted = standby::timeline(&HistoryStore::new(server), request, end)?;
    let (history, timeline) = choose_timeline(server, &record, end, wanted)?;
    let keys = request.keys.as_ref();
    let way = Way { server, record: &record, begin, end, history: &history, keys };
    let mut reached = way.to(&request.target, request.inclusive)?;
    if timeline.is_none() && request.standby.is_none() {
        reached.notes.push(format!(
            "the history of timeline {} is not stored; recovery stays on it",
            history.timeline()
        ));
    }
    if let Some(suspect) = suspect_wal(server, &record, &history, &reached)? {
        if !request.suspect_wal {
            return Err(suspect);
        }
        reached.notes.push(format!("{suspect}; recovery may end there"));
    }
    Ok(Choice { record, ancestors, history, timeline, reached })
}

/// Refuses a backup that is not whole, or never can be consistent.
fn check_backup(
    server: &ServerDir,
    record: &BackupRecord,
) -> Result<(Position, Position), RestoreError> {
    let backup = record.id;
    let incomplete = |why: &str| RestoreError::Incomplete { backup, why: why.to_owned() };
    match &record.outcome {
        BackupOutcome::Copied => {}
        BackupOutcome::Failed { error } => return Err(incomplete(error)),
        BackupOutcome::Started => return Err(incomplete("it is being taken, or was interrupted")),
    }
    let (Some(begin), Some(end)) = (record.begin, record.end) else {
        return Err(incomplete("its record does not say where it begins and ends"));
    };
    let standing = Catalog::new(server).standing(record)?;
    match (standing.status, standing.missing) {
        (BackupStatus::WaitingForWals, Some(missing)) => {
            Err(RestoreError::WaitingForWal { backup, missing })
        }
        (BackupStatus::Broken, Some(missing)) => Err(RestoreError::Broken { backup, missing }),
        (BackupStatus::Broken, None) => Err(RestoreError::BrokenChain { backup }),
        (BackupStatus::Done, _) if standing.damaged => Err(RestoreError::Damaged { backup }),
        (BackupStatus::Done, _) => Ok((begin, end)),
        (status, _) => Err(incomplete(status.name())),
    }
}

/// The timeline to follow, and what the server is told: nothing but "yours", if nobody knows how
/// the backup's own timeline came to be.
fn choose_timeline(
    server: &ServerDir,
    record: &BackupRecord,
    end: Position,
    choice: TimelineChoice,
) -> Result<(TimelineHistory, Option<TimelineId>), RestoreError> {
    let store = HistoryStore::new(server);
    let wanted = match choice {
        TimelineChoice::Current => end.timeline,
        TimelineChoice::Number(timeline) => timeline,
        TimelineChoice::Latest => {
            let wal = WalStore::new(server, record.segment_size);
            newest_descendant(&store, &wal, record, end)?
        }
    };
    if wanted == end.timeline && wanted != TimelineId::FIRST && store.load(wanted)?.is_none() {
        return Ok((TimelineHistory::root(wanted), None));
    }
    let history = store.ancestry(wanted)?;
    if wanted == end.timeline {
        return Ok((history, Some(wanted)));
    }
    let backup = record.id;
    match history.fork_from(end.timeline) {
        Some(fork) if fork >= end.lsn => Ok((history, Some(wanted))),
        Some(fork) => Err(RestoreError::ForkedBeforeEnd { wanted, fork, backup, end: end.lsn }),
        None => Err(RestoreError::NotADescendant { wanted, backup, of_backup: end.timeline }),
    }
}

/// The newest timeline that left that of the backup behind its end; that of the backup if none did,
/// unless the server left it before: then the backup is of a branch that is dead. Refused where WAL of
/// a newer timeline is held, and nobody knows what that left.
fn newest_descendant(
    store: &HistoryStore,
    wal: &WalStore,
    record: &BackupRecord,
    end: Position,
) -> Result<TimelineId, RestoreError> {
    let mut newer = wal.timelines_after(end.timeline)?;
    newer.extend(store.list()?.into_iter().filter(|&timeline| timeline > end.timeline));
    let mut dead = None;
    for candidate in newer.into_iter().rev() {
        match store.ancestry(candidate)?.fork_from(end.timeline) {
            Some(fork) if fork >= end.lsn => return Ok(candidate),
            Some(fork) => dead = dead.or(Some((candidate, fork))),
            None => {}
        }
    }
    match dead {
        Some((newer, fork)) => {
            let (backup, end) = (record.id, end.lsn);
            Err(RestoreError::ForkedBeforeEnd { wanted: newer, fork, backup, end })
        }
        None => Ok(end.timeline),
    }
}

/// The first WAL on the way that PostgreSQL could not replay, as far as the index knows.
fn suspect_wal(
    server: &ServerDir,
    record: &BackupRecord,
    history: &TimelineHistory,
    reached: &Reached,
) -> Result<Option<RestoreError>, RestoreError> {
    let wal = &reached.wal;
    let to = reached.stop.unwrap_or_else(|| wal.needed_to.min(wal.held_to));
    let verdicts = WalStore::new(server, record.segment_size).verdicts()?;
    let on_the_way = |suspect: &SuspectWal| {
        let timeline = suspect.segment.timeline();
        let left = history.fork_from(timeline);
        history.contains(timeline)
            && suspect.range.to > wal.needed_from
            && suspect.range.from < to
            && left.is_none_or(|left| suspect.range.from < left)
    };
    let first = verdicts.suspect.into_iter().filter(on_the_way).min_by_key(|s| s.range.from);
    Ok(first.map(|SuspectWal { segment, range }| RestoreError::SuspectWal { segment, range }))
}
