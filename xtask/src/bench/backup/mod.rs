//! `cargo xtask bench backup`: base backups, beside those of PostgreSQL's own program and of Barman.
//!
//! Contenders take turns within one run, because only ratios of figures that were measured side by
//! side mean anything. Everybody's files are durable when they are done; ours are verified as well.

mod barman;
mod pg_basebackup;
mod walrecv;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use walrecv_tests::{Cluster, Context, Installation, Result};

use self::barman::Barman;
use self::pg_basebackup::PgBasebackup;
use self::walrecv::Product;
use super::bars::{self, Bar, Wanted};
use super::board::{Board, Column};
use super::pages::Page;
use super::process::Cost;
use super::wal::{pgbench, receivers};
use super::{common, machine};
use crate::interrupt::Interrupt;

/// The oldest major whose server compresses.
const OLDEST: u32 = 15;

/// How many incremental backups follow on a full one, each on the one before: they are short, and
/// so is what disturbs them.
const CHANGES: u32 = 5;

/// The oldest major that takes incremental backups.
const INCREMENTAL: u32 = 17;

const COLUMNS: &[Column] = &[
    Column { name: "wall s", decimals: 2 },
    Column { name: "MB/s", decimals: 0 },
    Column { name: "CPU s", decimals: 2 },
    Column { name: "RSS MiB", decimals: 1 },
    Column { name: "stored MB", decimals: 0 },
];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often each contender runs
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: u32,

    /// Only contenders whose name contains this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,

    /// The size of the cluster, in MB
    #[arg(long, default_value_t = 3000, value_name = "MB")]
    size: u64,

    /// The PostgreSQL to use, 15 or newer; incremental backups from 17 on [default: the newest]
    #[arg(long)]
    major: Option<u32>,

    /// Measure this walrecv-server, instead of building one
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,

    /// Write the results into BENCHMARKS.md
    #[arg(long)]
    write: bool,
}

/// A server that is backed up, and changes between rounds only.
pub(super) struct Subject {
    pub(super) cluster: Cluster,
    pub(super) conninfo: String,
    pub(super) bytes: u64,
    /// How often it has changed.
    changes: Cell<u32>,
}

/// A program that takes backups.
trait Contender {
    fn name(&self) -> &str;

    /// Takes one into an empty directory; what it cost, and where it is.
    fn back_up(&self, subject: &Subject, place: &Path) -> Result<(Cost, PathBuf)>;

    /// What another look at it costs that finds out whether it is good; `None` if nothing can.
    fn verify(&self, place: &Path) -> Result<Option<Cost>>;

    /// An incremental one on top; `None` if there are none.
    fn back_up_changes(&self, subject: &Subject, place: &Path) -> Result<Option<(Cost, PathBuf)>>;
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
    let interrupt = Interrupt::watch()?;
    let mut contenders = contenders(installation);
    let incrementals = installation.major >= INCREMENTAL;
    let changes_each = if incrementals { CHANGES } else { 0 };
    let mut page = Page::new(if incrementals { "backup with incrementals" } else { "backup" });
    match Barman::find() {
        Some(found) => contenders.push(Box::new(found)),
        None => page.line("SKIPPED: Barman is not installed here."),
    }
    let wanted = |name: &str| {
        arguments.only.is_empty() || arguments.only.iter().any(|text| name.contains(text))
    };
    let subject = Subject::prepare(installation, arguments.size)?;
    let (mut backups, mut looks) = (Board::new(COLUMNS), Board::new(COLUMNS));
    let mut changes = Board::new(COLUMNS);
    for round in 1..=arguments.rounds {
        for contender in contenders.iter().filter(|contender| wanted(contender.name())) {
            interrupt.check()?;
            let place = receivers::directory()?;
            let about = || format!("{} took no backup", contender.name());
            let full = one(&subject, || contender.back_up(&subject, place.path()));
            let (cost, stored) = full.context(about)?;
            enter(&mut backups, contender.name(), &subject, &cost, size_of(&stored)?);
            eprintln!(
                "backup: round {round}: {}: {:.2} s",
                contender.name(),
                cost.wall.as_secs_f64()
            );
            if let Some(cost) = contender.verify(place.path()).context(about)? {
                enter(&mut looks, contender.name(), &subject, &cost, size_of(&stored)?);
            }
            for _ in 0..changes_each {
                subject.change()?;
                let more = one(&subject, || contender.back_up_changes(&subject, place.path()));
                if let Some((cost, stored)) = more.context(about)? {
                    enter(&mut changes, contender.name(), &subject, &cost, size_of(&stored)?);
                }
            }
        }
    }
    let described = machine::describe(&subject.cluster, &std::env::temp_dir())?;
    page.line(format!("Measured on {described}."));
    page.line(format!("A cluster of {:.0} MB.", subject.bytes as f64 / 1e6));
    page.table(backups.table());
    page.table(bars::table(&bars(), &backups));
    page.line("Verifying what was stored:");
    page.table(looks.table());
    if incrementals {
        page.line("An incremental backup after 1 % of the pages were changed:");
        page.table(changes.table());
        page.table(bars::table(&incremental_bars(), &changes));
    }
    Ok(page)
}

/// One measurement, which pays for nothing that was before.
fn one<T>(subject: &Subject, run: impl FnOnce() -> Result<T>) -> Result<T> {
    subject.settle()?;
    run()
}

fn enter(board: &mut Board, name: &str, subject: &Subject, cost: &Cost, stored: u64) {
    let wall = cost.wall.as_secs_f64();
    board.add(
        name,
        [
            Some(wall),
            Some(subject.bytes as f64 / 1e6 / wall),
            Some(cost.cpu_seconds),
            Some(cost.peak_mib),
            Some(stored as f64 / 1e6),
        ],
    );
}

/// The size of a directory's files.
fn size_of(directory: &Path) -> Result<u64> {
    let about = || format!("cannot read {}", directory.display());
    let mut size = 0;
    for entry in fs::read_dir(directory).context(about)? {
        let entry = entry.context(about)?;
        let metadata = entry.metadata().context(about)?;
        size += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(size)
}

impl Subject {
    pub(super) fn prepare(installation: &Installation, megabytes: u64) -> Result<Self> {
        eprintln!("backup: preparing a cluster of {megabytes} MB");
        let mut options = Cluster::options(installation)
            .data_checksums()
            .config("shared_buffers = '512MB'")
            .config("max_wal_size = '64GB'")
            .config("checkpoint_timeout = '1h'")
            .config("autovacuum = off");
        if installation.major >= INCREMENTAL {
            options = options.config("summarize_wal = on");
        }
        let cluster = options.start()?;
        pgbench::initialise(&cluster, (megabytes / 15).max(1))?;
        cluster.execute("VACUUM (FREEZE, ANALYZE)")?;
        let bytes = cluster.value("SELECT sum(pg_database_size(oid))::int8 FROM pg_database")?;
        let bytes = bytes.parse().context(|| "the size of the cluster".to_owned())?;
        let changes = Cell::default();
        Ok(Self { conninfo: receivers::conninfo(&cluster), cluster, bytes, changes })
    }

    /// Has the server, and the disk, do what there is to do of what has happened.
    fn settle(&self) -> Result<()> {
        self.cluster.execute("CHECKPOINT")?;
        if self.cluster.installation().major >= INCREMENTAL {
            self.cluster.wait_for("the summaries of WAL", |cluster| {
                let sql = "SELECT summarized_lsn >= redo_lsn \
                           FROM pg_get_wal_summarizer_state(), pg_control_checkpoint()";
                Ok(cluster.value(sql)? == "t")
            })?;
        }
        rustix::fs::sync();
        Ok(())
    }

    /// Changes one row in one page of a hundred: other pages each time, which are full, so that rows
    /// move and the index changes as well.
    pub(super) fn change(&self) -> Result<()> {
        // One page of so many, each of so many rows.
        const PAGES: u32 = 100;
        const ROWS: u32 = 61;
        let first = self.changes.get() % PAGES * ROWS;
        self.changes.set(self.changes.get() + 1);
        self.cluster.execute(&format!(
            "UPDATE pgbench_accounts SET abalance = abalance + 1 \
             WHERE aid IN (SELECT n * {} + {first} FROM generate_series(1, 100000) n)",
            PAGES * ROWS
        ))
    }
}

/// The settings by which a server compresses its backups.
const BY_THE_SERVER: &[&str] = &[
    "backup_compression = \"zstd\"",
    "backup_compression_workers = 1",
    "backup_compression_location = \"server\"",
];

fn contenders(installation: &Installation) -> Vec<Box<dyn Contender>> {
    let mut contenders: Vec<Box<dyn Contender>> = Vec::new();
    for (theirs, ours) in [
        ((pg_basebackup::PLAIN, &[][..]), (walrecv::PLAIN, &["backup_compression = \"none\""][..])),
        (
            (pg_basebackup::ZSTD, &["--compress=client-zstd:1"]),
            (walrecv::ZSTD, &["backup_compression = \"zstd\""]),
        ),
        (
            (pg_basebackup::LZ4, &["--compress=client-lz4"]),
            (walrecv::LZ4, &["backup_compression = \"lz4\""]),
        ),
        (
            (pg_basebackup::SERVER_ZSTD, &["--compress=server-zstd:1"]),
            (walrecv::SERVER_ZSTD, BY_THE_SERVER),
        ),
    ] {
        contenders.push(Box::new(PgBasebackup::new(theirs.0, theirs.1, installation)));
        contenders.push(Box::new(Product::new(ours.0, ours.1)));
    }
    let (name, arguments) = (pg_basebackup::WITH_WAL, &["--compress=client-zstd:1"]);
    contenders.push(Box::new(PgBasebackup::new(name, arguments, installation).with_wal()));
    contenders
}

fn bars() -> Vec<Bar> {
    use Wanted::AtMost;
    vec![
        Bar::ratio("wall s", walrecv::ZSTD, pg_basebackup::ZSTD, AtMost(0.75)),
        Bar::ratio("CPU s", walrecv::ZSTD, pg_basebackup::ZSTD, AtMost(1.0)),
        Bar::ratio("wall s", walrecv::PLAIN, pg_basebackup::PLAIN, AtMost(1.0)),
        Bar::ratio("wall s", walrecv::LZ4, pg_basebackup::LZ4, AtMost(0.95)),
        Bar::ratio("wall s", walrecv::SERVER_ZSTD, pg_basebackup::SERVER_ZSTD, AtMost(1.15)),
        Bar::ratio("wall s", walrecv::PLAIN, barman::NAME, AtMost(0.6)),
        Bar::ratio("wall s", walrecv::ZSTD, barman::NAME, AtMost(0.5)),
        Bar::absolute("RSS MiB", walrecv::ZSTD, AtMost(48.0)),
    ]
}

fn incremental_bars() -> Vec<Bar> {
    use Wanted::AtMost;
    vec![
        Bar::ratio("wall s", walrecv::ZSTD, pg_basebackup::ZSTD, AtMost(1.05)),
        Bar::ratio("wall s", walrecv::ZSTD, pg_basebackup::WITH_WAL, AtMost(1.05)),
        Bar::ratio("stored MB", walrecv::ZSTD, pg_basebackup::ZSTD, AtMost(1.05)),
    ]
}
