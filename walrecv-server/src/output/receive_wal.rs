//! What `receive-wal` did.

use serde_json::{Map, Value, json};

use super::Report;
use crate::commands::receive_wal::{Done, ReceiveWalOutcome};
use crate::receiver::{Finished, LeftOut};

impl Report for ReceiveWalOutcome {
    fn console(&self) -> String {
        let server = &self.server;
        match &self.done {
            Done::Received { finished, status } => {
                let why = match finished {
                    Finished::Stopped => "stopped",
                    Finished::EndReached => "reached its end position",
                };
                let durable = match status.flushed {
                    Some(lsn) => format!("; WAL up to {lsn} is durable"),
                    None => String::new(),
                };
                format!("Receiving WAL of server '{server}' {why}{durable}\n")
            }
            Done::Reset { status } => {
                let what = match status.left_out {
                    Some(LeftOut { timeline, from, to }) => format!(
                        "The WAL of server '{server}' from {from} to {to} on timeline {timeline} is \
                         left out, which is recorded: no restore goes across. Take a base backup: \
                         `walrecv-server backup {server}`\n"
                    ),
                    None => format!("Nothing is missing of the WAL of server '{server}'\n"),
                };
                let came = status.flushed.filter(|lsn| Some(*lsn) > status.started_at);
                let durable = came.map(|lsn| {
                    format!("It comes again; up to {lsn} it is durable, and `run` receives it on\n")
                });
                what + &durable.unwrap_or_default()
            }
            Done::SlotCreated(slot) => {
                format!("Replication slot '{slot}' created on server '{server}'\n")
            }
            Done::SlotPresent(slot) => {
                format!("Replication slot '{slot}' already exists on server '{server}'\n")
            }
            Done::SlotDropped(slot) => {
                format!("Replication slot '{slot}' dropped on server '{server}'\n")
            }
            Done::ProcessStopped(process) => {
                format!("Stopped receiving WAL of server '{server}' (process {process})\n")
            }
            Done::NobodyReceives => format!("Nobody receives the WAL of server '{server}'\n"),
        }
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert(self.server.to_string(), self.clean());
    }

    fn clean(&self) -> Value {
        let server = &self.server;
        match &self.done {
            Done::Received { finished, status } => json!({
                "server": server,
                "done": match finished {
                    Finished::Stopped => "stopped",
                    Finished::EndReached => "end_reached",
                },
                "timeline": status.timeline,
                "flushed": status.flushed,
            }),
            Done::Reset { status } => json!({
                "server": server,
                "done": "reset",
                "left_out": status.left_out,
                "timeline": status.timeline,
                "flushed": status.flushed,
            }),
            Done::SlotCreated(slot) => {
                json!({"server": server, "done": "slot_created", "slot": slot})
            }
            Done::SlotPresent(slot) => {
                json!({"server": server, "done": "slot_present", "slot": slot})
            }
            Done::SlotDropped(slot) => {
                json!({"server": server, "done": "slot_dropped", "slot": slot})
            }
            Done::ProcessStopped(process) => {
                json!({"server": server, "done": "process_stopped", "process": process})
            }
            Done::NobodyReceives => json!({"server": server, "done": "nobody_receives"}),
        }
    }
}
