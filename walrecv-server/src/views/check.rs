//! Whether a server is backed up as it should be.
//!
//! Looking never fails itself: what cannot be found out is a row of its own.

mod backups;
mod disk;
mod encryption;
mod order;
mod patience;
mod peer;
mod retention;
mod running;
mod scrub;
mod security;
mod server_facts;
mod slot;
mod standby;
mod store;
mod synchronous;
mod wal;

use std::error::Error;
use std::path::Path;
use std::time::SystemTime;

use futures::future::join_all;
use jiff::Timestamp;

use self::patience::{PATIENCE, looked};
use self::peer::Seen;
use crate::catalog::{Identity, WalGrowth, WalStore};
use crate::failure::{Failure, about};
use crate::receiver::Status;
use crate::settings::{ServerName, ServerSettings};
use crate::storage::{Home, ServerDir, StorageError};
use crate::views::disk::{self as disks, Disk};
use crate::views::wal_rate::wal_rate;

/// The row that measures how many bytes may be written before the slot is in danger.
pub const KEPT_BY_SLOT: &str = "WAL kept by the slot";

/// What is checked of the backups and their WAL.
#[cfg(test)]
pub(crate) fn backups(store: &ServerDir) -> Vec<Row> {
    let conninfo = crate::settings::ConnInfo::new("");
    let slot = "walrecv".parse().unwrap();
    let settings = ServerSettings::new(store.name().clone(), conninfo, slot);
    backups::backups(store, &settings, Timestamp::now()).rows
}

const COMPRESSION: &str = "compression settings";
const TIMEOUT: &str = "check timeout";

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
    /// The number that it is about, where it is about one.
    pub measured: Option<i64>,
}

impl Row {
    fn ok(name: &'static str) -> Self {
        Self { name, state: State::Ok, remark: None, advisory: false, measured: None }
    }

    fn remark(name: &'static str, state: State, remark: impl Into<String>) -> Self {
        Self { name, state, remark: Some(remark.into()), advisory: false, measured: None }
    }

    /// Something that is worth knowing, and never more than a warning.
    fn advice(name: &'static str, state: State, remark: impl Into<String>) -> Self {
        let state = state.min(State::Warning);
        Self { name, state, remark: Some(remark.into()), advisory: true, measured: None }
    }

    /// The same with the number that it is about.
    fn measuring(self, measured: Option<i64>) -> Self {
        Self { measured, ..self }
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

    /// The same as advice.
    fn into_advice(self) -> Self {
        Self { state: self.state.min(State::Warning), advisory: true, ..self }
    }
}

/// How a server is backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOutcome {
    /// The server.
    pub server: ServerName,
    /// Whether it is backed up at all. One that is not is not looked at, but what is stored for it.
    pub active: bool,
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

/// Looks at a server, at what is stored for it, and at the disk that it is stored on.
///
/// `receiver` is how its receiver says that it is, where one can be asked.
pub async fn check(
    settings: &ServerSettings,
    store: &ServerDir,
    receiver: Option<&Status>,
) -> CheckOutcome {
    let home = Home::new(store.path().parent().unwrap_or(store.path()), store.access());
    let (mut outcome, disk) =
        tokio::join!(look(settings, store, receiver), look_at_disk(&home, store.path()));
    outcome.rows.extend(disk.as_ref().map(disk::row));
    outcome
}

/// The same of many servers of a store, all at the same time: the slowest of them decides when it
/// ends, or its `check_timeout`.
pub async fn check_all(
    servers: &[&ServerSettings],
    home: &Home,
    receivers: &[Status],
) -> Vec<CheckOutcome> {
    let looks = servers.iter().map(|server| {
        let receiver = receivers.iter().find(|status| status.server == server.name);
        let store = home.server(&server.name);
        async move { look(server, &store, receiver).await }
    });
    let (mut outcomes, disk) = tokio::join!(join_all(looks), look_at_disk(home, home.path()));
    for outcome in &mut outcomes {
        outcome.rows.extend(disk.as_ref().map(disk::row));
    }
    outcomes
}

async fn look(
    settings: &ServerSettings,
    store: &ServerDir,
    receiver: Option<&Status>,
) -> CheckOutcome {
    let here = store.clone();
    let identity = looked("identity", store.path(), PATIENCE, move || Identity::load(&here)).await;
    let hangs = identity.is_none();
    let identity = identity.unwrap_or(Ok(None));
    let known = identity.as_ref().ok().and_then(Option::as_ref);
    let (stored, seen) = tokio::join!(
        async {
            if hangs {
                return Stored::silent();
            }
            let (settings, here) = (settings.clone(), store.clone());
            let look = move || look_at_store(&settings, &here);
            let stored = looked("store", store.path(), PATIENCE, look).await;
            stored.unwrap_or_else(Stored::silent)
        },
        look_at_server(settings, known),
    );
    let Stored { mut rows, growth, .. } = stored;
    rows.extend(seen.rows);
    if let Err(error) = &identity {
        rows.push(Row::failure("identity", State::Failed, error));
    }
    let now = SystemTime::now();
    if let Some(slot) = &seen.slot {
        rows.extend(slot::kept(slot, wal_rate(receiver, growth.as_ref(), now)));
    }
    if let Some(facts) = &seen.facts {
        let chains = stored.chains || settings.incremental_schedule.is_some();
        rows.extend(server_facts::rows(facts, &seen.role, chains));
    }
    if settings.active {
        let failure = receiver.and_then(|status| running::failure(status, now));
        rows.extend(failure.or(stored.receiver));
    }
    match (receiver, &seen.slot, &seen.facts) {
        (Some(status), ..) => rows.extend(running::rows(status, now)),
        (None, Some(slot), Some(facts)) => {
            rows.extend(facts.current_lsn.and_then(|end| running::lag_by_slot(slot, end)));
        }
        _ => {}
    }
    order::sort(&mut rows);
    for remark in rows.iter_mut().filter_map(|row| row.remark.as_mut()) {
        *remark = about(remark, settings.name.as_str());
    }
    CheckOutcome {
        server: settings.name.clone(),
        active: settings.active,
        rows,
        last_backup_size: stored.last_size,
        wal_size: stored.wal_size,
    }
}

/// What the server shows within the time that it has for that.
async fn look_at_server(settings: &ServerSettings, identity: Option<&Identity>) -> Seen {
    let mut seen = Seen::default();
    if !settings.active {
        return seen;
    }
    let looked =
        tokio::time::timeout(settings.check_timeout, peer::look(&mut seen, settings, identity));
    if looked.await.is_err() {
        let seconds = settings.check_timeout.as_secs();
        let remark = format!("duration: {seconds} seconds; what was not seen by then is missing");
        seen.rows.push(Row::remark(TIMEOUT, State::Failed, remark));
    }
    seen
}

/// How what is stored for a server is.
#[derive(Default)]
struct Stored {
    rows: Vec<Row>,
    /// Whether somebody receives, by what the store shows.
    receiver: Option<Row>,
    last_size: Option<u64>,
    wal_size: u64,
    chains: bool,
    growth: Option<WalGrowth>,
}

impl Stored {
    /// That of a store that does not answer.
    fn silent() -> Self {
        let remark = format!(
            "the store did not answer within {} seconds: its disk hangs, or is far too slow",
            PATIENCE.as_secs()
        );
        let rows = vec![Row::remark(TIMEOUT, State::Failed, remark)];
        Self { rows, ..Self::default() }
    }
}

fn look_at_store(settings: &ServerSettings, store: &ServerDir) -> Stored {
    let mut rows = vec![
        store::directories(store),
        // A method or level that cannot be used is refused when the settings are read.
        Row::ok(COMPRESSION),
        store::backlog(store),
        store::set_apart(store),
    ];
    rows.extend(encryption::encryption(settings));
    rows.extend(store::leases(store));
    rows.extend(store::vanished(store));
    rows.extend(store::half_adopted(store));
    rows.extend(scrub::row(settings, store, Timestamp::now()));
    rows.extend(retention::rows(settings, store));
    rows.extend(store::schedules(store));
    let backups = backups::backups(store, settings, Timestamp::now());
    rows.extend(backups.rows);
    // What is wrong with the identity or the archive has rows of its own.
    let identity = Identity::load(store).ok().flatten();
    let growth = identity.and_then(|identity| {
        WalStore::new(store, identity.segment_size).growth(disks::WINDOW).ok().flatten()
    });
    Stored {
        rows,
        receiver: Some(store::receiver(store)),
        last_size: backups.last_size,
        wal_size: backups.wal_size,
        chains: backups.chains,
        growth,
    }
}

/// `None` if it hangs. `whose` it is that looks: each is to have its own look.
async fn look_at_disk(home: &Home, whose: &Path) -> Option<Result<Disk, StorageError>> {
    let home = home.clone();
    looked("disk", whose, PATIENCE, move || Disk::look(&home)).await
}

#[cfg(test)]
mod tests;
