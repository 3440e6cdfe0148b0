//! Moments as PostgreSQL counts them.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds between 1970-01-01 and 2000-01-01, both midnight UTC.
const EPOCH_OFFSET: i64 = 946_684_800_000_000;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// A moment with PostgreSQL's resolution and range: microseconds since 2000-01-01 00:00 UTC.
///
/// Printed as RFC 3339 in UTC: `2026-03-05T15:11:33.25Z`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgTimestamp(i64);

impl PgTimestamp {
    /// The moment so many microseconds after 2000-01-01 00:00 UTC.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 2000-01-01 00:00 UTC.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The moment so many microseconds after 1970-01-01 00:00 UTC; saturates.
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros.saturating_sub(EPOCH_OFFSET))
    }

    /// Microseconds since 1970-01-01 00:00 UTC; saturates.
    pub const fn as_unix_micros(self) -> i64 {
        self.0.saturating_add(EPOCH_OFFSET)
    }
}

impl From<SystemTime> for PgTimestamp {
    fn from(time: SystemTime) -> Self {
        let micros = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self::from_unix_micros(micros(after)),
            Err(before) => Self::from_unix_micros(micros(before.duration()).saturating_neg()),
        }
    }
}

/// Year, month and day of the proleptic Gregorian calendar, from days since 1970-01-01.
///
/// The era arithmetic counts years from March, so that the leap day is the last of its year.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

impl fmt::Display for PgTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unix = self.as_unix_micros();
        let (year, month, day) = civil_from_days(unix.div_euclid(MICROS_PER_DAY));
        let micros = unix.rem_euclid(MICROS_PER_DAY);
        let seconds = micros / 1_000_000;
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match micros % 1_000_000 {
            0 => {}
            fraction => write!(f, ".{}", format!("{fraction:06}").trim_end_matches('0'))?,
        }
        f.write_str("Z")
    }
}

impl fmt::Debug for PgTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a moment as [`PgTimestamp`] prints it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a time such as 2026-03-05T15:11:33Z")]
pub struct TimestampParseError {
    text: String,
}

impl FromStr for PgTimestamp {
    type Err = TimestampParseError;

    /// Reads what `Display` prints; no other time zone than `Z`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| TimestampParseError { text: text.chars().take(40).collect() })
    }
}

fn parse(text: &str) -> Option<PgTimestamp> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let number = |digits: &str| -> Option<i64> {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    let (date, day) = date.rsplit_once('-')?;
    let (year, month) = date.rsplit_once('-')?;
    let year = match year.strip_prefix('-') {
        Some(before_zero) => -number(before_zero)?,
        None => number(year)?,
    };
    let (month, day) = (number(month)?, number(day)?);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = time.splitn(3, ':');
    let (hour, minute, second) =
        (number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?);
    if year.abs() > 300_000 || hour > 23 || minute > 59 || second > 59 || fraction.len() > 6 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    // Rejects days that the calendar does not have, such as 31 April.
    if civil_from_days(days) != (year, month, day) {
        return None;
    }
    let fraction = number(&format!("{fraction:0<6}"))?;
    let micros = ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction;
    let unix = days.checked_mul(MICROS_PER_DAY)?.checked_add(micros)?;
    Some(PgTimestamp(unix.checked_sub(EPOCH_OFFSET)?))
}

#[cfg(feature = "serde")]
crate::serde_text::serde_as_text!(PgTimestamp);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prints_rfc_3339() {
        assert_eq!(PgTimestamp::from_micros(0).to_string(), "2000-01-01T00:00:00Z");
        assert_eq!(PgTimestamp::from_unix_micros(0).to_string(), "1970-01-01T00:00:00Z");
        let leap = PgTimestamp::from_unix_micros(1_709_164_799_250_000);
        assert_eq!(leap.to_string(), "2024-02-28T23:59:59.25Z");
        assert_eq!(
            PgTimestamp::from_micros(leap.as_micros() + 750_000).to_string(),
            "2024-02-29T00:00:00Z"
        );
    }

    #[test]
    fn refuses_what_is_no_moment() {
        for text in [
            "",
            "2026-03-05",
            "2026-03-05T15:11:33",
            "2026-04-31T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-03-05T24:00:00Z",
            "2026-03-05T15:11:33.1234567Z",
            "2026-03-05T15:11:33+01:00",
        ] {
            assert!(text.parse::<PgTimestamp>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(micros in -200_000_000_000_000_000..9_000_000_000_000_000_000i64) {
            let time = PgTimestamp::from_micros(micros);
            prop_assert_eq!(time.to_string().parse::<PgTimestamp>(), Ok(time));
        }

        #[test]
        fn any_value_prints(micros: i64) {
            let _ = PgTimestamp::from_micros(micros).to_string();
        }
    }
}
