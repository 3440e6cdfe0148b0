//! That a manifest was made again.

use serde_json::{Map, Value, json};

use super::Report;
use crate::commands::generate_manifest::ManifestOutcome;

impl Report for ManifestOutcome {
    fn console(&self) -> String {
        let Self { server, backup, files } = self;
        format!("Made the manifest of backup {backup} of server {server} again ({files} files)\n")
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert(self.server.to_string(), self.clean());
    }

    fn clean(&self) -> Value {
        json!({"server": self.server, "backup_id": self.backup, "files": self.files})
    }
}
