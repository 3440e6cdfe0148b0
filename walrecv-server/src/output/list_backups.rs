//! The list of base backups, in Barman's words.

use serde_json::{Map, Value, json};

use super::{Report, units};
use crate::catalog::{BackupRecord, BackupStatus, Standing};
use crate::commands::list_backups::{ListBackupsOutcome, ListedBackup};
use crate::storage::BackupId;

/// The list, with or without what is more than the ids.
pub struct ListBackupsReport {
    /// The list.
    pub outcome: ListBackupsOutcome,
    /// Ids only.
    pub minimal: bool,
}

impl ListedBackup {
    fn id(&self) -> BackupId {
        match self {
            Self::Known { record, .. } => record.id,
            Self::Unreadable { id, .. } => *id,
        }
    }
}

impl Report for ListBackupsReport {
    fn console(&self) -> String {
        let line = |backup: &ListedBackup| {
            if self.minimal {
                return format!("{}\n", backup.id());
            }
            let server = &self.outcome.server;
            match backup {
                ListedBackup::Known { record, standing, wal_size } => {
                    format!("{server} {}\n", described(record, standing, *wal_size))
                }
                ListedBackup::Unreadable { id, reason, hint } => {
                    let hint = hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                    format!("{server} {id} - UNREADABLE - {reason}{hint}\n")
                }
            }
        };
        self.outcome.backups.iter().map(line).collect()
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        let backups = self
            .outcome
            .backups
            .iter()
            .map(|backup| match backup {
                _ if self.minimal => json!(backup.id()),
                ListedBackup::Known { record, standing, wal_size } => {
                    barman(record, standing, *wal_size)
                }
                ListedBackup::Unreadable { id, reason, .. } => {
                    json!({"backup_id": id, "status": "UNREADABLE", "error": reason})
                }
            })
            .collect();
        document.insert(self.outcome.server.to_string(), Value::Array(backups));
    }

    fn clean(&self) -> Value {
        let backups: Vec<_> = self
            .outcome
            .backups
            .iter()
            .map(|backup| match backup {
                _ if self.minimal => json!(backup.id()),
                ListedBackup::Known { record, standing, wal_size } => json!({
                    "id": record.id,
                    "name": record.name,
                    "type": kind(record),
                    "status": standing.status,
                    "began_at": record.began_at,
                    "ended_at": record.ended_at,
                    "size": record.stored_size(),
                    "plain_size": record.plain_size(),
                    "wal_size": wal_size,
                }),
                ListedBackup::Unreadable { id, reason, .. } => {
                    json!({"id": id, "status": "UNREADABLE", "error": reason})
                }
            })
            .collect();
        json!({"server": self.outcome.server, "backups": backups})
    }
}

/// `full` or `incremental`.
pub(super) fn kind(record: &BackupRecord) -> &'static str {
    if record.parent.is_some() { "incremental" } else { "full" }
}

/// Whether everything but perhaps WAL is there.
fn is_copied(status: BackupStatus) -> bool {
    !matches!(status, BackupStatus::Started | BackupStatus::Failed)
}

fn described(record: &BackupRecord, standing: &Standing, wal_size: u64) -> String {
    let mut text = record.id.to_string();
    if let Some(name) = &record.name {
        text.push_str(&format!(" '{name}'"));
    }
    text.push_str(if record.parent.is_some() { " - I" } else { " - F" });
    let status = standing.status;
    match record.ended_at.filter(|_| is_copied(status)) {
        Some(ended_at) => {
            text.push_str(&format!(
                " - {} - Size: {} - WAL Size: {}",
                units::ctime(ended_at),
                units::size(record.stored_size()),
                units::size(wal_size)
            ));
            if status != BackupStatus::Done {
                text.push_str(&format!(" - {status}"));
            }
        }
        None => text.push_str(&format!(" - {status}")),
    }
    text
}

fn barman(record: &BackupRecord, standing: &Standing, wal_size: u64) -> Value {
    let mut backup = Map::new();
    backup.insert("backup_id".into(), json!(record.id));
    if let Some(name) = &record.name {
        backup.insert("backup_name".into(), json!(name));
    }
    backup.insert("backup_type".into(), json!(kind(record)));
    backup.insert("status".into(), json!(standing.status));
    if let Some(ended_at) = record.ended_at.filter(|_| is_copied(standing.status)) {
        let size = record.stored_size();
        backup.insert("end_time".into(), json!(units::ctime(ended_at)));
        backup.insert("end_time_timestamp".into(), json!(ended_at.as_second().to_string()));
        backup.insert("size".into(), json!(units::size(size)));
        backup.insert("size_bytes".into(), json!(size));
        backup.insert("wal_size".into(), json!(units::size(wal_size)));
        backup.insert("wal_size_bytes".into(), json!(wal_size));
        backup.insert("retention_status".into(), json!("-"));
    }
    Value::Object(backup)
}
