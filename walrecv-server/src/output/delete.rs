//! What was removed.

use serde_json::{Map, Value, json};

use super::list_backups::kind;
use super::{Report, units};
use crate::commands::delete::{DeleteOutcome, ForgetOutcome};
use crate::failure::in_one_line;

impl Report for DeleteOutcome {
    fn console(&self) -> String {
        let did = if self.removed { "Deleted" } else { "Would delete" };
        let line = |record: &crate::catalog::BackupRecord| {
            let size = units::size(record.stored_size());
            format!("{did} backup {} of server {} ({size})\n", record.id, self.server)
        };
        let mut text: String = self.backups.iter().map(line).collect();
        match &self.wal_stays {
            Some(why) => text.push_str(&format!("All WAL stays: {}\n", in_one_line(why))),
            None if self.wal_files > 0 => text.push_str(&format!(
                "{did} {} files of WAL that no other backup needs ({})\n",
                self.wal_files,
                units::size(self.wal_bytes)
            )),
            None => text.push_str("Its WAL stays: no backup is behind it that could do without\n"),
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
        json!({
            "server": self.server,
            "backups": backups,
            "deleted": self.removed,
            "wal_files": self.wal_files,
            "wal_size": self.wal_bytes,
            "wal_stays": self.wal_stays.as_ref().map(|why| in_one_line(why)),
        })
    }
}

impl Report for ForgetOutcome {
    fn console(&self) -> String {
        format!(
            "Forgot backup {} of server {}: it is not there any more\n",
            self.backup, self.server
        )
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert(self.server.to_string(), self.clean());
    }

    fn clean(&self) -> Value {
        json!({"server": self.server, "backup": self.backup, "forgotten": true})
    }
}
