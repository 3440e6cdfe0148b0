//! The servers that are looked after, and what changes with another configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::board::Board;
use super::diary::Diary;
use super::herald::Herald;
use super::keeper::Keeper;
use super::persist;
use super::places::Places;
use super::receiving::receive;
use crate::receiver::Crew;
use crate::settings::{ServerName, ServerSettings, Settings};
use crate::storage::Home;

/// A server that is looked after.
struct Tended {
    settings: watch::Sender<Arc<ServerSettings>>,
    stop: watch::Sender<bool>,
}

/// All servers that are looked after.
pub(super) struct Fleet {
    home: Home,
    board: Board,
    /// Who writes what all receive.
    crew: Arc<Crew>,
    backups: Places,
    verifications: Places,
    servers: BTreeMap<ServerName, Tended>,
    /// All that is done for each, also for one that is being left. It ends when `stop` is raised.
    work: BTreeMap<ServerName, JoinHandle<()>>,
}

impl Fleet {
    pub(super) fn new(home: Home, board: Board) -> Self {
        Self {
            home,
            board,
            crew: Arc::default(),
            backups: Places::new(1),
            // They have time, and disks others to serve.
            verifications: Places::new(1),
            servers: BTreeMap::new(),
            work: BTreeMap::new(),
        }
    }

    /// Looks after these servers from now on, with these settings. What did not change goes on.
    pub(super) fn apply(&mut self, settings: &Settings) {
        self.backups.limit(usize::try_from(settings.max_parallel_backups).unwrap_or(usize::MAX));
        let wanted = |name: &ServerName| settings.servers.iter().any(|server| server.name == *name);
        self.servers.retain(|name, tended| {
            let stays = wanted(name);
            if !stays {
                tracing::info!(server = %name, "the server is not configured any more");
                tended.stop.send_replace(true);
            }
            stays
        });
        for server in &settings.servers {
            match self.servers.get(&server.name) {
                Some(tended) => {
                    tended.settings.send_if_modified(|current| {
                        let changed = **current != *server;
                        if changed {
                            tracing::info!(server = %server.name, "the server's settings changed");
                            *current = Arc::new(server.clone());
                        }
                        changed
                    });
                }
                None => self.tend(server),
            }
        }
        // What has ended is not kept.
        self.work.retain(|_, work| !work.is_finished());
    }

    fn tend(&mut self, server: &ServerSettings) {
        let (settings, changing) = watch::channel(Arc::new(server.clone()));
        let (stop, stopping) = watch::channel(false);
        let herald = Herald::default();
        let keeper = Keeper {
            server: server.name.clone(),
            settings: changing.clone(),
            home: self.home.clone(),
            board: self.board.clone(),
            diary: Diary::new(self.home.server(&server.name)),
            herald: herald.clone(),
            backups: self.backups.clone(),
            verifications: self.verifications.clone(),
            backed_up: Arc::default(),
            stop: stopping.clone(),
        };
        // One by this name that was left may not have come to its end.
        let before = self.work.remove(&server.name);
        let (home, board, name) = (self.home.clone(), self.board.clone(), server.name.clone());
        let crew = Arc::clone(&self.crew);
        let work = async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            let receiving = {
                let (board, stop) = (board.clone(), stopping.clone());
                move || {
                    receive(
                        changing.clone(),
                        home.clone(),
                        Arc::clone(&crew),
                        board.clone(),
                        herald.clone(),
                        stop.clone(),
                    )
                }
            };
            tokio::join!(persist(&name, stopping, receiving), keeper.keep());
            board.remove(&name);
        };
        self.work.insert(server.name.clone(), tokio::spawn(work));
        self.servers.insert(server.name.clone(), Tended { settings, stop });
    }

    /// Brings everything to its end.
    pub(super) async fn stop(self) {
        for tended in self.servers.values() {
            tended.stop.send_replace(true);
        }
        for work in self.work.into_values() {
            let _ = work.await;
        }
    }
}
