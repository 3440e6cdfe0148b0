//! Finding out, while WAL flows, that commits on the server have begun or ceased to wait for us.
//!
//! No server tells by itself that its `synchronous_standby_names` was changed. It is asked once a
//! minute, and at once when the stream behaves as if commits waited ([`Pattern`]): until we know
//! of it, each of them takes a whole flush interval.
//!
//! Nothing that goes wrong here disturbs the stream: what was known stays true until an answer
//! says otherwise.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgwire_stream::{Config, Lsn, ReplicationClient};
use tokio::sync::{Notify, watch};

use super::status::Status;
use super::synchronous;
use crate::settings::Synchronous;

/// How often the server is asked without a reason.
const EVERY: Duration = Duration::from_secs(60);

/// How long it is not asked again, whatever the reason.
const PAUSE: Duration = Duration::from_secs(5);

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long WAL must have been at rest for somebody to be waiting. What comes in one burst is read
/// with breaths in between.
const REST: Duration = Duration::from_millis(50);

/// How soon after a flush was reported whoever waited for it goes on.
const FOLLOWS: Duration = Duration::from_millis(100);

/// How many times in a row that is no accident any more.
const IN_A_ROW: u32 = 3;

/// Whether commits on the server wait for us, as far as is known.
#[derive(Debug)]
pub(super) struct Synchrony {
    holds: Arc<AtomicBool>,
    /// Whether anybody wants to know of a suspicion.
    watched: bool,
    pattern: Mutex<Pattern>,
    suspicion: Notify,
    /// Commits have begun to wait.
    begun: Notify,
}

impl Synchrony {
    /// As it is set; where that depends on the server, commits do not wait until it says so.
    pub(super) fn new(setting: Synchronous) -> Self {
        Self {
            holds: Arc::new(AtomicBool::new(setting == Synchronous::Always)),
            watched: setting == Synchronous::WhenNamed,
            pattern: Mutex::default(),
            suspicion: Notify::new(),
            begun: Notify::new(),
        }
    }

    /// The same for those who need no more than that; it changes with this.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.holds)
    }

    pub(super) fn holds(&self) -> bool {
        self.holds.load(Ordering::Relaxed)
    }

    /// Says whether commits wait. Whether that is news.
    pub(super) fn set(&self, holds: bool) -> bool {
        let news = self.holds.swap(holds, Ordering::Relaxed) != holds;
        if news && holds {
            self.begun.notify_one();
        }
        news
    }

    /// Completes when commits have begun to wait. Can be dropped at any time.
    pub(super) async fn begun(&self) {
        self.begun.notified().await;
    }

    /// WAL up to here came.
    pub(super) fn received(&self, end: Lsn) {
        if self.suspects(|pattern| pattern.received(end, Instant::now())) {
            self.suspicion.notify_one();
        }
    }

    /// The server was told that everything up to here is durable.
    pub(super) fn flushed(&self, lsn: Lsn) {
        self.suspects(|pattern| {
            pattern.flushed(lsn, Instant::now());
            false
        });
    }

    fn suspects(&self, look: impl FnOnce(&mut Pattern) -> bool) -> bool {
        let undecided = self.watched && !self.holds();
        undecided && look(&mut self.pattern.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether WAL comes as if commits waited for us: it rests, the rest ends with our report that all
/// is durable, and again and again.
#[derive(Debug, Default)]
struct Pattern {
    /// The end of what came, and when it came.
    received: Option<(Lsn, Instant)>,
    /// When those who may have waited were let go.
    released: Option<Instant>,
    in_a_row: u32,
}

impl Pattern {
    /// WAL up to here came now. Whether it is as if commits waited.
    fn received(&mut self, end: Lsn, now: Instant) -> bool {
        let rest = self.received.map(|(_, at)| now.saturating_duration_since(at));
        self.received = Some((end, now));
        match self.released.take() {
            Some(at) if now.saturating_duration_since(at) <= FOLLOWS => self.in_a_row += 1,
            // More of the same burst says nothing.
            None if rest.is_some_and(|rest| rest < REST) => return false,
            // Somebody went on, and had not waited for us.
            _ => self.in_a_row = 0,
        }
        if self.in_a_row < IN_A_ROW {
            return false;
        }
        self.in_a_row = 0;
        true
    }

    /// Everything up to here was reported as durable now.
    fn flushed(&mut self, lsn: Lsn, now: Instant) {
        let waited = self
            .received
            .is_some_and(|(end, at)| lsn >= end && now.saturating_duration_since(at) >= REST);
        if waited {
            self.released = Some(now);
        } else {
            self.released = None;
            self.in_a_row = 0;
        }
    }
}

/// Whether the server names us in `synchronous_standby_names`. An operator whose commits would
/// wait for ever, because they want to be replayed, is warned.
pub(super) async fn ask(
    client: &mut ReplicationClient,
    application_name: &str,
) -> Result<bool, pgwire_stream::Error> {
    // Commits wait for nobody who receives from a standby.
    if client.parameter("in_hot_standby") == Some("on") {
        return Ok(false);
    }
    let names = client.show("synchronous_standby_names").await?;
    let named = synchronous::names(&names, application_name);
    if named && client.show("synchronous_commit").await? == "remote_apply" {
        tracing::warn!(
            synchronous_standby_names = names,
            hint = "set `synchronous_commit = on`, or name standbys only",
            "commits with `synchronous_commit = remote_apply` may wait for ever: WAL is made \
             durable here and never replayed"
        );
    }
    Ok(named)
}

/// Keeps `synchrony` and `status` true for as long as it runs. The configuration leads to the
/// server whose WAL flows.
pub(super) async fn watch(
    synchrony: Arc<Synchrony>,
    status: Arc<watch::Sender<Status>>,
    mut config: Config,
) {
    // What the server matches is the stream's name; this connection is nobody to wait for.
    let name = config.application_name().unwrap_or_default().to_owned();
    config.application_name = Some(format!("{name} (watch)"));
    let asking = || async {
        // Boxed: it is rarely asked.
        match tokio::time::timeout(PATIENCE, Box::pin(ask_anew(&config, &name))).await {
            Ok(Ok(named)) => Some(named),
            Ok(Err(error)) => {
                tracing::debug!(error = %error, "cannot ask whether commits wait for us");
                None
            }
            Err(_) => {
                tracing::debug!("the server does not say whether commits wait for us");
                None
            }
        }
    };
    keep_true(&synchrony, &status, asking, (EVERY, PAUSE)).await;
}

async fn ask_anew(config: &Config, name: &str) -> Result<bool, pgwire_stream::Error> {
    let mut client = ReplicationClient::connect(config).await?;
    let named = ask(&mut client, name).await?;
    client.close().await?;
    Ok(named)
}

async fn keep_true<F: Future<Output = Option<bool>>>(
    synchrony: &Synchrony,
    status: &watch::Sender<Status>,
    mut ask: impl FnMut() -> F,
    (every, pause): (Duration, Duration),
) {
    loop {
        // It was asked right before: at the connection's beginning, or below.
        let asked = tokio::time::Instant::now();
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = synchrony.suspicion.notified() => tokio::time::sleep_until(asked + pause).await,
        }
        let Some(named) = ask().await else { continue };
        if !synchrony.set(named) {
            continue;
        }
        status.send_modify(|status| status.synchronous = named);
        if named {
            tracing::info!("commits on the server wait for us now");
        } else {
            tracing::info!("commits on the server no longer wait for us");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Replays `(milliseconds, position)`; a negative position is a flush. The moments at which
    /// there was a suspicion.
    fn suspicions(events: &[(u32, i64)]) -> Vec<u32> {
        let start = Instant::now();
        let mut pattern = Pattern::default();
        let mut found = Vec::new();
        for &(at, position) in events {
            let now = start + at * MILLISECOND;
            let lsn = Lsn::from_u64(position.unsigned_abs());
            if position < 0 {
                pattern.flushed(lsn, now);
            } else if pattern.received(lsn, now) {
                found.push(at);
            }
        }
        found
    }

    #[test]
    fn commits_that_go_on_only_after_each_flush_are_suspicious() {
        let waiting = [
            (0, 10),
            (1000, -10),
            (1001, 20),
            (2000, -20),
            (2003, 30),
            // A commit may come in pieces.
            (2004, 35),
            (3000, -35),
            (3050, 40),
            (4000, -40),
            (4001, 50),
        ];
        assert_eq!(suspicions(&waiting), [3050]);
    }

    #[test]
    fn wal_that_does_not_wait_is_not() {
        // It comes all the time.
        let busy: Vec<_> = (1..5000)
            .map(|at| if at % 1000 == 0 { (at, -i64::from(at - 1)) } else { (at, i64::from(at)) })
            .collect();
        assert!(suspicions(&busy).is_empty());
        // It comes when it likes.
        let now_and_then: Vec<_> = (0..20)
            .flat_map(|n| {
                let (at, lsn) = (n * 1000, i64::from(n) * 10 + 10);
                [(at, lsn), (at + 300, lsn + 1), (at + 500, -(lsn + 1))]
            })
            .collect();
        assert!(suspicions(&now_and_then).is_empty());
    }

    #[test]
    fn a_single_commit_that_did_not_wait_ends_the_suspicion() {
        let events = [
            (0, 10),
            (1000, -10),
            (1001, 20),
            (2000, -20),
            (2001, 30),
            // Not everything was durable, and somebody went on all the same.
            (2500, 40),
            (3000, -40),
            (3001, 50),
            (4000, -50),
            (4001, 60),
            (5000, -60),
            (5001, 70),
        ];
        assert_eq!(suspicions(&events), [5001]);
        // The flush did not cover what came last.
        let events =
            [(0, 10), (1000, -9), (1001, 20), (2000, -19), (2001, 30), (3000, -29), (3001, 9)];
        assert!(suspicions(&events).is_empty());
    }

    #[test]
    fn quick_flushes_are_no_rest() {
        let events: Vec<_> = (0..50)
            .flat_map(|n| {
                let lsn = i64::from(n) * 10 + 10;
                [(n * 50, lsn), (n * 50 + 2, -lsn)]
            })
            .collect();
        assert!(suspicions(&events).is_empty());
    }

    fn setting() -> (Arc<Synchrony>, Arc<watch::Sender<Status>>) {
        let status = Status::new("main".parse().unwrap(), "walrecv".parse().unwrap());
        (Arc::new(Synchrony::new(Synchronous::WhenNamed)), Arc::new(watch::Sender::new(status)))
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_is_followed_both_ways_and_its_absence_changes_nothing() {
        let (synchrony, status) = setting();
        let answers = [Some(true), None, Some(true), Some(false), Some(true)];
        let mut seen = Vec::new();
        let mut answers = answers.into_iter();
        let look = Arc::clone(&synchrony);
        let ask = || {
            seen.push(look.holds());
            let answer = answers.next();
            async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            }
        };
        let watching = keep_true(&synchrony, &status, ask, (MILLISECOND, MILLISECOND));
        let _ = tokio::time::timeout(500 * MILLISECOND, watching).await;
        assert_eq!(seen, [false, true, true, true, false, true]);
        assert!(status.borrow().synchronous);
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspicion_is_followed_at_once_but_not_too_often() {
        let (synchrony, status) = setting();
        let asked = AtomicU32::new(0);
        let ask = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            Some(false)
        };
        let watching =
            keep_true(&synchrony, &status, ask, (Duration::from_secs(600), 150 * MILLISECOND));
        let suspecting = async {
            for _ in 0..200 {
                synchrony.suspicion.notify_one();
                tokio::time::sleep(2 * MILLISECOND).await;
            }
        };
        tokio::select! {
            () = watching => {}
            () = suspecting => {}
        }
        let asked = asked.into_inner();
        assert_eq!(asked, 2);
    }

    #[test]
    fn what_is_known_already_is_not_suspected() {
        let (synchrony, _) = setting();
        assert!(synchrony.set(true));
        assert!(!synchrony.set(true));
        assert!(synchrony.flag().load(Ordering::Relaxed));
        assert!(!synchrony.suspects(|_| true));
        synchrony.set(false);
        assert!(synchrony.suspects(|_| true));
        assert!(!Synchrony::new(Synchronous::Never).suspects(|_| true));
    }
}
