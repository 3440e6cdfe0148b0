//! What `init` did, and what is left to do.

use serde_json::{Map, Value, json};

use super::Report;
use crate::commands::init::InitOutcome;

impl Report for InitOutcome {
    fn console(&self) -> String {
        let mut text = String::new();
        let file = self.file.display();
        text.push_str(&if self.written {
            format!("Wrote {file}\n")
        } else {
            format!("{file} exists and stays as it is\n")
        });
        text.push_str("\nOn the server, as a superuser:\n");
        for statement in &self.sql {
            text.push_str(&format!("    {statement}\n"));
        }
        text.push_str("\nIn the server's pg_hba.conf (then reload it: SELECT pg_reload_conf()):\n");
        for line in &self.hba {
            text.push_str(&format!("    {line}\n"));
        }
        if let Some(reached) = &self.reached {
            text.push_str(&format!(
                "\nServer `{}` answers: PostgreSQL {}, system identifier {}, timeline {}\n",
                self.server, reached.version, reached.system_id, reached.timeline
            ));
            text.push_str(&format!(
                "Next: `walrecv-server run` receives its WAL, `walrecv-server backup {}` takes a \
                 base backup\n",
                self.server
            ));
        } else {
            text.push_str(&format!(
                "\nNext: `walrecv-server check {}` tells whether the server can be reached\n",
                self.server
            ));
        }
        text
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert(self.server.to_string(), self.clean());
    }

    fn clean(&self) -> Value {
        json!({
            "server": self.server,
            "file": self.file,
            "written": self.written,
            "sql": self.sql,
            "pg_hba": self.hba,
            "reached": self.reached.map(|reached| json!({
                "version": reached.version.to_string(),
                "system_id": reached.system_id,
                "timeline": reached.timeline,
            })),
        })
    }
}
