//! The operator's scripts around one attempt at a backup.

use tokio::sync::watch;

use super::BackupRequest;
use super::blocking::blocking;
use crate::catalog::{BackupRecord, Catalog};
use crate::hooks::{Event, HookError, Hooks};
use crate::settings::HookEvent;
use crate::storage::{BackupId, ServerDir};

/// The scripts, and whether anybody waits for them.
pub(super) struct Scripts {
    hooks: Hooks,
    server: ServerDir,
    interrupted: watch::Receiver<bool>,
}

impl Scripts {
    pub(super) fn new(request: &BackupRequest, interrupted: &watch::Receiver<bool>) -> Self {
        Self {
            hooks: Hooks::new(&request.settings.name, &request.settings.hooks),
            server: request.server.clone(),
            interrupted: interrupted.clone(),
        }
    }

    /// Runs those before the backup, whose record says that it is being taken.
    pub(super) async fn before(&self, record: &BackupRecord) -> Result<(), HookError> {
        if !self.hooks.has(HookEvent::Backup) {
            return Ok(());
        }
        let (hooks, server, record) = (self.hooks.clone(), self.server.clone(), record.clone());
        let interrupted = self.interrupted.clone();
        blocking(move || {
            let event = Event::Backup(Catalog::new(&server).facts(&record));
            hooks.before(&event, &|| *interrupted.borrow())
        })
        .await
    }

    /// Runs those after it, for better or for worse.
    pub(super) async fn after(&self, id: BackupId, error: Option<String>) {
        if !self.hooks.has(HookEvent::Backup) {
            return;
        }
        let (hooks, server) = (self.hooks.clone(), self.server.clone());
        let interrupted = self.interrupted.clone();
        blocking(move || {
            let catalog = Catalog::new(&server);
            match catalog.load(id) {
                Ok(record) => {
                    let event = Event::Backup(catalog.facts(&record));
                    hooks.after(&event, error.as_deref(), &|| *interrupted.borrow());
                }
                Err(why) => {
                    let server = server.name();
                    tracing::warn!(%server, %why, "no script is run after a backup that is gone");
                }
            }
        })
        .await;
    }
}
