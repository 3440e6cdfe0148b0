//! The recoverable window as a picture: on an axis of time the backups, the stretches of WAL, where
//! timelines fork, what is missing; and in words from when to when a server can be recovered.
//!
//! What it costs depends on the backups and the directories of the archive. Only where a stretch of
//! WAL begins or ends is an index read, for the time of that.

mod clock;
mod words;

use std::collections::BTreeSet;

use jiff::Timestamp;
use pgwire_stream::{Lsn, SegmentSize, TimelineHistory, TimelineId};
use serde::Serialize;

use self::clock::Clock;
use super::backups::ListedBackup;
use crate::catalog::{
    Absence, BackupError, BackupStatus, CaughtUp, Coverage, HistoryStore, HistoryStoreError, Reach,
    SuspectWal, WalOutline, WalStore,
};
use crate::storage::{BackupId, ServerDir};

/// As many stretches and interruptions are shown; of more, the newest.
const MOST: usize = 400;

/// From when to when a server can be recovered, and what that rests on.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Window {
    /// The answer in words.
    pub summary: String,
    /// The times that can be reached, the oldest first.
    pub recoverable: Vec<Stretch>,
    /// What lies between them, or is in the way of a recovery to the end.
    pub interruptions: Vec<Interruption>,
    /// The base backups, the oldest first.
    pub backups: Vec<BackupMark>,
    /// The WAL that is held, in the order of timelines and positions.
    pub wal: Vec<WalStretch>,
    /// The timelines that something is held of.
    pub timelines: Vec<TimelineMark>,
}

/// Times that can be reached, all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stretch {
    /// The timeline that recovery ends on.
    pub timeline: TimelineId,
    /// The end of the oldest backup in it.
    pub from: Timestamp,
    /// Where that is.
    pub from_lsn: Lsn,
    /// The last moment that is known.
    pub to: Timestamp,
    /// Where it ends.
    pub to_lsn: Lsn,
    /// The oldest backup in it.
    pub backup: BackupId,
    /// Why it ends.
    pub ends: Ending,
}

/// Why recovery gets no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// There is no more WAL yet.
    EndOfWal,
    /// WAL is missing.
    Missing,
    /// WAL was never received, because the operator said to go on without it.
    LeftOut,
    /// WAL was removed because nothing needed it.
    Retired,
    /// PostgreSQL could not replay what comes next.
    Suspect,
}

impl From<Absence> for Ending {
    fn from(absence: Absence) -> Self {
        match absence {
            Absence::Missing => Self::Missing,
            Absence::LeftOut => Self::LeftOut,
            Absence::Retired => Self::Retired,
        }
    }
}

/// WAL that stops a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interruption {
    /// What is wrong with it.
    pub kind: Ending,
    /// Its timeline.
    pub timeline: TimelineId,
    /// Its first byte.
    pub from_lsn: Lsn,
    /// The byte behind it.
    pub to_lsn: Lsn,
    /// The last moment before it.
    pub from: Option<Timestamp>,
    /// The first moment behind it.
    pub to: Option<Timestamp>,
    /// What the validator said of it.
    pub what: Option<String>,
}

/// A base backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupMark {
    /// Its id.
    pub id: BackupId,
    /// A name that the operator gave it.
    pub name: Option<String>,
    /// Full or incremental; unknown if its record cannot be read.
    pub kind: BackupKind,
    /// The backup that it builds on.
    pub parent: Option<BackupId>,
    /// What it is worth; unknown if its record cannot be read.
    pub status: Option<BackupStatus>,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What is stored of it.
    pub stored_bytes: u64,
    /// The size of its archives before compression.
    pub plain_bytes: u64,
    /// Its timeline.
    pub timeline: Option<TimelineId>,
    /// Whether the operator marked it to stay, and with what.
    pub keep: Option<&'static str>,
    /// Why it failed, or cannot be read.
    pub error: Option<String>,
}

/// What a backup has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupKind {
    /// Everything.
    Full,
    /// What changed since another.
    Incremental,
    /// Nobody knows.
    Unknown,
}

/// WAL of one timeline, without a gap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WalStretch {
    /// The timeline.
    pub timeline: TimelineId,
    /// Its first byte.
    pub from_lsn: Lsn,
    /// The byte behind its last.
    pub to_lsn: Lsn,
    /// When it began, as far as that is known.
    pub from: Option<Timestamp>,
    /// When it ended.
    pub to: Option<Timestamp>,
}

/// A timeline, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimelineMark {
    /// The timeline.
    pub timeline: TimelineId,
    /// The one that it left.
    pub parent: Option<TimelineId>,
    /// Where.
    pub fork_lsn: Option<Lsn>,
    /// When, as far as that is known.
    pub forked_at: Option<Timestamp>,
    /// Whether the newest timeline descends from it, or is it.
    pub current: bool,
}

/// Draws the window of a server from what is stored for it.
///
/// # Errors
/// If the WAL or the timeline histories cannot be read.
pub fn window(
    server: &ServerDir,
    segment_size: SegmentSize,
    outline: &WalOutline,
    backups: &[ListedBackup],
    now: Timestamp,
) -> Result<Window, BackupError> {
    let store = WalStore::new(server, segment_size);
    let suspect = store.verdicts()?.suspect;
    let caught_up = CaughtUp::load(server)?;
    let mut picture = Picture {
        server,
        clock: Clock::new(&store, caught_up, backups.iter().flat_map(moments_of).collect()),
        coverage: &outline.coverage,
        suspect,
    };
    let mut wal = picture.wal();
    let history = picture.newest_history(&wal)?;
    let timelines = picture.timelines(&wal, history.as_ref())?;
    for fork in timelines.iter().filter(|mark| mark.parent.is_some()) {
        // No index tells of the commits in the last, unfinished segment before it.
        let left = |stretch: &&mut WalStretch| {
            Some(stretch.timeline) == fork.parent && Some(stretch.to_lsn) == fork.fork_lsn
        };
        wal.iter_mut().filter(left).for_each(|left| left.to = left.to.max(fork.forked_at));
    }
    let recoverable = picture.recoverable(backups, history.as_ref())?;
    let interruptions = picture.interruptions(history.as_ref(), &wal);
    let backups: Vec<BackupMark> = backups.iter().rev().map(mark).collect();
    let summary = words::summary(&recoverable, &interruptions, &backups, now);
    Ok(Window { summary, recoverable, interruptions, backups, wal, timelines })
}

impl Window {
    /// How long the times are that can be reached, all together, in seconds.
    pub fn recoverable_seconds(&self) -> f64 {
        let of = |stretch: &Stretch| stretch.to.duration_since(stretch.from).as_secs_f64().max(0.0);
        self.recoverable.iter().map(of).sum()
    }

    /// How many interruptions are of this kind.
    pub fn count(&self, kind: Ending) -> usize {
        self.interruptions.iter().filter(|interruption| interruption.kind == kind).count()
    }

    /// The newest backup that can be restored.
    pub fn last_done(&self) -> Option<&BackupMark> {
        let done = |backup: &&BackupMark| backup.status == Some(BackupStatus::Done);
        self.backups.iter().rev().find(done)
    }

    /// Has the newest stretch reach to `at`, when all WAL there was up to `lsn` was durable.
    pub fn reaches(&mut self, timeline: TimelineId, lsn: Lsn, at: Timestamp, now: Timestamp) {
        if let Some(wal) = self.wal.iter_mut().rfind(|wal| wal.timeline == timeline) {
            wal.to = wal.to.max(Some(at));
            wal.to_lsn = wal.to_lsn.max(lsn);
        }
        let open = |stretch: &&mut Stretch| {
            stretch.timeline == timeline && stretch.ends == Ending::EndOfWal
        };
        if let Some(stretch) = self.recoverable.iter_mut().rev().find(open) {
            stretch.to = stretch.to.max(at);
            stretch.to_lsn = stretch.to_lsn.max(lsn);
        }
        self.summary = words::summary(&self.recoverable, &self.interruptions, &self.backups, now);
    }
}

/// What a window is drawn from.
struct Picture<'a> {
    server: &'a ServerDir,
    clock: Clock<'a>,
    coverage: &'a Coverage,
    suspect: Vec<SuspectWal>,
}

impl Picture<'_> {
    fn wal(&mut self) -> Vec<WalStretch> {
        let spans = self.coverage.spans();
        let skipped = spans.len().saturating_sub(MOST);
        let stretch = |span: crate::catalog::Span| WalStretch {
            timeline: span.timeline,
            from_lsn: span.start,
            to_lsn: span.end,
            from: self.clock.begin_of(span),
            to: self.clock.end_of(span),
        };
        spans.into_iter().skip(skipped).map(stretch).collect()
    }

    /// The history of the newest timeline that something is held of.
    fn newest_history(
        &self,
        wal: &[WalStretch],
    ) -> Result<Option<TimelineHistory>, HistoryStoreError> {
        let newest = wal.iter().map(|stretch| stretch.timeline).max();
        newest.map(|timeline| self.history_of(timeline)).transpose()
    }

    /// How a timeline came to be; nothing but itself if nobody knows.
    fn history_of(&self, timeline: TimelineId) -> Result<TimelineHistory, HistoryStoreError> {
        match HistoryStore::new(self.server).ancestry(timeline) {
            Err(HistoryStoreError::Missing { .. }) => Ok(TimelineHistory::root(timeline)),
            ancestry => ancestry,
        }
    }

    fn timelines(
        &self,
        wal: &[WalStretch],
        newest: Option<&TimelineHistory>,
    ) -> Result<Vec<TimelineMark>, HistoryStoreError> {
        let held: BTreeSet<TimelineId> = wal.iter().map(|stretch| stretch.timeline).collect();
        let mut marks = Vec::new();
        for timeline in held {
            let history = self.history_of(timeline)?;
            let fork = history.switches().last();
            let first = wal.iter().find(|stretch| stretch.timeline == timeline);
            marks.push(TimelineMark {
                timeline,
                parent: fork.map(|fork| fork.timeline),
                fork_lsn: fork.map(|fork| fork.switch_point),
                forked_at: fork.and_then(|fork| {
                    first.filter(|first| first.from_lsn <= fork.switch_point)?.from
                }),
                current: newest.is_some_and(|newest| newest.contains(timeline)),
            });
        }
        Ok(marks)
    }

    fn recoverable(
        &mut self,
        backups: &[ListedBackup],
        newest: Option<&TimelineHistory>,
    ) -> Result<Vec<Stretch>, BackupError> {
        let mut stretches: Vec<Stretch> = Vec::new();
        for backup in backups.iter().rev() {
            let ListedBackup::Known { record, standing, .. } = backup else { continue };
            let (BackupStatus::Done, Some(end), Some(ended_at)) =
                (standing.status, record.end, record.ended_at)
            else {
                continue;
            };
            let history = match newest {
                Some(newest) if leads_to(newest, end.timeline, end.lsn) => newest.clone(),
                _ => self.history_of(end.timeline)?,
            };
            let (to_lsn, ends) = self.reach(&history, end.lsn);
            let timeline = history.timeline_at(to_lsn);
            let same = stretches.iter_mut().find(|other| {
                (other.timeline, other.to_lsn, other.ends) == (timeline, to_lsn, ends)
            });
            if let Some(other) = same {
                other.from = other.from.min(ended_at);
                continue;
            }
            let to = self.clock.before(self.coverage, &history, to_lsn).unwrap_or(ended_at);
            stretches.push(Stretch {
                timeline,
                from: ended_at,
                from_lsn: end.lsn,
                to: to.max(ended_at),
                to_lsn,
                backup: record.id,
                ends,
            });
        }
        Ok(stretches)
    }

    /// How far a recovery from here gets, and why no further.
    fn reach(&self, history: &TimelineHistory, from: Lsn) -> (Lsn, Ending) {
        let (end, ending) = match self.coverage.reach(history, from, Lsn::from_u64(u64::MAX)) {
            Reach::Missing(gap) if gap.passed => (gap.from, gap.absence.into()),
            Reach::Missing(gap) => (gap.from, Ending::EndOfWal),
            Reach::Covered => (Lsn::from_u64(u64::MAX), Ending::EndOfWal),
        };
        let first = self
            .suspect
            .iter()
            .filter(|suspect| {
                let from = suspect.range.from;
                suspect.range.to > from.max(Lsn::ZERO)
                    && history.timeline_at(from) == suspect.segment.timeline()
            })
            .map(|suspect| suspect.range.from)
            .filter(|suspect| (from..end).contains(suspect))
            .min();
        first.map_or((end, ending), |first| (first, Ending::Suspect))
    }

    /// What is missing or suspect on the way to the newest timeline's end, the oldest first.
    fn interruptions(
        &mut self,
        history: Option<&TimelineHistory>,
        wal: &[WalStretch],
    ) -> Vec<Interruption> {
        let mut found = Vec::new();
        let Some(history) = history else { return found };
        let size = self.coverage.segment_size();
        let on_the_way =
            wal.iter().filter(|stretch| leads_to(history, stretch.timeline, stretch.from_lsn));
        let mut at = on_the_way.map(|stretch| stretch.from_lsn).min();
        while let Some(from) = at
            && let Reach::Missing(gap) = self.coverage.reach(history, from, Lsn::from_u64(u64::MAX))
            && let Some(to) = self.coverage.resumes(history, size.segment_of(gap.from))
            && found.len() < MOST
        {
            found.push(Interruption {
                kind: gap.absence.into(),
                timeline: gap.timeline,
                from_lsn: gap.from,
                to_lsn: to,
                from: self.clock.before(self.coverage, history, gap.from),
                to: self.clock.behind(self.coverage, history, to),
                what: None,
            });
            at = Some(to);
        }
        for SuspectWal { segment, range } in self.suspect.iter().take(MOST) {
            let (from, to) = self.clock.around(*segment);
            found.push(Interruption {
                kind: Ending::Suspect,
                timeline: segment.timeline(),
                from_lsn: range.from,
                to_lsn: range.to,
                from,
                to,
                what: Some(range.what.clone()),
            });
        }
        found.sort_by_key(|interruption| interruption.from_lsn);
        found
    }
}

/// Whether a history goes through this position of a timeline.
fn leads_to(history: &TimelineHistory, timeline: TimelineId, lsn: Lsn) -> bool {
    history.contains(timeline) && history.fork_from(timeline).is_none_or(|fork| lsn <= fork)
}

/// When a backup began and ended, and where: there was WAL then, whatever commits there were.
fn moments_of(backup: &ListedBackup) -> Vec<(TimelineId, Lsn, Timestamp)> {
    let ListedBackup::Known { record, .. } = backup else { return Vec::new() };
    let begin = record.begin.map(|begin| (begin, record.began_at));
    let ends = [begin, record.end.zip(record.ended_at)].into_iter().flatten();
    ends.map(|(position, at)| (position.timeline, position.lsn, at)).collect()
}

fn mark(backup: &ListedBackup) -> BackupMark {
    match backup {
        ListedBackup::Known { record, standing, keep, .. } => BackupMark {
            id: record.id,
            name: record.name.clone(),
            kind: if record.parent.is_some() { BackupKind::Incremental } else { BackupKind::Full },
            parent: record.parent,
            status: Some(standing.status),
            began_at: record.began_at,
            ended_at: record.ended_at,
            stored_bytes: record.stored_size(),
            plain_bytes: record.plain_size(),
            timeline: record.end.or(record.begin).map(|position| position.timeline),
            keep: keep.as_ref().map(|keep| keep.target.name()),
            error: standing.error(record).map(str::to_owned),
        },
        ListedBackup::Unreadable { id, reason, .. } => BackupMark {
            id: *id,
            name: None,
            kind: BackupKind::Unknown,
            parent: None,
            status: None,
            began_at: id.time(),
            ended_at: None,
            stored_bytes: 0,
            plain_bytes: 0,
            timeline: None,
            keep: None,
            error: Some(reason.clone()),
        },
    }
}

#[cfg(test)]
mod tests;
