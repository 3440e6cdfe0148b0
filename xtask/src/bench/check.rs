//! `cargo xtask bench check`: the looks that operators take most often, beside Barman's, and in a large
//! store.

mod store;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;
use walrecv_tests::barman::{Barman, BarmanInstallation};
use walrecv_tests::{Cluster, Context, Failure, Result, program};

use super::bars::{self, Bar, Wanted};
use super::board::{Board, Column};
use super::pages::{self, Page};
use super::{common, machine};

/// The figures of each look.
const COLUMNS: &[Column] = &[Column { name: "wall ms", decimals: 1 }];

const OURS: &str = "walrecv-server check";
const BARMANS: &str = "barman check";
const MANY: &str = "walrecv-server check all, 50 servers";
const LIST: &str = "walrecv-server list-backups, large store";

/// How many servers `check all` looks at.
const SERVERS: usize = 50;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How often each look is taken.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Archived segments of the large store.
    #[arg(long, default_value_t = 1_000_000)]
    segments: u64,
    /// Its backups.
    #[arg(long, default_value_t = 500)]
    backups: u64,
    /// Another program than the one that is built here.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Write the results into BENCHMARKS.md.
    #[arg(long)]
    write: bool,
}
