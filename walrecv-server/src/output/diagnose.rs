//! Everything that helps to find out what is wrong, as one JSON in Barman's shape, whatever the format.

use serde_json::{Map, Value, json};

use super::Report;
use crate::catalog::BackupRecord;
use crate::views::diagnose::{DiagnoseOutcome, DiagnosedServer};

impl Report for DiagnoseOutcome {
    fn console(&self) -> String {
        super::pretty(&Value::Object(document(self)))
    }

    fn barman(&self, target: &mut Map<String, Value>) {
        target.extend(document(self));
    }

    fn clean(&self) -> Value {
        Value::Object(document(self))
    }
}

fn document(outcome: &DiagnoseOutcome) -> Map<String, Value> {
    let servers: Map<_, _> =
        outcome.servers.iter().map(|known| (known.name.to_string(), server(known))).collect();
    let mut document = Map::new();
    document.insert(
        "global".to_owned(),
        json!({"config": outcome.config, "system_info": outcome.system_info}),
    );
    // Barman's models, which nothing here is.
    document.insert("models".to_owned(), json!({}));
    document.insert("servers".to_owned(), Value::Object(servers));
    document
}

fn server(server: &DiagnosedServer) -> Value {
    let stored = &server.stored;
    let backups: Map<_, _> = stored
        .backups
        .iter()
        .map(|(id, record): (_, &BackupRecord)| (id.to_string(), json!(record)))
        .collect();
    let last: Map<_, _> = stored
        .last_wal
        .iter()
        .map(|(timeline, segment)| (format!("{:08X}", timeline.get()), json!({"name": segment})))
        .collect();
    json!({
        "config": server.config,
        "active_model": Value::Null,
        "status": server.status.clean(),
        "check": super::check::rows(&server.check),
        "backups": backups,
        "wals": {"last_archived_wal_per_timeline": last},
        "identity": stored.identity.as_ref().map(|identity| json!({
            "system_id": identity.system_id,
            "segment_size": identity.segment_size,
            "server_version": identity.server_version.to_string(),
            "data_checksums": identity.data_checksums,
        })),
        "locks": stored.locks,
        "msg_list": stored.problems,
    })
}
