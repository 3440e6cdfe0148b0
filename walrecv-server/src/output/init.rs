//! What `init` did, and what is left to do.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::Report;
use crate::commands::init::{InitOutcome, Reached, TriedSlot};

impl Report for InitOutcome {
    fn console(&self) -> String {
        let mut text = String::new();
        let file = self.file.display();
        let _ = match self.written {
            true => writeln!(text, "Wrote {file}"),
            false => writeln!(text, "{file} exists and stays as it is"),
        };
        if let Some(file) = &self.password_file {
            let _ = writeln!(text, "Wrote the password to {}", file.display());
        }
        paragraph(&mut text, "On the server, as a superuser:", &self.needs.sql);
        let hba = "In the server's pg_hba.conf (then reload it: SELECT pg_reload_conf()):";
        paragraph(&mut text, hba, &self.needs.hba);
        paragraph(&mut text, "For more comfort, as a superuser:", &self.needs.comfort);
        if let Some(reached) = &self.reached {
            let _ = writeln!(
                text,
                "\nServer `{}` answers: PostgreSQL {}, system identifier {}, timeline {}",
                self.server, reached.version, reached.system_id, reached.timeline
            );
            trial(&mut text, reached);
        }
        let width = self.next.iter().map(|next| next.line.len()).max().unwrap_or_default();
        let next: Vec<_> = self
            .next
            .iter()
            .map(|next| format!("{:width$}  # {}", next.line, next.purpose))
            .collect();
        paragraph(&mut text, "Next:", &next);
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
            "password_file": self.password_file,
            "sql": self.needs.sql,
            "comfort": self.needs.comfort,
            "pg_hba": self.needs.hba,
            "reached": self.reached.as_ref().map(|reached| json!({
                "version": reached.version.to_string(),
                "system_id": reached.system_id,
                "timeline": reached.timeline,
                "slot": match reached.slot {
                    TriedSlot::Exists => "exists",
                    TriedSlot::CanBeMade => "can be made",
                    TriedSlot::Untried => "untried",
                },
                "sql": reached.sql.is_ok(),
            })),
            "next": self.next.iter().map(|next| &next.line).collect::<Vec<_>>(),
        })
    }
}

fn paragraph(text: &mut String, heading: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{heading}");
    for line in lines {
        let _ = writeln!(text, "    {line}");
    }
}

/// What was tried, and how it went.
fn trial(text: &mut String, reached: &Reached) {
    let slot = match reached.slot {
        TriedSlot::Exists => "is there",
        TriedSlot::CanBeMade => "can be made",
        TriedSlot::Untried => "is made when receiving begins",
    };
    let sql = match &reached.sql {
        Ok(()) => "works".to_owned(),
        Err(reason) => format!(
            "does not work, and is needed for comfort only:\n      {}",
            reason.replace('\n', "\n      ")
        ),
    };
    let _ = writeln!(text, "    replication: works\n    slot: {slot}\n    SQL: {sql}");
}
