//! The base backups of a server, and what each is worth.

use jiff::Timestamp;

use crate::catalog::{BackupError, BackupRecord, Catalog, Keep, Standing};
use crate::failure::{Failure, in_one_line};
use crate::retention::{self, Label, Rules};
use crate::settings::ServerName;
use crate::storage::{BackupId, ServerDir};

/// The base backups of a server.
#[derive(Debug)]
pub struct ListBackupsOutcome {
    /// The server.
    pub server: ServerName,
    /// Its backups, the newest first.
    pub backups: Vec<ListedBackup>,
}

/// A backup in the list.
#[derive(Debug)]
pub enum ListedBackup {
    /// One whose record can be read.
    Known {
        /// Its record.
        record: Box<BackupRecord>,
        /// What it is worth.
        standing: Standing,
        /// The size of the WAL that leads from it to the next.
        wal_size: u64,
        /// The mark on it that it is to stay.
        keep: Option<Keep>,
        /// What the retention policy says of it.
        retention: Label,
    },
    /// One whose record, or the WAL that belongs to it, cannot be read.
    Unreadable {
        /// The backup.
        id: BackupId,
        /// Why.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

/// Lists the base backups of a server, with what its retention policy says of them now. It says
/// nothing while something cannot be read that it would have to know.
pub fn list_backups_under(
    server: &ServerDir,
    rules: &Rules,
    now: Timestamp,
) -> Result<ListBackupsOutcome, BackupError> {
    let mut outcome = list_backups(server)?;
    let mut known = Vec::with_capacity(outcome.backups.len());
    for backup in &outcome.backups {
        match backup {
            ListedBackup::Known { record, standing, keep, .. } => {
                known.push((&**record, standing, *keep));
            }
            ListedBackup::Unreadable { .. } => return Ok(outcome),
        }
    }
    // The oldest first.
    known.reverse();
    let verdicts = match retention::verdicts(server, &known, rules, now) {
        Ok(verdicts) => verdicts,
        Err(error) => {
            tracing::warn!(error = in_one_line(&error), "what the policy says is not known");
            return Ok(outcome);
        }
    };
    for backup in &mut outcome.backups {
        if let ListedBackup::Known { record, retention, .. } = backup
            && let Some(verdict) = verdicts.get(&record.id)
        {
            *retention = verdict.label;
        }
    }
    Ok(outcome)
}

/// Lists the base backups of a server.
pub fn list_backups(server: &ServerDir) -> Result<ListBackupsOutcome, BackupError> {
    let catalog = Catalog::new(server);
    let entries = catalog.list()?;
    let records: Vec<_> = entries.iter().filter_map(|entry| entry.record.as_ref().ok()).collect();
    let mut wal_sizes = catalog.wal_sizes(&records)?.into_iter();
    let mut backups = Vec::with_capacity(entries.len());
    for entry in entries {
        let id = entry.id;
        let listed = entry.record.and_then(|record| {
            let wal_size = wal_sizes.next().unwrap_or_default();
            let standing = catalog.standing(&record)?;
            let keep = Keep::load(&server.backup(id))?;
            let retention = keep.map_or(Label::None, |keep| Label::Kept(keep.target));
            let record = Box::new(record);
            Ok(ListedBackup::Known { record, standing, wal_size, keep, retention })
        });
        backups.push(listed.unwrap_or_else(|error| ListedBackup::Unreadable {
            id,
            reason: error.to_string(),
            hint: error.hint_about(server.name().as_str()),
        }));
    }
    backups.reverse();
    Ok(ListBackupsOutcome { server: server.name().clone(), backups })
}
