//! `cargo xtask bench check`: the looks that operators take most often: beside Barman's, at many servers,
//! and into a large store.

mod store;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use walrecv_tests::barman::{Barman, BarmanInstallation};
use walrecv_tests::walrecv::{self, Walrecv};
use walrecv_tests::{Cluster, Context, Failure, Installation, Result, program};

use super::bars::{self, Bar, Wanted};
use super::board::{Board, Column};
use super::pages::Page;
use super::{common, machine};

const WALL: &str = "wall ms";
const COLUMNS: &[Column] = &[Column { name: WALL, decimals: 1 }];

const OURS: &str = "walrecv-server check";
const BARMANS: &str = "barman check";
const MANY: &str = "walrecv-server check all, 50 servers";
const LIST: &str = "walrecv-server list-backups, large store";

/// How many servers `check all` looks at.
const SERVERS: usize = 50;

/// The oldest major whose client programs Barman is run with here.
const OLDEST: u32 = 15;

const ROLE: &str = "walrecv";
const PASSWORD: &str = "secret";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often each look is taken
    #[arg(long, default_value_t = 10, value_name = "N")]
    rounds: u32,

    /// The segments that are archived in the large store
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    segments: u64,

    /// The backups in it
    #[arg(long, default_value_t = 500, value_name = "N")]
    backups: u64,

    /// The PostgreSQL to use, 15 or newer [default: the newest]
    #[arg(long)]
    major: Option<u32>,

    /// Measure this walrecv-server, instead of building one
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,

    /// Write the results into BENCHMARKS.md
    #[arg(long)]
    write: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    walrecv::choose(&common::program(arguments.program.as_deref())?);
    let installation =
        common::installation(arguments.major, OLDEST, &["pg_receivewal", "pg_basebackup"])?;
    let outcome = measure(arguments, &installation);
    walrecv::remove_copy();
    let page = outcome?;
    println!("\n{}\n\n{}\n", page.name, page.text());
    if arguments.write { page.write() } else { Ok(()) }
}

fn measure(arguments: &Arguments, installation: &Installation) -> Result<Page> {
    let cluster = Cluster::options(installation)
        .config("max_wal_senders = 150")
        .config("max_connections = 200")
        .config("max_replication_slots = 10")
        .start()?;
    cluster.create_role(ROLE, PASSWORD, "REPLICATION")?;
    let mut board = Board::new(COLUMNS);
    let mut page = Page::new("check");
    let walrecv = one_server(&cluster, arguments.rounds, &mut board, &mut page)?;
    page.line(format!("Measured on {}.", machine::describe(&cluster, walrecv.directory())?));
    many_servers(&cluster, arguments.rounds, &mut board)?;
    let large = store::LargeStore::make(arguments.segments, arguments.backups)?;
    for _ in 0..arguments.rounds {
        let listed = timed(&mut large.walrecv().command(&["list-backups", "main"])?, true)?;
        board.add(LIST, [Some(listed)]);
    }
    page.line(format!(
        "The large store has {} backups and {} archived segments.",
        arguments.backups, arguments.segments
    ));
    page.table(board.table());
    page.table(bars::table(&bars(), &board));
    Ok(page)
}

fn bars() -> Vec<Bar> {
    vec![
        Bar::ratio(WALL, OURS, BARMANS, Wanted::AtMost(0.15)),
        Bar::absolute(WALL, LIST, Wanted::AtMost(500.0)),
        Bar::ratio(WALL, MANY, OURS, Wanted::Nothing),
    ]
}

/// Both look at the same server, of which both receive WAL, in turns.
fn one_server(
    cluster: &Cluster,
    rounds: u32,
    board: &mut Board,
    page: &mut Page,
) -> Result<Walrecv> {
    let conninfo = cluster.conninfo(ROLE, PASSWORD);
    let walrecv = Walrecv::new(&format!("[servers.main]\nconninfo = \"{conninfo}\"\n"))?;
    let daemon = walrecv.spawn(&["run"])?;
    streaming(cluster, 1)?;
    let barman = match BarmanInstallation::for_major(cluster.major()) {
        Ok(installation) => {
            let mut barman = Barman::new(&installation, &cluster.superuser_conninfo())?;
            barman.receive()?;
            streaming(cluster, 2)?;
            first_segment(cluster, &barman)?;
            Some(barman)
        }
        Err(reason) => {
            page.line(format!("SKIPPED: {reason}."));
            None
        }
    };
    for _ in 0..rounds {
        let ours = timed(&mut walrecv.command(&["check", "main"])?, true)?;
        board.add(OURS, [Some(ours)]);
        if let Some(barman) = &barman {
            let theirs = timed(&mut barman.command(&["check", "main"]), true)?;
            board.add(BARMANS, [Some(theirs)]);
        }
    }
    daemon.stop()?;
    Ok(walrecv)
}

/// Barman finds fault with a server of which nothing is archived.
fn first_segment(cluster: &Cluster, barman: &Barman) -> Result<()> {
    cluster.execute("CREATE TABLE of_barman (n int)")?;
    let segment = cluster.value("SELECT pg_walfile_name(pg_switch_wal())")?;
    cluster.execute("INSERT INTO of_barman VALUES (1)")?;
    let streaming = barman.directory().join("main/streaming");
    cluster.wait_for("Barman's segment", |_| {
        let files = std::fs::read_dir(&streaming).into_iter().flatten().flatten();
        let partial = files.map(|file| file.path());
        let mut partial = partial.filter(|path| path.extension().is_some());
        Ok(streaming.join(&segment).exists() && partial.next().is_some())
    })?;
    barman.run(&["archive-wal", "main"]).map(drop)
}

/// One cluster stands for all of them; what is received of it is none of the look's affair.
fn many_servers(cluster: &Cluster, rounds: u32, board: &mut Board) -> Result<()> {
    let conninfo = cluster.conninfo(ROLE, PASSWORD);
    let servers: String = (0..SERVERS)
        .map(|number| format!("[servers.s{number}]\nconninfo = \"{conninfo}\"\n"))
        .collect();
    let walrecv = Walrecv::new(&servers)?;
    for _ in 0..rounds {
        // Nobody receives, which is said with the exit code.
        let all = timed(&mut walrecv.command(&["check", "all"])?, false)?;
        board.add(MANY, [Some(all)]);
    }
    Ok(())
}

fn streaming(cluster: &Cluster, count: u32) -> Result<()> {
    cluster.wait_for("the receivers to stream", |cluster| {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        Ok(cluster.value(sql)? == count.to_string())
    })
}

/// Runs a command to its end; how many milliseconds that took.
fn timed(command: &mut Command, must_succeed: bool) -> Result<f64> {
    let line = program::command_line(command);
    let about = || format!("cannot run `{line}`");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let begin = Instant::now();
    let output = command.output().context(about)?;
    let wall = begin.elapsed().as_secs_f64() * 1000.0;
    if must_succeed && !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        return Err(Failure::new(format!("`{line}` ended with {}:\n{said}", output.status)));
    }
    Ok(wall)
}
