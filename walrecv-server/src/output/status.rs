//! How a server is: Barman's rows, and those of the stream, which Barman does not have.

use serde_json::{Map, Value, json};

use super::{Report, units};
use crate::receiver::{KeptWal, SlotView, State, Status};
use crate::units::moment;
use crate::views::status::{SeenServer, StatusOutcome};

/// A row: its key in Barman's JSON, what it is about, and what is told.
struct Row(&'static str, &'static str, String);

impl Report for StatusOutcome {
    fn console(&self) -> String {
        let mut text = format!("Server {}:\n", self.server);
        for Row(_, description, message) in barmans(self).into_iter().chain(ours(self)) {
            text.push_str(&format!("\t{description}: {message}\n"));
        }
        text
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        // What Barman has and we do not, as it is where nobody uses it.
        let unused = [
            Row("disabled", "Disabled", "False".to_owned()),
            Row("active_model", "Active configuration model", "None".to_owned()),
            Row("passive_node", "Passive node", "False".to_owned()),
        ];
        let rows = barmans(self).into_iter().chain(unused).chain(ours(self));
        let rows = rows.map(|Row(key, description, message)| {
            (key.to_owned(), json!({"description": description, "message": message}))
        });
        document.insert(self.server.to_string(), Value::Object(rows.collect()));
    }

    fn clean(&self) -> Value {
        let receiving = &self.receiving;
        let stored = &self.stored;
        let end = stored.end.map(|(timeline, lsn)| json!({"timeline": timeline, "lsn": lsn}));
        json!({
            "server": self.server,
            "description": self.description,
            "active": self.active,
            "seen": match &self.seen {
                Ok(seen) => seen_server(seen),
                Err(unreachable) => json!({"error": unreachable.reason, "hint": unreachable.hint}),
            },
            "receiving": {
                "running": receiving.running,
                "receiver": receiving.status,
                "bytes_per_second": receiving.stream_rate,
                "wal_bytes_per_second": receiving.rate,
                "lag_bytes": receiving.status.as_ref().and_then(Status::lag),
                "durable": self.durable(),
            },
            "stored": {
                "end": end,
                "waiting_for_archive": stored.waiting_for_archive,
                "archived_at": stored.archived_at,
                "suspect": stored.suspect,
                "backups": stored.backups,
                "full_backups": stored.full_backups,
                "first_backup": stored.first,
                "last_backup": stored.last,
                "problem": stored.problem,
            },
            "retention_policy": self.retention_policy.map(|policy| policy.to_string()),
            "minimum_redundancy": self.minimum_redundancy,
        })
    }
}

fn seen_server(seen: &SeenServer) -> Value {
    let facts = &seen.facts;
    let missing: Vec<_> = seen
        .missing
        .iter()
        .map(|lack| json!({"purpose": lack.purpose, "grant": lack.grant}))
        .collect();
    json!({
        "server_version": facts.version.to_string(),
        "in_recovery": facts.in_recovery,
        "timeline": seen.timeline,
        "current_lsn": facts.current_lsn,
        "current_segment": seen.segment,
        "size": seen.size,
        "data_directory": facts.data_directory,
        "clock_ahead_seconds": facts.clock.ahead,
        "max_slot_wal_keep_size": facts.max_slot_wal_keep_size,
        "summarize_wal": facts.summarize_wal,
        "slot": seen.slot.as_ref().map(|slot| json!({
            "active": slot.occupant.is_some(),
            "restart_lsn": slot.restart,
            "wal_status": slot.wal.map(wal_status),
            "safe_wal_size": slot.safe,
            "lost": slot.is_lost(),
        })),
        "missing_privileges": missing,
    })
}

/// What the server and the catalog tell, in Barman's words.
fn barmans(outcome: &StatusOutcome) -> Vec<Row> {
    let mut rows = vec![
        Row("description", "Description", outcome.description.clone().unwrap_or_default()),
        Row("active", "Active", python(outcome.active).to_owned()),
    ];
    match &outcome.seen {
        Ok(seen) => rows.extend(server_rows(seen)),
        Err(unreachable) => {
            let hint = unreachable.hint.as_ref().map(|hint| format!(" ({hint})"));
            let told = format!("{}{}", unreachable.reason, hint.unwrap_or_default());
            rows.push(Row("pg_version", "PostgreSQL version", format!("FAILED trying: {told}")));
        }
    }
    let stored = &outcome.stored;
    let none = || "None".to_owned();
    let retention = match outcome.retention_policy {
        Some(policy) => format!("enforced (mode: auto, retention: {policy}, WAL retention: MAIN)"),
        None => "not enforced".to_owned(),
    };
    let (have, want) = (stored.full_backups, outcome.minimum_redundancy);
    let enough = u32::try_from(have).is_ok_and(|have| have < want);
    let redundancy = if enough { "FAILED" } else { "satisfied" };
    rows.extend([
        Row("retention_policies", "Retention policies", retention),
        Row("backups_number", "No. of available backups", stored.backups.to_string()),
        Row(
            "first_backup",
            "First available backup",
            stored.first.map_or_else(none, |id| id.to_string()),
        ),
        Row(
            "last_backup",
            "Last available backup",
            stored.last.map_or_else(none, |id| id.to_string()),
        ),
        Row(
            "minimum_redundancy",
            "Minimum redundancy requirements",
            format!("{redundancy} ({have}/{want})"),
        ),
    ]);
    rows
}

fn server_rows(seen: &SeenServer) -> Vec<Row> {
    let facts = &seen.facts;
    // What the role may not see, it is told how it could.
    let unknown = |what: &str| {
        let grant = seen.missing.iter().find(|lack| lack.purpose.contains(what));
        grant.map_or_else(|| "unknown".to_owned(), |lack| format!("unknown ({})", lack.grant))
    };
    let state = if facts.in_recovery { "in archive recovery" } else { "in production" };
    vec![
        Row("pg_version", "PostgreSQL version", facts.version.to_string()),
        Row("is_in_recovery", "Cluster state", state.to_owned()),
        Row(
            "current_size",
            "Current data size",
            seen.size.map_or_else(|| unknown("size"), units::size),
        ),
        Row(
            "data_directory",
            "PostgreSQL Data directory",
            facts.data_directory.clone().unwrap_or_else(|| unknown("data directory")),
        ),
        Row(
            "current_xlog",
            "Current WAL segment",
            seen.segment.map_or_else(|| "None".to_owned(), |segment| segment.to_string()),
        ),
    ]
}

/// How WAL is received and kept.
fn ours(outcome: &StatusOutcome) -> Vec<Row> {
    let receiving = &outcome.receiving;
    let status = receiving.status.as_ref();
    let mut rows = vec![Row("receiver", "Receiver", receiver(outcome))];
    if let Some(durable) = outcome.durable() {
        let timeline = status.and_then(|status| status.timeline);
        let timeline = timeline.or(outcome.stored.end.map(|(timeline, _)| timeline));
        let on = timeline.map(|timeline| format!(" (timeline {timeline})")).unwrap_or_default();
        rows.push(Row("durable_lsn", "Last durable LSN", format!("{durable}{on}")));
    }
    let heard_at = status.and_then(|status| status.heard_at).and_then(moment);
    let lag = match status.and_then(Status::lag) {
        Some(bytes) => Some(units::size(bytes)),
        None => heard_at.map(|heard| format!("not known since {}", units::local(heard))),
    };
    rows.extend(lag.map(|lag| Row("receive_lag", "Receive lag", lag)));
    let rate = receiving.stream_rate.or(receiving.rate);
    let rate = rate.map(|rate| format!("{}/s", units::size(rate as u64)));
    let rate = rate.unwrap_or_else(|| "not known yet".to_owned());
    rows.push(Row("wal_rate", "WAL rate", rate));
    if let Ok(seen) = &outcome.seen {
        let slot = seen.slot.as_ref().map_or_else(|| "it doesn't exist".to_owned(), slot);
        rows.push(Row("replication_slot", "Replication slot", slot));
    }
    let suspect = match outcome.stored.suspect {
        0 => "none".to_owned(),
        places => format!("{places} places in the archive (`check` tells more)"),
    };
    rows.push(Row("suspect_wal", "Suspect WAL", suspect));
    let waiting = outcome.stored.waiting_for_archive;
    rows.push(Row("archive_queue", "Archive queue", format!("{waiting} segments")));
    if let Some(problem) = &outcome.stored.problem {
        rows.push(Row("problem", "Not readable", problem.clone()));
    }
    rows
}

fn receiver(outcome: &StatusOutcome) -> String {
    let Some(status) = &outcome.receiving.status else {
        return match outcome.receiving.running {
            true => "running, and not by the daemon".to_owned(),
            false => "not running".to_owned(),
        };
    };
    let word = match status.state {
        State::Streaming if status.disk_full => "streaming, and stopped by a full disk",
        State::Streaming if status.synchronous => "streaming, and commits wait for it",
        State::Streaming => "streaming",
        State::Connecting => "connecting",
        State::Waiting => "waiting before the next attempt",
        State::Refused => "refused",
        State::Stopped => "stopped",
    };
    match status.last_error.as_ref().filter(|_| status.state != State::Streaming) {
        Some(error) => format!("{word}: {error}"),
        None => word.to_owned(),
    }
}

fn slot(slot: &SlotView) -> String {
    let active = if slot.occupant.is_some() { "active" } else { "not active" };
    let mut told = active.to_owned();
    if let Some(restart) = slot.restart {
        told.push_str(&format!(", keeps WAL from {restart} on"));
    }
    if slot.is_lost() {
        told.push_str(", lost");
    } else if let Some(wal) = slot.wal {
        told.push_str(&format!(", {}", wal_status(wal)));
    }
    told
}

fn wal_status(wal: KeptWal) -> &'static str {
    match wal {
        KeptWal::Kept => "reserved",
        KeptWal::Endangered => "unreserved",
        KeptWal::Lost => "lost",
    }
}

/// A truth value as Barman prints it.
fn python(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::status::{Receiving, StoredStatus, Unreachable};

    fn outcome() -> StatusOutcome {
        StatusOutcome {
            server: "main".parse().unwrap(),
            description: Some("orders".to_owned()),
            active: true,
            seen: Err(Unreachable { reason: "no route".to_owned(), hint: None }),
            receiving: Receiving { running: true, status: None, stream_rate: None, rate: None },
            stored: StoredStatus { waiting_for_archive: 3, full_backups: 1, ..Default::default() },
            retention_policy: None,
            minimum_redundancy: 2,
        }
    }

    #[test]
    fn a_server_that_cannot_be_asked_is_told_of_all_the_same() {
        insta::assert_snapshot!(outcome().console(), @r"
        Server main:
        	Description: orders
        	Active: True
        	PostgreSQL version: FAILED trying: no route
        	Retention policies: not enforced
        	No. of available backups: 0
        	First available backup: None
        	Last available backup: None
        	Minimum redundancy requirements: FAILED (1/2)
        	Receiver: running, and not by the daemon
        	WAL rate: not known yet
        	Suspect WAL: none
        	Archive queue: 3 segments
        ");
    }

    #[test]
    fn the_stream_is_told_by_its_receiver() {
        let mut outcome = outcome();
        let mut status = Status::new("main".parse().unwrap(), "walrecv".parse().unwrap());
        status.state = State::Streaming;
        status.flushed = "0/2000".parse().ok();
        status.server_end = "0/2800".parse().ok();
        outcome.receiving.status = Some(status);
        outcome.receiving.stream_rate = Some(1_048_576.0);
        let text = outcome.console();
        for line in [
            "\tReceiver: streaming\n",
            "\tLast durable LSN: 0/2000\n",
            "\tReceive lag: 2.0 KiB\n",
            "\tWAL rate: 1.0 MiB/s\n",
        ] {
            assert!(text.contains(line), "no {line:?} in {text}");
        }
        let clean = outcome.clean();
        assert_eq!(clean["receiving"]["lag_bytes"], 2048);
        assert_eq!(clean["receiving"]["durable"], "0/2000");
        let mut document = Map::new();
        outcome.barman(&mut document);
        assert_eq!(document["main"]["receiver"]["message"], "streaming");
        assert_eq!(document["main"]["disabled"]["message"], "False");

        // Without a connection, the last lag says nothing.
        let status = outcome.receiving.status.as_mut().unwrap();
        (status.state, status.heard_at) = (State::Waiting, Some(status.since));
        assert!(outcome.console().contains("\tReceive lag: not known since 2"));
        assert_eq!(outcome.clean()["receiving"]["lag_bytes"], Value::Null);
    }
}
