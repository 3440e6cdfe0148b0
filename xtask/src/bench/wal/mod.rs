//! `cargo xtask bench wal`: the receiving of WAL, beside the programs that others receive it with.
//!
//! Contenders take turns within one run, because only ratios of figures that were measured side by
//! side mean anything. Nothing fails over a figure.

mod backlog;
mod fleet;
mod outage;
pub(super) mod pgbench;
mod proxy;
pub(super) mod receivers;
mod sync;

use std::path::PathBuf;

use walrecv_tests::{Cluster, ClusterOptions, Installation, Result, walrecv};

use super::pages::Page;
use super::{common, machine};
use crate::interrupt::Interrupt;
use crate::postgres;

/// The oldest major whose `pg_receivewal` starts where a slot says.
const OLDEST: u32 = 15;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What to measure [default: everything]
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,

    /// How often each contender runs
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: u32,

    /// Only contenders whose name contains this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,

    /// backlog: the WAL to receive, in MB
    #[arg(long, default_value_t = 2200, value_name = "MB")]
    size: u64,

    /// sync, fleet: how long each load lasts
    #[arg(long, default_value_t = 20, value_name = "S")]
    seconds: u32,

    /// sync: how many clients commit at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32], value_name = "N")]
    clients: Vec<u32>,

    /// fleet: how many streams run at once; the first number is what others are compared at
    #[arg(long, value_delimiter = ',', default_values_t = [50, 200], value_name = "N")]
    streams: Vec<u32>,

    /// The PostgreSQL to use, 15 or newer [default: the system's, else the newest]
    #[arg(long)]
    major: Option<u32>,

    /// Get Barman and pgBackRest first, where they are missing
    #[arg(long)]
    peers: bool,

    /// Measure this walrecv-server, instead of building one
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,

    /// Write the results into BENCHMARKS.md
    #[arg(long)]
    write: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// A stretch of WAL that waits on the server, received as fast as it goes
    Backlog,
    /// Commits that wait for the receiver
    Sync,
    /// Many servers at once
    Fleet,
    /// A connection that breaks
    Outage,
}

const ALL: [Scenario; 4] = [Scenario::Backlog, Scenario::Sync, Scenario::Fleet, Scenario::Outage];

/// What every scenario needs.
struct Bench<'a> {
    arguments: &'a Arguments,
    installation: Installation,
    interrupt: Interrupt,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.peers {
        postgres::peers::install()?;
    }
    walrecv::choose(&common::program(arguments.program.as_deref())?);
    let bench = Bench {
        arguments,
        installation: common::installation(
            arguments.major,
            OLDEST,
            &["pgbench", receivers::PG_RECEIVEWAL],
        )?,
        interrupt: Interrupt::watch()?,
    };
    let scenarios = match arguments.scenarios.as_slice() {
        [] => &ALL,
        some => some,
    };
    let outcome = scenarios.iter().try_for_each(|scenario| {
        let page = match scenario {
            Scenario::Backlog => backlog::run(&bench),
            Scenario::Sync => sync::run(&bench),
            Scenario::Fleet => fleet::run(&bench),
            Scenario::Outage => outage::run(&bench),
        }?;
        println!("\n{}\n\n{}\n", page.name, page.text());
        if arguments.write { page.write() } else { Ok(()) }
    });
    walrecv::remove_copy();
    outcome
}

impl Bench<'_> {
    /// Options of a server as they are in production, as far as it matters here.
    fn cluster(&self) -> ClusterOptions {
        Cluster::options(&self.installation)
            .data_checksums()
            .config("shared_buffers = '512MB'")
            .config("max_wal_size = '64GB'")
            .config("checkpoint_timeout = '1h'")
            .config("max_connections = 300")
            .config("max_wal_senders = 250")
            .config("max_replication_slots = 260")
            .config("log_replication_commands = off")
    }

    fn wants(&self, contender: &str) -> bool {
        let only = &self.arguments.only;
        only.is_empty() || only.iter().any(|text| contender.contains(text))
    }

    /// A page that begins with what it was measured on.
    fn page(&self, name: &'static str, cluster: &Cluster) -> Result<Page> {
        let mut page = Page::new(name);
        page.line(format!("Measured on {}.", machine::describe(cluster, &std::env::temp_dir())?));
        Ok(page)
    }
}

/// Says what goes on.
fn tell(what: &str) {
    eprintln!("{what}");
}
