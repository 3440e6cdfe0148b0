//! How much heavy work goes on at a time: so many base backups, and none while a restore runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{self, Instant};

use super::raised;
use crate::catalog::Leases;
use crate::storage::Home;

/// How often is looked whether a restore still runs.
const LOOK: Duration = Duration::from_secs(10);

/// How long a restore goes before everything else. Then backups are taken beside it.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);

#[derive(Debug)]
struct State {
    limit: usize,
    taken: usize,
}

/// Places for heavy work.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<(Mutex<State>, Notify)>);

/// A place that somebody has taken.
#[derive(Debug)]
pub(super) struct Place(Places);

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new((Mutex::new(State { limit, taken: 0 }), Notify::new())))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are from now on. Who has one keeps it.
    pub(super) fn limit(&self, limit: usize) {
        self.state().limit = limit;
        self.0.1.notify_waiters();
    }

    fn try_take(&self) -> Option<Place> {
        let mut state = self.state();
        if state.taken >= state.limit {
            return None;
        }
        state.taken += 1;
        Some(Place(self.clone()))
    }

    /// Takes one, as soon as there is one. Can be dropped at any time.
    pub(super) async fn take(&self) -> Place {
        loop {
            let freed = self.0.1.notified();
            if let Some(slot) = self.try_take() {
                return slot;
            }
            freed.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.taken = state.taken.saturating_sub(1);
        drop(state);
        self.0.0.1.notify_waiters();
    }
}

/// A piece of heavy work that waits for its turn, again and again if it pauses.
#[derive(Debug)]
pub(super) struct Queue {
    places: Places,
    home: Home,
    due: Instant,
}

impl Queue {
    /// It is due from now on.
    pub(super) fn new(places: Places, home: Home) -> Self {
        Self { places, home, due: Instant::now() }
    }

    /// Takes a place when no restore from this store runs, or one has had its time; `None` when told
    /// to stop.
    pub(super) async fn take(&self, stop: &watch::Receiver<bool>) -> Option<Place> {
        let mut stop = stop.clone();
        tokio::select! {
            () = raised(&mut stop) => None,
            place = self.wait() => Some(place),
        }
    }

    async fn wait(&self) -> Place {
        let mut told = false;
        loop {
            let place = self.places.take().await;
            // Only now: one may have begun while others had the place.
            if self.due.elapsed() >= PATIENCE {
                return place;
            }
            let home = self.home.clone();
            let runs = tokio::task::spawn_blocking(move || restore_runs(&home)).await;
            let Some(destination) = runs.unwrap_or_default() else { return place };
            drop(place);
            if !told {
                tracing::info!(destination, "waiting for a restore to end");
                told = true;
            }
            time::sleep(LOOK).await;
        }
    }
}

/// Where to a restore from this store runs.
fn restore_runs(home: &Home) -> Option<String> {
    home.servers().ok()?.iter().find_map(|server| {
        let leases = Leases::load(&home.server(server));
        leases.live().iter().find(|lease| lease.restoring).map(|lease| lease.destination.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn there_are_so_many_places_and_a_new_limit_counts_at_once() {
        let places = Places::new(1);
        let first = places.take().await;
        assert!(places.try_take().is_none());
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.take().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        places.limit(2);
        let second = waiting.await.unwrap();
        places.limit(1);
        drop(second);
        assert!(places.try_take().is_none(), "the first still has the only one");
        drop(first);
        assert!(places.try_take().is_some());
    }
}
