//! What was archived.

use serde_json::{Map, Value, json};

use super::Report;
use crate::commands::archive_wal::ArchiveWalOutcome;
use crate::receiver::ArchivePass;

impl Report for ArchiveWalOutcome {
    fn console(&self) -> String {
        format!("{}\n", sentence(self.pass, self.server.as_str()))
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert(self.server.to_string(), self.clean());
    }

    fn clean(&self) -> Value {
        let mut value = json(self.pass);
        if let Value::Object(value) = &mut value {
            value.insert("server".to_owned(), json!(self.server));
        }
        value
    }
}

/// What a pass came to, for people.
pub(super) fn sentence(pass: ArchivePass, server: &str) -> String {
    match pass {
        ArchivePass::Nothing => format!("Nothing is stored for server '{server}' yet"),
        ArchivePass::Archived(0) => format!("No WAL waits to be archived for server '{server}'"),
        ArchivePass::Archived(1) => format!("Archived 1 WAL file of server '{server}'"),
        ArchivePass::Archived(count) => format!("Archived {count} WAL files of server '{server}'"),
        ArchivePass::ByReceiver(waiting) => format!(
            "The receiver of server '{server}' archives its WAL as it comes ({waiting} files wait)"
        ),
    }
}

/// The same for programs.
pub(super) fn json(pass: ArchivePass) -> Value {
    match pass {
        ArchivePass::Nothing => json!({"archived": 0, "by_receiver": false}),
        ArchivePass::Archived(count) => json!({"archived": count, "by_receiver": false}),
        ArchivePass::ByReceiver(waiting) => {
            json!({"archived": 0, "by_receiver": true, "waiting": waiting})
        }
    }
}
