//! A backup that was done once, and lacks WAL now: it stays as long as it would if it were whole.
//! What is missing may come back, as with a file system that is not mounted; what is removed does not.

use super::facts::{Facts, KnownBackup};
use super::policy::{Decision, Verdict, WalNeed};
use super::reason::Reason;
use crate::catalog::BackupStatus;

/// Decides once as things are and once as if every backup that was done were whole: what stays by
/// either of them stays.
pub(super) fn once_done(facts: &Facts, decide: impl Fn(&Facts) -> Decision) -> Decision {
    let decision = decide(facts);
    if !facts.backups.iter().any(is_lost) {
        return decision;
    }
    let mut whole = facts.clone();
    for backup in whole.backups.iter_mut().filter(|backup| is_lost(backup)) {
        backup.status = BackupStatus::Done;
    }
    let other = decide(&whole);
    let pairs = decision.verdicts.into_iter().zip(other.verdicts);
    let verdicts =
        facts.backups.iter().zip(pairs).map(|(backup, (real, whole))| either(backup, real, whole));
    let left_behind = decision.left_behind.intersection(&other.left_behind).copied().collect();
    Decision { verdicts: verdicts.collect(), left_behind }
}

fn is_lost(backup: &KnownBackup) -> bool {
    backup.was_done && backup.status == BackupStatus::Broken
}

fn either(backup: &KnownBackup, real: Verdict, whole: Verdict) -> Verdict {
    match (real.stays, whole.stays) {
        (true, true) => Verdict { wal: real.wal.max(whole.wal), ..real },
        (false, true) => {
            let mut reasons = vec![Reason::IfWhole(backup.status)];
            reasons.extend(whole.reasons);
            Verdict { reasons, wal: WalNeed::Onward, label: real.label, ..whole }
        }
        (_, false) => real,
    }
}
