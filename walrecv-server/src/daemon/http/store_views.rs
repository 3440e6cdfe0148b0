//! What is stored for the servers, remembered for a short time: looked at when somebody asks, and
//! then by one thread, however many ask.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Mutex;

use crate::settings::{ServerName, ServerSettings};
use crate::storage::Home;
use crate::views::sizes::forecast;
use crate::views::stored::{Stored, stored};

/// How long a view is good for at least.
const FRESH: Duration = Duration::from_secs(5);

/// How many times longer than a look takes it is good for, so that looking at large archives takes
/// no more than a small part of a processor.
const REST: u32 = 50;

struct Remembered {
    until: Instant,
    stored: Stored,
}

/// What was seen of each server.
pub(super) struct StoreViews {
    home: Home,
    remembered: Mutex<BTreeMap<ServerName, Remembered>>,
}

impl StoreViews {
    pub(super) fn new(home: Home) -> Self {
        Self { home, remembered: Mutex::default() }
    }

    /// What is stored for each of these servers.
    pub(super) async fn of(&self, servers: &[ServerSettings]) -> BTreeMap<ServerName, Stored> {
        let mut remembered = self.remembered.lock().await;
        let now = Instant::now();
        remembered.retain(|_, view| view.until > now);
        let missing: Vec<ServerSettings> = servers
            .iter()
            .filter(|server| !remembered.contains_key(&server.name))
            .cloned()
            .collect();
        if !missing.is_empty() {
            let home = self.home.clone();
            let looked = tokio::task::spawn_blocking(move || look(&home, &missing)).await;
            remembered.extend(looked.unwrap_or_default());
        }
        let view = |server: &ServerSettings| {
            let stored = remembered.get(&server.name)?.stored.clone();
            Some((server.name.clone(), stored))
        };
        let mut views: BTreeMap<_, _> = servers.iter().filter_map(view).collect();
        drop(remembered);
        forecast(views.values_mut().map(|view| &mut view.sizes));
        views
    }
}

fn look(home: &Home, servers: &[ServerSettings]) -> Vec<(ServerName, Remembered)> {
    let one = |server: &ServerSettings| {
        let began = Instant::now();
        let dir = home.server(&server.name);
        let stored = stored(&dir, Timestamp::now());
        let good_for = FRESH.max(began.elapsed() * REST);
        (server.name.clone(), Remembered { until: Instant::now() + good_for, stored })
    };
    servers.iter().map(one).collect()
}
