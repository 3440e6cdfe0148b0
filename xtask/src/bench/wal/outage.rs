//! A connection that breaks: how long until WAL that was written since is confirmed as durable.

use std::time::{Duration, Instant};

use walrecv_tests::sql::Session;
use walrecv_tests::{Cluster, Failure, Result};

use super::super::bars::{self, Bar, Wanted};
use super::super::board::{Board, Column};
use super::super::pages::Page;
use super::proxy::Proxy;
use super::receivers::{
    PG_RECEIVEWAL, Receiver, WALRECV, conninfo, create_slot, drop_slot, synchronous,
};
use super::{Bench, tell};

const CUT: &str = "connection cut s";
const ENDED: &str = "ended by the server s";

const COLUMNS: &[Column] =
    &[Column { name: CUT, decimals: 2 }, Column { name: ENDED, decimals: 2 }];

const SLOT: &str = "outage";

/// How long a stream lasts before it breaks: one that breaks at once may be treated otherwise.
const LASTING: Duration = Duration::from_secs(2);

const PATIENCE: Duration = Duration::from_secs(90);

pub(super) fn run(bench: &Bench<'_>) -> Result<Page> {
    let cluster = bench.cluster().durable().start()?;
    cluster.execute("CREATE TABLE ledger (id bigserial)")?;
    let proxy = Proxy::start(cluster.port())?;
    let direct = conninfo(&cluster);
    let through =
        direct.replace(&format!("port={}", cluster.port()), &format!("port={}", proxy.port()));
    let mut board = Board::new(COLUMNS);
    for contender in [PG_RECEIVEWAL, WALRECV] {
        if !bench.wants(contender) {
            continue;
        }
        let mut session = cluster.session()?;
        create_slot(&mut session, SLOT)?;
        let mut receiver = synchronous(contender, &bench.installation, &through, SLOT)?;
        for round in 1..=bench.arguments.rounds {
            bench.interrupt.check()?;
            let cut = outage(&cluster, &mut session, &mut receiver, |_, _| {
                proxy.cut();
                Ok(())
            })?;
            let ended = outage(&cluster, &mut session, &mut receiver, |session, pid| {
                session.query(&format!("SELECT pg_terminate_backend({pid})")).map(drop)
            })?;
            tell(&format!("outage: round {round}: {contender}: {cut:.2} s, {ended:.2} s"));
            board.add(contender, [Some(cut), Some(ended)]);
        }
        receiver.process.stop()?;
        drop_slot(&cluster, SLOT)?;
    }
    let mut page = bench.page("outage", &cluster)?;
    page.table(board.table());
    let bars = [CUT, ENDED].map(|figure| Bar::absolute(figure, WALRECV, Wanted::AtMost(1.0)));
    page.table(bars::table(&bars, &board));
    Ok(page)
}

/// Seconds from the break until a later commit has been confirmed.
fn outage(
    cluster: &Cluster,
    session: &mut Session,
    receiver: &mut Receiver,
    break_it: impl FnOnce(&mut Session, &str) -> Result<()>,
) -> Result<f64> {
    cluster.wait_for("the receiver", |cluster| {
        receiver.process.demand_running()?;
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        Ok(cluster.value(sql)? == "1")
    })?;
    std::thread::sleep(LASTING);
    let pid = session.value("SELECT pid FROM pg_stat_replication WHERE state = 'streaming'")?;
    let begin = Instant::now();
    break_it(session, &pid)?;
    session.query("INSERT INTO ledger DEFAULT VALUES")?;
    let commit = session.value("SELECT pg_current_wal_flush_lsn()")?;
    let confirmed = format!(
        "SELECT count(*) FROM pg_stat_replication WHERE pid <> {pid} AND flush_lsn >= '{commit}'"
    );
    while begin.elapsed() < PATIENCE {
        if session.value(&confirmed)? != "0" {
            return Ok(begin.elapsed().as_secs_f64());
        }
        receiver.process.demand_running()?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(Failure::new(format!("nothing was confirmed for {PATIENCE:?}")))
}
