//! What the receiver of a server tells of itself.

use std::time::{Duration, SystemTime};

use pgwire_stream::{Lsn, PgTimestamp};

use super::{Row, State};
use crate::receiver::{HostSlot, SlotView, State as Receiving, Status};
use crate::units::{duration, size};

/// How long a receiver may be without a server before that is a failure.
const SILENCE: Duration = Duration::from_secs(60);

/// How long it may be behind before that is worth a warning.
const BEHIND: Duration = Duration::from_secs(300);

/// How long nothing may become durable of what the server has, before that is a failure.
const STANDSTILL: Duration = Duration::from_secs(300);

pub(super) const RECEIVER: &str = "receive-wal running";
const STATE: &str = "receiver state";
const LAG: &str = "receive lag";
const OTHER_HOSTS: &str = "slots on other hosts";
const FULL: &str = "the disk is full: nothing can be received";

/// Whether the receiver fails, although its process runs.
pub(super) fn failure(status: &Status, now: SystemTime) -> Option<Row> {
    let told = || {
        let hint = status.last_hint.as_ref().map(|hint| format!("; {}", hint.replace('\n', " ")));
        Some(format!("{}{}", status.last_error.as_ref()?, hint.unwrap_or_default()))
    };
    let unheard = status.heard_at.is_none_or(|heard| since(heard, now) >= SILENCE);
    let why = match status.state {
        Receiving::Refused => told().unwrap_or_else(|| "it was refused".to_owned()),
        Receiving::Streaming if status.disk_full => FULL.to_owned(),
        Receiving::Streaming => standstill(status, now)?,
        Receiving::Connecting | Receiving::Waiting if unheard => told()?,
        Receiving::Connecting | Receiving::Waiting => return None,
        Receiving::Stopped => told()?,
    };
    Some(Row::remark(RECEIVER, State::Failed, format!("it runs, and fails: {why}")))
}

/// Says that what the server has does not become durable here, not even slowly.
fn standstill(status: &Status, now: SystemTime) -> Option<String> {
    let bytes = status.server_end?.bytes_since(status.flushed?);
    let moved = status.flushed_at.max(status.caught_up_at).max(Some(status.since))?;
    let still = since(moved, now);
    (bytes > 0 && still >= STANDSTILL).then(|| {
        let (lag, seconds) = (size(bytes), still.as_secs());
        format!("{lag} behind, and nothing has become durable for {seconds} s")
    })
}

/// What is worth knowing about a receiver.
pub(super) fn rows(status: &Status, now: SystemTime) -> Vec<Row> {
    let mut rows = vec![state(status)];
    rows.extend(lag(status, now));
    if !status.other_hosts.is_empty() {
        rows.push(other_hosts(&status.other_hosts));
    }
    rows
}

/// How far what is durable here is behind the server, in bytes and in time.
fn lag(status: &Status, now: SystemTime) -> Option<Row> {
    if status.state != Receiving::Streaming {
        return None;
    }
    let bytes = status.server_end?.bytes_since(status.flushed?);
    let behind = match (bytes, status.caught_up_at) {
        (0, _) | (_, None) => Duration::ZERO,
        (_, Some(at)) => since(at, now),
    };
    let state = if behind >= BEHIND { State::Warning } else { State::Ok };
    let mut remark = format!("{} behind", size(bytes));
    if bytes > 0 {
        remark.push_str(&format!(", for {}", duration(behind)));
    }
    Some(Row::advice(LAG, state, remark))
}

/// The lag where no receiver can be asked: what the server has written since the place that the
/// slot keeps.
pub(super) fn lag_by_slot(slot: &SlotView, server_end: Lsn) -> Option<Row> {
    let bytes = server_end.bytes_since(slot.restart?);
    let remark = format!("{} behind at most, by what the slot keeps", size(bytes));
    Some(Row::advice(LAG, State::Ok, remark))
}

fn state(status: &Status) -> Row {
    let error = |else_: &str| status.last_error.clone().unwrap_or_else(|| else_.to_owned());
    match status.state {
        Receiving::Streaming if status.disk_full => Row::advice(STATE, State::Warning, FULL),
        Receiving::Streaming => {
            let at = status.flushed.unwrap_or(Lsn::ZERO);
            Row::advice(STATE, State::Ok, format!("streaming; durable up to {at}"))
        }
        Receiving::Connecting => Row::advice(STATE, State::Ok, "connecting"),
        Receiving::Waiting => {
            Row::advice(STATE, State::Warning, error("it waits before it tries again"))
        }
        Receiving::Refused => Row::advice(STATE, State::Warning, error("it was refused")),
        Receiving::Stopped => Row::advice(STATE, State::Warning, error("it has stopped")),
    }
}

fn other_hosts(hosts: &[HostSlot]) -> Row {
    let well = hosts.iter().all(|host| host.last_error.is_none());
    let told: Vec<_> = hosts.iter().map(host).collect();
    let state = if well { State::Ok } else { State::Warning };
    Row::advice(OTHER_HOSTS, state, told.join("; "))
}

fn host(slot: &HostSlot) -> String {
    let mut told = match (slot.position, slot.behind_us) {
        (Some(position), Some(bytes)) => {
            format!("{} keeps WAL from {position} on, {bytes} bytes behind us", slot.host)
        }
        _ if slot.last_error.is_some() => slot.host.clone(),
        _ => format!("{} was not visited yet", slot.host),
    };
    if let Some(error) = &slot.last_error {
        told.push_str(&format!(": {error}"));
    }
    told
}

fn since(moment: PgTimestamp, now: SystemTime) -> Duration {
    let micros = PgTimestamp::from(now).as_micros().saturating_sub(moment.as_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streaming() -> Status {
        let mut status = Status::new("main".parse().unwrap(), "walrecv".parse().unwrap());
        status.state = Receiving::Streaming;
        status.flushed = Some(Lsn::from_u64(100));
        status.server_end = Some(Lsn::from_u64(100));
        status
    }

    fn ago(now: SystemTime, seconds: u64) -> Option<PgTimestamp> {
        Some((now - Duration::from_secs(seconds)).into())
    }

    #[test]
    fn a_receiver_that_streams_tells_how_far_it_is() {
        let now = SystemTime::now();
        let mut status = streaming();
        assert_eq!(failure(&status, now), None);
        status.caught_up_at = ago(now, 3600);
        assert_eq!(rows(&status, now)[1].state, State::Ok, "an idle server is not behind");
        status.server_end = Some(Lsn::from_u64(150));
        status.caught_up_at = ago(now, 20);
        let row = &rows(&status, now)[1];
        assert!(row.advisory);
        assert_eq!(row.state, State::Ok);
        assert!(row.remark.as_ref().unwrap().ends_with("50 B behind, for 20 seconds"), "{row:?}");
        status.caught_up_at = ago(now, 301);
        assert_eq!(rows(&status, now)[1].state, State::Warning);
    }

    #[test]
    fn a_receiver_that_receives_nothing_fails_though_its_process_runs() {
        let now = SystemTime::now();
        let mut status = streaming();
        status.state = Receiving::Refused;
        status.last_error = Some("rolled back".to_owned());
        status.last_hint = Some("begin\nanew".to_owned());
        let row = failure(&status, now).unwrap();
        assert_eq!((row.name, row.state, row.advisory), (RECEIVER, State::Failed, false));
        assert!(row.remark.unwrap().ends_with("rolled back; begin anew"));

        status.state = Receiving::Waiting;
        assert!(failure(&status, now).is_some(), "never heard");
        status.heard_at = ago(now, 5);
        assert_eq!(failure(&status, now), None, "the server restarts");
        assert_eq!(rows(&status, now)[0].state, State::Warning);
        status.heard_at = ago(now, 61);
        assert!(failure(&status, now).is_some());
    }

    #[test]
    fn a_receiver_that_takes_nothing_fails_though_it_streams() {
        let now = SystemTime::now();
        let mut status = streaming();
        status.disk_full = true;
        let row = failure(&status, now).unwrap();
        assert_eq!((row.name, row.state), (RECEIVER, State::Failed));
        assert!(row.remark.unwrap().ends_with("the disk is full: nothing can be received"));

        status.disk_full = false;
        status.since = ago(now, 3600).unwrap();
        assert_eq!(failure(&status, now), None, "an idle server");
        status.server_end = Some(Lsn::from_u64(150));
        let remark = failure(&status, now).unwrap().remark.unwrap();
        assert!(remark.ends_with("50 B behind, and nothing has become durable for 3600 s"));
        status.flushed_at = ago(now, 299);
        status.caught_up_at = ago(now, 1800);
        assert_eq!(failure(&status, now), None, "slow, and not still");
        status.flushed_at = ago(now, 300);
        assert!(failure(&status, now).is_some());
        status.caught_up_at = ago(now, 5);
        assert_eq!(failure(&status, now), None);

        status.state = Receiving::Stopped;
        assert_eq!(failure(&status, now), None);
        status.last_error = Some("no identity".to_owned());
        assert!(failure(&status, now).unwrap().remark.unwrap().ends_with("no identity"));
    }

    #[test]
    fn other_hosts_are_told_one_by_one() {
        let now = SystemTime::now();
        let mut status = streaming();
        assert_eq!(rows(&status, now).len(), 2);
        status.other_hosts = vec![
            HostSlot {
                host: "b:5432".to_owned(),
                position: Some(Lsn::from_u64(90)),
                behind_us: Some(10),
                ..HostSlot::default()
            },
            HostSlot { host: "c:5432".to_owned(), ..HostSlot::default() },
        ];
        let row = rows(&status, now).pop().unwrap();
        assert_eq!((row.state, row.advisory), (State::Ok, true));
        assert_eq!(
            row.remark.unwrap(),
            "b:5432 keeps WAL from 0/5A on, 10 bytes behind us; c:5432 was not visited yet"
        );
        status.other_hosts[1].last_error = Some("refused".to_owned());
        let row = rows(&status, now).pop().unwrap();
        assert_eq!(row.state, State::Warning);
        assert!(row.remark.unwrap().ends_with("; c:5432: refused"));
    }
}
