//! What a backup is worth.

use serde_json::{Map, Value, json};

use super::Report;
use crate::catalog::BackupStatus;
use crate::commands::check_backup::CheckBackupOutcome;

impl Report for CheckBackupOutcome {
    fn console(&self) -> String {
        let (record, standing) = (&self.record, &self.standing);
        let mut text =
            format!("Backup {} of server {}: {}\n", record.id, record.server, standing.status);
        if let Some(gap) = &standing.missing {
            text.push_str(&format!("  Missing WAL: {gap}\n"));
        }
        text
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert(self.record.server.to_string(), self.clean());
    }

    fn clean(&self) -> Value {
        let missing =
            self.standing.missing.map(|gap| json!({"timeline": gap.timeline, "from": gap.from}));
        json!({
            "server": self.record.server,
            "backup_id": self.record.id,
            "status": self.standing.status,
            "missing_wal": missing,
        })
    }

    /// Only a backup that can be restored is a good one, as scripts want to know.
    fn exit_code(&self) -> u8 {
        u8::from(self.standing.status != BackupStatus::Done)
    }
}
