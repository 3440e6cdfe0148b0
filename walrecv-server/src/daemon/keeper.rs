//! What is done for one server beside receiving its WAL, each when its time has come.
//!
//! Base backups, verifications and checks go on side by side; two of the same line never do. A
//! run that is cut short by the daemon's end has not had its turn, and comes again after the start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time;

use super::agenda::{self, Line};
use super::board::{Board, Task};
use super::diary::Diary;
use super::herald::Herald;
use super::places::{Places, restores_first};
use super::tasks::{self, End};
use super::{changed, persist, raised};
use crate::failure::in_one_line;
use crate::settings::{ServerName, ServerSettings};
use crate::storage::{Home, ServerDir};

/// The longest sleep: clocks are set, and machines sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Looks after one server.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) server: ServerName,
    pub(super) settings: watch::Receiver<Arc<ServerSettings>>,
    pub(super) home: Home,
    pub(super) board: Board,
    pub(super) diary: Diary,
    pub(super) herald: Herald,
    /// Places for base backups, and for verifications.
    pub(super) backups: Places,
    pub(super) verifications: Places,
    pub(super) stop: watch::Receiver<bool>,
}

impl Keeper {
    /// Does what is to be done until told to stop. What is lost in one of these stops no other.
    pub(super) async fn keep(self) {
        let (server, stop) = (&self.server, &self.stop);
        tokio::join!(
            persist(server, stop.clone(), || self.clone().line(Line::Backups)),
            persist(server, stop.clone(), || self.clone().line(Line::Verifications)),
            persist(server, stop.clone(), || self.clone().checks()),
            persist(server, stop.clone(), || self.clone().retention()),
        );
    }

    pub(super) fn store(&self) -> ServerDir {
        self.home.server(&self.server)
    }

    fn current(&mut self) -> Arc<ServerSettings> {
        Arc::clone(&self.settings.borrow_and_update())
    }

    /// Sleeps so long, or until the settings change. `false` when told to stop.
    async fn sleep(&mut self, how_long: Option<Duration>) -> bool {
        let sleep = async {
            match how_long {
                Some(how_long) => time::sleep(how_long).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = raised(&mut self.stop) => false,
            () = changed(&mut self.settings) => true,
            () = sleep => true,
        }
    }

    /// Scheduled tasks that go on one after the other.
    async fn line(mut self, line: Line) {
        loop {
            let settings = self.current();
            let now = Timestamp::now();
            let turns = self.diary.turns(&settings, now).await;
            let planned = match &turns {
                Ok(turns) if settings.active => agenda::planned(line, turns, &settings),
                _ => BTreeMap::new(),
            };
            self.board.plan(&self.server, line.tasks(), &planned);
            let pause = match &turns {
                Ok(_) => planned.values().min().map(|at| until(*at, now)),
                Err(error) => {
                    let error = in_one_line(error);
                    tracing::error!(server = %self.server, error, "schedules are not followed");
                    Some(LONGEST_SLEEP)
                }
            };
            let due = turns.ok().and_then(|turns| agenda::due(line, &turns, &settings, now));
            let goes_on = match due.filter(|_| settings.active) {
                Some(task) => self.run(line, task, &settings).await,
                None => self.sleep(pause).await,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Runs a task that is due. `false` when told to stop.
    async fn run(&mut self, line: Line, task: Task, settings: &Arc<ServerSettings>) -> bool {
        let ongoing = self.board.begin(&self.server, task);
        let place = tokio::select! {
            () = raised(&mut self.stop) => return false,
            place = async {
                restores_first(&self.home).await;
                match line {
                    Line::Backups => self.backups.take().await,
                    Line::Verifications => self.verifications.take().await,
                }
            } => place,
        };
        let (settings, store) = (Arc::clone(settings), self.store());
        let (end, ongoing) = match task {
            Task::Verification => {
                let verified = tasks::verify(&settings, &store, ongoing, &self.stop).await;
                drop(place);
                verified
            }
            _ => {
                let incremental = task == Task::IncrementalBackup;
                let stop = &self.stop;
                let backup = tasks::back_up(&settings, &store, incremental, &ongoing, place, stop);
                (backup.await, ongoing)
            }
        };
        match end {
            End::CutShort => return false,
            End::Well => ongoing.end(None),
            End::Badly(error, notice) => {
                ongoing.end(Some(error));
                if let Some(notice) = notice {
                    self.herald.tell(&settings, notice);
                }
            }
        }
        if let Err(error) = self.diary.settle(line, task, &settings).await {
            // It would run again and again.
            let error = in_one_line(&error);
            tracing::error!(server = %self.server, error, "a schedule's turn cannot be noted");
            return self.sleep(Some(LONGEST_SLEEP)).await;
        }
        if line == Line::Backups {
            tasks::enforce(&settings, &store, &self.board, &self.herald, &self.stop).await;
        }
        true
    }

    /// Enforces the policy again and again. Not cut short: what goes, goes in steps.
    async fn retention(mut self) {
        let mut pause = Duration::from_secs(60) + agenda::spread(&self.server);
        // Another policy does not wait for the hour.
        while self.sleep(Some(pause)).await {
            let settings = self.current();
            if settings.active {
                let store = self.store();
                tasks::enforce(&settings, &store, &self.board, &self.herald, &self.stop).await;
            }
            pause = RETENTION;
        }
    }

    /// Checks the server again and again.
    async fn checks(mut self) {
        // Not all of them at once, and not before the receiver has had time to connect.
        let first = Duration::from_secs(5) + agenda::spread(&self.server) / 6;
        let mut pause = Some(first);
        loop {
            if !self.sleep(pause).await {
                return;
            }
            let settings = self.current();
            pause = settings.check_interval;
            if pause.is_none() || !settings.active {
                pause = None;
                continue;
            }
            let store = self.store();
            let check = tasks::check(&settings, &store, &self.board, &self.herald);
            tokio::select! {
                () = raised(&mut self.stop) => return,
                () = check => {}
            }
        }
    }
}

/// How often the policy is enforced besides after each scheduled backup: others take backups, too,
/// and time passes.
const RETENTION: Duration = Duration::from_secs(3600);

fn until(at: Timestamp, now: Timestamp) -> Duration {
    let left = at.duration_since(now);
    Duration::try_from(left).unwrap_or_default().clamp(Duration::from_millis(100), LONGEST_SLEEP)
}
