//! What is done for one server beside receiving its WAL, each when its time has come.
//!
//! Base backups, verifications and checks go on side by side; two of the same line never do. A
//! run that is cut short by the daemon's end has not had its turn, and comes again after the start; one
//! that failed for a reason that may pass comes again a little later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::time;

use super::agenda::{self, Line};
use super::board::{Board, Ongoing, Task};
use super::diary::Diary;
use super::herald::Herald;
use super::places::{Places, Queue};
use super::respite::Respite;
use super::tasks::{self, End};
use super::{changed, persist, raised};
use crate::catalog::DocumentError;
use crate::failure::in_one_line;
use crate::hooks::News;
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
    /// Told when a backup was taken: the policy may let others go.
    pub(super) backed_up: Arc<Notify>,
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
        let mut respite = Respite::new(agenda::spread(&self.server));
        let mut before = self.current();
        loop {
            let settings = self.current();
            if !Arc::ptr_eq(&settings, &before) {
                // Perhaps that was what it lacked.
                respite.over();
                before = Arc::clone(&settings);
            }
            let now = Timestamp::now();
            let turns = self.diary.turns(&settings, now).await;
            let mut planned = match &turns {
                Ok(turns) if settings.active => agenda::planned(line, turns, &settings),
                _ => BTreeMap::new(),
            };
            let earliest = now + SignedDuration::try_from(respite.left()).unwrap_or_default();
            planned.values_mut().for_each(|at| *at = earliest.max(*at));
            self.board.plan(&self.server, line.tasks(), &planned);
            if let Err(error) = &turns {
                self.not_followed(line, error, &settings);
            }
            let pause = match &turns {
                Ok(_) => planned.values().min().map(|at| until(*at, now)),
                Err(_) => Some(LONGEST_SLEEP),
            };
            let goes_on = match agenda::due(line, &planned, now) {
                Some(task) => self.run(line, task, &settings, &mut respite).await,
                None => self.sleep(pause).await,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Nobody knows what is due. `check` fails for that, too.
    fn not_followed(&self, line: Line, error: &DocumentError, settings: &ServerSettings) {
        let error = format!("schedules are not followed: {}", in_one_line(error));
        tracing::error!(server = %self.server, "{error}");
        for task in line.tasks() {
            if settings.active && agenda::schedule(*task, settings).is_some() {
                self.board.missed(&self.server, *task, error.clone());
            }
        }
    }

    /// Runs a task that is due. `false` when told to stop.
    async fn run(
        &mut self,
        line: Line,
        task: Task,
        settings: &Arc<ServerSettings>,
        respite: &mut Respite,
    ) -> bool {
        let ongoing = Arc::new(self.board.begin(&self.server, task));
        // Boxed, as all that is done now and then: the room is taken only then, and not for every
        // server at all times.
        let work = Box::pin(self.clone().work(task, Arc::clone(settings), Arc::clone(&ongoing)));
        let news = match line {
            Line::Backups => News::BackupFailed,
            Line::Verifications => News::VerificationFailed,
        };
        match End::of(work, &self.server, news).await {
            End::CutShort => return false,
            End::Well => {
                respite.over();
                ongoing.end(None);
            }
            End::Badly { error, notice, may_pass } => {
                ongoing.end(Some(error));
                let now = Timestamp::now();
                let next = agenda::next(line, settings, now);
                let next = next.and_then(|next| next.duration_since(now).try_into().ok());
                let first = respite.is_first();
                let again = may_pass && respite.again(next);
                // Others are told once, and when it is given up.
                if let Some(notice) = notice.filter(|_| first || !again) {
                    self.herald.tell(settings, notice);
                }
                if again {
                    let minutes = respite.left().as_secs().div_ceil(60);
                    tracing::warn!(server = %self.server, minutes, "it is tried again in a while");
                    return true;
                }
                respite.over();
            }
        }
        if let Err(error) = self.diary.settle(line, task, settings).await {
            // It would run again and again.
            let error = in_one_line(&error);
            tracing::error!(server = %self.server, error, "a schedule's turn cannot be noted");
            return self.sleep(Some(LONGEST_SLEEP)).await;
        }
        if line == Line::Backups {
            self.backed_up.notify_one();
        }
        true
    }

    /// Does what is due, when there is a place for it.
    async fn work(self, task: Task, settings: Arc<ServerSettings>, ongoing: Arc<Ongoing>) -> End {
        let store = self.store();
        match task {
            Task::Verification => {
                // One that is limited may take days, and leaves the disk to others.
                let places = match settings.verify_bandwidth_limit_kb {
                    Some(_) => Places::new(1),
                    None => self.verifications.clone(),
                };
                let queue = Queue::new(places, self.home.clone());
                let Some(place) = queue.take(&self.stop).await else { return End::CutShort };
                let end = tasks::verify(&settings, &store, ongoing, &self.stop).await;
                drop(place);
                end
            }
            _ => {
                let queue = Queue::new(self.backups.clone(), self.home.clone());
                let incremental = task == Task::IncrementalBackup;
                let receiver = self.board.status(&self.server);
                tasks::back_up(
                    &settings,
                    &store,
                    incremental,
                    receiver,
                    &ongoing,
                    &queue,
                    &self.stop,
                )
                .await
            }
        }
    }

    /// Enforces the policy again and again, and when a backup was taken. Not cut short: what goes, goes
    /// in steps.
    async fn retention(mut self) {
        let mut pause = Duration::from_secs(60) + agenda::spread(&self.server);
        let backed_up = Arc::clone(&self.backed_up);
        loop {
            tokio::select! {
                // Another policy does not wait for the hour.
                goes_on = self.sleep(Some(pause)) => if !goes_on { return },
                () = backed_up.notified() => {}
            }
            let settings = self.current();
            if settings.active {
                let store = self.store();
                let (board, herald) = (&self.board, &self.herald);
                Box::pin(tasks::enforce(&settings, &store, board, herald, &self.stop)).await;
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
            let check = Box::pin(tasks::check(&settings, &store, &self.board, &self.herald));
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
