//! Whether a backup is kept.

use serde_json::{Map, Value, json};

use super::Report;
use crate::commands::keep::KeepOutcome;

impl Report for KeepOutcome {
    fn console(&self) -> String {
        match &self.keep {
            Some(keep) => format!("Keep: {}\n", keep.target),
            None => "Keep: nokeep\n".to_owned(),
        }
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert(self.server.to_string(), self.clean());
    }

    fn clean(&self) -> Value {
        json!({
            "server": self.server,
            "backup_id": self.backup,
            "keep": self.keep.map(|keep| keep.target),
            "since": self.keep.map(|keep| keep.since),
        })
    }
}
