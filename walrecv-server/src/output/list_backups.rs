//! The list of base backups, in Barman's words.

use serde_json::{Map, Value, json};

use super::{Report, units};
use crate::catalog::{BackupRecord, BackupStatus, Standing};
use crate::retention::Label;
use crate::storage::BackupId;
use crate::views::backups::{ListBackupsOutcome, ListedBackup};

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
                ListedBackup::Known { record, standing, wal_size, retention, .. } => {
                    let described = described(record, standing, *wal_size);
                    match retention {
                        Label::None => format!("{server} {described}\n"),
                        label => format!("{server} {described} - {}\n", label.name()),
                    }
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
                ListedBackup::Known { record, standing, wal_size, retention, .. } => {
                    barman(record, standing, *wal_size, *retention)
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
                ListedBackup::Known { record, standing, wal_size, keep, retention } => json!({
                    "id": record.id,
                    "name": record.name,
                    "type": kind(record),
                    "status": standing.status,
                    "damaged": standing.damaged,
                    "began_at": record.began_at,
                    "ended_at": record.ended_at,
                    "size": record.stored_size(),
                    "plain_size": record.plain_size(),
                    "wal_size": wal_size,
                    "parent": record.parent,
                    "keep": keep.map(|keep| keep.target),
                    "retention": clean_label(*retention),
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

/// What the retention policy says of a backup, for programs; nothing where it says nothing.
pub(super) fn clean_label(label: Label) -> Option<&'static str> {
    match label {
        Label::Valid => Some("valid"),
        Label::Obsolete => Some("obsolete"),
        Label::PotentiallyObsolete => Some("potentially_obsolete"),
        Label::Kept(_) => Some("kept"),
        Label::None => None,
    }
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
            if standing.damaged {
                text.push_str(" - DAMAGED");
            }
        }
        None => text.push_str(&format!(" - {status}")),
    }
    text
}

fn barman(record: &BackupRecord, standing: &Standing, wal_size: u64, label: Label) -> Value {
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
        backup.insert("retention_status".into(), json!(label.name()));
    }
    Value::Object(backup)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Keep, KeepTarget};
    use crate::output::show_backup::tests::record;

    fn report(minimal: bool) -> ListBackupsReport {
        let known = |mut record: BackupRecord, status, name: Option<&str>| {
            record.name = name.map(str::to_owned);
            let standing = Standing { status, missing: None, damaged: false };
            let (record, wal_size) = (Box::new(record), 16 << 20);
            let keep = name.map(|_| Keep {
                target: KeepTarget::Standalone,
                since: "2026-03-06T00:00:00Z".parse().unwrap(),
            });
            let retention = keep.map_or(Label::None, |keep| Label::Kept(keep.target));
            ListedBackup::Known { record, standing, wal_size, keep, retention }
        };
        let backups = vec![
            known(record("20260306T020000"), BackupStatus::Started, None),
            ListedBackup::Unreadable {
                id: "20260305T200000".parse().unwrap(),
                reason: "no record".to_owned(),
                hint: None,
            },
            known(record("20260305T151133"), BackupStatus::WaitingForWals, Some("before")),
            known(record("20260304T151133"), BackupStatus::Done, None),
        ];
        let outcome = ListBackupsOutcome { server: "main".parse().unwrap(), backups };
        ListBackupsReport { outcome, minimal }
    }

    #[test]
    fn lines_look_as_barmans() {
        let end = units::ctime("2026-03-05T15:12:03Z".parse().unwrap());
        assert_eq!(
            report(false).console(),
            format!(
                "main 20260306T020000 - F - STARTED\n\
                 main 20260305T200000 - UNREADABLE - no record\n\
                 main 20260305T151133 'before' - F - {end} - Size: 1.0 KiB - \
                 WAL Size: 16.0 MiB - WAITING_FOR_WALS - KEEP:STANDALONE\n\
                 main 20260304T151133 - F - {end} - Size: 1.0 KiB - WAL Size: 16.0 MiB\n"
            )
        );
        assert_eq!(report(true).console().lines().next(), Some("20260306T020000"));
    }

    #[test]
    fn json_has_barmans_keys() {
        let mut document = Map::new();
        report(false).barman(&mut document);
        let end = units::ctime("2026-03-05T15:12:03Z".parse().unwrap());
        assert_eq!(
            document["main"][0],
            json!({"backup_id": "20260306T020000", "backup_type": "full", "status": "STARTED"})
        );
        assert_eq!(
            document["main"][2],
            json!({
                "backup_id": "20260305T151133",
                "backup_name": "before",
                "backup_type": "full",
                "end_time": end,
                "end_time_timestamp": "1772723523",
                "retention_status": "KEEP:STANDALONE",
                "size": "1.0 KiB",
                "size_bytes": 1024,
                "status": "WAITING_FOR_WALS",
                "wal_size": "16.0 MiB",
                "wal_size_bytes": 16_777_216,
            })
        );
    }

    #[test]
    fn clean_json_has_numbers_and_times() {
        let clean = report(false).clean();
        assert_eq!(clean["server"], "main");
        assert_eq!(clean["backups"][3]["ended_at"], "2026-03-05T15:12:03Z");
        assert_eq!(clean["backups"][3]["size"], 1024);
    }
}
