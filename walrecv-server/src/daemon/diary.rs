//! The turns of one server's schedules: read once, kept, and written when they change.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Mutex;

use super::agenda::{self, Line};
use super::blocking;
use super::board::Task;
use crate::catalog::{DocumentError, Turns};
use crate::settings::ServerSettings;
use crate::storage::ServerDir;

/// The turns, shared by all that is done for the server.
#[derive(Clone)]
pub(super) struct Diary {
    store: ServerDir,
    turns: Arc<Mutex<Option<Turns>>>,
}

impl Diary {
    pub(super) fn new(store: ServerDir) -> Self {
        Self { store, turns: Arc::default() }
    }

    /// The turns as they are, those of schedules that are new included.
    pub(super) async fn turns(
        &self,
        settings: &ServerSettings,
        now: Timestamp,
    ) -> Result<Turns, DocumentError> {
        self.change(|turns| agenda::align(turns, settings, now)).await
    }

    /// A task has had its turn.
    pub(super) async fn settle(
        &self,
        line: Line,
        task: Task,
        settings: &ServerSettings,
    ) -> Result<(), DocumentError> {
        let now = Timestamp::now();
        let settle = |turns: &mut Turns| {
            agenda::settle(line, turns, task, settings, now);
            true
        };
        self.change(settle).await.map(drop)
    }

    /// What holds is what is known here, also if it could not be written: nothing is done twice
    /// because a disk is full.
    async fn change(
        &self,
        change: impl FnOnce(&mut Turns) -> bool,
    ) -> Result<Turns, DocumentError> {
        let mut known = self.turns.lock().await;
        let mut turns = match known.take() {
            Some(turns) => turns,
            None => {
                let store = self.store.clone();
                blocking(move || Turns::load(&store)).await?
            }
        };
        let changed = change(&mut turns);
        *known = Some(turns.clone());
        if changed {
            let (store, turns) = (self.store.clone(), turns.clone());
            // Nothing is stored for a server that was never reached.
            blocking(move || if store.state().exists() { turns.save(&store) } else { Ok(()) })
                .await?;
        }
        Ok(turns)
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::settings::{ConnInfo, Moments};
    use crate::storage::{Access, Home};

    #[tokio::test]
    async fn turns_outlive_the_daemon_and_hold_without_a_store() {
        let directory = tempfile::tempdir().unwrap();
        let store = Home::new(directory.path(), Access::Private).server(&"main".parse().unwrap());
        let mut settings = ServerSettings::new(
            "main".parse().unwrap(),
            ConnInfo::new("host=x"),
            "walrecv".parse().unwrap(),
        );
        let nightly: Moments = "0 2 * * *".parse().unwrap();
        settings.backup_schedule = Some(nightly.within(TimeZone::UTC));
        let (early, late): (Timestamp, Timestamp) =
            ("2026-03-05T12:00:00Z".parse().unwrap(), "2026-03-06T12:00:00Z".parse().unwrap());

        let diary = Diary::new(store.clone());
        let first = diary.turns(&settings, early).await.unwrap();
        let due = |turns: &Turns| {
            agenda::due(Line::Backups, &agenda::planned(Line::Backups, turns, &settings), late)
        };
        assert_eq!(due(&first), Some(Task::Backup));
        // It was not there to be written, and begins at the same moment all the same.
        assert_eq!(diary.turns(&settings, late).await.unwrap(), first);
        assert!(!store.schedule().exists());

        store.create().unwrap();
        diary.settle(Line::Backups, Task::Backup, &settings).await.unwrap();
        let again = Diary::new(store).turns(&settings, late).await.unwrap();
        assert_eq!(due(&again), None);
    }
}
