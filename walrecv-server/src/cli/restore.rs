//! `restore`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use pgwire_stream::{Lsn, SlotName};

use super::wal::identity;
use crate::restore::TablespaceMapping;
use crate::restore::target::{TargetAction, TimelineChoice};
use crate::settings::{Argument, ServerName};

/// `restore`.
#[derive(Args)]
pub struct RestoreArgs {
    /// The server
    pub server: ServerName,

    /// The backup: its id or name, or first, oldest, last, latest, latest-full, or `auto` for the
    /// newest that leads to the target
    #[arg(value_name = "BACKUP")]
    pub backup: String,

    /// The new data directory: absent or empty
    #[arg(value_name = "DEST")]
    pub destination: PathBuf,

    /// Where to stop.
    #[command(flatten)]
    pub target: TargetArgs,

    /// Put a tablespace elsewhere
    #[arg(long = "tablespace", value_name = "NAME|OID|LOCATION:DIR")]
    pub tablespaces: Vec<TablespaceMapping>,

    /// As root: who owns the restored files [default: the owner of DEST's parent]
    #[arg(long, value_name = "USER")]
    pub owner: Option<String>,

    /// Let the restored server ask for its WAL with `get-wal`, as it needs it; the default
    #[arg(long)]
    pub get_wal: bool,

    /// Copy the WAL into the data directory instead: the store is not needed afterwards
    #[arg(long, conflicts_with = "get_wal")]
    pub no_get_wal: bool,

    /// The age identity file that opens what is encrypted [default: encryption_identity]; the
    /// restored server reads its WAL with it, so its user must be able to read it, and nobody else
    #[arg(long, value_name = "FILE")]
    pub identity: Option<String>,

    /// How many threads decompress [default: one for each processor, up to 4]
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,

    /// Let the restored server go on as a standby, which follows its primary, or else the archive
    #[arg(long, conflicts_with_all = ["target", "exclusive", "target_action"])]
    pub standby_mode: bool,

    /// How the standby reaches its primary, as for psql; no password here [default: conninfo]
    #[arg(long, value_name = "CONNINFO", requires = "standby_mode")]
    pub primary_conninfo: Option<String>,

    /// The slot on its primary that the standby streams from
    #[arg(long, value_name = "NAME", requires = "standby_mode")]
    pub primary_slot: Option<SlotName>,

    /// Leave out the configuration files that lay outside of the data directory; otherwise they
    /// are restored into DEST.config, which must be absent or empty
    #[arg(long)]
    pub no_config: bool,

    /// Restore although some of the WAL on the way is suspect: recovery may end there
    #[arg(long)]
    pub force: bool,

    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl RestoreArgs {
    /// The settings that were given as options of this command.
    pub fn settings(&self) -> Option<Argument> {
        identity(self.identity.as_ref())
    }
}

/// Where recovery stops; at the end of the WAL if nothing says otherwise.
#[derive(Args)]
pub struct TargetArgs {
    /// Stop after the last transaction up to this time
    #[arg(long, value_name = "TIME", group = "target", help_heading = "Recovery target")]
    pub target_time: Option<String>,

    /// Stop at this LSN
    #[arg(long, value_name = "LSN", group = "target", help_heading = "Recovery target")]
    pub target_lsn: Option<Lsn>,

    /// Stop after this transaction
    #[arg(long, value_name = "XID", group = "target", help_heading = "Recovery target")]
    pub target_xid: Option<String>,

    /// Stop at this restore point
    #[arg(long, value_name = "NAME", group = "target", help_heading = "Recovery target")]
    pub target_name: Option<String>,

    /// Stop as soon as the backup is consistent
    #[arg(long, group = "target", help_heading = "Recovery target")]
    pub target_immediate: bool,

    /// Follow this timeline: its number, `latest` or `current`
    #[arg(long, value_name = "TIMELINE", help_heading = "Recovery target")]
    pub target_tli: Option<TimelineChoice>,

    /// Stop just before the target, not after it
    #[arg(long, requires = "target", help_heading = "Recovery target")]
    pub exclusive: bool,

    /// What the server does at the target: `pause`, `promote` or `shutdown` [default: pause]
    #[arg(long, value_name = "ACTION", requires = "target", help_heading = "Recovery target")]
    pub target_action: Option<TargetAction>,
}
