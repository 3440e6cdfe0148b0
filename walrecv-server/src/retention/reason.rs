//! Why a backup stays, or goes.

use std::fmt;

use jiff::Timestamp;
use pgwire_stream::TimelineId;

use crate::catalog::{BackupStatus, KeepTarget};
use crate::storage::BackupId;

/// Why a backup stays, or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    // Why one stays: the policy.
    /// There is no policy.
    NoPolicy,
    /// It is one of so many full ones.
    NewestFull(u32),
    /// Without it, not every moment since then could be reached.
    Window(Timestamp),
    /// It is the newest of a day, a week, a month or a year.
    NewestOf(Generation, String),
    /// It is not older than the full ones that stay, and the one it builds on cannot be counted.
    NotOlder,
    /// Nothing newer leads to where the server is.
    LeadsTo(TimelineId),
    // And whatever the policy says.
    /// So many full ones stay in any case.
    MinimumRedundancy(u32),
    /// It is marked.
    Kept(KeepTarget),
    /// A restore needs it.
    Restore {
        /// The new data directory.
        destination: String,
        /// How long; while it runs, if not until a moment.
        until: Option<Timestamp>,
    },
    /// It is being taken.
    BeingTaken,
    /// It is none that can be restored, and not older than those that stay.
    NotDone(BackupStatus),
    /// It lacks WAL or what it builds on, and would stay if it did not.
    IfWhole(BackupStatus),
    /// It is needed for another that stays.
    BuiltUpon(BackupId),
    /// The rest of its chain stays.
    Chain(BackupId),
    /// No backup can be restored: whatever is there may be of use.
    NothingDone,
    /// It was to go, and a script or a restore holds it.
    Spared,
    // Why one goes.
    /// So many newer full ones are there.
    MoreThan(u32),
    /// Every moment since then can be reached without it.
    BeforeWindow(Timestamp),
    /// It is the newest of no day, week, month or year that counts.
    NewestOfNothing,
    /// What it builds on goes.
    GoesWith(BackupId),
    /// It cannot be restored, and is older than all that stays.
    OfNoUse(BackupStatus),
    /// Somebody says so.
    Asked,
}

/// A stretch of the calendar of which the newest backup stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// A day.
    Day,
    /// A week, from Monday on.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

impl Generation {
    const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The one in which a moment lies, in UTC: `2026-03-05`, `2026-W10`, `2026-03`, `2026`.
    pub(super) fn of(self, time: Timestamp) -> String {
        let format = match self {
            Self::Day => "%Y-%m-%d",
            Self::Week => "%G-W%V",
            Self::Month => "%Y-%m",
            Self::Year => "%Y",
        };
        time.strftime(format).to_string()
    }
}

impl Reason {
    /// Its name for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoPolicy => "no_policy",
            Self::NewestFull(_) => "newest_full",
            Self::Window(_) => "recovery_window",
            Self::NewestOf(..) => "newest_of_generation",
            Self::NotOlder => "not_older",
            Self::LeadsTo(_) => "leads_to_timeline",
            Self::MinimumRedundancy(_) => "minimum_redundancy",
            Self::Kept(_) => "kept",
            Self::Restore { .. } => "restore",
            Self::BeingTaken => "being_taken",
            Self::NotDone(_) => "not_done",
            Self::IfWhole(_) => "if_whole",
            Self::BuiltUpon(_) => "built_upon",
            Self::Chain(_) => "chain",
            Self::NothingDone => "nothing_done",
            Self::Spared => "spared",
            Self::MoreThan(_) => "more_than_redundancy",
            Self::BeforeWindow(_) => "before_recovery_window",
            Self::NewestOfNothing => "newest_of_no_generation",
            Self::GoesWith(_) => "parent_goes",
            Self::OfNoUse(_) => "of_no_use",
            Self::Asked => "asked",
        }
    }

    /// Whether it is the policy that says so.
    pub(super) const fn is_policy(&self) -> bool {
        matches!(
            self,
            Self::NewestFull(_)
                | Self::Window(_)
                | Self::NewestOf(..)
                | Self::NotOlder
                | Self::LeadsTo(_)
        )
    }
}

/// A moment as reasons tell it.
pub(super) fn moment(time: Timestamp) -> impl fmt::Display {
    time.strftime("%Y-%m-%d %H:%M UTC")
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPolicy => f.write_str("there is no retention policy"),
            Self::NewestFull(1) => f.write_str("the newest full backup"),
            Self::NewestFull(count) => write!(f, "one of the newest {count} full backups"),
            Self::Window(since) => {
                write!(f, "needed to reach every moment since {}", moment(*since))
            }
            Self::NewestOf(generation, name) => {
                write!(f, "newest of {} {name}", generation.name())
            }
            Self::NotOlder => f.write_str("not older than the full backups that stay"),
            Self::LeadsTo(timeline) => {
                write!(f, "no newer backup leads to timeline {timeline}, the newest there is")
            }
            Self::MinimumRedundancy(count) => {
                write!(f, "minimum redundancy: {count} full backups stay in any case")
            }
            Self::Kept(target) => write!(f, "kept ({target})"),
            Self::Restore { destination, until: Some(until) } => {
                write!(f, "a restore into `{destination}` needs it until {}", moment(*until))
            }
            Self::Restore { destination, until: None } => {
                write!(f, "the restore into `{destination}`, which is running, needs it")
            }
            Self::BeingTaken => f.write_str("it is being taken"),
            Self::NotDone(BackupStatus::WaitingForWals) => {
                f.write_str("it still waits for its WAL")
            }
            Self::NotDone(BackupStatus::Failed) => {
                f.write_str("failed, and not older than all that stays")
            }
            Self::NotDone(status) => {
                write!(f, "{status}, and not older than all that stays")
            }
            Self::IfWhole(status) => write!(f, "{status}, and would stay if it were whole"),
            Self::BuiltUpon(child) => write!(f, "child {child} builds on it"),
            Self::Chain(full) => write!(f, "the chain of {full} stays whole"),
            Self::NothingDone => f.write_str("nothing goes while no backup can be restored"),
            Self::Spared => f.write_str("held by a script, or by a restore that has just begun"),
            Self::MoreThan(count) => write!(f, "{count} newer full backups are there"),
            Self::BeforeWindow(since) => {
                write!(f, "every moment since {} can be reached without it", moment(*since))
            }
            Self::NewestOfNothing => {
                f.write_str("newest of no day, week, month or year that the policy counts")
            }
            Self::GoesWith(full) => write!(f, "builds on {full}, which goes"),
            Self::OfNoUse(BackupStatus::Failed) => f.write_str("failed: nothing to restore"),
            Self::OfNoUse(status) => {
                write!(f, "{status}: it cannot be restored, and is older than all that stays")
            }
            Self::Asked => f.write_str("as asked"),
        }
    }
}
