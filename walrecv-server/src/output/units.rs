//! Sizes, durations and times for people, as Barman writes them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub(super) use crate::units::{duration, size};

/// A time as C's `ctime` writes it, in this machine's zone.
pub(super) fn ctime(time: Timestamp) -> String {
    in_ctime(time, TimeZone::system())
}

fn in_ctime(time: Timestamp, zone: TimeZone) -> String {
    time.to_zoned(zone).strftime("%a %b %e %H:%M:%S %Y").to_string()
}

/// A time as Python writes it, in this machine's zone.
pub(super) fn local(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.f%:z").to_string()
}

/// Bytes per second; `None` where no time has passed.
pub(super) fn per_second(bytes: u64, duration: Duration) -> Option<u64> {
    let seconds = duration.as_secs_f64();
    (seconds > 0.0).then(|| (bytes as f64 / seconds) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_look_as_barmans() {
        let time: Timestamp = "2026-03-05T15:11:33Z".parse().unwrap();
        assert_eq!(in_ctime(time, TimeZone::UTC), "Thu Mar  5 15:11:33 2026");
    }

    #[test]
    fn throughput_needs_time() {
        assert_eq!(per_second(10, Duration::ZERO), None);
        assert_eq!(per_second(10, Duration::from_secs(2)), Some(5));
    }
}
