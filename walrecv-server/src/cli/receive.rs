//! `init`, `run` and `receive-wal`.

use clap::Args;
use pgwire_stream::Lsn;

use super::Selection;
use crate::settings::{Argument, ServerName};

/// `init`.
#[derive(Args)]
pub struct InitArgs {
    /// The server's name [default: main]
    pub server: Option<ServerName>,
}

/// `run`.
#[derive(Args)]
pub struct RunArgs {
    /// The servers [default: all]
    #[arg(value_name = "SERVER")]
    pub servers: Vec<Selection>,
}

/// `receive-wal`.
#[derive(Args)]
pub struct ReceiveWalArgs {
    /// The server
    pub server: ServerName,

    /// Create the replication slot, and do nothing else
    #[arg(long, group = "action")]
    pub create_slot: bool,

    /// With --create-slot: a slot that exists already is no error
    #[arg(long, requires = "create_slot")]
    pub if_not_exists: bool,

    /// Drop the replication slot, and do nothing else; the server keeps no WAL for us from then on
    #[arg(long, group = "action")]
    pub drop_slot: bool,

    /// Where the server no longer has the WAL that comes next, go on behind it; the gap is recorded
    #[arg(long, conflicts_with = "action")]
    pub reset: bool,

    /// Stop the process that receives this server's WAL
    #[arg(long, group = "action")]
    pub stop: bool,

    /// Receive up to this LSN, then exit
    #[arg(long, value_name = "LSN", conflicts_with = "action")]
    pub endpos: Option<Lsn>,

    /// Make WAL durable, and say so, as soon as it comes
    #[arg(long, conflicts_with = "action")]
    pub synchronous: bool,
}

impl ReceiveWalArgs {
    pub(super) fn settings(&self) -> Vec<Argument> {
        let synchronous = self.synchronous.then(|| Argument {
            option: "--synchronous".to_owned(),
            key: "synchronous".to_owned(),
            value: "true".to_owned(),
        });
        synchronous.into_iter().collect()
    }
}
