//! `cron`, `archive-wal` and `adopt`.

use clap::Args;

use super::Selection;
use crate::settings::ServerName;

/// `cron`.
#[derive(Args)]
pub struct CronArgs {
    /// The servers [default: all]
    #[arg(value_name = "SERVER")]
    pub servers: Vec<Selection>,

    /// Say which backups and which WAL would be deleted, and why the rest stays; do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Barman has this, for systems that run it in the foreground. It changes nothing here.
    #[arg(long, hide = true)]
    pub keep_descriptors: bool,
}

/// `archive-wal`.
#[derive(Args)]
pub struct ArchiveWalArgs {
    /// The servers, or `all`
    #[arg(value_name = "SERVER", required = true)]
    pub servers: Vec<Selection>,
}

/// `adopt`.
#[derive(Args)]
pub struct AdoptArgs {
    /// The server
    pub server: ServerName,

    /// Do it, and do not ask
    #[arg(long)]
    pub yes: bool,

    /// Do it although a server that was restored may still need what is stored
    #[arg(long)]
    pub ignore_leases: bool,
}
