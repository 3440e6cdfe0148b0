//! When something is to be done: cron's syntax, in a time zone.

use std::fmt;
use std::str::FromStr;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Moments that come again and again, as cron names them.
///
/// Where clocks are put forward, a moment that is left out comes right behind the gap; where they
/// are put back, one that comes twice counts once.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

/// The text is not a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a schedule in cron's syntax, as \"0 2 * * *\" for two o'clock each night: {0}")]
pub struct ScheduleError(String);

/// A schedule without a place: the moments depend on the time zone.
#[derive(Clone, Debug)]
pub struct Moments(Cron);

impl Moments {
    /// The schedule in a time zone.
    pub fn within(self, zone: TimeZone) -> Schedule {
        Schedule { cron: self.0, zone }
    }
}

impl FromStr for Moments {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).build();
        let cron = parser.parse(text.trim()).map_err(|error| ScheduleError(error.to_string()))?;
        let never = || ScheduleError("no such moment ever comes".to_owned());
        let probe = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
        cron.find_next_occurrence(&probe, false).map_err(|_| never())?;
        Ok(Self(cron))
    }
}

impl Schedule {
    /// The first moment after `time`; `None` if none comes any more.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let time = time.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&time, false).ok()?;
        Some(next.timestamp())
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.cron.as_str() == other.cron.as_str() && self.zone == other.zone
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cron.as_str())?;
        match self.zone.iana_name() {
            Some(zone) => write!(f, " {zone}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str, zone: &str) -> Schedule {
        text.parse::<Moments>().unwrap().within(TimeZone::get(zone).unwrap())
    }

    fn nexts(schedule: &Schedule, from: &str, count: usize) -> Vec<String> {
        let mut at: Timestamp = from.parse().unwrap();
        (0..count)
            .map(|_| {
                at = schedule.next_after(at).unwrap();
                at.to_string()
            })
            .collect()
    }

    #[test]
    fn moments_are_those_of_the_time_zone() {
        let nightly = schedule("0 2 * * *", "Europe/Berlin");
        assert_eq!(
            nexts(&nightly, "2026-01-05T12:00:00Z", 2),
            ["2026-01-06T01:00:00Z", "2026-01-07T01:00:00Z"]
        );
        let sundays = schedule("30 3 * * SUN", "UTC");
        assert_eq!(nexts(&sundays, "2026-01-05T12:00:00Z", 1), ["2026-01-11T03:30:00Z"]);
    }

    #[test]
    fn no_night_is_left_out_and_none_comes_twice_when_clocks_change() {
        let nightly = schedule("30 2 * * *", "Europe/Berlin");
        // 29 March 2026: 02:00 becomes 03:00.
        let spring = nexts(&nightly, "2026-03-28T12:00:00Z", 2);
        assert!(spring[0].starts_with("2026-03-29T01:"), "{spring:?}");
        assert_eq!(spring[1], "2026-03-30T00:30:00Z");
        // 25 October 2026: 03:00 becomes 02:00.
        let autumn = nexts(&nightly, "2026-10-24T12:00:00Z", 2);
        assert_eq!(autumn, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        // Also for those who ask within the hour that comes twice.
        for within in ["2026-10-25T00:30:00Z", "2026-10-25T01:10:00Z", "2026-10-25T01:30:00Z"] {
            assert_eq!(nexts(&nightly, within, 1), ["2026-10-26T01:30:00Z"], "{within}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in ["", "daily at two", "0 2 * *", "61 2 * * *", "0 0 2 * * *", "0 0 31 2 *"] {
            assert!(text.parse::<Moments>().is_err(), "{text}");
        }
    }
}
