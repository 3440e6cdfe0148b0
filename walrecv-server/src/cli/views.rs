//! The operator's views: `list-servers`, `status`, `replication-status`, `diagnose`.

use clap::{Args, ValueEnum};

use super::Selection;

/// `list-servers`.
#[derive(Args)]
pub struct ListServersArgs {
    /// Names only
    #[arg(long)]
    pub minimal: bool,
}

/// `status`.
#[derive(Args)]
pub struct StatusArgs {
    /// The servers, or `all`
    #[arg(value_name = "SERVER", required = true)]
    pub servers: Vec<Selection>,
}

/// `replication-status`.
#[derive(Args)]
pub struct ReplicationStatusArgs {
    /// The servers, or `all`
    #[arg(value_name = "SERVER", required = true)]
    pub servers: Vec<Selection>,

    /// A line for each client
    #[arg(long)]
    pub minimal: bool,

    /// Which clients
    #[arg(long, value_enum, default_value_t)]
    pub target: TargetArg,

    /// Which server is asked: the one that base backups come from, or the one that WAL comes from
    /// [default: that of `conninfo`]
    #[arg(long, value_enum)]
    pub source: Option<SourceArg>,
}

/// Which clients of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TargetArg {
    /// All of them
    #[default]
    All,
    /// Those that replay what they receive
    HotStandby,
    /// Those that only keep it
    WalStreamer,
}

/// Which server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SourceArg {
    /// The one that base backups come from
    BackupHost,
    /// The one that WAL comes from
    WalHost,
}

/// `diagnose`.
#[derive(Args)]
pub struct DiagnoseArgs {}
