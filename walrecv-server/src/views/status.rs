//! How a server is: what it tells of itself, how its WAL is received, and what is stored for it.

use std::time::SystemTime;

use jiff::Timestamp;
use pgwire_stream::{Lsn, ReplicationClient, SegmentName, TimelineId};
use tokio::task::spawn_blocking;

use super::backups::{ListedBackup, list_backups};
use super::disk::WINDOW;
use super::privileges::MissingPrivilege;
use super::server_facts::ServerFacts;
use super::wal_rate::{streamed, wal_rate};
use crate::catalog::{BackupStatus, Identity, WalGrowth, WalStore};
use crate::failure::{Failure, in_one_line};
use crate::peer::{Peer, ServerFailure};
use crate::receiver::{self, SlotView, Status, newest_held};
use crate::settings::{RetentionPolicy, ServerName, ServerSettings};
use crate::storage::{BackupId, LockKind, ServerDir, ServerLock, durable};

/// How a server is.
#[derive(Clone, Debug)]
pub struct StatusOutcome {
    /// The server.
    pub server: ServerName,
    /// What it is to its operators.
    pub description: Option<String>,
    /// Whether it is backed up at all.
    pub active: bool,
    /// What the server tells, or why it does not.
    pub seen: Result<SeenServer, Unreachable>,
    /// How its WAL is received.
    pub receiving: Receiving,
    /// What is stored.
    pub stored: StoredStatus,
    /// Which backups stay.
    pub retention_policy: Option<RetentionPolicy>,
    /// How many full backups there are to be.
    pub minimum_redundancy: u32,
}

/// Why a server does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// What happened.
    pub reason: String,
    /// What can be done about it.
    pub hint: Option<String>,
}

/// What a server tells.
#[derive(Clone, Debug)]
pub struct SeenServer {
    /// What SQL tells.
    pub facts: ServerFacts,
    /// The timeline that it is on.
    pub timeline: TimelineId,
    /// The segment that it writes; `None` on a standby.
    pub segment: Option<SegmentName>,
    /// How much room its files take, where the role may see that.
    pub size: Option<u64>,
    /// What the role may not do.
    pub missing: Vec<MissingPrivilege>,
    /// The slot.
    pub(crate) slot: Option<SlotView>,
}

/// How WAL is received.
#[derive(Clone, Debug)]
pub struct Receiving {
    /// Whether somebody receives it.
    pub running: bool,
    /// What the daemon tells of its receiver, if there is one.
    pub status: Option<Status>,
    /// Bytes per second since it streams.
    pub stream_rate: Option<f64>,
    /// Bytes per second of the last days, or since it streams.
    pub rate: Option<f64>,
}

/// What is stored.
#[derive(Clone, Debug, Default)]
pub struct StoredStatus {
    /// Everything up to there is here, on this timeline; some zeros more, where the last record ends
    /// with them.
    pub end: Option<(TimelineId, Lsn)>,
    /// Complete segments that wait to be archived.
    pub waiting_for_archive: u64,
    /// When something was archived last.
    pub archived_at: Option<Timestamp>,
    /// Places in the archive that PostgreSQL could not replay.
    pub suspect: u64,
    /// The backups that are there.
    pub backups: usize,
    /// The full ones that can be restored.
    pub full_backups: usize,
    /// The oldest backup.
    pub first: Option<BackupId>,
    /// The newest one.
    pub last: Option<BackupId>,
    /// What could not be read, in one line.
    pub problem: Option<String>,
}

impl StatusOutcome {
    /// Everything up to there is durable here.
    pub fn durable(&self) -> Option<Lsn> {
        let told = self.receiving.status.as_ref().and_then(|status| status.flushed);
        told.or(self.stored.end.map(|(_, end)| end))
    }
}

/// Looks at a server, its receiver and its store.
pub async fn status(
    settings: &ServerSettings,
    store: &ServerDir,
    receiver: Option<&Status>,
) -> StatusOutcome {
    let store = store.clone();
    let looking = spawn_blocking(move || look_at_store(&store));
    let (seen, stored) = tokio::join!(ask(settings), looking);
    let (stored, running, growth) =
        stored.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    let now = SystemTime::now();
    StatusOutcome {
        server: settings.name.clone(),
        description: settings.description.clone(),
        active: settings.active,
        seen,
        receiving: Receiving {
            running,
            status: receiver.cloned(),
            stream_rate: receiver.and_then(|status| streamed(status, now)),
            rate: wal_rate(receiver, growth.as_ref(), now),
        },
        stored,
        retention_policy: settings.retention_policy,
        minimum_redundancy: settings.minimum_redundancy,
    }
}

async fn ask(settings: &ServerSettings) -> Result<SeenServer, Unreachable> {
    match tokio::time::timeout(settings.check_timeout, look_at_server(settings)).await {
        Ok(seen) => seen.map_err(|error| Unreachable {
            reason: in_one_line(&error),
            hint: error.hint_about(settings.name.as_str()),
        }),
        Err(_) => Err(Unreachable {
            reason: format!("no answer within {} seconds", settings.check_timeout.as_secs()),
            hint: None,
        }),
    }
}

async fn look_at_server(settings: &ServerSettings) -> Result<SeenServer, ServerFailure> {
    let peer = Peer::new(&settings.name, settings.conninfo.as_str())?;
    let mut client = peer.database().await?;
    let facts = ServerFacts::ask(&mut client).await.map_err(peer.failed("query"))?;
    let timeline = client.identify_system().await.map_err(peer.failed("identify"))?.timeline;
    let size = client.wal_segment_size().await.map_err(peer.failed("read a setting of"))?;
    let segment = facts
        .current_lsn
        .filter(|_| !facts.in_recovery)
        .map(|lsn| SegmentName::new(timeline, size.segment_of(lsn), size));
    let slot = receiver::view_slot(&mut client, &settings.slot_name).await;
    let slot = slot.map_err(peer.failed("read the slot of"))?;
    let privileges = &facts.privileges;
    let room = if privileges.superuser || privileges.read_all_stats {
        room(&mut client).await
    } else {
        None
    };
    let missing = privileges.missing(peer.role().unwrap_or_default(), facts.version);
    let _ = client.close().await;
    Ok(SeenServer { facts, timeline, segment, size: room, missing, slot })
}

/// How much room the server's files take.
async fn room(client: &mut ReplicationClient) -> Option<u64> {
    let sql = "SELECT sum(pg_catalog.pg_tablespace_size(oid))::bigint AS size \
               FROM pg_catalog.pg_tablespace";
    client.query(sql).await.ok()?.single()?.parse().ok()
}

fn look_at_store(store: &ServerDir) -> (StoredStatus, bool, Option<WalGrowth>) {
    let mut problems = Vec::new();
    let mut stored = StoredStatus::default();
    match list_backups(store) {
        Ok(list) => count(&list.backups, &mut stored),
        Err(error) => problems.push(in_one_line(&error)),
    }
    let mut growth = None;
    match Identity::load(store) {
        Ok(None) => {}
        Ok(Some(identity)) => {
            let wal = WalStore::new(store, identity.segment_size);
            growth = wal.growth(WINDOW).ok().flatten();
            let archived_at = wal.archived_at().ok().flatten();
            stored.archived_at = archived_at.and_then(|at| Timestamp::try_from(at).ok());
            match newest_held(store, identity.segment_size, None) {
                Ok(held) => stored.end = held.map(|held| (held.timeline, held.end)),
                Err(error) => problems.push(in_one_line(&error)),
            }
            match wal.verdicts() {
                Ok(verdicts) => stored.suspect = verdicts.suspect.len() as u64,
                Err(error) => problems.push(in_one_line(&error)),
            }
        }
        Err(error) => problems.push(in_one_line(&error)),
    }
    match durable::list_dir(&store.streaming()) {
        Ok(names) => {
            let complete = names.iter().filter_map(|name| name.to_str());
            let complete = complete.filter(|name| name.parse::<SegmentName>().is_ok());
            stored.waiting_for_archive = complete.count() as u64;
        }
        Err(error) => problems.push(in_one_line(&error)),
    }
    let running = ServerLock::is_held(store, LockKind::Receiver).unwrap_or_else(|error| {
        problems.push(in_one_line(&error));
        false
    });
    stored.problem = (!problems.is_empty()).then(|| problems.join("; "));
    (stored, running, growth)
}

/// Counts the backups; the list begins with the newest.
fn count(list: &[ListedBackup], stored: &mut StoredStatus) {
    for backup in list {
        let ListedBackup::Known { record, standing, .. } = backup else { continue };
        if matches!(standing.status, BackupStatus::Started | BackupStatus::Failed) {
            continue;
        }
        stored.backups += 1;
        stored.last = stored.last.or(Some(record.id));
        stored.first = Some(record.id);
        let restorable = standing.status == BackupStatus::Done;
        stored.full_backups += usize::from(restorable && record.parent.is_none());
    }
}
