//! `cargo xtask`: everything that is done to this repository besides compiling it.
//!
//! * `demo`: shows the product on a real PostgreSQL, from nothing to the verdict.
//! * `test`: all checks, in the order in which they fail soonest.
//! * `bench`: measures the library beside what it cannot be faster than, and the receiving of WAL
//!   beside what others need for it.
//! * `fuzz`: runs the fuzz targets, and says how fast and how far they got.
//! * `seeds`: makes the fuzz targets' seeds anew, from real servers.
//! * `features`: the library in each of its features alone.
//! * `api`: the library's public API against the list of it that is kept here.
//! * `release-check`: everything that must hold before library and server are published.
//! * `deb`: the server's Debian package, and whether it installs on a clean root.
//! * `pictures`: the status page of a real daemon, as it is shown in the README.
//! * `postgres`: the PostgreSQL servers that the demonstration and the tests use.

// It is a program for people at a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod deb;
mod demo;
mod features;
mod fuzz;
mod interrupt;
mod paths;
mod pictures;
mod postgres;
mod release;
mod seeds;
mod table;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The work on this repository: demonstration, tests, fuzzing, releases, PostgreSQL servers.
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
    /// Measure the library, or the receiving of WAL, beside what it is to be compared with.
    Bench(bench::Arguments),
    /// Run the fuzz targets for a measured time, and report how fast and how far they got.
    Fuzz(fuzz::Arguments),
    /// Make the seeds of the fuzz targets anew, from real servers of every major.
    Seeds(seeds::Arguments),
    /// Check the library in each of its features alone.
    Features(features::Arguments),
    /// Compare the library's public API with `pgwire-stream/public-api.txt`.
    Api(release::api::Arguments),
    /// Check everything that must hold before library and server are published.
    ReleaseCheck(release::Arguments),
    /// Make the Debian package, and install it on a clean root.
    Deb(deb::Arguments),
    /// Make the README's pictures of the status page anew, from real servers.
    Pictures(pictures::Arguments),
    /// List or install the PostgreSQL servers that the tests use.
    Postgres(postgres::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Seeds(arguments) => seeds::run(&arguments),
        Task::Features(arguments) => features::run(&arguments),
        Task::Api(arguments) => release::api::run(&arguments),
        Task::ReleaseCheck(arguments) => release::run(&arguments),
        Task::Deb(arguments) => deb::run(&arguments),
        Task::Pictures(arguments) => pictures::run(&arguments),
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
