//! `cargo xtask bench restore`: restores of the same cluster, beside those of others.
//!
//! Contenders take turns within one run, because only ratios of figures that were measured side by
//! side mean anything. What is restored is durable when they are done, whoever restores it.

mod barman;
mod pgbackrest;
mod recovery;
mod stock;
mod walrecv;

use std::path::{Path, PathBuf};

use walrecv_tests::{Context, Installation, Result};

use self::barman::Barman;
use self::pgbackrest::PgBackRest;
use self::recovery::Archives;
use self::stock::Stock;
use self::walrecv::Product;
use super::backup::Subject;
use super::bars::{self, Bar, Wanted};
use super::board::{Board, Column};
use super::pages::Page;
use super::process::Cost;
use super::wal::receivers;
use super::{common, machine};
use crate::interrupt::Interrupt;

/// The oldest major whose programs compress with zstd.
const OLDEST: u32 = 15;

/// The oldest major that takes incremental backups.
const INCREMENTAL: u32 = 17;

/// How many incremental backups a chain has.
const DEPTH: u32 = 4;

const COLUMNS: &[Column] = &[
    Column { name: "wall s", decimals: 2 },
    Column { name: "MB/s", decimals: 0 },
    Column { name: "CPU s", decimals: 2 },
    Column { name: "RSS MiB", decimals: 1 },
];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often each contender runs
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: u32,

    /// The size of the cluster, in MB
    #[arg(long, default_value_t = 3000, value_name = "MB")]
    size: u64,

    /// How many segments a recovery replays
    #[arg(long, default_value_t = 200, value_name = "N")]
    segments: usize,

    /// The PostgreSQL to use, 15 or newer; chains from 17 on [default: the newest]
    #[arg(long)]
    major: Option<u32>,

    /// Measure this walrecv-server, instead of building one
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,

    /// Write the results into BENCHMARKS.md
    #[arg(long)]
    write: bool,
}

/// A program that restores what it has stored.
trait Contender {
    fn name(&self) -> &str;

    /// Takes the backup; a part of a chain that is begun already, if it can.
    fn back_up(&self, subject: &Subject, place: &Path) -> Result<()>;

    /// Restores the newest one into a directory that does not exist.
    fn restore(&self, subject: &Subject, place: &Path, into: &Path) -> Result<Cost>;

    /// Finds out whether what is stored is good, in each way that there is.
    fn verify(&self, subject: &Subject, place: &Path) -> Result<Vec<(&'static str, Cost)>>;
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    walrecv_tests::walrecv::choose(&common::program(arguments.program.as_deref())?);
    let installation =
        common::installation(arguments.major, OLDEST, &["pgbench", "pg_basebackup"])?;
    let outcome = measure(arguments, &installation);
    walrecv_tests::walrecv::remove_copy();
    let page = outcome?;
    println!("\n{}\n\n{}\n", page.name, page.text());
    if arguments.write { page.write() } else { Ok(()) }
}

fn measure(arguments: &Arguments, installation: &Installation) -> Result<Page> {
    let subject = Subject::prepare(installation, arguments.size)?;
    // The pgBackRest of a stable distribution knows no server that takes incremental backups.
    let chains = installation.major >= INCREMENTAL;
    let mut page = Page::new(if chains { "restore of chains" } else { "restore" });
    let described = machine::describe(&subject.cluster, &std::env::temp_dir())?;
    page.line(format!("Measured on {described}."));
    page.line(format!("A cluster of {:.0} MB.", subject.bytes as f64 / 1e6));
    let mut contenders: Vec<Box<dyn Contender>> =
        vec![Box::new(Product), Box::new(Stock::new(installation))];
    match PgBackRest::find(&subject)? {
        Some(found) => contenders.push(Box::new(found)),
        None => page.line("SKIPPED: there is no pgBackRest here that knows such servers."),
    }
    match Barman::find() {
        Some(found) => contenders.push(Box::new(found)),
        None => page.line("SKIPPED: Barman is not installed here, or rsync."),
    }
    let (restores, looks) = compete(arguments, &subject, &contenders, 0)?;
    page.table(restores.table());
    page.table(bars::table(&bars(), &restores));
    page.line("Verifying what is stored:");
    page.table(looks.table());
    page.table(bars::table(&looking_bars(), &looks));
    if chains {
        contenders.truncate(2);
        let (restores, _) = compete(arguments, &subject, &contenders, DEPTH)?;
        page.line(format!(
            "A chain of {DEPTH} incremental backups, each after 1 % of the pages were changed:"
        ));
        page.table(restores.table());
        page.table(bars::table(&chain_bars(), &restores));
    }
    let archives = Archives::prepare(&subject, arguments.segments)?;
    let singles = archives.singles()?;
    page.line("One segment of 16 MB for a recovering server:");
    page.table(singles.table());
    page.table(bars::table(&recovery::bars(), &singles));
    let recoveries = archives.recoveries(&subject, installation, arguments.rounds)?;
    page.line(format!(
        "A recovery of {} segments, from the start of the server until it is a primary:",
        arguments.segments
    ));
    page.table(recoveries.table());
    page.table(bars::table(&recovery::recovery_bars(), &recoveries));
    Ok(page)
}

/// Has everybody restore what it has stored: a full backup, and so many incremental ones on top.
fn compete(
    arguments: &Arguments,
    subject: &Subject,
    contenders: &[Box<dyn Contender>],
    depth: u32,
) -> Result<(Board, Board)> {
    let interrupt = Interrupt::watch()?;
    let mut places = Vec::new();
    for contender in contenders {
        let place = receivers::directory()?;
        let about = || format!("{} took no backup", contender.name());
        contender.back_up(subject, place.path()).context(about)?;
        places.push(place);
    }
    for _ in 0..depth {
        subject.change()?;
        for (contender, place) in contenders.iter().zip(&places) {
            let about = || format!("{} took no incremental backup", contender.name());
            contender.back_up(subject, place.path()).context(about)?;
        }
    }
    let (mut restores, mut looks) = (Board::new(COLUMNS), Board::new(COLUMNS));
    for round in 1..=arguments.rounds {
        for (contender, place) in contenders.iter().zip(&places) {
            interrupt.check()?;
            let about = || format!("{} did not restore", contender.name());
            let target = receivers::directory()?;
            machine::use_memory(subject.bytes);
            rustix::fs::sync();
            let cost = contender.restore(subject, place.path(), &target.path().join("data"));
            let cost = cost.context(about)?;
            eprintln!(
                "restore: round {round}: {}: {:.2} s",
                contender.name(),
                cost.wall.as_secs_f64()
            );
            enter(&mut restores, contender.name(), subject, &cost);
            drop(target);
            rustix::fs::sync();
            for (name, cost) in contender.verify(subject, place.path()).context(about)? {
                enter(&mut looks, name, subject, &cost);
            }
        }
    }
    Ok((restores, looks))
}

fn enter(board: &mut Board, name: &str, subject: &Subject, cost: &Cost) {
    let wall = cost.wall.as_secs_f64();
    let rate = subject.bytes as f64 / 1e6 / wall;
    board.add(name, [Some(wall), Some(rate), Some(cost.cpu_seconds), Some(cost.peak_mib)]);
}

fn bars() -> Vec<Bar> {
    use Wanted::AtMost;
    vec![
        Bar::ratio("wall s", walrecv::NAME, pgbackrest::NAME, AtMost(1.0)),
        Bar::ratio("wall s", walrecv::NAME, stock::NAME, AtMost(0.65)),
        Bar::ratio("wall s", walrecv::NAME, barman::NAME, AtMost(0.65)),
        Bar::absolute("RSS MiB", walrecv::NAME, AtMost(48.0)),
    ]
}

fn looking_bars() -> Vec<Bar> {
    use Wanted::AtMost;
    vec![
        // Both compare stored files with their checksums, and unpack nothing.
        Bar::ratio("wall s", walrecv::AS_STORED, pgbackrest::NAME, AtMost(0.7)),
        // Both look into every file of the backup.
        Bar::ratio("wall s", walrecv::NAME, barman::NAME, AtMost(0.4)),
    ]
}

fn chain_bars() -> Vec<Bar> {
    vec![Bar::ratio("wall s", walrecv::NAME, stock::NAME, Wanted::AtMost(0.6))]
}
