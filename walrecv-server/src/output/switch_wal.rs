//! What became of a switched segment.

use serde_json::{Map, Value, json};

use super::Report;
use crate::commands::switch_wal::SwitchWalOutcome;

impl Report for SwitchWalOutcome {
    fn console(&self) -> String {
        let server = &self.server;
        match self.closed {
            Some(segment) => {
                let mut text =
                    format!("The WAL file {segment} has been closed on server '{server}'\n");
                if self.archived == Some(true) {
                    text.push_str(&format!("{segment} is archived\n"));
                }
                text
            }
            None => format!(
                "No switch required for server '{server}': nothing was written since the last\n"
            ),
        }
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        for line in self.console().lines() {
            super::message(document, "_INFO", line);
        }
    }

    fn clean(&self) -> Value {
        json!({
            "server": self.server,
            "closed": self.closed,
            "ended_at": self.ended_at,
            "archived": self.archived,
        })
    }
}
