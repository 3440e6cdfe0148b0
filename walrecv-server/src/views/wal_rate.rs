//! How fast a server writes WAL.

use std::time::{Duration, SystemTime};

use pgwire_stream::PgTimestamp;

use crate::catalog::WalGrowth;
use crate::receiver::{State, Status};

/// A stream that is younger tells nothing.
const LEAST: Duration = Duration::from_secs(60);

/// Bytes per second, as the receiver sees it since it streams, or else as the archive tells; `None`
/// if neither has seen enough.
pub(crate) fn wal_rate(
    receiver: Option<&Status>,
    archived: Option<&WalGrowth>,
    now: SystemTime,
) -> Option<f64> {
    receiver.and_then(|status| streamed(status, now)).or_else(|| archived.and_then(of_archive))
}

/// What the stream has brought, per second.
pub(crate) fn streamed(status: &Status, now: SystemTime) -> Option<f64> {
    if status.state != State::Streaming {
        return None;
    }
    let bytes = status.received?.bytes_since(status.started_at?);
    rate(bytes, status.since, now.into(), LEAST)
}

fn of_archive(growth: &WalGrowth) -> Option<f64> {
    rate(growth.plain, growth.from, growth.to, LEAST)
}

fn rate(bytes: u64, from: PgTimestamp, to: PgTimestamp, least: Duration) -> Option<f64> {
    let micros = u64::try_from(to.as_micros().saturating_sub(from.as_micros())).ok()?;
    let elapsed = Duration::from_micros(micros);
    (elapsed >= least).then(|| bytes as f64 / elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use pgwire_stream::Lsn;

    use super::*;

    #[test]
    fn the_stream_tells_and_else_the_archive() {
        let now = SystemTime::now();
        let growth = WalGrowth {
            from: PgTimestamp::from_micros(0),
            to: PgTimestamp::from_micros(100_000_000),
            plain: 500,
            stored: 1,
        };
        assert_eq!(wal_rate(None, None, now), None);
        assert_eq!(wal_rate(None, Some(&growth), now), Some(5.0));
        let mut status = Status::new("main".parse().unwrap(), "walrecv".parse().unwrap());
        status.state = State::Streaming;
        (status.started_at, status.received) =
            (Some(Lsn::from_u64(1000)), Some(Lsn::from_u64(3000)));
        assert_eq!(wal_rate(Some(&status), Some(&growth), now), Some(5.0), "it has just begun");
        status.since = (now - Duration::from_secs(200)).into();
        assert_eq!(wal_rate(Some(&status), Some(&growth), now), Some(10.0));
    }
}
