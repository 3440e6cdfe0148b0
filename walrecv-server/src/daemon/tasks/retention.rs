//! Removing what the retention policy does not keep, and noting which backups are done.

use jiff::Timestamp;
use tokio::sync::watch;

use crate::daemon::blocking;
use crate::daemon::board::{Board, Task};
use crate::daemon::herald::Herald;
use crate::failure::{Failure, in_one_line};
use crate::hooks::{News, Notice};
use crate::retention::{self, Enforced};
use crate::settings::ServerSettings;
use crate::storage::ServerDir;

/// Enforces a server's policy. While somebody works on its backups there is another time.
pub(in crate::daemon) async fn enforce(
    settings: &ServerSettings,
    store: &ServerDir,
    board: &Board,
    herald: &Herald,
    stop: &watch::Receiver<bool>,
) {
    let ongoing = board.begin(&settings.name, Task::Retention);
    let (here, with) = (store.clone(), settings.clone());
    let stop = stop.clone();
    let work = move || retention::enforce(&with, &here, Timestamp::now(), &|| *stop.borrow());
    let enforced = blocking(work).await;
    let server = &settings.name;
    match enforced {
        Ok(enforced) => {
            tell(settings, &enforced);
            let mut failed = None;
            for (name, error) in enforced.failed.iter().filter(|(_, error)| !error.is_busy()) {
                let (line, hint) =
                    (in_one_line(error), error.hint_about(server.as_str()).unwrap_or_default());
                tracing::error!(
                    server = %server, previous = %name, error = line, hint, "retention is not enforced"
                );
                herald.tell(settings, Notice::of(server, News::RetentionFailed, error));
                failed = Some(line);
            }
            ongoing.end(failed);
        }
        Err(error) if error.is_busy() => {}
        Err(error) => {
            let (line, hint) =
                (in_one_line(&error), error.hint_about(server.as_str()).unwrap_or_default());
            tracing::error!(server = %server, error = line, hint, "retention is not enforced");
            herald.tell(settings, Notice::of(server, News::RetentionFailed, &error));
            ongoing.end(Some(line));
        }
    }
}

fn tell(settings: &ServerSettings, enforced: &Enforced) {
    let server = &settings.name;
    for backup in &enforced.settled {
        tracing::info!(server = %server, backup = %backup, "the backup can be restored");
    }
    for backup in &enforced.removed.backups {
        tracing::info!(server = %server, backup = %backup, "the policy does not keep it: removed");
    }
    if enforced.removed.wal_files > 0 {
        let files = enforced.removed.wal_files;
        tracing::info!(server = %server, files, "WAL that no backup needs was removed");
    }
}
