//! A backup that was taken.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::list_backups::kind;
use super::{Report, units};
use crate::catalog::BackupStatus;
use crate::commands::backup::BackupOutcome;

impl BackupOutcome {
    fn took(&self) -> Option<Duration> {
        let ended_at = self.record.ended_at?;
        Duration::try_from(ended_at.duration_since(self.record.began_at)).ok()
    }
}

impl Report for BackupOutcome {
    fn console(&self) -> String {
        let record = &self.record;
        let mut text =
            format!("Backup {} of server {}: {}\n", record.id, record.server, self.status);
        let mut row = |name: &str, value: String| text.push_str(&format!("  {name:<9}: {value}\n"));
        let (plain, stored) = (record.plain_size(), record.stored_size());
        row("Size", format!("{} ({} stored)", units::size(plain), units::size(stored)));
        if let Some(took) = self.took() {
            let rate = units::per_second(plain, took);
            let rate = rate.map(|rate| format!(" ({}/s)", units::size(rate))).unwrap_or_default();
            row("Took", format!("{}{rate}", units::duration(took)));
        }
        for (name, position) in [("Begin LSN", record.begin), ("End LSN", record.end)] {
            if let Some(at) = position {
                row(name, format!("{} (timeline {})", at.lsn, at.timeline));
            }
        }
        match self.status {
            BackupStatus::WaitingForWals => text.push_str(
                "It can be restored as soon as WAL is received up to its end LSN; \
                 no WAL switch is needed\n",
            ),
            BackupStatus::Broken => text.push_str("WAL that it needs is lost: take another\n"),
            _ => {}
        }
        if let Some(slot) = &self.left_slot {
            text.push_str(&format!(
                "The server keeps the WAL that comes now, in the slot `{slot}`: have \
                 `walrecv-server run` receive it. Only if nobody shall, drop the slot\n"
            ));
        }
        text
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert(self.record.server.to_string(), self.clean());
    }

    fn clean(&self) -> Value {
        let record = &self.record;
        json!({
            "server": record.server,
            "backup_id": record.id,
            "backup_name": record.name,
            "backup_type": kind(record),
            "status": self.status,
            "began_at": record.began_at,
            "ended_at": record.ended_at,
            "begin_lsn": record.begin.map(|at| at.lsn),
            "end_lsn": record.end.map(|at| at.lsn),
            "timeline": record.end.map(|at| at.timeline),
            "plain_size": record.plain_size(),
            "size": record.stored_size(),
            "left_slot": self.left_slot.as_ref().map(ToString::to_string),
        })
    }

    fn exit_code(&self) -> u8 {
        u8::from(self.status == BackupStatus::Broken)
    }
}
