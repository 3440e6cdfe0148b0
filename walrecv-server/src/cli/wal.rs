//! `get-wal` and `switch-wal`.

use std::path::PathBuf;

use clap::Args;

use super::Selection;
use crate::settings::ServerName;

/// `get-wal`.
#[derive(Args)]
pub struct GetWalArgs {
    /// The server
    pub server: ServerName,

    /// The file: PostgreSQL's %f
    #[arg(value_name = "WAL")]
    pub file: String,

    /// Where to put it: PostgreSQL's %p
    #[arg(value_name = "DEST")]
    pub destination: PathBuf,

    /// Deliver the segment that is still being received, too
    #[arg(short = 'P', long)]
    pub partial: bool,
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
}
