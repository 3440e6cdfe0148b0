//! `backup`.

use clap::Args;

use super::Selection;
use crate::settings::Argument;

/// `backup`.
#[derive(Args)]
pub struct BackupArgs {
    /// The servers, or `all`
    #[arg(value_name = "SERVER", required = true)]
    pub servers: Vec<Selection>,

    /// A name for the backup, to find it by
    #[arg(long)]
    pub name: Option<String>,

    /// Wait until the WAL that the backup needs is durable here
    #[arg(short, long)]
    pub wait: bool,

    /// Wait no longer than this many seconds for that WAL
    #[arg(long, value_name = "SECONDS")]
    pub wait_timeout: Option<u64>,

    /// Store only what has changed since another backup: the best there is (`auto`; a full backup
    /// if there is none), or the one named (servers from 17 on)
    #[arg(long, value_name = "auto|BACKUP")]
    pub incremental: Option<String>,

    /// Do not receive the WAL that the backup needs, even if nobody else does
    #[arg(long)]
    pub no_receive: bool,

    /// Keep the backup even if pages of the cluster are damaged: they are named, and stay so
    #[arg(long)]
    pub accept_damaged_pages: bool,

    /// Have the server make its checkpoint at once
    #[arg(long)]
    pub immediate_checkpoint: bool,

    /// Have the server spread its checkpoint
    #[arg(long, conflicts_with = "immediate_checkpoint")]
    pub no_immediate_checkpoint: bool,

    /// The most kB per second that the backup may take; 0 is unlimited
    #[arg(long, value_name = "KB")]
    pub bwlimit: Option<String>,

    /// How often to try again if the backup fails for a reason that may pass
    #[arg(long, value_name = "N")]
    pub retry_times: Option<String>,

    /// How many seconds to wait before the first time; the pauses double
    #[arg(long, value_name = "SECONDS")]
    pub retry_sleep: Option<String>,

    /// Do not try again
    #[arg(long, conflicts_with_all = ["retry_times", "retry_sleep"])]
    pub no_retry: bool,
}

impl BackupArgs {
    /// The settings that these options give.
    pub(super) fn settings(&self) -> Vec<Argument> {
        let argument = |option: &str, key: &str, value: &str| Argument {
            option: option.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let limit =
            self.bwlimit.as_ref().map(|limit| argument("--bwlimit", "bandwidth_limit", limit));
        let immediate = self
            .immediate_checkpoint
            .then(|| argument("--immediate-checkpoint", "immediate_checkpoint", "true"));
        let spread = self
            .no_immediate_checkpoint
            .then(|| argument("--no-immediate-checkpoint", "immediate_checkpoint", "false"));
        let times = self
            .retry_times
            .as_ref()
            .map(|times| argument("--retry-times", "basebackup_retry_times", times));
        let sleep = self
            .retry_sleep
            .as_ref()
            .map(|sleep| argument("--retry-sleep", "basebackup_retry_sleep", sleep));
        let never = self.no_retry.then(|| argument("--no-retry", "basebackup_retry_times", "0"));
        [limit, immediate, spread, times, sleep, never].into_iter().flatten().collect()
    }
}
