//! What was removed.

use serde_json::{Map, Value, json};

use super::list_backups::kind;
use super::{Report, units};
use crate::commands::delete::DeleteOutcome;

impl Report for DeleteOutcome {
    fn console(&self) -> String {
        let did = if self.removed { "Deleted" } else { "Would delete" };
        let line = |record: &crate::catalog::BackupRecord| {
            let size = units::size(record.stored_size());
            format!("{did} backup {} of server {} ({size})\n", record.id, self.server)
        };
        let mut text: String = self.backups.iter().map(line).collect();
        if self.removed {
            text.push_str("Its WAL stays: other backups may be restored through it\n");
        }
        text
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert(self.server.to_string(), self.clean());
    }

    fn clean(&self) -> Value {
        let backups: Vec<_> = self
            .backups
            .iter()
            .map(|record| {
                json!({"id": record.id, "type": kind(record), "size": record.stored_size()})
            })
            .collect();
        json!({"server": self.server, "backups": backups, "deleted": self.removed})
    }
}
