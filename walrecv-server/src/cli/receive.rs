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

    /// The host that PostgreSQL runs on, or the directory of its socket
    #[arg(long, value_name = "HOST", conflicts_with = "conninfo")]
    pub host: Option<String>,

    /// Its port [default: 5432]
    #[arg(long, value_name = "PORT", conflicts_with = "conninfo")]
    pub port: Option<u16>,

    /// The role to log in as
    #[arg(long, value_name = "ROLE", conflicts_with = "conninfo")]
    pub user: Option<String>,

    /// The database for SQL
    #[arg(long, value_name = "DATABASE", conflicts_with = "conninfo")]
    pub dbname: Option<String>,

    /// Whether to use TLS, and whom to trust: disable, prefer, require, verify-ca, verify-full
    #[arg(long, value_name = "MODE", conflicts_with = "conninfo")]
    pub sslmode: Option<String>,
}

impl InitArgs {
    /// The options of the conninfo that were given one by one.
    pub fn described(&self) -> Vec<(&'static str, String)> {
        let port = self.port.map(|port| port.to_string());
        let given = [
            ("host", &self.host),
            ("port", &port),
            ("user", &self.user),
            ("dbname", &self.dbname),
            ("sslmode", &self.sslmode),
        ];
        given.into_iter().filter_map(|(option, value)| Some((option, value.clone()?))).collect()
    }
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

    /// Where the server no longer has the WAL that comes next, leave it out, record the gap, and
    /// exit as soon as WAL comes again
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
