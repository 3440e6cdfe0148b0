//! How far recovery can come from a backup, and whether it comes to its target: PostgreSQL's own
//! rules of where it stops, applied to the WAL that is held.
//!
//! It stops at the first record that a target fits, and fails where it should, if that comes before
//! the backup is consistent. Where there is no such record it replays all there is; from 13 on it
//! fails then, although nothing is missing. So a target that stands for all there is becomes the
//! last record of that: what arrives until the server is there does not belong to it.
//!
//! Follows `recoveryStopsBefore` and `recoveryStopsAfter` in
//! `src/backend/access/transam/xlogrecovery.c`.

use jiff::Timestamp;
use pgwire_stream::{Lsn, ServerVersion, TimelineHistory};
use serde::Serialize;

use super::error::RestoreError;
use super::survey::{Found, Survey};
use super::target::RecoveryTarget;
use crate::catalog::{BackupRecord, Gap, Position, Reach, WalPath, WalStore};
use crate::storage::{KeyFile, ServerDir};

/// The first version that can recover to an LSN.
const LSN_TARGET: ServerVersion = ServerVersion::from_num(100_000);
/// The first version that stops when its target is not in the WAL, instead of promoting.
const UNREACHED_TARGET_IS_FATAL: ServerVersion = ServerVersion::from_num(130_000);
/// No position lies behind this one.
pub(super) const END_OF_WAL: Lsn = Lsn::from_u64(u64::MAX);

/// WAL of one timeline history, held without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WalRange {
    /// Where the backup begins: the first WAL that is needed.
    pub needed_from: Lsn,
    /// Where the backup ends: the first position that can be a target.
    pub first_target: Lsn,
    /// Up to where the server will read to reach its target.
    pub needed_to: Lsn,
    /// Where WAL ends, or breaks off.
    pub held_to: Lsn,
    /// Whether there is more WAL behind a gap, which cannot be reached.
    pub gap_behind: bool,
    /// When the last transaction ended that the backup has in any case: the first time that can be
    /// a target, by the server's clock. Absent if none ended while it was taken.
    pub first_time: Option<Timestamp>,
    /// When the last transaction ended that can be reached, by the server's clock. Absent if there
    /// is none behind the backup.
    pub last_time: Option<Timestamp>,
}

/// A backup, and the timelines along which it is to be recovered.
pub(super) struct Way<'a> {
    pub(super) server: &'a ServerDir,
    pub(super) record: &'a BackupRecord,
    pub(super) begin: Position,
    pub(super) end: Position,
    pub(super) history: &'a TimelineHistory,
    pub(super) keys: Option<&'a KeyFile>,
}

/// How far recovery comes.
pub(super) struct Reached {
    pub(super) wal: WalRange,
    /// What the server is told, which may be to stop at the last record that is held.
    pub(super) target: RecoveryTarget,
    /// Whether it replays that, too.
    pub(super) inclusive: bool,
    /// Whether all WAL that is held is replayed.
    pub(super) recovers_all: bool,
    /// Where the record ends that it stops at, if it stops.
    pub(super) stop: Option<Lsn>,
    pub(super) notes: Vec<String>,
}

impl Way<'_> {
    /// How far recovery comes to this target.
    ///
    /// # Errors
    /// If it does not come there; or WAL that must be looked at cannot be read.
    pub(super) fn to(
        &self,
        target: &RecoveryTarget,
        inclusive: bool,
    ) -> Result<Reached, RestoreError> {
        let version = self.record.server_version;
        if matches!(target, RecoveryTarget::Lsn(_)) && version < LSN_TARGET {
            return Err(RestoreError::NoLsnTarget { version });
        }
        let store = WalStore::new(self.server, self.record.segment_size).with_keys(self.keys);
        let (held_to, gap) = match store.reach(self.history, self.begin.lsn, END_OF_WAL)? {
            Reach::Covered => (END_OF_WAL, None),
            Reach::Missing(gap) => (gap.from, Some(gap)),
        };
        // Complete along its own timeline, but not along the one that was chosen.
        if let Some(gap) = gap.filter(|_| held_to < self.end.lsn) {
            return Err(self.gap(gap, target, None));
        }
        let path = WalPath::new(&store, self.history, held_to);
        let mut survey = Survey::new(self, path, held_to);
        // Behind a gap, there may be what is asked for.
        let lost = gap.filter(|gap| gap.passed);
        let found = match survey.find(target, inclusive)? {
            // There may be what was looked for, and records behind the last one that was seen.
            Found::Nothing(_) | Found::Last { .. } if survey.is_blind() => {
                Found::Perhaps(self.doubt(target))
            }
            found => found,
        };
        let recovers_all = matches!(found, Found::Everything | Found::Last { .. });
        let known = !matches!(found, Found::Perhaps(_));
        let (told, note) = match (found, lost) {
            (Found::Stop(end), _) => (Some((target.clone(), inclusive, end)), None),
            (Found::TooEarly(error), _) => return Err(*error),
            (Found::Nothing(error) | Found::TooLate(error), None) => return Err(*error),
            (
                Found::Everything | Found::Last { .. } | Found::Nothing(_) | Found::TooLate(_),
                Some(gap),
            ) => {
                // What is said beside it must not fail for it.
                let last = survey.last_record().ok().flatten();
                return Err(self.gap(gap, target, last.filter(|start| *start >= self.end.lsn)));
            }
            (Found::Everything, None) => (None, None),
            (Found::Perhaps(note), _) => (Some((target.clone(), inclusive, held_to)), Some(note)),
            // Older servers open when they have replayed all there is, and stop if more arrives.
            (Found::Last { end, note, .. }, None) if version < UNREACHED_TARGET_IS_FATAL => {
                (Some((target.clone(), inclusive, end)), Some(note))
            }
            (Found::Last { start, end, note }, None) => {
                (Some((RecoveryTarget::Lsn(start), true, end)), Some(note))
            }
        };
        // What is said beside all that must not fail for it.
        let (first_time, last_time) = survey.times().unwrap_or_default();
        // A server reads on to the end of the segment of what it stops at.
        let size = self.record.segment_size;
        let stop = told.as_ref().map(|(_, _, end)| *end);
        let needed_to = stop
            .filter(|_| !recovers_all)
            .map_or(held_to, |end| size.end_of(size.last_byte_segment_of(end)));
        let (target, inclusive) = told
            .map_or((RecoveryTarget::Latest, inclusive), |(target, inclusive, _)| {
                (target, inclusive)
            });
        Ok(Reached {
            wal: WalRange {
                needed_from: self.begin.lsn,
                first_target: self.end.lsn,
                needed_to: needed_to.min(held_to),
                held_to,
                gap_behind: gap.is_some_and(|gap| gap.passed),
                first_time,
                last_time,
            },
            target,
            inclusive,
            recovers_all,
            stop: stop.filter(|_| known),
            notes: note.into_iter().collect(),
        })
    }

    /// That it cannot be told whether a target is there.
    pub(super) fn doubt(&self, target: &RecoveryTarget) -> String {
        let version = self.record.server_version;
        let otherwise = if version < UNREACHED_TARGET_IS_FATAL {
            format!(
                "if it is not, PostgreSQL {version} recovers all there is and opens for writing \
                 without a word"
            )
        } else {
            "if it is not, the server stops, and says so".to_owned()
        };
        format!(
            "nobody can tell beforehand whether {target} is in the WAL that is held; {otherwise}"
        )
    }

    fn gap(&self, missing: Gap, target: &RecoveryTarget, last_target: Option<Lsn>) -> RestoreError {
        let (backup, target) = (self.record.id, target.to_string());
        RestoreError::WalGap { backup, missing, target, last_target }
    }
}
