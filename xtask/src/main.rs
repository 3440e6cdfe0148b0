//! `cargo xtask`: everything that is done to this repository besides compiling it.
//!
//! * `demo`: shows the product on a real PostgreSQL, from nothing to the verdict.
//! * `test`: all checks, in the order in which they fail soonest.
//! * `fuzz`: runs the fuzz targets, and says how fast and how far they got.
//! * `seeds`: makes the fuzz targets' seeds anew, from real servers.
//! * `postgres`: the PostgreSQL servers that the demonstration and the tests use.

// It is a program for people at a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod demo;
mod fuzz;
mod paths;
mod postgres;
mod seeds;
mod table;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The work on this repository: demonstration, tests, fuzzing, PostgreSQL servers.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Back up a throwaway PostgreSQL, kill it, restore it to its last commit.
    Demo(demo::Arguments),
    /// Install what is missing, then run every check and every test.
    Test(test::Arguments),
    /// Run the fuzz targets for a measured time, and report how fast and how far they got.
    Fuzz(fuzz::Arguments),
    /// Make the seeds of the fuzz targets anew, from real servers of every major.
    Seeds(seeds::Arguments),
    /// List or install the PostgreSQL servers that the tests use.
    Postgres(postgres::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Seeds(arguments) => seeds::run(&arguments),
        Task::Postgres(arguments) => postgres::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
