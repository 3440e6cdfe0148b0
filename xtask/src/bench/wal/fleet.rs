//! Many streams at once: one process of `pg_receivewal` for each, or one of the product for all.
//! They come from one server, through a slot each, which is as many servers to who receives.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use walrecv_tests::walrecv::Walrecv;
use walrecv_tests::{Cluster, Context, Result};

use super::super::bars::{self, Bar, Wanted};
use super::super::board::{Board, Column};
use super::super::cost;
use super::super::pages::Page;
use super::super::process::Process;
use super::receivers::{self, PG_RECEIVEWAL, WALRECV, conninfo, section};
use super::{Bench, pgbench, tell};

const COLUMNS: &[Column] = &[
    Column { name: "connected s", decimals: 2 },
    Column { name: "PSS MB idle", decimals: 1 },
    Column { name: "peak PSS MB", decimals: 1 },
    Column { name: "CPU % idle", decimals: 2 },
    Column { name: "CPU % loaded", decimals: 1 },
    Column { name: "server CPU %", decimals: 0 },
    Column { name: "tps", decimals: 0 },
    Column { name: CPU_OF_ONE, decimals: 0 },
];

/// All streams together, where the server is too busy to commit as often as it is asked to.
const CPU_OF_ONE: &str = "CPU µs/commit";

/// Commits a second of the load.
const RATE: u32 = 400;

/// How often their memory is looked at meanwhile.
const GLANCE: Duration = Duration::from_millis(500);

/// How long connecting may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The receivers, while they run.
struct Fleet {
    // Dropped in this order.
    processes: Vec<Process>,
    store: Store,
}

enum Store {
    Directory(TempDir),
    Home(Walrecv),
}

pub(super) fn run(bench: &Bench<'_>) -> Result<Page> {
    // As between two checkpoints: each run begins with one, and would log little but whole pages.
    let cluster = bench.cluster().config("full_page_writes = off").start()?;
    pgbench::initialise(&cluster, 10)?;
    let mut board = Board::new(COLUMNS);
    let compared_at = bench.arguments.streams.first().copied().unwrap_or_default();
    for round in 1..=bench.arguments.rounds {
        for &streams in &bench.arguments.streams {
            for contender in [PG_RECEIVEWAL, WALRECV] {
                // That many more processes teach nothing.
                let skipped = contender == PG_RECEIVEWAL && streams != compared_at;
                if skipped || !bench.wants(contender) {
                    continue;
                }
                bench.interrupt.check()?;
                let row = row(contender, streams);
                let figures = measure(bench, &cluster, contender, streams)
                    .context(|| format!("cannot measure {row}"))?;
                tell(&format!("fleet: round {round}: {row}"));
                board.add(&row, figures.map(Some));
            }
        }
    }
    let mut page = bench.page("fleet", &cluster)?;
    page.line(format!("The load is {RATE} commits a second."));
    page.table(board.table());
    page.table(bars::table(&bars(compared_at), &board));
    Ok(page)
}

fn row(contender: &str, streams: u32) -> String {
    format!("{contender}, {streams} streams")
}

fn measure(
    bench: &Bench<'_>,
    cluster: &Cluster,
    contender: &str,
    streams: u32,
) -> Result<[f64; 8]> {
    let mut session = cluster.session()?;
    // A slot keeps WAL from the last checkpoint on: none is to begin with a backlog.
    session.query("SELECT pg_switch_wal()")?;
    session.query("CHECKPOINT")?;
    session.query(&format!(
        "SELECT pg_create_physical_replication_slot('fleet_' || n, true) \
         FROM generate_series(1, {streams}) AS n"
    ))?;
    rustix::fs::sync();
    let began = Instant::now();
    let mut fleet = Fleet::start(bench, cluster, contender, streams)?;
    let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    loop {
        let count = session.value(streaming)?;
        if count == streams.to_string() {
            break;
        }
        fleet.processes.iter_mut().try_for_each(Process::demand_running)?;
        if began.elapsed() > PATIENCE {
            let what = format!("only {count} of {streams} streams after {PATIENCE:?}");
            return Err(walrecv_tests::Failure::new(what));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let connected = began.elapsed().as_secs_f64();

    // What belongs to the beginning is over.
    std::thread::sleep(Duration::from_secs(2));
    let seconds = bench.arguments.seconds;
    let processes = fleet.pids();
    let idle = percent(&processes, || {
        std::thread::sleep(Duration::from_secs(u64::from(seconds)));
        Ok(())
    })?;
    let idle_pss = megabytes(cost::pss_kib(&processes));
    let server = receivers::postmaster(cluster)?;
    let mut load = Load::default();
    let server = percent(&cost::tree(server), || {
        load = Load::run(cluster, &processes, seconds)?;
        Ok(())
    })?;

    fleet.processes.iter_mut().try_for_each(Process::demand_running)?;
    for process in fleet.processes.drain(..) {
        process.stop()?;
    }
    cluster.wait_for("the slots to be free", |cluster| {
        Ok(cluster.value("SELECT count(*) FROM pg_replication_slots WHERE active")? == "0")
    })?;
    cluster.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
         WHERE slot_name LIKE 'fleet%'",
    )?;
    drop(fleet.store);
    let of_one = load.cpu_percent * 1e4 / load.tps;
    Ok([connected, idle_pss, load.peak_pss, idle, load.cpu_percent, server, load.tps, of_one])
}

impl Fleet {
    fn start(bench: &Bench<'_>, cluster: &Cluster, contender: &str, streams: u32) -> Result<Self> {
        let conninfo = conninfo(cluster);
        if contender == PG_RECEIVEWAL {
            let directory = receivers::directory()?;
            let mut fleet = Self { processes: Vec::new(), store: Store::Directory(directory) };
            for number in 1..=streams {
                let store = fleet.path().join(number.to_string());
                fs::create_dir(&store).context(|| format!("cannot make {}", store.display()))?;
                let slot = format!("fleet_{number}");
                let mut command: Command =
                    receivers::pg_receivewal(&bench.installation, &conninfo, &slot, &store)?;
                fleet.processes.push(Process::spawn(&mut command, &fleet.path().join("log"))?);
            }
            return Ok(fleet);
        }
        let sections: String = (1..=streams)
            .map(|number| {
                section(&format!("s{number}"), &conninfo, &format!("fleet_{number}"), &[])
            })
            .collect();
        let walrecv = Walrecv::new(&sections)?;
        let mut fleet = Self { processes: Vec::new(), store: Store::Home(walrecv) };
        if let Store::Home(walrecv) = &fleet.store {
            let mut command = walrecv.command(&["run"])?;
            fleet.processes.push(Process::spawn(&mut command, &fleet.path().join("log"))?);
        }
        Ok(fleet)
    }

    fn path(&self) -> PathBuf {
        match &self.store {
            Store::Directory(directory) => directory.path().to_owned(),
            Store::Home(walrecv) => walrecv.directory().to_owned(),
        }
    }

    fn pids(&self) -> Vec<i32> {
        self.processes.iter().flat_map(|process| cost::tree(process.pid())).collect()
    }
}

/// What the receivers needed under load.
#[derive(Debug, Default)]
struct Load {
    tps: f64,
    cpu_percent: f64,
    peak_pss: f64,
}

impl Load {
    /// In the middle of it every stream begins a new segment, and archives the old one.
    fn run(cluster: &Cluster, processes: &[i32], seconds: u32) -> Result<Self> {
        let mut load = Self::default();
        let over = AtomicBool::new(false);
        load.cpu_percent = percent(processes, || {
            std::thread::scope(|scope| {
                let watch = scope.spawn(|| {
                    let mut peak = 0;
                    while !over.load(Ordering::Relaxed) {
                        peak = peak.max(cost::pss_kib(processes));
                        std::thread::sleep(GLANCE);
                    }
                    peak
                });
                let half = seconds.div_ceil(2);
                let commits = (|| {
                    let before = pgbench::paced(cluster, RATE, half)?;
                    cluster.execute("SELECT pg_switch_wal()")?;
                    Ok((before + pgbench::paced(cluster, RATE, half)?) / 2.0)
                })();
                over.store(true, Ordering::Relaxed);
                load.peak_pss = megabytes(watch.join().unwrap_or_default());
                load.tps = commits?;
                Ok(())
            })
        })?;
        Ok(load)
    }
}

/// The CPU of processes while something goes on, in percent of one processor.
fn percent(processes: &[i32], meanwhile: impl FnOnce() -> Result<()>) -> Result<f64> {
    let (begin, before) = (Instant::now(), cost::cpu_seconds(processes));
    meanwhile()?;
    let used = cost::cpu_seconds(processes) - before;
    Ok(100.0 * used / begin.elapsed().as_secs_f64())
}

fn megabytes(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}

fn bars(streams: u32) -> Vec<Bar> {
    let (ours, theirs) = (row(WALRECV, streams), row(PG_RECEIVEWAL, streams));
    let most = Wanted::AtMost;
    vec![
        Bar::absolute("connected s", ours.clone(), most(3.0)),
        Bar::absolute("PSS MB idle", ours.clone(), most(44.0)),
        Bar::absolute("peak PSS MB", ours.clone(), most(44.0)),
        Bar::ratio("peak PSS MB", ours.clone(), theirs.clone(), most(0.5)),
        Bar::ratio(CPU_OF_ONE, ours, theirs, most(0.7)),
    ]
}
