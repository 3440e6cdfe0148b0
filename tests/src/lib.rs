//! The harness of the whole-system tests: real PostgreSQL servers, real client programs, and
//! the product's own binary.
//!
//! * [`installation`]: which PostgreSQL servers this machine has, and where the cache of
//!   `cargo xtask postgres` lies.
//! * [`cgroup`]: processes that can be killed together.
//! * [`cluster`]: a throwaway cluster on the loopback interface, run by an unprivileged user.
//! * [`port`]: ports on which nothing listens.
//! * [`processes`]: who has started whom.
//! * [`sql`]: asking a cluster.
//! * [`pg_receivewal`]: another receiver, for comparison.
//! * [`ledger`]: what clients were told is safe.
//! * [`stored_wal`]: what a store holds.
//! * [`disk`]: disks that lose their power, hang or are full.
//! * [`strace`]: system calls, watched and disturbed.
//! * [`tools`]: the independent judges (`pg_verifybackup`, `pg_amcheck`, `pg_dumpall`, ...).
//! * [`walrecv`]: running `walrecv-server`.
//! * [`barman`]: running a real Barman.
//! * [`recorder`]: writing down what a client and a server say to each other.
//! * [`terminal`]: a program that asks questions, and somebody who answers.
//! * [`run`]: registering scenarios per PostgreSQL major; a missing major is skipped loudly.

// What is skipped must be seen on the terminal.
#![allow(clippy::print_stderr)]

pub mod account;
pub mod barman;
mod certificates;
pub mod cgroup;
pub mod cluster;
pub mod corruption;
pub mod disk;
pub mod failure;
pub mod installation;
pub mod ledger;
pub mod pg_receivewal;
pub mod port;
pub mod processes;
pub mod program;
pub mod proxy;
pub mod recorder;
pub mod run;
pub mod sql;
pub mod stored_wal;
pub mod strace;
pub mod terminal;
pub mod tools;
pub mod walrecv;

pub use cluster::{Cluster, ClusterOptions};
pub use failure::{Context, Failure, Result};
pub use installation::Installation;
