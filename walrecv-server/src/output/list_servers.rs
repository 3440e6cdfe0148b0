//! The servers that are configured.

use serde_json::{Map, Value, json};

use super::Report;
use crate::views::servers::{ListServersOutcome, ListedServer};

/// The list, with or without what is more than the names.
pub struct ListServersReport {
    /// The list.
    pub outcome: ListServersOutcome,
    /// Names only.
    pub minimal: bool,
}

impl Report for ListServersReport {
    fn console(&self) -> String {
        let line = |server: &ListedServer| {
            let name = &server.name;
            match described(server) {
                words if self.minimal || words.is_empty() => format!("{name}\n"),
                words => format!("{name} - {words}\n"),
            }
        };
        self.outcome.servers.iter().map(line).collect()
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        for server in &self.outcome.servers {
            document.insert(server.name.to_string(), json!({"description": described(server)}));
        }
    }

    fn clean(&self) -> Value {
        let server = |server: &ListedServer| {
            json!({
                "server": server.name,
                "description": server.description,
                "active": server.active,
            })
        };
        Value::Array(self.outcome.servers.iter().map(server).collect())
    }
}

/// Barman's description, which tells of inactive servers, too.
fn described(server: &ListedServer) -> String {
    let description = server.description.clone().unwrap_or_default();
    let inactive = if server.active { "" } else { " (inactive)" };
    format!("{description}{inactive}").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(minimal: bool) -> ListServersReport {
        let server = |name: &str, description: Option<&str>, active| ListedServer {
            name: name.parse().unwrap(),
            description: description.map(str::to_owned),
            active,
        };
        let servers = vec![
            server("main", Some("orders"), true),
            server("old", Some("Old"), false),
            server("x", None, true),
        ];
        ListServersReport { outcome: ListServersOutcome { servers }, minimal }
    }

    #[test]
    fn lines_look_as_barmans() {
        assert_eq!(report(false).console(), "main - orders\nold - Old (inactive)\nx\n");
        assert_eq!(report(true).console(), "main\nold\nx\n");
        let mut document = Map::new();
        report(false).barman(&mut document);
        assert_eq!(document["old"]["description"], "Old (inactive)");
        assert_eq!(report(false).clean()[1]["active"], false);
    }
}
