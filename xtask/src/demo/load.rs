//! The load, in the manner of pgbench: accounts that change, and a ledger with one row per
//! commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use walrecv_tests::sql::Session;
use walrecv_tests::{Cluster, Context, Failure, Result};

const ACCOUNTS: u64 = 1_000_000;

/// Beside the one that writes the ledger.
const TELLERS: u64 = 2;

/// The tables and their first rows.
pub(super) fn fill(cluster: &Cluster) -> Result<()> {
    for statement in [
        "CREATE TABLE ledger (id bigserial PRIMARY KEY, \
         at timestamptz NOT NULL DEFAULT clock_timestamp())",
        "CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL, filler text)",
        &format!(
            "INSERT INTO accounts SELECT n, 1000, repeat(md5(n::text), 6) \
             FROM generate_series(1, {ACCOUNTS}) AS n"
        ),
    ] {
        cluster.execute(statement)?;
    }
    Ok(())
}

/// What the tables hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ledger {
    /// The row that was committed last.
    pub(super) last: String,
    rows: String,
    balances: String,
}

impl Ledger {
    pub(super) fn read(cluster: &Cluster) -> Result<Self> {
        let last = "SELECT '#' || id || ' of ' || (at AT TIME ZONE 'UTC') || ' UTC' \
                    FROM ledger ORDER BY id DESC LIMIT 1";
        Ok(Self {
            last: cluster.value(last)?,
            rows: cluster.value("SELECT count(*) FROM ledger")?,
            balances: cluster.value("SELECT sum(id * balance) FROM accounts")?,
        })
    }
}

/// Threads that commit until they are told to stop. Dropping it stops them too.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    commits: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    pub(super) fn start(cluster: &Cluster) -> Result<Self> {
        let mut load = Self { stop: Arc::default(), commits: Arc::default(), threads: Vec::new() };
        load.add(cluster.session()?, || "INSERT INTO ledger DEFAULT VALUES".to_owned());
        for teller in 1..=TELLERS {
            // Two tellers never wait for each other's rows.
            let mut account = teller;
            load.add(cluster.session()?, move || {
                account = (account + TELLERS * 7919) % ACCOUNTS;
                format!("UPDATE accounts SET balance = balance + 1 WHERE id = {}", account + 1)
            });
        }
        Ok(load)
    }

    fn add(&mut self, mut session: Session, mut next: impl FnMut() -> String + Send + 'static) {
        let (stop, commits) = (Arc::clone(&self.stop), Arc::clone(&self.commits));
        self.threads.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                session.query(&next())?;
                commits.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }));
    }

    /// Ends it; the number of commits that the server has acknowledged.
    pub(super) fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread
                .join()
                .map_err(|_| Failure::new("a thread of the load panicked"))?
                .context(|| "the load failed".to_owned())?;
        }
        Ok(self.commits.load(Ordering::Relaxed))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
