//! Backup history files: `backup_label` with the end of the backup, kept beside the WAL.

use super::fields::{Fields, text};
use super::{BackupLabel, BackupLabelError, WalLocation};
use crate::{SegmentSize, ServerVersion, TimelineId};

/// What a backup history file says: from where to where a backup reaches.
///
/// A primary writes one into its `pg_wal` at the end of every backup, where nobody who streams
/// ever sees it. It is informational: recovery never needs it.
///
/// Follows `build_backup_content` in `src/backend/access/transam/xlogbackup.c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupHistory {
    /// What `backup_label` says.
    pub label: BackupLabel,
    /// Where the WAL ends that the backup needs: its first byte that is not needed any more.
    pub stop: WalLocation,
    /// When the backup ended, in the time zone of the server's log.
    pub stop_time: String,
}

impl BackupHistory {
    /// Reads a backup history file.
    ///
    /// # Errors
    /// If it is not one, with the offending line.
    pub fn parse(content: &[u8]) -> Result<Self, BackupLabelError> {
        let fields = Fields::of(content)?;
        let stop = fields.required("STOP WAL LOCATION", WalLocation::parse)?;
        let timeline: Option<TimelineId> = fields.optional("STOP TIMELINE", text)?;
        if timeline.is_some_and(|timeline| timeline != stop.timeline()) {
            return Err(BackupLabelError::Contradiction { key: "STOP TIMELINE" });
        }
        Ok(Self {
            label: BackupLabel::from_fields(&fields)?,
            stop,
            stop_time: fields.required("STOP TIME", text)?,
        })
    }

    /// The file as a server of this version writes it.
    pub fn write(&self, version: ServerVersion) -> Vec<u8> {
        self.label.write_with(version, Some(self))
    }

    /// The name under which it lies beside the WAL, such as
    /// `000000010000000000000002.00000028.backup`.
    pub fn file_name(&self, size: SegmentSize) -> String {
        let start = &self.label.start;
        format!("{}.{:08X}.backup", start.segment, size.offset_in_segment(start.lsn))
    }
}
