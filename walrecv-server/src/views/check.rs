//! Whether a server is backed up as it should be.
//!
//! Looking never fails itself: what cannot be found out is a row of its own.

mod encryption;
mod peer;
mod retention;
mod running;
mod slot;
mod store;
mod synchronous;

use std::error::Error;
use std::time::SystemTime;

use crate::catalog::Identity;
use crate::failure::Failure;
use crate::receiver::Status;
use crate::settings::{ServerName, ServerSettings};
use crate::storage::ServerDir;

/// What is checked of the backups and their WAL.
#[cfg(test)]
pub(crate) fn backups(store: &ServerDir) -> Vec<Row> {
    store::backups(store).rows
}

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Ok,
    /// Worth knowing; the server is backed up all the same.
    Warning,
    /// The server is not backed up as it should be.
    Failed,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is, in Barman's words where Barman has them.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What is behind that, and what to do about it.
    pub remark: Option<String>,
    /// Whether it is advice: never a failure, and not for Barman's readers, who do not know it.
    pub advisory: bool,
}

impl Row {
    fn ok(name: &'static str) -> Self {
        Self { name, state: State::Ok, remark: None, advisory: false }
    }

    fn remark(name: &'static str, state: State, remark: impl Into<String>) -> Self {
        Self { name, state, remark: Some(remark.into()), advisory: false }
    }

    /// Something that is worth knowing, and never more than a warning.
    fn advice(name: &'static str, state: State, remark: impl Into<String>) -> Self {
        let state = state.min(State::Warning);
        Self { name, state, remark: Some(remark.into()), advisory: true }
    }

    /// A failure in one line: the sentence, its cause, and the hint.
    fn failure(name: &'static str, state: State, failure: &dyn Failure) -> Self {
        let mut remark = failure.to_string();
        let mut source = failure.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !remark.contains(&text) {
                remark.push_str(&format!(": {text}"));
            }
            source = Error::source(cause);
        }
        if let Some(hint) = failure.hint() {
            remark.push_str(&format!("; {}", hint.replace('\n', " ")));
        }
        Self::remark(name, state, remark)
    }
}

/// How a server is backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOutcome {
    /// The server.
    pub server: ServerName,
    /// What was looked at.
    pub rows: Vec<Row>,
    /// The stored size of the last backup that can be restored.
    pub last_backup_size: Option<u64>,
    /// The stored size of the archived WAL that follows the first backup.
    pub wal_size: u64,
}

impl CheckOutcome {
    /// Whether nothing failed.
    pub fn is_ok(&self) -> bool {
        self.rows.iter().all(|row| row.state != State::Failed)
    }
}

/// Looks at a server and at what is stored for it.
///
/// `receiver` is how its receiver says that it is, where one can be asked.
pub async fn check(
    settings: &ServerSettings,
    store: &ServerDir,
    receiver: Option<&Status>,
) -> CheckOutcome {
    let identity = Identity::load(store);
    let known = identity.as_ref().ok().and_then(Option::as_ref);
    let mut rows = peer::rows(settings, known).await;
    if let Err(error) = &identity {
        rows.push(Row::failure("identity", State::Failed, error));
    }
    rows.push(store::directories(store));
    let now = SystemTime::now();
    let failure = receiver.and_then(|status| running::failure(status, now));
    rows.push(failure.unwrap_or_else(|| store::receiver(store)));
    rows.extend(receiver.into_iter().flat_map(|status| running::rows(status, now)));
    rows.push(store::backlog(store));
    rows.extend(encryption::encryption(settings));
    let backups = store::backups(store);
    rows.extend(backups.rows);
    rows.extend(retention::rows(settings, store));
    rows.push(store::set_apart(store));
    rows.extend(store::leases(store));
    CheckOutcome {
        server: settings.name.clone(),
        rows,
        last_backup_size: backups.last_size,
        wal_size: backups.wal_size,
    }
}
