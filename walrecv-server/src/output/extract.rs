//! Which file was extracted.

use serde_json::{Map, Value, json};

use super::{Report, units};
use crate::commands::extract::ExtractOutcome;

impl Report for ExtractOutcome {
    fn console(&self) -> String {
        let Self { backup, path, destination, size, .. } = self;
        let (destination, size) = (destination.display(), units::size(*size));
        format!("Extracted {path} of backup {backup} to {destination} ({size})\n")
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert(self.server.to_string(), self.clean());
    }

    fn clean(&self) -> Value {
        json!({
            "server": self.server,
            "backup_id": self.backup,
            "path": self.path,
            "destination": self.destination.display().to_string(),
            "size": self.size,
        })
    }
}
