//! Commits that wait until the receiver has them: how many a second, and how long each takes.

use std::time::Instant;

use walrecv_tests::{Cluster, Failure, Result};

use super::super::bars::{self, Bar, Wanted};
use super::super::board::{Board, Column};
use super::super::cost;
use super::super::pages::Page;
use super::super::process::Process;
use super::pgbench::{self, Commits};
use super::receivers::{
    APPLICATION, PG_RECEIVEWAL, WALRECV, conninfo, create_slot, drop_slot, synchronous,
};
use super::{Bench, tell};

const COLUMNS: &[Column] = &[
    Column { name: "tps", decimals: 0 },
    Column { name: "mean ms", decimals: 2 },
    Column { name: "p99 ms", decimals: 2 },
    Column { name: "CPU %", decimals: 1 },
    Column { name: CPU_OF_ONE, decimals: 1 },
    Column { name: "RSS MiB", decimals: 1 },
];

/// Those who have more commits have more to do.
const CPU_OF_ONE: &str = "CPU µs/commit";

const SLOT: &str = "sync";

/// Nobody receives: what the server's own disk allows.
const LOCAL: &str = "local only";

/// How many times pg_receivewal's commits per second ours are to be, by the number of clients.
const WANTED: [(u32, f64); 3] = [(1, 1.10), (8, 1.05), (32, 1.0)];

pub(super) fn run(bench: &Bench<'_>) -> Result<Page> {
    let cluster = bench.cluster().durable().start()?;
    pgbench::initialise(&cluster, 10)?;
    let mut board = Board::new(COLUMNS);
    for round in 1..=bench.arguments.rounds {
        for &clients in &bench.arguments.clients {
            for contender in [LOCAL, PG_RECEIVEWAL, WALRECV] {
                if !bench.wants(contender) {
                    continue;
                }
                bench.interrupt.check()?;
                // Not in one run and not in the other.
                cluster.execute("CHECKPOINT")?;
                let row = row(contender, clients);
                let (commits, cpu, rss) = if contender == LOCAL {
                    let seconds = bench.arguments.seconds;
                    (pgbench::commits(&cluster, clients, seconds, || Ok(()))?, None, None)
                } else {
                    let (commits, cpu, rss) = waiting(bench, &cluster, contender, clients)?;
                    (commits, Some(cpu), Some(rss))
                };
                tell(&format!("sync: round {round}: {row}: {:.0} tps", commits.per_second));
                board.add(
                    &row,
                    [
                        Some(commits.per_second),
                        Some(commits.mean_ms),
                        Some(commits.p99_ms),
                        cpu,
                        cpu.map(|percent| percent * 1e4 / commits.per_second),
                        rss,
                    ],
                );
            }
        }
    }
    let mut page = bench.page("sync", &cluster)?;
    page.table(board.table());
    page.table(bars::table(&bars(&bench.arguments.clients), &board));
    Ok(page)
}

fn row(contender: &str, clients: u32) -> String {
    let plural = if clients == 1 { "" } else { "s" };
    format!("{contender}, {clients} client{plural}")
}

/// Commits that wait for this receiver, its CPU in percent of one processor, and its memory.
fn waiting(
    bench: &Bench<'_>,
    cluster: &Cluster,
    contender: &str,
    clients: u32,
) -> Result<(Commits, f64, f64)> {
    create_slot(&mut cluster.session()?, SLOT)?;
    let mut receiver = synchronous(contender, &bench.installation, &conninfo(cluster), SLOT)?;
    wait_for_state(cluster, &mut receiver.process, "state = 'streaming'")?;
    wait_for_it(cluster, Some(APPLICATION))?;
    wait_for_state(cluster, &mut receiver.process, "sync_state = 'sync'")?;

    let processes = cost::tree(receiver.process.pid());
    let (begin, before) = (Instant::now(), cost::cpu_seconds(&processes));
    let commits = pgbench::commits(cluster, clients, bench.arguments.seconds, || {
        receiver.process.demand_running()
    });
    let used = cost::cpu_seconds(&processes) - before;
    let cpu = 100.0 * used / begin.elapsed().as_secs_f64();

    wait_for_it(cluster, None)?;
    let commits = commits?;
    let rss = receiver.process.stop()?.peak_mib;
    drop_slot(cluster, SLOT)?;
    Ok((commits, cpu, rss))
}

/// Says for whom commits wait from now on.
fn wait_for_it(cluster: &Cluster, name: Option<&str>) -> Result<()> {
    let name = name.unwrap_or_default();
    cluster.execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'"))?;
    cluster.reload()?;
    cluster.wait_for("the server to read its settings", |cluster| {
        Ok(cluster.value("SHOW synchronous_standby_names")? == name)
    })
}

fn wait_for_state(cluster: &Cluster, process: &mut Process, state: &str) -> Result<()> {
    cluster.wait_for("the receiver", |cluster| {
        process.demand_running()?;
        let sql = format!("SELECT count(*) FROM pg_stat_replication WHERE {state}");
        match cluster.value(&sql)?.as_str() {
            "0" => Ok(false),
            "1" => Ok(true),
            more => Err(Failure::new(format!("{more} receivers instead of one"))),
        }
    })
}

fn bars(clients: &[u32]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (clients, wanted) in WANTED.into_iter().filter(|(known, _)| clients.contains(known)) {
        let (ours, theirs) = (row(WALRECV, clients), row(PG_RECEIVEWAL, clients));
        let (local, more) = (row(LOCAL, clients), Wanted::AtLeast(wanted));
        bars.push(Bar::ratio("tps", ours.clone(), theirs.clone(), more));
        bars.push(Bar::ratio(CPU_OF_ONE, ours.clone(), theirs.clone(), Wanted::AtMost(0.7)));
        bars.push(Bar::ratio("p99 ms", ours.clone(), theirs.clone(), Wanted::Nothing));
        bars.push(Bar::ratio("tps", ours, local.clone(), Wanted::Nothing));
        bars.push(Bar::ratio("tps", theirs, local, Wanted::Nothing));
    }
    bars
}
