//! Whether servers are backed up as they should be: Barman's rows, and a line for Nagios.

use serde_json::{Map, Value, json};

use super::Report;
use crate::views::check::{CheckOutcome, Row, State};

/// The exit code that Nagios takes for CRITICAL.
const CRITICAL: u8 = 2;

/// The servers that were looked at.
pub struct CheckReport {
    /// How each of them is.
    pub servers: Vec<CheckOutcome>,
    /// In one line, for Nagios.
    pub nagios: bool,
}

impl Report for CheckReport {
    fn console(&self) -> String {
        if self.nagios {
            return nagios(&self.servers);
        }
        let mut text = String::new();
        for server in &self.servers {
            let inactive = if server.active { "" } else { " (inactive)" };
            text.push_str(&format!("Server {}{inactive}:\n", server.server));
            for row in &server.rows {
                text.push_str(&format!("\t{}\n", line(row)));
            }
        }
        text
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        for server in &self.servers {
            let rows: Map<_, _> = server
                .rows
                .iter()
                .filter(|row| !row.advisory)
                .map(|row| {
                    // A warning fails nothing for Barman's readers, either.
                    let status = if row.state == State::Failed { "FAILED" } else { "OK" };
                    let hint = row.remark.as_deref().unwrap_or_default();
                    (key(row.name), json!({"status": status, "hint": hint}))
                })
                .collect();
            document.insert(server.server.to_string(), Value::Object(rows));
        }
    }

    fn clean(&self) -> Value {
        let server = |server: &CheckOutcome| {
            json!({
                "server": server.server,
                "active": server.active,
                "ok": server.is_ok(),
                "checks": rows(server),
            })
        };
        Value::Array(self.servers.iter().map(server).collect())
    }

    fn exit_code(&self) -> u8 {
        match self.servers.iter().all(CheckOutcome::is_ok) {
            true => 0,
            false if self.nagios => CRITICAL,
            false => 1,
        }
    }
}

/// The rows in clean JSON.
pub(super) fn rows(server: &CheckOutcome) -> Vec<Value> {
    let row = |row: &Row| {
        json!({
            "check": row.name,
            "state": word(row.state),
            "remark": row.remark,
            "advisory": row.advisory,
        })
    };
    server.rows.iter().map(row).collect()
}

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "OK",
        State::Warning => "WARNING",
        State::Failed => "FAILED",
    }
}

fn line(row: &Row) -> String {
    let state = word(row.state);
    match &row.remark {
        Some(remark) => format!("{}: {state} ({remark})", row.name),
        None => format!("{}: {state}", row.name),
    }
}

/// A row's name as a key: Barman's rule.
fn key(name: &str) -> String {
    name.to_lowercase().replace([' ', '-'], "_").replace('.', "")
}

fn nagios(servers: &[CheckOutcome]) -> String {
    let names = |servers: &[&CheckOutcome]| match servers {
        [only] => only.server.to_string(),
        several => {
            let names: Vec<_> =
                several.iter().map(|server| format!("* {}", server.server)).collect();
            format!("{} servers {}", several.len(), names.join(" "))
        }
    };
    let failing: Vec<_> = servers.iter().filter(|server| !server.is_ok()).collect();
    if failing.is_empty() {
        let all: Vec<_> = servers.iter().collect();
        let sizes: Vec<_> = servers
            .iter()
            .map(|server| {
                let name = &server.server;
                let backup = server.last_backup_size.unwrap_or_default();
                format!("{name}={backup}B {name}_wals={}B", server.wal_size)
            })
            .collect();
        return format!("WALRECV OK - Ready to restore {}|{}\n", names(&all), sizes.join(" "));
    }
    let failed = |server: &CheckOutcome| -> Vec<Row> {
        server.rows.iter().filter(|row| row.state == State::Failed).cloned().collect()
    };
    let told: Vec<_> = failing
        .iter()
        .map(|server| {
            let rows: Vec<_> = failed(server).iter().map(|row| row.name).collect();
            format!("* {} FAILED: {}", server.server, rows.join(", "))
        })
        .collect();
    let verb = if failing.len() == 1 { "server {} has issues" } else { "{} have issues" };
    let mut text =
        format!("WALRECV CRITICAL - {} {}\n", verb.replace("{}", &names(&failing)), told.join(" "));
    for server in failing {
        for row in failed(server) {
            text.push_str(&format!("{}.{}\n", server.server, line(&row)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(server: &str, state: State) -> CheckOutcome {
        CheckOutcome {
            server: server.parse().unwrap(),
            active: true,
            rows: vec![
                Row {
                    name: "wal_level",
                    state: State::Ok,
                    remark: None,
                    advisory: false,
                    measured: None,
                },
                Row {
                    name: "receive-wal running",
                    state,
                    remark: Some("nobody receives".to_owned()),
                    advisory: false,
                    measured: None,
                },
            ],
            last_backup_size: Some(7),
            wal_size: 9,
        }
    }

    fn report(states: &[(&str, State)], nagios: bool) -> CheckReport {
        let servers = states.iter().map(|(name, state)| outcome(name, *state)).collect();
        CheckReport { servers, nagios }
    }

    #[test]
    fn rows_look_as_barmans() {
        let report = report(&[("main", State::Failed)], false);
        assert_eq!(
            report.console(),
            "Server main:\n\twal_level: OK\n\treceive-wal running: FAILED (nobody receives)\n"
        );
        let mut document = Map::new();
        report.barman(&mut document);
        assert_eq!(
            Value::Object(document),
            json!({"main": {
                "wal_level": {"status": "OK", "hint": ""},
                "receive_wal_running": {"status": "FAILED", "hint": "nobody receives"},
            }})
        );
        assert_eq!(report.exit_code(), 1);
    }

    #[test]
    fn a_server_that_is_not_backed_up_is_said_to_be_inactive() {
        let mut report = report(&[("main", State::Ok)], false);
        report.servers[0].active = false;
        assert!(report.console().starts_with("Server main (inactive):\n"));
        assert_eq!(report.clean()[0]["active"], false);
    }

    #[test]
    fn a_warning_fails_nothing() {
        let report = report(&[("main", State::Warning)], false);
        assert_eq!(report.exit_code(), 0);
        let mut document = Map::new();
        report.barman(&mut document);
        assert_eq!(document["main"]["receive_wal_running"]["status"], "OK");
        assert!(report.console().contains("WARNING"));
    }

    #[test]
    fn advice_is_for_people_and_for_the_clean_json() {
        let mut report = report(&[("main", State::Ok)], false);
        let advice = Row {
            name: "archive backlog",
            state: State::Warning,
            remark: Some("300 segments wait".to_owned()),
            advisory: true,
            measured: None,
        };
        report.servers[0].rows.push(advice);
        assert!(report.console().contains("archive backlog: WARNING (300 segments wait)"));
        assert_eq!(report.clean()[0]["checks"][2]["advisory"], true);
        let mut document = Map::new();
        report.barman(&mut document);
        let keys: Vec<_> = document["main"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["receive_wal_running", "wal_level"]);
        assert_eq!(report.exit_code(), 0);
    }

    #[test]
    fn nagios_gets_a_line_and_its_own_exit_code() {
        let well = report(&[("main", State::Ok)], true);
        assert_eq!(well.console(), "WALRECV OK - Ready to restore main|main=7B main_wals=9B\n");
        assert_eq!(well.exit_code(), 0);
        let ill = report(&[("a", State::Ok), ("b", State::Failed)], true);
        assert_eq!(
            ill.console(),
            "WALRECV CRITICAL - server b has issues * b FAILED: receive-wal running\n\
             b.receive-wal running: FAILED (nobody receives)\n"
        );
        assert_eq!(ill.exit_code(), CRITICAL);
    }
}
