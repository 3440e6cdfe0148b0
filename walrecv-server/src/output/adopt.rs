//! Where the old cluster's store lies.

use serde_json::{Map, Value, json};

use super::Report;
use crate::commands::adopt::AdoptOutcome;

impl AdoptOutcome {
    /// The home and the name under which commands find it.
    fn place(&self) -> (String, String) {
        let path = self.previous.path();
        let home = path.parent().unwrap_or(path).display().to_string();
        (home, path.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }
}

impl Report for AdoptOutcome {
    fn console(&self) -> String {
        let (home, name) = self.place();
        format!(
            "Server '{}' begins anew. What was stored of the cluster before is kept; it is listed, and \
             restored, so:\n  walrecv-server --home {home} list-backups {name}\n",
            self.server
        )
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert(self.server.to_string(), self.clean());
    }

    fn clean(&self) -> Value {
        let (home, name) = self.place();
        json!({"server": self.server, "previous": {"home": home, "server": name}})
    }
}
