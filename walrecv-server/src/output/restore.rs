//! What was restored, or would be.

use serde_json::{Map, Value, json};

use super::{Report, units};
use crate::commands::restore::RestoreOutcome;
use crate::restore::{Plan, WalDelivery};

impl Report for RestoreOutcome {
    fn console(&self) -> String {
        let plan = &self.plan;
        let mut text = String::new();
        let (backup, server, destination) = (plan.backup, &plan.server, plan.destination.display());
        text.push_str(&match &self.report {
            Some(report) => format!(
                "Restored backup {backup} of server {server} to {destination} \
                 ({} files, {})\n",
                report.files,
                units::size(report.bytes)
            ),
            None => format!("Would restore backup {backup} of server {server} to {destination}\n"),
        });
        for (name, value) in rows(plan) {
            let colon = if name.is_empty() { ' ' } else { ':' };
            text.push_str(&format!("  {name:<10}{colon} {value}\n"));
        }
        let notes = self.report.as_ref().map_or(&plan.notes, |report| &report.notes);
        for note in notes {
            text.push_str(&format!("Note: {note}\n"));
        }
        if self.report.is_some() {
            text.push_str(&format!("Start it as {}: {}\n", plan.owner.name, start(plan)));
        }
        text
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert(self.plan.server.to_string(), self.clean());
    }

    fn clean(&self) -> Value {
        json!({
            "server": self.plan.server,
            "plan": self.plan,
            "restored": self.report,
            "start_command": start(&self.plan),
        })
    }
}

/// The command that starts the server.
fn start(plan: &Plan) -> String {
    let destination = shell_word(&plan.destination.display().to_string());
    let file = plan.config_files.as_ref().and_then(|files| files.config_file.as_ref());
    let option = file.map(|file| {
        // `pg_ctl` hands it to another shell.
        let file = shell_word(&file.display().to_string());
        format!(" -o {}", shell_word(&format!("-c config_file={file}")))
    });
    format!("pg_ctl -D {destination}{} start", option.unwrap_or_default())
}

/// A word as a shell reads it, in quotes if it needs them.
fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn rows(plan: &Plan) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("PostgreSQL", plan.version.clone()),
        ("Target", format!("{} on timeline {}", plan.target, plan.timeline)),
        ("Reachable", format!("LSN {} to {}", plan.wal.first_target, plan.wal.held_to)),
    ];
    if let Some(last) = plan.wal.last_time {
        let first = plan.wal.first_time.map(|first| format!("{first} "));
        rows.push(("", format!("time {}to {last}", first.unwrap_or_default())));
    }
    if let [_, parents @ ..] = plan.chain.as_slice()
        && !parents.is_empty()
    {
        let parents: Vec<_> = parents.iter().map(ToString::to_string).collect();
        rows.push(("Builds on", parents.join(", ")));
    }
    let about = if plan.chain.len() > 1 { "at most" } else { "about" };
    rows.push(("To write", format!("{about} {}", units::size(plan.bytes))));
    rows.push((
        "WAL",
        match plan.wal_delivery {
            WalDelivery::GetWal => "fetched with get-wal as it is needed".to_owned(),
            WalDelivery::Copy => "copied into the data directory".to_owned(),
        },
    ));
    if let Some(standby) = &plan.standby {
        let primary = standby.primary.as_deref().unwrap_or("nobody: it follows the archive");
        let slot = standby.slot.as_ref().map(|slot| format!(", slot {slot}"));
        rows.push(("Standby of", format!("{primary}{}", slot.unwrap_or_default())));
    }
    rows.push(("Owner", plan.owner.name.clone()));
    if let Some(files) = &plan.config_files {
        let (count, directory) = (files.files.len(), files.directory.display());
        rows.push(("Config", format!("{count} files from elsewhere, in {directory}")));
    }
    for tablespace in &plan.tablespaces {
        let oid = tablespace.oid.to_string();
        let name = tablespace.name.as_deref().unwrap_or(&oid);
        rows.push(("Tablespace", format!("{name} in {}", tablespace.directory.display())));
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for word in ["/srv/pg", "", "/srv/it's my pg", "-c config_file='/a b'"] {
            let script = format!("printf %s {}", shell_word(word));
            let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
        assert_eq!(shell_word("/srv/pg-15"), "/srv/pg-15");
    }
}
