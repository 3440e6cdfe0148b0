//! One server, as the page, monitoring and the API see it. Everything that is taken from the board
//! is taken here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pgwire_stream::{Lsn, TimelineId};
use serde::Serialize;

use crate::daemon::board::{Ended, Running, ServerNews, Task};
use crate::receiver::{HostSlot, State, Status};
use crate::settings::{ServerName, ServerSettings};
use crate::units::moment;
use crate::views::check::{CheckOutcome, State as CheckState};
use crate::views::stored::Stored;

/// One server, altogether.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Overview {
    #[serde(flatten)]
    pub(super) live: Live,
    /// What it is to its operators.
    pub(super) description: Option<String>,
    /// The last check.
    pub(super) check: Option<Check>,
    /// When each scheduled task comes next.
    pub(super) planned: BTreeMap<Task, Timestamp>,
    /// How each task ended last.
    pub(super) ended: BTreeMap<Task, Ended>,
    /// What is stored for it.
    pub(super) stored: Stored,
}

/// What changes all the time.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Live {
    pub(super) server: ServerName,
    /// Whether it is backed up at all.
    pub(super) active: bool,
    /// How it is, in words.
    pub(super) words: String,
    pub(super) receiver: Option<Receiving>,
    /// What is going on.
    pub(super) running: Vec<Running>,
}

/// How its receiver is.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Receiving {
    pub(super) state: State,
    pub(super) since: Option<Timestamp>,
    pub(super) slot: String,
    pub(super) timeline: Option<TimelineId>,
    pub(super) server_lsn: Option<Lsn>,
    pub(super) received_lsn: Option<Lsn>,
    pub(super) written_lsn: Option<Lsn>,
    pub(super) flushed_lsn: Option<Lsn>,
    /// The same as a number, for those who take differences.
    pub(super) flushed_bytes: Option<u64>,
    /// How much WAL the server has that is not durable here.
    pub(super) lag_bytes: Option<u64>,
    /// For how long there has been such.
    pub(super) lag_seconds: Option<f64>,
    pub(super) caught_up_at: Option<Timestamp>,
    pub(super) heard_at: Option<Timestamp>,
    pub(super) synchronous: bool,
    pub(super) disk_full: bool,
    pub(super) waiting_for_archive: u64,
    pub(super) suspect: u64,
    pub(super) last_error: Option<String>,
    pub(super) other_hosts: Vec<HostSlot>,
}

/// A check.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    pub(super) at: Timestamp,
    pub(super) ok: bool,
    /// Failures first.
    pub(super) rows: Vec<CheckRow>,
}

/// A row of a check.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CheckRow {
    pub(super) name: &'static str,
    pub(super) state: &'static str,
    #[serde(skip)]
    pub(super) severity: CheckState,
    pub(super) remark: Option<String>,
    pub(super) advisory: bool,
    pub(super) measured: Option<i64>,
}

/// Puts together what is known of a server.
pub(super) fn overview(
    settings: &ServerSettings,
    news: Option<&ServerNews>,
    stored: &Stored,
    now: Timestamp,
) -> Overview {
    let live = live(settings, news, now);
    let mut stored = stored.clone();
    if let Some(receiver) = &live.receiver
        && let (Some(timeline), Some(flushed), Some(at)) =
            (receiver.timeline, receiver.flushed_lsn, receiver.caught_up_at)
    {
        stored.window.reaches(timeline, flushed, at, now);
    }
    let checked = news.and_then(|news| news.check.as_ref());
    Overview {
        live,
        description: settings.description.clone(),
        check: checked.map(|checked| check(checked.at, &checked.outcome)),
        planned: news.map(|news| news.planned.clone()).unwrap_or_default(),
        ended: news.map(|news| news.ended.clone()).unwrap_or_default(),
        stored,
    }
}

/// What of a server changes all the time.
pub(super) fn live(settings: &ServerSettings, news: Option<&ServerNews>, now: Timestamp) -> Live {
    let receiver =
        news.and_then(|news| news.receiver.as_ref()).map(|status| receiving(status, now));
    Live {
        server: settings.name.clone(),
        active: settings.active,
        words: words(settings.active, receiver.as_ref()),
        receiver,
        running: news.map(|news| news.running.clone()).unwrap_or_default(),
    }
}

fn receiving(status: &Status, now: Timestamp) -> Receiving {
    let caught_up_at = status.caught_up_at.and_then(moment);
    let heard_at = status.heard_at.and_then(moment);
    let streams = status.state == State::Streaming;
    let behind = status.server_end.zip(status.flushed).map(|(end, at)| end.bytes_since(at));
    let lag_bytes = status.lag();
    let since = match behind {
        Some(0) if streams => Some(now),
        Some(0) => heard_at.max(caught_up_at),
        _ if streams => caught_up_at,
        _ => caught_up_at.or(heard_at),
    };
    let lag_seconds = since
        .filter(|_| behind.is_some() || !streams)
        .map(|since| now.duration_since(since).as_secs_f64().max(0.0));
    Receiving {
        state: status.state,
        since: moment(status.since),
        slot: status.slot.to_string(),
        timeline: status.timeline,
        server_lsn: status.server_end,
        received_lsn: status.received,
        written_lsn: status.written,
        flushed_lsn: status.flushed,
        flushed_bytes: status.flushed.map(Lsn::as_u64),
        lag_bytes,
        lag_seconds,
        // Where nothing is behind, it is caught up now.
        caught_up_at: match (status.state, lag_bytes) {
            (State::Streaming, Some(0)) => heard_at.max(caught_up_at),
            _ => caught_up_at,
        },
        heard_at,
        synchronous: status.synchronous,
        disk_full: status.disk_full,
        waiting_for_archive: status.waiting_for_archive,
        suspect: status.suspect,
        last_error: status.last_error.clone(),
        other_hosts: status.other_hosts.clone(),
    }
}

/// How a receiver is, in words.
fn words(active: bool, receiver: Option<&Receiving>) -> String {
    let Some(receiver) = receiver else {
        return if active { "its WAL is not received" } else { "not active" }.to_owned();
    };
    let error = |otherwise: &str| match &receiver.last_error {
        Some(error) => format!("{otherwise}: {error}"),
        None => otherwise.to_owned(),
    };
    match receiver.state {
        State::Streaming if receiver.disk_full => {
            "the disk is full: nothing can be received".to_owned()
        }
        State::Streaming if receiver.synchronous => "streaming; commits wait for us".to_owned(),
        State::Streaming => "streaming".to_owned(),
        State::Connecting => error("connecting"),
        State::Waiting => error("tries again soon"),
        State::Refused => error("refused, because going on would mix or lose data"),
        State::Stopped => error("stopped"),
    }
}

fn check(at: Timestamp, outcome: &CheckOutcome) -> Check {
    let mut rows: Vec<CheckRow> = outcome
        .rows
        .iter()
        .map(|row| CheckRow {
            name: row.name,
            state: match row.state {
                CheckState::Ok => "ok",
                CheckState::Warning => "warning",
                CheckState::Failed => "failed",
            },
            severity: row.state,
            remark: row.remark.clone(),
            advisory: row.advisory,
            measured: row.measured,
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.severity));
    Check { at, ok: outcome.is_ok(), rows }
}

#[cfg(test)]
mod tests {
    use pgwire_stream::PgTimestamp;

    use super::*;

    fn status(end: u64, flushed: u64) -> Status {
        let mut status = Status::new("main".parse().unwrap(), "walrecv".parse().unwrap());
        status.state = State::Streaming;
        status.server_end = Some(Lsn::from_u64(end));
        status.flushed = Some(Lsn::from_u64(flushed));
        status
    }

    #[test]
    fn lag_is_what_is_not_durable_and_since_when() {
        let now: Timestamp = "2026-03-05T12:00:00Z".parse().unwrap();
        let micros = now.as_microsecond();
        let mut behind = status(150, 100);
        assert_eq!(receiving(&behind, now).lag_seconds, None, "nobody knows since when");
        behind.caught_up_at = Some(PgTimestamp::from_unix_micros(micros - 20_000_000));
        let told = receiving(&behind, now);
        assert_eq!((told.lag_bytes, told.lag_seconds), (Some(50), Some(20.0)));
        behind.server_end = behind.flushed;
        behind.heard_at = Some(PgTimestamp::from_unix_micros(micros - 5_000_000));
        assert_eq!(receiving(&behind, now).lag_seconds, Some(0.0), "an idle server is not behind");
        // Nobody knows what a server writes that is not there.
        behind.state = State::Waiting;
        let told = receiving(&behind, now);
        assert_eq!((told.lag_bytes, told.lag_seconds), (None, Some(5.0)));
        (behind.server_end, behind.flushed, behind.caught_up_at) = (None, None, None);
        assert_eq!(receiving(&behind, now).lag_seconds, Some(5.0), "a new receiver after it");
    }

    #[test]
    fn a_receiver_is_told_in_words() {
        let now = Timestamp::UNIX_EPOCH;
        let mut told = receiving(&status(1, 1), now);
        assert_eq!(words(true, Some(&told)), "streaming");
        told.state = State::Waiting;
        told.last_error = Some("connection refused".to_owned());
        assert_eq!(words(true, Some(&told)), "tries again soon: connection refused");
        assert_eq!(words(false, None), "not active");
    }
}
