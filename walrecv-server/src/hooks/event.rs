//! What scripts are told about what they stand around.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use pgwire_stream::SegmentName;
use serde_json::Value;

use crate::settings::HookEvent;
use crate::storage::{ArchivedWal, Codec, Form, ServerDir};

/// What scripts stand around.
#[derive(Clone, Debug)]
pub enum Event {
    /// A base backup is taken.
    Backup(BackupFacts),
    /// A WAL file is archived.
    Archive(WalFacts),
    /// A base backup is removed.
    Delete(BackupFacts),
    /// An archived WAL file is removed.
    WalDelete(WalFacts),
    /// A base backup is restored.
    Recovery(BackupFacts, RecoveryFacts),
}

/// A base backup, as scripts are told of it.
#[derive(Clone, Debug, Default)]
pub struct BackupFacts {
    /// Its directory.
    pub dir: PathBuf,
    /// Its record.
    pub record: PathBuf,
    /// Its id.
    pub id: String,
    /// The id of the one before.
    pub previous: Option<String>,
    /// The id of the next one.
    pub next: Option<String>,
    /// Its status, by the name that lists give it.
    pub status: &'static str,
}

/// A WAL file, as scripts are told of it.
#[derive(Clone, Debug)]
pub struct WalFacts {
    /// Its name, without the suffixes of compression and encryption.
    pub segment: String,
    /// Where it lies.
    pub file: PathBuf,
    /// Its size there.
    pub size: u64,
    /// When it was written.
    pub modified: Option<SystemTime>,
    /// How it is compressed there.
    pub compression: &'static str,
}

/// A restore, as scripts are told of it.
#[derive(Clone, Debug, Default)]
pub struct RecoveryFacts {
    /// The new data directory.
    pub destination: PathBuf,
    /// Where tablespaces go, by their names, that do not go back to where they were.
    pub tablespaces: BTreeMap<String, String>,
    /// What else was asked for, by Barman's names of the options.
    pub options: BTreeMap<&'static str, Value>,
}

impl Event {
    pub(super) fn kind(&self) -> HookEvent {
        match self {
            Self::Backup(_) => HookEvent::Backup,
            Self::Archive(_) => HookEvent::Archive,
            Self::Delete(_) => HookEvent::Delete,
            Self::WalDelete(_) => HookEvent::WalDelete,
            Self::Recovery(..) => HookEvent::Recovery,
        }
    }

    pub(super) fn environment(&self) -> Vec<(&'static str, OsString)> {
        match self {
            Self::Backup(backup) | Self::Delete(backup) => backup.environment(),
            Self::Archive(wal) | Self::WalDelete(wal) => wal.environment(),
            Self::Recovery(backup, recovery) => {
                let mut environment = backup.environment();
                environment.extend(recovery.environment());
                environment
            }
        }
    }
}

impl BackupFacts {
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("WALRECV_BACKUP_DIR", self.dir.clone().into()),
            ("WALRECV_BACKUP_INFO_PATH", self.record.clone().into()),
            ("WALRECV_BACKUP_ID", self.id.clone().into()),
            ("WALRECV_PREVIOUS_ID", self.previous.clone().unwrap_or_default().into()),
            ("WALRECV_NEXT_ID", self.next.clone().unwrap_or_default().into()),
            ("WALRECV_STATUS", self.status.into()),
        ]
    }
}

impl WalFacts {
    /// Of a raw file, by the name that it will be archived under; `None` if there is nothing in it.
    pub fn raw(segment: SegmentName, partial: bool, path: &Path) -> Option<Self> {
        let form = Form::plain(Codec::None);
        Self::of(ArchivedWal { segment, partial, form }, path).filter(|facts| facts.size > 0)
    }

    /// Of an archived file; `None` if it is not there.
    pub fn archived(server: &ServerDir, file: ArchivedWal) -> Option<Self> {
        Self::of(file, &server.archived_file(file))
    }

    fn of(file: ArchivedWal, path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        Some(Self {
            segment: ArchivedWal { form: Form::plain(Codec::None), ..file }.to_string(),
            file: path.to_owned(),
            size: metadata.len(),
            modified: metadata.modified().ok(),
            compression: file.form.codec.name(),
        })
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let since = self.modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let seconds = since.map(|since| since.as_secs_f64().to_string()).unwrap_or_default();
        vec![
            ("WALRECV_SEGMENT", self.segment.clone().into()),
            ("WALRECV_FILE", self.file.clone().into()),
            ("WALRECV_SIZE", self.size.to_string().into()),
            ("WALRECV_TIMESTAMP", seconds.into()),
            ("WALRECV_COMPRESSION", self.compression.into()),
        ]
    }
}

impl RecoveryFacts {
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        // As Barman does, nothing instead of an empty document.
        let tablespaces = match self.tablespaces.is_empty() {
            true => String::new(),
            false => serde_json::to_string(&self.tablespaces).unwrap_or_default(),
        };
        let options = match self.options.is_empty() {
            true => String::new(),
            false => serde_json::to_string(&self.options).unwrap_or_default(),
        };
        vec![
            ("WALRECV_DESTINATION_DIRECTORY", self.destination.clone().into()),
            ("WALRECV_TABLESPACES", tablespaces.into()),
            ("WALRECV_REMOTE_COMMAND", OsString::new()),
            ("WALRECV_RECOVER_OPTIONS", options.into()),
        ]
    }
}
