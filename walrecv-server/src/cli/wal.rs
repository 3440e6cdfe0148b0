//! `get-wal` and `switch-wal`.

use std::path::PathBuf;

use clap::Args;

use super::Selection;
use crate::catalog::LeaseId;
use crate::settings::{Argument, ServerName};

/// `get-wal`.
#[derive(Args)]
pub struct GetWalArgs {
    /// The server
    pub server: ServerName,

    /// The file: PostgreSQL's %f
    #[arg(value_name = "WAL")]
    pub file: String,

    /// Where to put it: PostgreSQL's %p. It is printed without
    #[arg(value_name = "DEST", default_value = "/dev/stdout", hide_default_value = true)]
    pub destination: PathBuf,

    /// Deliver the segment that is still being received, too
    #[arg(short = 'P', long)]
    pub partial: bool,

    /// The age identity file that opens it, if it is encrypted [default: encryption_identity]
    #[arg(long, value_name = "FILE")]
    pub identity: Option<String>,

    /// Make up to so many of the segments that follow ready for a recovering server, in the
    /// background; 0 for none
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub prefetch: u32,

    /// The lease that keeps the backup and its WAL, as `restore` has written it
    #[arg(long, value_name = "ID")]
    pub lease: Option<LeaseId>,

    /// This is the process that makes them ready.
    #[arg(long, hide = true)]
    pub ahead: bool,
}

impl GetWalArgs {
    /// The settings that were given as options of this command.
    pub fn settings(&self) -> Option<Argument> {
        identity(self.identity.as_ref())
    }
}

/// The identity file as a setting.
pub(super) fn identity(given: Option<&String>) -> Option<Argument> {
    Some(Argument {
        option: "--identity".to_owned(),
        key: "encryption_identity".to_owned(),
        value: given?.clone(),
    })
}

/// `switch-wal`.
#[derive(Args)]
pub struct SwitchWalArgs {
    /// The servers, or `all`
    #[arg(value_name = "SERVER", required = true)]
    pub servers: Vec<Selection>,

    /// Make a checkpoint first, so that there is something to switch
    #[arg(long)]
    pub force: bool,

    /// Wait until the segment that was closed is archived here
    #[arg(long)]
    pub archive: bool,

    /// How many seconds to wait for that
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "archive")]
    pub archive_timeout: u64,
}
