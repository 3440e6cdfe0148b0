//! The commands of a replication connection, as values and as text.
//!
//! What is sent depends on the server's version: [`Command::text`] writes each command in the
//! grammar of that version, or says that it is too old. With the feature `server`,
//! `Command::parse` reads the grammars of all versions.
//!
//! Follows `src/backend/replication/repl_gram.y` and "Streaming Replication Protocol" in
//! PostgreSQL's documentation.

mod base_backup;
mod grammar;
#[cfg(feature = "server")]
mod option_list;
#[cfg(feature = "server")]
mod parse;
#[cfg(feature = "server")]
mod parse_base_backup;
mod replication;
#[cfg(feature = "server")]
mod scan;
mod slot;
#[cfg(feature = "server")]
mod syntax_error;

pub use base_backup::{
    BackupTarget, BaseBackupOptions, CompressionMethod, ManifestChecksums, ServerCompression,
};
pub use replication::{StartLogical, StartReplication};
pub use slot::{AlterSlot, DropSlot, LogicalSlot, PhysicalSlot, Snapshot};
#[cfg(feature = "server")]
pub use syntax_error::CommandSyntaxError;

use crate::{Error, Feature, Lsn, ServerVersion, SlotName, TimelineId};

/// A command of a replication connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// `IDENTIFY_SYSTEM`: which cluster is it, and where does it stand?
    IdentifySystem,
    /// `SHOW`: the value of a setting, which is named in lower case (servers from 10 on).
    Show(String),
    /// `TIMELINE_HISTORY`: a timeline's history file.
    TimelineHistory(TimelineId),
    /// `CREATE_REPLICATION_SLOT … PHYSICAL`.
    CreatePhysicalSlot {
        /// The slot.
        slot: SlotName,
        /// How it is created.
        options: PhysicalSlot,
    },
    /// `CREATE_REPLICATION_SLOT … LOGICAL`.
    CreateLogicalSlot {
        /// The slot.
        slot: SlotName,
        /// How it is created.
        options: LogicalSlot,
    },
    /// `READ_REPLICATION_SLOT`: what a physical slot keeps (servers from 15 on).
    ReadSlot(SlotName),
    /// `ALTER_REPLICATION_SLOT` (servers from 17 on).
    AlterSlot {
        /// The slot.
        slot: SlotName,
        /// What to change.
        changes: AlterSlot,
    },
    /// `DROP_REPLICATION_SLOT`.
    DropSlot {
        /// The slot.
        slot: SlotName,
        /// What to do if somebody uses it.
        active: DropSlot,
    },
    /// `START_REPLICATION … PHYSICAL`.
    StartReplication {
        /// The slot that keeps WAL for the receiver.
        slot: Option<SlotName>,
        /// The first byte wanted.
        from: Lsn,
        /// The timeline wanted; the server's current one by default.
        timeline: Option<TimelineId>,
    },
    /// `START_REPLICATION … LOGICAL`.
    StartLogicalReplication {
        /// The slot, whose output plugin decodes.
        slot: SlotName,
        /// Transactions that were committed before it are left out.
        from: Lsn,
        /// The output plugin's options.
        options: Vec<(String, Option<String>)>,
    },
    /// `BASE_BACKUP`.
    BaseBackup(BaseBackupOptions),
    /// `UPLOAD_MANIFEST`: the prior backup's manifest follows as copy data (servers from 17 on).
    UploadManifest,
    /// Plain SQL, on `replication=database` connections (servers from 10 on).
    Sql(String),
}

impl Command {
    /// The command's name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::IdentifySystem => "IDENTIFY_SYSTEM",
            Self::Show(_) => "SHOW",
            Self::TimelineHistory(_) => "TIMELINE_HISTORY",
            Self::CreatePhysicalSlot { .. } | Self::CreateLogicalSlot { .. } => {
                "CREATE_REPLICATION_SLOT"
            }
            Self::ReadSlot(_) => "READ_REPLICATION_SLOT",
            Self::AlterSlot { .. } => "ALTER_REPLICATION_SLOT",
            Self::DropSlot { .. } => "DROP_REPLICATION_SLOT",
            Self::StartReplication { .. } | Self::StartLogicalReplication { .. } => {
                "START_REPLICATION"
            }
            Self::BaseBackup(_) => "BASE_BACKUP",
            Self::UploadManifest => "UPLOAD_MANIFEST",
            Self::Sql(_) => "the query",
        }
    }

    /// The text to send to a server of this version.
    ///
    /// Options whose default waits, or is remembered from the command before, are spelled out.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the server is too old for the command or one of its options,
    /// [`Error::Misuse`] if the command has something in it that no server accepts.
    pub fn text(&self, version: ServerVersion) -> Result<String, Error> {
        Ok(match self {
            Self::IdentifySystem => "IDENTIFY_SYSTEM".to_owned(),
            Self::Show(setting) => {
                version.require(Feature::ReplicationSql)?;
                format!("SHOW {}", grammar::setting(setting)?)
            }
            Self::TimelineHistory(timeline) => format!("TIMELINE_HISTORY {timeline}"),
            Self::CreatePhysicalSlot { slot, options } => {
                slot::create_physical(slot, *options, version)?
            }
            Self::CreateLogicalSlot { slot, options } => {
                slot::create_logical(slot, options, version)?
            }
            Self::ReadSlot(slot) => slot::read(slot, version)?,
            Self::AlterSlot { slot, changes } => slot::alter(slot, *changes, version)?,
            Self::DropSlot { slot, active } => slot::drop(slot, *active, version)?,
            Self::StartReplication { slot, from, timeline } => {
                replication::physical(slot.as_ref(), *from, *timeline)
            }
            Self::StartLogicalReplication { slot, from, options } => {
                replication::logical(slot, *from, options)?
            }
            Self::BaseBackup(options) => base_backup::text(options, version)?,
            Self::UploadManifest => {
                version.require(Feature::IncrementalBackup)?;
                "UPLOAD_MANIFEST".to_owned()
            }
            Self::Sql(sql) => {
                version.require(Feature::ReplicationSql)?;
                sql.clone()
            }
        })
    }
}

#[cfg(test)]
mod tests;
