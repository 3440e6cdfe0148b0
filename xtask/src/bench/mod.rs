//! `cargo xtask bench`: measures, and compares with what there is to be compared with.

mod backup;
mod barman;
mod bars;
mod board;
mod check;
mod common;
mod cost;
mod figures;
mod library;
mod machine;
mod pages;
mod process;
mod restore;
mod wal;

use walrecv_tests::Result;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, clap::Subcommand)]
enum Subject {
    /// Base backups, beside those of PostgreSQL's own program and of Barman.
    Backup(backup::Arguments),
    /// The looks that operators take, beside Barman's, and into a large store.
    Check(check::Arguments),
    /// The library, beside what it cannot be faster than.
    Library(library::Arguments),
    /// Restores, beside those of others and those by hand.
    Restore(restore::Arguments),
    /// The receiving of WAL, beside the programs that others receive it with.
    Wal(wal::Arguments),
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.subject {
        Subject::Backup(arguments) => backup::run(arguments),
        Subject::Check(arguments) => check::run(arguments),
        Subject::Library(arguments) => library::run(arguments),
        Subject::Restore(arguments) => restore::run(arguments),
        Subject::Wal(arguments) => wal::run(arguments),
    }
}
