//! `list-files`: the files of the store that belong to a backup.

use std::path::PathBuf;

use pgwire_stream::{Lsn, SegmentName, SegmentNumber};

use crate::catalog::{BackupError, BackupRecord, Catalog, WalStore, history_of};
use crate::settings::ServerName;
use crate::storage::{BackupDir, BackupId, ServerDir, durable};

/// Which of its files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FilesOf {
    /// What is needed to restore it to the point at which it ended, with what it builds on.
    #[default]
    Standalone,
    /// The backup itself.
    Data,
    /// The WAL from its begin on.
    Wal,
    /// Both, with what it builds on: what is needed to restore it to every later point of its
    /// timeline.
    Full,
}

/// The files of a backup.
#[derive(Clone, Debug)]
pub struct ListFilesOutcome {
    /// The server.
    pub server: ServerName,
    /// The backup.
    pub backup: BackupId,
    /// The files, those of the backup first.
    pub files: Vec<PathBuf>,
}

/// Lists the files of the backup that `wanted` names.
pub fn list_files(
    server: &ServerDir,
    wanted: &str,
    which: FilesOf,
) -> Result<ListFilesOutcome, BackupError> {
    let catalog = Catalog::new(server);
    let record = catalog.resolve(wanted)?;
    let mut files = Vec::new();
    if which != FilesOf::Wal {
        let mut backups = vec![record.id];
        if which != FilesOf::Data {
            let ancestors = catalog.ancestors(&record)?.unwrap_or_default();
            backups.extend(ancestors.iter().map(|ancestor| ancestor.id));
        }
        for id in backups {
            files.extend(data_of(&server.backup(id))?);
        }
    }
    if which != FilesOf::Data {
        let end = record.end.map(|end| end.lsn).filter(|_| which == FilesOf::Standalone);
        files.extend(wal_of(server, &record, end)?);
    }
    Ok(ListFilesOutcome { server: server.name().clone(), backup: record.id, files })
}

/// The files in a backup's own directory; what has a hidden name is being written.
fn data_of(backup: &BackupDir) -> Result<Vec<PathBuf>, BackupError> {
    let names = durable::list_dir(backup.path())?;
    let seen = names.iter().filter(|name| !name.as_encoded_bytes().starts_with(b"."));
    let mut files: Vec<_> = seen.map(|name| backup.path().join(name)).collect();
    files.sort();
    Ok(files)
}

/// The WAL from a backup's begin on: to its end, or to the end of what is held on its timeline.
fn wal_of(
    server: &ServerDir,
    record: &BackupRecord,
    end: Option<Lsn>,
) -> Result<Vec<PathBuf>, BackupError> {
    let (Some(begin), Some(own_end)) = (record.begin, record.end) else { return Ok(Vec::new()) };
    let size = record.segment_size;
    let history = history_of(server, begin, own_end)?;
    let store = WalStore::new(server, size);
    let end = match end {
        Some(end) => end,
        None => store.end_of(own_end.timeline)?.unwrap_or(own_end.lsn).max(own_end.lsn),
    };
    let mut files: Vec<PathBuf> = history
        .switches()
        .iter()
        .map(|switch| switch.timeline)
        .chain([own_end.timeline])
        .map(|timeline| server.history(timeline))
        .filter(|path| path.exists())
        .collect();
    let (first, last) = (size.segment_of(begin.lsn), size.last_byte_segment_of(end));
    for number in (first.as_u64()..=last.as_u64()).map(SegmentNumber::from_u64) {
        for timeline in history.timelines_between(size.start_of(number), size.end_of(number)) {
            if let Some(held) = store.find(SegmentName::new(timeline, number, size))? {
                files.push(held.path().clone());
            }
        }
    }
    Ok(files)
}
