//! What a primary's clients were told: the numbers of the rows whose commits it acknowledged.
//!
//! ```text
//!   Ledger::create ──► write ──► Writers ── stop ──► acknowledged, with the primary alive
//!                                   └── expect_death ── (the primary is killed) ── join ──►
//! ```

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::failure::{Context, Failure, Result};
use crate::sql::Session;

/// How long a commit may wait for its acknowledgement in the end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Numbered rows, and which of them the primary said were safe.
#[derive(Debug, Default)]
pub struct Ledger {
    next: AtomicU64,
    acknowledged: Mutex<BTreeSet<u64>>,
}

impl Ledger {
    /// A table for the rows, and none of them.
    pub fn create(cluster: &Cluster) -> Result<Arc<Self>> {
        cluster.execute("CREATE TABLE ledger (n bigint PRIMARY KEY, entry text)")?;
        Ok(Arc::default())
    }

    /// Starts so many clients that insert rows, each in a transaction of its own, as fast as
    /// commits are acknowledged.
    pub fn write(self: &Arc<Self>, cluster: &Cluster, clients: usize) -> Result<Writers> {
        let over = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for _ in 0..clients {
            let mut session = cluster.session()?;
            let (ledger, over) = (Arc::clone(self), Arc::clone(&over));
            threads.push(std::thread::spawn(move || ledger.write_until(&over, &mut session)));
        }
        Ok(Writers { threads, over })
    }

    fn write_until(&self, over: &AtomicBool, session: &mut Session) -> Result<()> {
        while !over.load(Ordering::Relaxed) {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let insert = format!(
                "INSERT INTO ledger SELECT {n}, string_agg(md5(random()::text), '') \
                 FROM generate_series(1, 20)"
            );
            match session.query(&insert) {
                Ok(_) => self.acknowledge(n),
                // The primary was killed.
                Err(_) if over.load(Ordering::Relaxed) => break,
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    fn acknowledge(&self, n: u64) {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(n);
    }

    /// How many rows were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The acknowledged rows that a cluster does not have.
    pub fn missing_in(&self, cluster: &Cluster) -> Result<Vec<u64>> {
        let rows = cluster.query("SELECT n FROM ledger")?;
        let present: BTreeSet<u64> =
            rows.iter().filter_map(|row| row.first()?.parse().ok()).collect();
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(acknowledged.difference(&present).copied().collect())
    }
}

/// Clients at work. Dropping it leaves them to end with their server, because a commit may wait
/// for ever.
#[derive(Debug)]
pub struct Writers {
    threads: Vec<JoinHandle<Result<()>>>,
    over: Arc<AtomicBool>,
}

impl Writers {
    /// Lets each end with its next acknowledged commit.
    pub fn stop(self) -> Result<()> {
        self.expect_death();
        self.join()
    }

    /// The server will be killed, which is no failure from now on.
    pub fn expect_death(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Waits until all have ended.
    pub fn join(self) -> Result<()> {
        let begin = Instant::now();
        while !self.threads.iter().all(JoinHandle::is_finished) {
            if begin.elapsed() > PATIENCE {
                return Err(Failure::new(format!("a commit was not acknowledged in {PATIENCE:?}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        for thread in self.threads {
            thread.join().ok().context(|| "a writing client panicked".to_owned())??;
        }
        Ok(())
    }
}
