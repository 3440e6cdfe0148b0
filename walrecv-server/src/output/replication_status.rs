//! Who receives WAL from a server, in Barman's words.

use pgwire_stream::Lsn;
use serde_json::{Map, Value, json};

use super::{Report, units};
use crate::views::replication::{ReplicationOutcome, ReplicationPeer, Target};

/// The clients of a server, in full or in a line each.
pub struct ReplicationStatusReport {
    /// The clients.
    pub outcome: ReplicationOutcome,
    /// A line each.
    pub minimal: bool,
}

impl Report for ReplicationStatusReport {
    fn console(&self) -> String {
        let outcome = &self.outcome;
        let (title, noun, _) = words(outcome.target);
        let end = outcome.current_lsn.map_or_else(|| "-".to_owned(), |lsn| lsn.to_string());
        let mut text = if self.minimal {
            format!("{title} for master '{}' (LSN @ {end}):\n", outcome.server)
        } else {
            format!(
                "Status of {noun} for server '{}':\n  Current LSN on master: {end}\n  Number of \
                 {noun}: {}\n",
                outcome.server,
                outcome.clients.len()
            )
        };
        if outcome.clients.is_empty() && self.minimal {
            text.push_str(&format!("  No {noun} attached\n"));
        }
        for (index, client) in outcome.clients.iter().enumerate() {
            text.push_str(&if self.minimal {
                in_a_line(index + 1, client)
            } else {
                in_full(index + 1, client, outcome.current_lsn)
            });
        }
        if let Some(hidden) = warning(outcome) {
            text.push_str(&format!("WARNING: {hidden}\n"));
        }
        text
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        let outcome = &self.outcome;
        let (_, _, key) = words(outcome.target);
        let client = |client: &ReplicationPeer| match self.minimal {
            true => minimal(client),
            false => barman(client, outcome.current_lsn),
        };
        let clients: Vec<_> = outcome.clients.iter().map(client).collect();
        let told = json!({"server_lsn": outcome.current_lsn, key: clients});
        document.insert(outcome.server.to_string(), told);
        if let Some(hidden) = warning(outcome) {
            super::message(document, "_WARNING", hidden);
        }
    }

    fn clean(&self) -> Value {
        let outcome = &self.outcome;
        let clients: Vec<_> = outcome.clients.iter().map(clean).collect();
        json!({
            "server": outcome.server,
            "current_lsn": outcome.current_lsn,
            "clients": clients,
            "hidden": outcome.hidden.as_ref().map(|hidden| json!({
                "clients": hidden.clients,
                "role": hidden.role,
                "grant": hidden.grant,
            })),
        })
    }
}

/// The title of a short list, the noun, and the key.
fn words(target: Target) -> (&'static str, &'static str, &'static str) {
    match target {
        Target::All => ("Streaming clients", "streaming clients", "streaming_clients"),
        Target::HotStandby => ("Hot standby servers", "hot standby servers", "hot_standby_servers"),
        Target::WalStreamer => ("WAL streamers", "WAL streamers", "wal_streamers"),
    }
}

/// What the role may not see, and how it could.
fn warning(outcome: &ReplicationOutcome) -> Option<String> {
    let hidden = outcome.hidden.as_ref()?;
    Some(format!(
        "server '{}' hides {} clients from the role `{}`; as a superuser: {}",
        outcome.server, hidden.clients, hidden.role, hidden.grant
    ))
}

/// What the client is: `Async WAL streamer`, `#1 Sync standby`.
fn name(client: &ReplicationPeer) -> String {
    let kind = if client.is_standby() { "standby" } else { "WAL streamer" };
    match client.sync_state.as_deref() {
        Some("sync" | "quorum") => format!("#{} Sync {kind}", client.sync_priority),
        Some("potential") => format!("#{} Potential sync {kind}", client.sync_priority),
        _ => format!("Async {kind}"),
    }
}

fn stage(client: &ReplicationPeer, end: Lsn) -> &'static str {
    match (client.is_standby(), client.stage(end)) {
        (false, 1) => "1/3 1-safe",
        (false, 2) => "2/3 WAL Sent (min)",
        (false, _) => "3/3 Remote write",
        (true, 1) => "1/5 1-safe",
        (true, 2) => "2/5 WAL Sent (min)",
        (true, 3) => "3/5 Remote write",
        (true, 4) => "4/5 2-safe",
        (true, _) => "5/5 Hot standby (max)",
    }
}

fn communication(client: &ReplicationPeer) -> &'static str {
    if client.address.is_some() { "TCP/IP" } else { "Unix domain socket" }
}

/// How far a position is from the server's end: negative, as Barman has it.
fn difference(position: Lsn, end: Lsn) -> i64 {
    let signed = |lsn: Lsn| i128::from(lsn.as_u64());
    i64::try_from(signed(position) - signed(end)).unwrap_or(i64::MIN)
}

fn signed_size(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", units::size(bytes.unsigned_abs()))
}

fn positions(client: &ReplicationPeer) -> [(&'static str, &'static str, Option<Lsn>); 4] {
    [
        ("Sent", "sent", client.sent),
        ("Write", "write", client.write),
        ("Flush", "flush", client.flush),
        ("Replay", "replay", client.replay),
    ]
}

fn in_full(number: usize, client: &ReplicationPeer, end: Option<Lsn>) -> String {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut text = format!("\n  {number}. {}\n", name(client));
    let mut row =
        |title: &str, value: String| text.push_str(&format!("     {title:<16}: {value}\n"));
    if let Some(application) = &client.application {
        row("Application name", application.clone());
    }
    if let Some(end) = end {
        row("Sync stage", stage(client, end).to_owned());
    }
    row("Communication", communication(client).to_owned());
    if let Some(address) = client.address {
        let port = client.port.map_or_else(|| "-".to_owned(), |port| port.to_string());
        let host = or_dash(&client.host);
        row("IP Address", format!("{address} / Port: {port} / Host: {host}"));
    }
    row("User name", or_dash(&client.user));
    let sync = client.sync_state.as_ref().map(|sync| format!(" ({sync})")).unwrap_or_default();
    row("Current state", format!("{}{sync}", or_dash(&client.state)));
    if let Some(slot) = &client.slot {
        row("Replication slot", slot.clone());
    }
    if let Some(process) = client.process {
        row("WAL sender PID", process.to_string());
    }
    if let Some(started_at) = client.started_at {
        row("Started at", units::local(started_at));
    }
    if let Some(xmin) = &client.xmin {
        row("Standby's xmin", xmin.clone());
    }
    for (title, _, position) in positions(client) {
        if let Some(position) = position {
            let title = format!("{title} LSN");
            let difference = end.map(|end| signed_size(difference(position, end)));
            let difference = difference.map(|text| format!(" (diff: {text})")).unwrap_or_default();
            text.push_str(&format!("     {title:<11}: {position}{difference}\n"));
        }
    }
    text
}

fn in_a_line(number: usize, client: &ReplicationPeer) -> String {
    let kind = if client.is_standby() { "H" } else { "W" };
    let user = client.user.as_deref().unwrap_or("-");
    let at = client.address.map(|address| format!("@{address}")).unwrap_or_default();
    let or_dash = |lsn: Option<Lsn>| lsn.map_or_else(|| "-".to_owned(), |lsn| lsn.to_string());
    let replay = client.replay.map(|replay| format!(" R:{replay}")).unwrap_or_default();
    let application = client.application.as_deref().unwrap_or("-");
    format!(
        "  {number}. {kind}) {user}{at} S:{} W:{}{replay} P:{} AN:{application}\n",
        or_dash(client.sent),
        or_dash(client.write),
        client.sync_priority
    )
}

fn barman(client: &ReplicationPeer, end: Option<Lsn>) -> Value {
    let mut told = Map::new();
    let mut put = |key: &str, value: Value| drop(told.insert(key.to_owned(), value));
    put("name", json!(name(client)));
    put("application_name", json!(client.application));
    put("sync_stage", json!(end.map(|end| stage(client, end))));
    put("communication", json!(communication(client)));
    put("ip_address", json!(client.address));
    put("port", json!(client.port));
    put("host", json!(client.host));
    put("user_name", json!(client.user));
    put("current_state", json!(client.state));
    put("current_sync_state", json!(client.sync_state));
    if let Some(slot) = &client.slot {
        put("replication_slot", json!(slot));
    }
    put("wal_sender_pid", json!(client.process));
    put("started_at", json!(client.started_at.map(units::local)));
    if let Some(xmin) = &client.xmin {
        put("standbys_xmin", json!(xmin));
    }
    for (_, key, position) in positions(client) {
        let Some(position) = position else { continue };
        put(&format!("{key}_lsn"), json!(position));
        if let Some(end) = end {
            let bytes = difference(position, end);
            put(&format!("{key}_lsn_diff"), json!(signed_size(bytes)));
            put(&format!("{key}_lsn_diff_bytes"), json!(bytes));
        }
    }
    Value::Object(told)
}

fn minimal(client: &ReplicationPeer) -> Value {
    json!({
        "user_name": client.user,
        "client_addr": client.address,
        "sent_lsn": client.sent,
        "write_lsn": client.write,
        "sync_priority": client.sync_priority,
        "application_name": client.application,
    })
}

fn clean(client: &ReplicationPeer) -> Value {
    json!({
        "process": client.process,
        "application_name": client.application,
        "user": client.user,
        "address": client.address,
        "host": client.host,
        "port": client.port,
        "started_at": client.started_at,
        "xmin": client.xmin,
        "standby": client.is_standby(),
        "state": client.state,
        "sync_state": client.sync_state,
        "sync_priority": client.sync_priority,
        "slot": client.slot,
        "sent": client.sent,
        "write": client.write,
        "flush": client.flush,
        "replay": client.replay,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::replication::Hidden;

    fn report(minimal: bool) -> ReplicationStatusReport {
        let at = |text: &str| text.parse().ok();
        let client = ReplicationPeer {
            process: Some(14906),
            application: Some("barman_receive_wal".to_owned()),
            user: Some("postgres".to_owned()),
            address: "127.0.0.1".parse().ok(),
            port: Some(49772),
            state: Some("streaming".to_owned()),
            sync_state: Some("async".to_owned()),
            slot: Some("barman".to_owned()),
            sent: at("0/A00050"),
            write: at("0/600000"),
            flush: at("0/600000"),
            ..ReplicationPeer::default()
        };
        let outcome = ReplicationOutcome {
            server: "main".parse().unwrap(),
            target: Target::All,
            current_lsn: at("0/A00050"),
            clients: vec![client],
            hidden: None,
        };
        ReplicationStatusReport { outcome, minimal }
    }

    #[test]
    fn the_text_looks_as_barmans() {
        insta::assert_snapshot!(report(false).console(), @r"
        Status of streaming clients for server 'main':
          Current LSN on master: 0/A00050
          Number of streaming clients: 1

          1. Async WAL streamer
             Application name: barman_receive_wal
             Sync stage      : 2/3 WAL Sent (min)
             Communication   : TCP/IP
             IP Address      : 127.0.0.1 / Port: 49772 / Host: -
             User name       : postgres
             Current state   : streaming (async)
             Replication slot: barman
             WAL sender PID  : 14906
             Sent LSN   : 0/A00050 (diff: 0 B)
             Write LSN  : 0/600000 (diff: -4.0 MiB)
             Flush LSN  : 0/600000 (diff: -4.0 MiB)
        ");
        assert_eq!(
            report(true).console(),
            "Streaming clients for master 'main' (LSN @ 0/A00050):\n  1. W) postgres@127.0.0.1 \
             S:0/A00050 W:0/600000 P:0 AN:barman_receive_wal\n"
        );
    }

    #[test]
    fn what_is_hidden_is_told_with_the_grant() {
        let mut report = report(false);
        report.outcome.hidden = Some(Hidden {
            clients: 1,
            role: "walrecv".to_owned(),
            grant: "GRANT pg_read_all_stats TO walrecv;".to_owned(),
        });
        assert!(report.console().ends_with("superuser: GRANT pg_read_all_stats TO walrecv;\n"));
        let mut document = Map::new();
        report.barman(&mut document);
        assert!(document["_WARNING"][0].as_str().unwrap().contains("GRANT"));
        let bytes = &document["main"]["streaming_clients"][0]["write_lsn_diff_bytes"];
        assert_eq!(bytes, -4_194_384);
    }
}
