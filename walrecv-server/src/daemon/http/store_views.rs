//! What is stored for the servers, remembered for a short time: looked at when somebody asks, by one
//! thread for each server, however many ask, and however soon they go again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::settings::{ServerName, ServerSettings};
use crate::storage::{Home, ServerDir};
use crate::views::sizes::forecast;
use crate::views::stored::{Stored, stored};

/// How long a view is good for at least.
const FRESH: Duration = Duration::from_secs(5);

/// How many times longer than a look takes it is good for, so that looking at large archives takes
/// no more than a small part of a processor.
const REST: u32 = 50;

/// How long is waited for new views where there are old ones.
const BRIEFLY: Duration = Duration::from_secs(2);

/// How long is waited for the first ones: less than those wait who ask.
const FIRST: Duration = Duration::from_secs(8);

/// How many servers are looked at at a time.
const LOOKS: usize = 4;

/// What was last seen of a server.
#[derive(Default)]
struct View {
    /// Until when it is good, and what it is.
    seen: Option<(Instant, Stored)>,
    /// Whether somebody looks.
    looking: bool,
}

type Views = BTreeMap<ServerName, View>;
type Look = dyn Fn(&ServerDir) -> Stored + Send + Sync;

/// What was seen of each server.
pub(super) struct StoreViews {
    home: Home,
    views: Arc<watch::Sender<Views>>,
    room: Arc<Semaphore>,
    look: Arc<Look>,
}

impl StoreViews {
    pub(super) fn new(home: Home) -> Self {
        Self::with(home, Arc::new(|server| stored(server, Timestamp::now())))
    }

    fn with(home: Home, look: Arc<Look>) -> Self {
        let (views, room) = (watch::Sender::default(), Semaphore::new(LOOKS));
        Self { home, views: Arc::new(views), room: Arc::new(room), look }
    }

    /// What is stored for each of these servers, as it was last seen; not there for one that nobody
    /// has seen yet, because that takes long. Can be dropped at any time: the looks go on.
    pub(super) async fn of(&self, servers: &[ServerSettings]) -> BTreeMap<ServerName, Stored> {
        let patience = if self.begin(servers) { BRIEFLY } else { FIRST };
        let mut views = self.views.subscribe();
        let all_seen = async {
            let looks = |views: &Views, name| views.get(name).is_some_and(|view| view.looking);
            let seen = |views: &Views| !servers.iter().any(|server| looks(views, &server.name));
            let _ = views.wait_for(seen).await;
        };
        let _ = timeout(patience, all_seen).await;
        let views = self.views.borrow();
        let view = |server: &ServerSettings| {
            let (_, stored) = views.get(&server.name)?.seen.as_ref()?;
            Some((server.name.clone(), stored.clone()))
        };
        let mut views: BTreeMap<_, _> = servers.iter().filter_map(view).collect();
        forecast(views.values_mut().map(|view| &mut view.sizes));
        views
    }

    /// Has somebody look at those of which there is no good view. Says whether there is at least an
    /// old one of all.
    fn begin(&self, servers: &[ServerSettings]) -> bool {
        let mut missing = Vec::new();
        let mut all_known = true;
        self.views.send_if_modified(|views| {
            for server in servers {
                let view = views.entry(server.name.clone()).or_default();
                all_known &= view.seen.is_some();
                let good = view.seen.as_ref().is_some_and(|(until, _)| *until > Instant::now());
                if !good && !view.looking {
                    view.looking = true;
                    missing.push(server.name.clone());
                }
            }
            false
        });
        for server in missing {
            let (dir, look) = (self.home.server(&server), Arc::clone(&self.look));
            let (views, room) = (Arc::clone(&self.views), Arc::clone(&self.room));
            tokio::spawn(async move {
                let place = room.acquire_owned().await;
                let looked = spawn_blocking(move || {
                    let began = Instant::now();
                    let stored = look(&dir);
                    (Instant::now() + FRESH.max(began.elapsed() * REST), stored)
                });
                let looked = looked.await;
                drop(place);
                views.send_modify(|views| {
                    let view = views.entry(server).or_default();
                    view.looking = false;
                    view.seen = looked.ok().or(view.seen.take());
                });
            });
        }
        all_known
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use super::*;
    use crate::settings::ConnInfo;
    use crate::storage::Access;

    fn server(name: &str) -> ServerSettings {
        let conninfo = ConnInfo::new("host=x");
        ServerSettings::new(name.parse().unwrap(), conninfo, "walrecv".parse().unwrap())
    }

    #[tokio::test]
    async fn a_look_goes_on_without_those_who_asked_and_hides_no_other_server() {
        let directory = tempfile::tempdir().unwrap();
        let (release, hang) = mpsc::channel::<()>();
        let (looks, hang) = (Arc::new(AtomicU32::new(0)), std::sync::Mutex::new(hang));
        let counted = Arc::clone(&looks);
        let views = StoreViews::with(
            Home::new(directory.path(), Access::Private),
            Arc::new(move |server| {
                if server.name().as_str() == "slow" {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let _ = hang.lock().unwrap().recv();
                }
                stored(server, Timestamp::now())
            }),
        );
        let (slow, quick) = (server("slow"), server("quick"));
        for _ in 0..3 {
            let asked = timeout(Duration::from_millis(10), views.of(std::slice::from_ref(&slow)));
            assert!(asked.await.is_err());
        }
        let seen = views.of(std::slice::from_ref(&quick)).await;
        assert_eq!(seen.keys().collect::<Vec<_>>(), [&quick.name]);
        drop(release);
        let seen = views.of(&[slow, quick]).await;
        assert_eq!(seen.len(), 2);
        assert_eq!(looks.load(Ordering::SeqCst), 1);
    }
}
