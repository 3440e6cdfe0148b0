//! Whether a backup is good, and what is wrong with it.

use serde_json::{Map, Value, json};

use super::{Report, units};
use crate::commands::verify_backup::VerifyOutcome;
use crate::verify::Depth;

impl Report for VerifyOutcome {
    fn console(&self) -> String {
        let found = &self.verification;
        let problems = &found.problems;
        let count = problems.told().len() as u64 + problems.more();
        let verdict = match count {
            _ if problems.only_wait() => "WAITING_FOR_WALS, and good otherwise".to_owned(),
            0 => "good".to_owned(),
            1 => "DAMAGED, 1 problem".to_owned(),
            many => format!("DAMAGED, {many} problems"),
        };
        let mut text = format!("Backup {} of server {}: {verdict}\n", found.backup, self.server);
        for problem in problems.told() {
            text.push_str(&format!("  {problem}\n"));
        }
        if problems.more() > 0 {
            text.push_str(&format!("  and {} more\n", problems.more()));
        }
        let mut row = |name: &str, value: String| text.push_str(&format!("  {name:<7}: {value}\n"));
        row("Stored", format!("{} files, {}", found.stored_files, units::size(found.stored_bytes)));
        if found.files > 0 {
            row("Files", format!("{} in it, {}", found.files, units::size(found.bytes)));
        }
        match found.pages {
            None if found.depth == Depth::Pages => {
                row("Pages", "this cluster has no checksums in its pages".to_owned());
            }
            Some(0) => row("Pages", "none with a checksum from before the backup".to_owned()),
            Some(pages) => row("Pages", format!("{pages} with their checksums")),
            None => {}
        }
        if let Some(segments) = found.segments {
            row("WAL", format!("{segments} segments"));
        }
        text
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        document.insert(self.server.to_string(), self.clean());
    }

    fn clean(&self) -> Value {
        let found = &self.verification;
        let problems: Vec<_> =
            found.problems.told().iter().map(|problem| json!(problem.to_string())).collect();
        json!({
            "server": self.server,
            "backup_id": found.backup,
            "good": found.problems.is_empty(),
            "problems": problems,
            "more_problems": found.problems.more(),
            "stored_files": found.stored_files,
            "stored_bytes": found.stored_bytes,
            "files": found.files,
            "bytes": found.bytes,
            "pages": found.pages,
            "wal_segments": found.segments,
        })
    }

    fn exit_code(&self) -> u8 {
        u8::from(!self.verification.problems.is_empty())
    }
}
