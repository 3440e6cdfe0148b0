//! Where the daemon keeps what it knows of each server, for those who ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::progress::ProgressSink;
use crate::receiver::Status;
use crate::settings::ServerName;
use crate::views::check::CheckOutcome;

/// What the daemon does for a server beside receiving its WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// A full base backup.
    Backup,
    /// An incremental base backup.
    IncrementalBackup,
    /// Reading what is stored, to see whether it still is what was stored.
    Verification,
    /// Removing what the retention policy does not keep.
    Retention,
    /// Looking whether the server is backed up as it should be.
    Check,
}

/// What is going on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Running {
    /// What is done.
    pub task: Task,
    /// Since when.
    pub since: Timestamp,
    /// The piece of work that it is at; empty while it waits for its turn.
    pub phase: String,
    /// How many bytes of that piece are done.
    pub done: u64,
    /// Of how many, where that is known.
    pub total: Option<u64>,
}

/// What has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// What was done.
    pub task: Task,
    /// When it began.
    pub since: Timestamp,
    /// When it ended.
    pub at: Timestamp,
    /// Why it failed, in one line; `None` if it did not.
    pub error: Option<String>,
}

/// A check, and when it was made.
#[derive(Clone, Debug)]
pub struct Checked {
    /// When.
    pub at: Timestamp,
    /// What was found.
    pub outcome: Arc<CheckOutcome>,
}

/// What the daemon knows of one server.
#[derive(Clone, Debug)]
pub struct ServerNews {
    /// The server.
    pub server: ServerName,
    /// How its receiver is; `None` if it has none.
    pub receiver: Option<Status>,
    /// The last check.
    pub check: Option<Checked>,
    /// What is going on.
    pub running: Vec<Running>,
    /// When each scheduled task comes next.
    pub planned: BTreeMap<Task, Timestamp>,
    /// How each task ended last, since the daemon was started.
    pub ended: BTreeMap<Task, Ended>,
}

#[derive(Debug, Default)]
struct Entry {
    receiver: Option<watch::Receiver<Status>>,
    check: Option<Checked>,
    /// Ranges of suspect WAL that others know of.
    suspect: u64,
    running: BTreeMap<Task, Running>,
    planned: BTreeMap<Task, Timestamp>,
    ended: BTreeMap<Task, Ended>,
}

/// What the daemon knows of its servers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    entries: Arc<Mutex<BTreeMap<ServerName, Entry>>>,
    /// Why the configuration was not taken that was read last.
    refused: Arc<Mutex<Option<String>>>,
}

impl Board {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<ServerName, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The configuration was read, and taken or `refused`, for this reason.
    pub(super) fn configured(&self, refused: Option<String>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = refused;
    }

    /// Why the configuration was not taken that was read last; `None` if it was.
    pub(crate) fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, server: &ServerName, change: impl FnOnce(&mut Entry)) {
        change(self.entries().entry(server.clone()).or_default());
    }

    /// A receiver begins, in place of one that ended.
    pub(super) fn post(&self, server: &ServerName, status: watch::Receiver<Status>) {
        self.change(server, |entry| entry.receiver = Some(status));
    }

    /// A server is not looked after any more.
    pub(super) fn remove(&self, server: &ServerName) {
        self.entries().remove(server);
    }

    /// When these tasks come next, if they do.
    pub(super) fn plan(
        &self,
        server: &ServerName,
        tasks: &[Task],
        planned: &BTreeMap<Task, Timestamp>,
    ) {
        self.change(server, |entry| {
            for task in tasks {
                match planned.get(task) {
                    Some(at) => entry.planned.insert(*task, *at),
                    None => entry.planned.remove(task),
                };
            }
        });
    }

    /// A check was made.
    pub(super) fn checked(&self, outcome: CheckOutcome, at: Timestamp) {
        let server = outcome.server.clone();
        let checked = Checked { at, outcome: Arc::new(outcome) };
        self.change(&server, |entry| entry.check = Some(checked));
    }

    /// A task that was due could not begin.
    pub(super) fn missed(&self, server: &ServerName, task: Task, error: String) {
        let now = Timestamp::now();
        let ended = Ended { task, since: now, at: now, error: Some(error) };
        self.change(server, |entry| {
            entry.ended.insert(task, ended);
        });
    }

    /// A task begins. It is over when what is returned is [ended](Ongoing::end), or dropped.
    pub(super) fn begin(&self, server: &ServerName, task: Task) -> Ongoing {
        let since = Timestamp::now();
        let running = Running { task, since, phase: String::new(), done: 0, total: None };
        self.change(server, |entry| {
            entry.running.insert(task, running);
        });
        Ongoing { board: self.clone(), server: server.clone(), task, since }
    }

    /// How the receivers are, in the order of their servers' names.
    pub(super) fn statuses(&self) -> Vec<Status> {
        let entries = self.entries();
        let receivers = entries.values().filter_map(|entry| entry.receiver.as_ref());
        receivers.map(|status| status.borrow().clone()).collect()
    }

    /// How the receiver of one server is.
    pub(super) fn status(&self, server: &ServerName) -> Option<Status> {
        let entries = self.entries();
        let receiver = entries.get(server)?.receiver.as_ref()?;
        Some(receiver.borrow().clone())
    }

    /// The last check of one server.
    pub(super) fn check(&self, server: &ServerName) -> Option<Checked> {
        self.entries().get(server)?.check.clone()
    }

    /// How many ranges of suspect WAL others know of.
    pub(super) fn suspect(&self, server: &ServerName) -> u64 {
        self.entries().get(server).map_or(0, |entry| entry.suspect)
    }

    /// Others know of so many.
    pub(super) fn saw_suspect(&self, server: &ServerName, ranges: u64) {
        self.change(server, |entry| entry.suspect = ranges);
    }

    /// What is known of each server, in the order of their names.
    pub(crate) fn news(&self) -> Vec<ServerNews> {
        let entries = self.entries();
        let news = |(server, entry): (&ServerName, &Entry)| ServerNews {
            server: server.clone(),
            receiver: entry.receiver.as_ref().map(|status| status.borrow().clone()),
            check: entry.check.clone(),
            running: entry.running.values().cloned().collect(),
            planned: entry.planned.clone(),
            ended: entry.ended.clone(),
        };
        entries.iter().map(news).collect()
    }
}

/// A task that is going on; told about its progress, it shows it on the board.
#[derive(Debug)]
pub(super) struct Ongoing {
    board: Board,
    server: ServerName,
    task: Task,
    since: Timestamp,
}

impl Ongoing {
    /// The task has ended, well or not.
    pub(super) fn end(&self, error: Option<String>) {
        let ended = Ended { task: self.task, since: self.since, at: Timestamp::now(), error };
        self.board.change(&self.server, |entry| {
            entry.running.remove(&self.task);
            entry.ended.insert(ended.task, ended);
        });
    }

    fn progress(&self, change: impl FnOnce(&mut Running)) {
        if let Some(entry) = self.board.entries().get_mut(&self.server)
            && let Some(running) = entry.running.get_mut(&self.task)
        {
            change(running);
        }
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        if let Some(entry) = self.board.entries().get_mut(&self.server) {
            entry.running.remove(&self.task);
        }
    }
}

impl ProgressSink for Ongoing {
    fn begin(&self, what: &str, total: Option<u64>) {
        self.progress(|running| {
            running.phase = what.to_owned();
            (running.done, running.total) = (0, total);
        });
    }

    fn advance_to(&self, done: u64) {
        self.progress(|running| running.done = done);
    }

    fn finish(&self) {
        self.progress(|running| running.phase.clear());
    }

    fn note(&self, line: &str) {
        tracing::info!(server = %self.server, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_seen_while_it_goes_on_and_its_end_stays() {
        let board = Board::default();
        let server: ServerName = "main".parse().unwrap();
        let backup = board.begin(&server, Task::Backup);
        ProgressSink::begin(&backup, "receiving", Some(10));
        backup.advance_to(4);
        let news = board.news().remove(0);
        assert_eq!(news.running.len(), 1);
        assert_eq!(news.running[0].phase, "receiving");
        assert_eq!((news.running[0].done, news.running[0].total), (4, Some(10)));
        backup.end(Some("the server is gone".to_owned()));
        let news = board.news().remove(0);
        assert!(news.running.is_empty());
        assert_eq!(news.ended[&Task::Backup].error.as_deref(), Some("the server is gone"));
        // One that is lost on the way has not ended, but is not running either.
        drop(board.begin(&server, Task::Check));
        let news = board.news().remove(0);
        assert!(news.running.is_empty() && !news.ended.contains_key(&Task::Check));
        board.remove(&server);
        assert!(board.news().is_empty());
    }
}
