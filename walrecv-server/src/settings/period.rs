//! Periods as operators and Barman write them: `4 DAYS`, `1 MONTH`.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// The longest period that makes sense: a hundred years, in any unit.
const MOST: [(Unit, u32); 4] =
    [(Unit::Hours, 876_600), (Unit::Days, 36_525), (Unit::Weeks, 5_218), (Unit::Months, 1_200)];

/// A span of the calendar, counted back from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    count: u32,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Hours,
    Days,
    Weeks,
    Months,
}

/// The text is not a period.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a number of HOURS, DAYS, WEEKS or MONTHS, as \"4 DAYS\"")]
pub struct PeriodError;

impl Period {
    /// So many days.
    pub const fn days(count: u32) -> Self {
        Self { count, unit: Unit::Days }
    }

    /// The moment that lies so far before `now`. Months and days are those of the calendar in UTC:
    /// the last day of a month that has fewer stands for those that it does not have.
    pub fn before(self, now: Timestamp) -> Timestamp {
        let count = i64::from(self.count);
        let span = match self.unit {
            Unit::Hours => Span::new().try_hours(count),
            Unit::Days => Span::new().try_days(count),
            Unit::Weeks => Span::new().try_weeks(count),
            Unit::Months => Span::new().try_months(count),
        };
        // Too far back for the calendar is before everything.
        let before = span.and_then(|span| now.to_zoned(TimeZone::UTC).checked_sub(span));
        before.map_or(Timestamp::MIN, |before| before.timestamp())
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Hours => "HOUR",
            Unit::Days => "DAY",
            Unit::Weeks => "WEEK",
            Unit::Months => "MONTH",
        };
        let plural = if self.count == 1 { "" } else { "S" };
        write!(f, "{} {unit}{plural}", self.count)
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split_ascii_whitespace();
        let (Some(count), Some(unit), None) = (words.next(), words.next(), words.next()) else {
            return Err(PeriodError);
        };
        let unit = unit.to_ascii_uppercase();
        let unit = match unit.strip_suffix('S').unwrap_or(&unit) {
            "HOUR" => Unit::Hours,
            "DAY" => Unit::Days,
            "WEEK" => Unit::Weeks,
            "MONTH" => Unit::Months,
            _ => return Err(PeriodError),
        };
        let count: u32 = count.parse().map_err(|_| PeriodError)?;
        let most = MOST.iter().find(|(of, _)| *of == unit).map_or(0, |(_, most)| *most);
        if count == 0 || count > most {
            return Err(PeriodError);
        }
        Ok(Self { count, unit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_written_as_barman_writes_them() {
        for (text, shown) in [
            ("4 DAYS", "4 DAYS"),
            ("1 day", "1 DAY"),
            (" 2  weeks ", "2 WEEKS"),
            ("1 MONTH", "1 MONTH"),
            ("36 HOURS", "36 HOURS"),
        ] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), shown);
        }
        for text in ["", "4", "DAYS", "0 DAYS", "-1 DAYS", "4 YEARS", "4 DAYS 2", "4000 MONTHS"] {
            assert_eq!(text.parse::<Period>(), Err(PeriodError), "{text}");
        }
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let now: Timestamp = "2026-03-31T12:00:00Z".parse().unwrap();
        let before = |text: &str| text.parse::<Period>().unwrap().before(now).to_string();
        assert_eq!(before("1 MONTH"), "2026-02-28T12:00:00Z");
        assert_eq!(before("2 WEEKS"), "2026-03-17T12:00:00Z");
        assert_eq!(before("36 HOURS"), "2026-03-30T00:00:00Z");
        assert_eq!(before("1200 MONTHS"), "1926-03-31T12:00:00Z");
    }
}
