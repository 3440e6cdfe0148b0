//! What a backup is called: the second at which it began.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The name of a backup, `YYYYMMDDTHHMMSS` in UTC, and of its directory.
///
/// A name, not a time: two backups never share one, so it may be a second or two off. Order
/// backups by when they began, which their record knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(DateTime);

/// The text is not the id of a backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a backup id such as 20260305T151133")]
pub struct BackupIdError {
    text: String,
}

impl BackupId {
    const FORMAT: &str = "%Y%m%dT%H%M%S";

    /// The id of a backup that begins at `time`.
    pub fn at(time: Timestamp) -> Self {
        let utc = TimeZone::UTC.to_datetime(time);
        Self(utc.with().subsec_nanosecond(0).build().unwrap_or(utc))
    }

    /// The second that it names.
    pub fn time(self) -> Timestamp {
        TimeZone::UTC.to_timestamp(self.0).unwrap_or(Timestamp::MIN)
    }

    /// The id to try when this one is taken: a second later.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(SignedDuration::from_secs(1)))
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.strftime(Self::FORMAT).to_string())
    }
}

impl FromStr for BackupId {
    type Err = BackupIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || BackupIdError { text: text.chars().take(40).collect() };
        let id = DateTime::strptime(Self::FORMAT, text).map(Self).map_err(|_| error())?;
        // Only the one spelling: it names a directory.
        if id.to_string() == text { Ok(id) } else { Err(error()) }
    }
}

impl Serialize for BackupId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BackupId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_is_the_second_in_utc() {
        let time: Timestamp = "2026-03-05T16:11:33.987+01:00".parse().unwrap();
        let id = BackupId::at(time);
        assert_eq!(id.to_string(), "20260305T151133");
        assert_eq!("20260305T151133".parse(), Ok(id));
        assert_eq!(
            "20261231T235959".parse::<BackupId>().unwrap().next().to_string(),
            "20270101T000000"
        );
        for bad in
            ["", "latest", "20260305", "20260305T151161", "../20260305T1511", "20261305T000000"]
        {
            assert!(bad.parse::<BackupId>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(second in 0..4_000_000_000i64) {
            let id = BackupId::at(Timestamp::from_second(second).unwrap());
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert!(id.next() > id);
        }
    }
}
