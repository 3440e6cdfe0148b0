//! The files of a backup, one in each line.

use serde_json::{Map, Value, json};

use super::Report;
use crate::commands::list_files::ListFilesOutcome;

impl Report for ListFilesOutcome {
    fn console(&self) -> String {
        self.files.iter().map(|file| format!("{}\n", file.display())).collect()
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        // Barman has no other place for them.
        for file in shown(self) {
            super::message(document, "_INFO", file);
        }
    }

    fn clean(&self) -> Value {
        json!({"server": self.server, "backup_id": self.backup, "files": shown(self)})
    }
}

/// The files as JSON can have them: text.
fn shown(outcome: &ListFilesOutcome) -> Vec<String> {
    outcome.files.iter().map(|file| file.display().to_string()).collect()
}
