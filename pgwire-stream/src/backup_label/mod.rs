//! `backup_label`: the file of a base backup that says where its recovery begins. And the backup
//! history file, which also says where it ends.
//!
//! Keep the file of a backup byte for byte; this module is for reading it, for turning the one of
//! an incremental backup into that of a full one ([`without_incremental_lines`]), and for writing
//! the history file that a streaming client never receives ([`BackupHistory`]).
//!
//! ```
//! use pgwire_stream::backup_label::BackupLabel;
//!
//! let label = BackupLabel::parse(
//!     b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
//!       CHECKPOINT LOCATION: 0/2000060\n\
//!       BACKUP METHOD: streamed\n\
//!       BACKUP FROM: primary\n\
//!       START TIME: 2026-11-20 11:03:39 UTC\n\
//!       LABEL: nightly\n\
//!       START TIMELINE: 1\n",
//! )?;
//! assert_eq!(label.start.lsn, "0/2000028".parse()?);
//! assert_eq!(label.incremental_from, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Follows `build_backup_content` in `src/backend/access/transam/xlogbackup.c` and
//! `read_backup_label` in `xlogrecovery.c`.

mod fields;
mod history;
mod location;
#[cfg(test)]
mod tests;

use fields::{Fields, text};

pub use history::BackupHistory;
pub use location::WalLocation;

use crate::{Feature, Lsn, ServerVersion, TimelineId};

/// Its name in the data directory.
pub const FILE_NAME: &str = "backup_label";

/// What `backup_label` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where replay begins: the redo pointer of the checkpoint. WAL is needed from the beginning
    /// of this segment on.
    pub start: WalLocation,
    /// The position of the record of the checkpoint with which the backup began.
    pub checkpoint: Lsn,
    /// How the backup was taken.
    pub method: BackupMethod,
    /// What it was taken from.
    pub from: BackupFrom,
    /// When the backup began, such as `2026-11-20 11:03:39 UTC`, in the time zone of the server's
    /// log.
    pub start_time: String,
    /// The label that was asked for, in the bytes that were sent. The server does not look at
    /// them: of a label with a line break, this is the first line.
    pub label: Vec<u8>,
    /// The backup that this one is incremental to; a server refuses to start from such a backup
    /// until it is combined with that one.
    pub incremental_from: Option<IncrementalFrom>,
}

/// How a backup was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupMethod {
    /// `BASE_BACKUP`, or the non-exclusive functions.
    Streamed,
    /// The exclusive mode of `pg_start_backup`, up to PostgreSQL 14.
    PgStartBackup,
}

/// What a backup was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupFrom {
    /// A primary; up to PostgreSQL 13 the file calls it `master`.
    Primary,
    /// A server in recovery.
    Standby,
}

/// The beginning of the backup that an incremental one builds upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncrementalFrom {
    /// The `start` of that backup.
    pub lsn: Lsn,
    /// Its timeline.
    pub timeline: TimelineId,
}

/// Why a file is not a `backup_label` or a backup history file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackupLabelError {
    /// A line's value is not what its key calls for.
    #[error("the value of `{key}` in line {line} of the backup label is not understood")]
    Value {
        /// The line's number, from 1.
        line: usize,
        /// What stands before the value.
        key: &'static str,
    },
    /// There is a second line with the same key.
    #[error("line {line} of the backup label is a second `{key}`")]
    Repeated {
        /// The line's number, from 1.
        line: usize,
        /// The key.
        key: &'static str,
    },
    /// There is no line with this key.
    #[error("the backup label has no `{key}`")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// The timeline on this line is not the one in the name of the WAL file.
    #[error("`{key}` of the backup label is not the timeline of its WAL file")]
    Contradiction {
        /// The key of the line.
        key: &'static str,
    },
    /// The file ends within a line.
    #[error("line {line} of the backup label has no end")]
    Unterminated {
        /// The line's number, from 1.
        line: usize,
    },
}

impl BackupLabel {
    /// Reads the file.
    ///
    /// # Errors
    /// If it is not a backup label, with the offending line.
    pub fn parse(content: &[u8]) -> Result<Self, BackupLabelError> {
        Self::from_fields(&Fields::of(content)?)
    }

    fn from_fields(fields: &Fields<'_>) -> Result<Self, BackupLabelError> {
        let start = fields.required("START WAL LOCATION", WalLocation::parse)?;
        // The server refuses the contradiction too. PostgreSQL 10 writes no such line.
        let timeline: Option<TimelineId> = fields.optional("START TIMELINE", text)?;
        if timeline.is_some_and(|timeline| timeline != start.timeline()) {
            return Err(BackupLabelError::Contradiction { key: "START TIMELINE" });
        }
        let base_lsn = fields.optional("INCREMENTAL FROM LSN", text)?;
        let base_timeline = fields.optional("INCREMENTAL FROM TLI", text)?;
        let incremental_from = match (base_lsn, base_timeline) {
            (Some(lsn), Some(timeline)) => Some(IncrementalFrom { lsn, timeline }),
            (None, None) => None,
            (Some(_), None) => {
                return Err(BackupLabelError::Missing { key: "INCREMENTAL FROM TLI" });
            }
            (None, Some(_)) => {
                return Err(BackupLabelError::Missing { key: "INCREMENTAL FROM LSN" });
            }
        };
        Ok(Self {
            start,
            checkpoint: fields.required("CHECKPOINT LOCATION", text)?,
            method: fields.required("BACKUP METHOD", BackupMethod::parse)?,
            from: fields.required("BACKUP FROM", BackupFrom::parse)?,
            start_time: fields.required("START TIME", text)?,
            label: fields.required("LABEL", |label| Some(label.to_owned()))?,
            incremental_from,
        })
    }

    /// The file as a server of this version writes it. Line breaks in the texts are left out,
    /// because they would end the line.
    pub fn write(&self, version: ServerVersion) -> Vec<u8> {
        self.write_with(version, None)
    }

    fn write_with(&self, version: ServerVersion, history: Option<&BackupHistory>) -> Vec<u8> {
        let mut content = Vec::new();
        let mut line = |key: &str, value: &[u8]| {
            content.extend_from_slice(key.as_bytes());
            content.extend_from_slice(b": ");
            content.extend(value.iter().filter(|&&byte| byte != b'\n'));
            content.push(b'\n');
        };
        line("START WAL LOCATION", self.start.text(version).as_bytes());
        if let Some(history) = history {
            line("STOP WAL LOCATION", history.stop.text(version).as_bytes());
        }
        line("CHECKPOINT LOCATION", self.checkpoint.as_written_by(version).as_bytes());
        line("BACKUP METHOD", self.method.word().as_bytes());
        line("BACKUP FROM", self.from.word(version).as_bytes());
        line("START TIME", self.start_time.as_bytes());
        line("LABEL", &self.label);
        let states_timelines = version.supports(Feature::TimelineInBackupLabel);
        if states_timelines {
            line("START TIMELINE", self.start.timeline().to_string().as_bytes());
        }
        if let Some(history) = history {
            line("STOP TIME", history.stop_time.as_bytes());
            if states_timelines {
                line("STOP TIMELINE", history.stop.timeline().to_string().as_bytes());
            }
        }
        if let Some(from) = self.incremental_from {
            line("INCREMENTAL FROM LSN", from.lsn.as_written_by(version).as_bytes());
            line("INCREMENTAL FROM TLI", from.timeline.to_string().as_bytes());
        }
        content
    }
}

impl BackupMethod {
    fn parse(value: &[u8]) -> Option<Self> {
        [Self::Streamed, Self::PgStartBackup]
            .into_iter()
            .find(|method| method.word().as_bytes() == value)
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Streamed => "streamed",
            Self::PgStartBackup => "pg_start_backup",
        }
    }
}

impl BackupFrom {
    fn parse(value: &[u8]) -> Option<Self> {
        match value {
            b"primary" | b"master" => Some(Self::Primary),
            b"standby" => Some(Self::Standby),
            _ => None,
        }
    }

    fn word(self, version: ServerVersion) -> &'static str {
        match self {
            Self::Primary if version.supports(Feature::PrimaryInBackupLabel) => "primary",
            Self::Primary => "master",
            Self::Standby => "standby",
        }
    }
}

/// The `backup_label` of what an incremental backup becomes once it is combined with those before
/// it: the same bytes without the lines `INCREMENTAL FROM …`.
///
/// Follows `write_backup_label` in `src/bin/pg_combinebackup/backup_label.c`.
pub fn without_incremental_lines(content: &[u8]) -> Vec<u8> {
    content
        .split_inclusive(|&byte| byte == b'\n')
        .filter(|line| {
            !line.starts_with(b"INCREMENTAL FROM LSN: ")
                && !line.starts_with(b"INCREMENTAL FROM TLI: ")
        })
        .flatten()
        .copied()
        .collect()
}
