//! How far to replay: the recovery target, the timeline, and what happens there.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use pgwire_stream::{Lsn, TimelineId};
use serde::Serialize;

use crate::failure::{Class, Failure};

/// The longest name of a restore point, `MAXFNAMELEN - 1` in PostgreSQL.
const LONGEST_NAME: usize = 63;
/// The first transaction identifier that is not reserved.
const FIRST_XID: u64 = 3;

/// Where the replay of WAL ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "value")]
pub enum RecoveryTarget {
    /// With the last byte received.
    Latest,
    /// At the last transaction that was committed by then.
    Time(TargetTime),
    /// At this position.
    Lsn(Lsn),
    /// At the end of this transaction.
    Xid(u64),
    /// At the restore point that `pg_create_restore_point` made.
    Name(String),
    /// As soon as the backup is consistent.
    Immediate,
}

/// A moment, as it was asked for and as it was understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetTime {
    /// What the operator typed.
    pub text: String,
    /// What it means.
    pub instant: Timestamp,
}

/// A target that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither a time with an offset nor a local time.
    #[error("`{text}` is not a time")]
    Time {
        /// What was typed.
        text: String,
    },
    /// When the clocks change, a local time happens twice or never.
    #[error("`{text}` happens twice or never in the time zone of this machine")]
    AmbiguousTime {
        /// What was typed.
        text: String,
    },
    /// A transaction identifier is a number from 3 on.
    #[error("`{text}` is not a transaction identifier, a number from {FIRST_XID} on")]
    Xid {
        /// What was typed.
        text: String,
    },
    /// Restore points have names of 1 to 63 bytes.
    #[error("`{text}` cannot name a restore point: 1 to {LONGEST_NAME} bytes in one line")]
    Name {
        /// What was typed.
        text: String,
    },
    /// Not one of the words, and no timeline.
    #[error("`{text}` is not a timeline: `current`, `latest` or a number")]
    Timeline {
        /// What was typed.
        text: String,
    },
    /// Not one of the words.
    #[error("`{text}` is not what a server can do at its target: `pause`, `promote` or `shutdown`")]
    Action {
        /// What was typed.
        text: String,
    },
}

impl Failure for TargetError {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Time { .. } | Self::AmbiguousTime { .. } => Some(
                "write it with its offset, such as `2026-03-05 15:11:33+01:00`, or \
                 `2026-03-05T14:11:33Z`"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

impl RecoveryTarget {
    /// A transaction, from its number.
    ///
    /// # Errors
    /// If no transaction can have it.
    pub fn xid(text: &str) -> Result<Self, TargetError> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        // The upper half, where there is one, counts the wraparounds of the lower.
        number
            .filter(|xid: &u64| xid & 0xFFFF_FFFF >= FIRST_XID)
            .map(Self::Xid)
            .ok_or_else(|| TargetError::Xid { text: shown(text) })
    }

    /// A restore point, by its name.
    ///
    /// # Errors
    /// If no restore point can have it.
    pub fn name(text: &str) -> Result<Self, TargetError> {
        if (1..=LONGEST_NAME).contains(&text.len()) && !text.contains(char::is_control) {
            Ok(Self::Name(text.to_owned()))
        } else {
            Err(TargetError::Name { text: shown(text) })
        }
    }

    /// A moment: with its offset from UTC, or in the time zone of this machine.
    ///
    /// # Errors
    /// If it is not a time, or not one time.
    pub fn time(text: &str) -> Result<Self, TargetError> {
        TargetTime::parse(text, &TimeZone::system()).map(Self::Time)
    }
}

impl TargetTime {
    fn parse(text: &str, local: &TimeZone) -> Result<Self, TargetError> {
        let instant = match (text.parse::<Timestamp>(), text.parse::<Zoned>()) {
            (Ok(instant), _) => instant,
            (_, Ok(zoned)) => zoned.timestamp(),
            _ => {
                let civil: DateTime =
                    text.parse().map_err(|_| TargetError::Time { text: shown(text) })?;
                local
                    .to_ambiguous_timestamp(civil)
                    .unambiguous()
                    .map_err(|_| TargetError::AmbiguousTime { text: shown(text) })?
            }
        };
        Ok(Self { text: text.to_owned(), instant })
    }

    /// The moment as a PostgreSQL of any locale and time zone reads it.
    pub fn setting(&self) -> String {
        self.instant.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
    }
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("the last byte of WAL received"),
            Self::Time(time) => write!(f, "time {}", time.instant),
            Self::Lsn(lsn) => write!(f, "LSN {lsn}"),
            Self::Xid(xid) => write!(f, "transaction {xid}"),
            Self::Name(name) => write!(f, "restore point `{name}`"),
            Self::Immediate => f.write_str("the end of the backup"),
        }
    }
}

/// Which timeline to follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimelineChoice {
    /// The newest that descends from the backup's.
    #[default]
    Latest,
    /// The one on which the backup was taken.
    Current,
    /// This one.
    Number(TimelineId),
}

impl FromStr for TimelineChoice {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "latest" => Ok(Self::Latest),
            "current" => Ok(Self::Current),
            _ => text
                .parse()
                .map(Self::Number)
                .map_err(|_| TargetError::Timeline { text: shown(text) }),
        }
    }
}

/// What the server does once it has reached its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetAction {
    /// Waits, open for reading, until somebody decides. What PostgreSQL does by default.
    #[default]
    Pause,
    /// Opens for writing, on a new timeline.
    Promote,
    /// Stops.
    Shutdown,
}

impl fmt::Display for TargetAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pause => "pause",
            Self::Promote => "promote",
            Self::Shutdown => "shutdown",
        })
    }
}

impl FromStr for TargetAction {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Pause, Self::Promote, Self::Shutdown]
            .into_iter()
            .find(|action| action.to_string() == text)
            .ok_or_else(|| TargetError::Action { text: shown(text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(text: &str, zone: &str) -> Result<String, TargetError> {
        TargetTime::parse(text, &TimeZone::get(zone).unwrap()).map(|time| time.setting())
    }

    #[test]
    fn times_are_understood_with_and_without_offset() {
        let expected = Ok("2026-03-05 14:11:33.250000+00".to_owned());
        for text in [
            "2026-03-05 15:11:33.25+01",
            "2026-03-05T15:11:33.25+01:00",
            "2026-03-05T14:11:33.25Z",
            "2026-03-05 15:11:33.25+01:00[Europe/Berlin]",
            "2026-03-05 15:11:33.25",
        ] {
            assert_eq!(setting(text, "Europe/Berlin"), expected, "{text}");
        }
        let midnight = Ok("2026-03-04 23:00:00.000000+00".to_owned());
        assert_eq!(setting("2026-03-05", "Europe/Berlin"), midnight);
    }

    #[test]
    fn times_that_are_none_or_two_are_refused() {
        for text in ["", "yesterday", "15:11", "2026-02-30 00:00:00", "2026-03-05 25:00:00"] {
            assert_eq!(
                setting(text, "UTC"),
                Err(TargetError::Time { text: text.to_owned() }),
                "{text}"
            );
        }
        for text in ["2026-10-25 02:30:00", "2026-03-29 02:30:00"] {
            let error = TargetError::AmbiguousTime { text: text.to_owned() };
            assert_eq!(setting(text, "Europe/Berlin"), Err(error));
        }
    }

    #[test]
    fn transactions_and_names_are_what_a_server_can_have() {
        assert_eq!(RecoveryTarget::xid("740"), Ok(RecoveryTarget::Xid(740)));
        assert_eq!(RecoveryTarget::xid("4294967299"), Ok(RecoveryTarget::Xid(4_294_967_299)));
        for bad in ["", "2", "4294967296", "-3", "+3", "3.0", "99999999999999999999"] {
            assert!(RecoveryTarget::xid(bad).is_err(), "{bad}");
        }
        assert!(RecoveryTarget::name(&"n".repeat(63)).is_ok());
        for bad in ["", "a\nb", &"n".repeat(64)] {
            assert!(RecoveryTarget::name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_for_timeline_and_action() {
        assert_eq!("latest".parse(), Ok(TimelineChoice::Latest));
        assert_eq!("current".parse(), Ok(TimelineChoice::Current));
        let third = TimelineId::new(3).unwrap();
        assert_eq!("3".parse(), Ok(TimelineChoice::Number(third)));
        assert!("0".parse::<TimelineChoice>().is_err());
        assert_eq!("promote".parse(), Ok(TargetAction::Promote));
        assert!("Promote".parse::<TargetAction>().is_err());
    }
}
