//! `check`, `list-backups` and `show-backup`.

use clap::Args;

use super::Selection;
use crate::settings::ServerName;

/// `check`.
#[derive(Args)]
pub struct CheckArgs {
    /// The servers, or `all`
    #[arg(value_name = "SERVER", required = true)]
    pub servers: Vec<Selection>,

    /// One line for Nagios; exit code 2 if anything fails
    #[arg(long)]
    pub nagios: bool,
}

/// `list-backups`.
#[derive(Args)]
pub struct ListBackupsArgs {
    /// The servers, or `all`
    #[arg(value_name = "SERVER", required = true)]
    pub servers: Vec<Selection>,

    /// Backup ids only
    #[arg(long)]
    pub minimal: bool,
}

/// `show-backup`.
#[derive(Args)]
pub struct ShowBackupArgs {
    /// The server
    pub server: ServerName,

    /// The backup: its id or name, or first, oldest, last, latest, latest-full
    #[arg(value_name = "BACKUP")]
    pub backup: String,
}
