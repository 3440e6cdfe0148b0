//! The window in words.

use jiff::{Timestamp, Unit};

use super::{BackupMark, Ending, Interruption, Stretch};
use crate::catalog::BackupStatus;

/// From when to when a server can be recovered, and what interrupts that.
pub(super) fn summary(
    recoverable: &[Stretch],
    interruptions: &[Interruption],
    backups: &[BackupMark],
    now: Timestamp,
) -> String {
    // What the policy let go is no gap: what was kept from before that stands for itself.
    let kept = recoverable.iter().rposition(|stretch| stretch.ends == Ending::Retired);
    let behind = kept.and_then(|kept| recoverable.get(kept + 1..)).unwrap_or_default();
    let recoverable = if behind.is_empty() { recoverable } else { behind };
    let (Some(first), Some(last)) = (recoverable.first(), recoverable.last()) else {
        return nothing(backups).to_owned();
    };
    let gaps = interruptions.iter().filter(|other| is_in(other, first)).count();
    let mut words = format!(
        "recoverable to any moment from {} to {} ({})",
        second(first.from),
        second(last.to),
        length(last.to.duration_since(first.from).as_secs())
    );
    if recoverable.len() == 1 && gaps == 0 {
        words.push_str(", without a gap");
    } else {
        for pair in recoverable.windows(2) {
            if let [before, behind] = pair {
                words.push_str(&format!(
                    ", but not to those between {} and {}, because {}",
                    second(before.to),
                    second(behind.from),
                    reason(before.ends)
                ));
            }
        }
    }
    if last.ends != Ending::EndOfWal {
        words.push_str(&format!("; not beyond, because {}: take a backup", reason(last.ends)));
    } else if now.duration_since(last.to).as_secs() > 300 {
        words.push_str(&format!(
            "; nothing came for {}",
            length(now.duration_since(last.to).as_secs())
        ));
    }
    words
}

fn is_in(interruption: &Interruption, first: &Stretch) -> bool {
    interruption.from_lsn >= first.from_lsn
}

fn nothing(backups: &[BackupMark]) -> &'static str {
    let any = |status| backups.iter().any(|backup| backup.status == Some(status));
    if any(BackupStatus::Started) {
        "nothing can be recovered yet: the first backup is being taken"
    } else if any(BackupStatus::WaitingForWals) {
        "nothing can be recovered yet: the backup waits for its WAL"
    } else if backups.is_empty() {
        "nothing can be recovered yet: there is no backup"
    } else {
        "nothing can be recovered: no backup is complete"
    }
}

fn reason(ending: Ending) -> &'static str {
    match ending {
        Ending::EndOfWal => "its timeline was left there",
        Ending::Missing => "WAL is missing",
        Ending::LeftOut => "WAL was left out, as was asked for",
        Ending::Retired => "WAL was removed by the retention policy",
        Ending::Suspect => "PostgreSQL could not replay the WAL that follows",
    }
}

fn second(time: Timestamp) -> Timestamp {
    time.round(Unit::Second).unwrap_or(time)
}

fn length(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
