//! Deciding where backups are known to be damaged: each stays as if it were whole, and none stays out of
//! what it was counted for. So one decision takes them for whole, another looks past them, and what
//! either wants stays.

use std::collections::BTreeMap;

use super::facts::{Facts, KnownBackup};
use super::policy::{Decision, Verdict};
use crate::catalog::BackupStatus;

/// Decides twice if that makes a difference.
pub(super) fn decide_both(facts: &Facts, decide: impl Fn(&Facts) -> Decision) -> Decision {
    let decision = decide(facts);
    if facts.backups.iter().all(|backup| !backup.damaged) {
        return decision;
    }
    let mut sound = facts.clone();
    let is_sound = |backup: &KnownBackup| backup.status == BackupStatus::Done && !backup.damaged;
    if sound.backups.iter().any(is_sound) {
        sound.backups.retain(|backup| !backup.damaged);
    } else {
        // Better something that is damaged than nothing.
        for backup in sound.backups.iter_mut().filter(|backup| backup.damaged) {
            backup.status = BackupStatus::Broken;
        }
    }
    let past = decide(&sound);
    let mut wanted: BTreeMap<_, _> =
        past.verdicts.into_iter().map(|verdict| (verdict.backup, verdict)).collect();
    let either = |one: Verdict| match wanted.remove(&one.backup) {
        Some(other) if other.stays && !one.stays => other,
        Some(other) if other.stays => Verdict { wal: one.wal.max(other.wal), ..one },
        _ => one,
    };
    let verdicts = decision.verdicts.into_iter().map(either).collect();
    let left_behind = decision.left_behind.intersection(&past.left_behind).copied().collect();
    Decision { verdicts, left_behind }
}
