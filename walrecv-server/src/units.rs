//! Sizes and durations for people, as Barman writes them; PostgreSQL's moments as those of the calendar.

use std::time::Duration;

use jiff::Timestamp;
use pgwire_stream::PgTimestamp;

/// A moment that PostgreSQL tells; `None` if the calendar does not go so far.
pub fn moment(time: PgTimestamp) -> Option<Timestamp> {
    Timestamp::from_microsecond(time.as_unix_micros()).ok()
}

/// A size with a binary unit: `1.5 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// A duration in words: `1 hour, 2 minutes, 3 seconds`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 {
        return "less than one second".to_owned();
    }
    let parts = [
        (seconds / 86_400, "day"),
        (seconds / 3600 % 24, "hour"),
        (seconds / 60 % 60, "minute"),
        (seconds % 60, "second"),
    ];
    let words: Vec<_> = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count} {unit}{}", if count == 1 { "" } else { "s" }))
        .collect();
    words.join(", ")
}

/// The same where nobody wants to know it exactly: `1 hour, 2 minutes`.
pub fn roughly(exactly: Duration) -> String {
    let words = duration(exactly);
    words.split(", ").take(2).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (16 << 20, "16.0 MiB"),
            (1_610_612_736, "1.5 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn durations_are_words() {
        for (seconds, text) in [
            (0, "less than one second"),
            (1, "1 second"),
            (61, "1 minute, 1 second"),
            (3600, "1 hour"),
            (90_061, "1 day, 1 hour, 1 minute, 1 second"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
