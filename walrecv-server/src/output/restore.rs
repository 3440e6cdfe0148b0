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
            text.push_str(&format!(
                "Start it as {}: pg_ctl -D {destination} start\n",
                plan.owner.name
            ));
        }
        text
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert(self.plan.server.to_string(), self.clean());
    }

    fn clean(&self) -> Value {
        json!({"server": self.plan.server, "plan": self.plan, "restored": self.report})
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
    rows.push(("To write", format!("about {}", units::size(plan.bytes))));
    rows.push((
        "WAL",
        match plan.wal_delivery {
            WalDelivery::GetWal => "fetched with get-wal as it is needed".to_owned(),
            WalDelivery::Copy => "copied into the data directory".to_owned(),
        },
    ));
    rows.push(("Owner", plan.owner.name.clone()));
    for tablespace in &plan.tablespaces {
        let oid = tablespace.oid.to_string();
        let name = tablespace.name.as_deref().unwrap_or(&oid);
        rows.push(("Tablespace", format!("{name} in {}", tablespace.directory.display())));
    }
    rows
}
