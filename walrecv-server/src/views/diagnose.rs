//! Everything that helps to find out what is wrong, in one value, and no secret in it.

use std::collections::BTreeMap;
use std::fs;

use jiff::Timestamp;
use pgwire_stream::{SegmentName, TimelineId};
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

use super::check::{self, CheckOutcome};
use super::server_config::server_config;
use super::status::{self, StatusOutcome};
use crate::catalog::{BackupRecord, Catalog, Identity, WalStore};
use crate::failure::in_one_line;
use crate::receiver::Status;
use crate::settings::{ServerName, ServerSettings, Settings};
use crate::storage::{BackupId, Home, LockKind, ServerDir, ServerLock};

/// Everything that helps to find out what is wrong.
#[derive(Debug)]
pub struct DiagnoseOutcome {
    /// What is configured for all servers.
    pub config: Map<String, Value>,
    /// What this program runs on.
    pub system_info: Map<String, Value>,
    /// The servers.
    pub servers: Vec<DiagnosedServer>,
}

/// A server.
#[derive(Debug)]
pub struct DiagnosedServer {
    /// Its name.
    pub name: ServerName,
    /// Its settings.
    pub config: Map<String, Value>,
    /// How it is.
    pub status: StatusOutcome,
    /// What was checked.
    pub check: CheckOutcome,
    /// What is stored for it.
    pub stored: StoredFacts,
}

/// What is stored for a server.
#[derive(Debug, Default)]
pub struct StoredFacts {
    /// Which cluster it is.
    pub identity: Option<Identity>,
    /// The records of its backups.
    pub backups: BTreeMap<BackupId, BackupRecord>,
    /// The last segment of each timeline that is archived, or beside the archive.
    pub last_wal: BTreeMap<TimelineId, SegmentName>,
    /// Which locks are held.
    pub locks: BTreeMap<&'static str, bool>,
    /// What could not be read.
    pub problems: Vec<String>,
}

/// Gathers it of all configured servers.
pub async fn diagnose(settings: &Settings, home: &Home, receivers: &[Status]) -> DiagnoseOutcome {
    let servers: Vec<&ServerSettings> = settings.servers.iter().collect();
    let looks = servers.iter().map(|server| {
        let receiver = receivers.iter().find(|status| status.server == server.name);
        let store = home.server(&server.name);
        async move {
            let looked_at = store.clone();
            let reading = spawn_blocking(move || stored(&looked_at));
            let (status, stored) = tokio::join!(status::status(server, &store, receiver), reading);
            (status, stored.unwrap_or_default())
        }
    });
    let (checks, looks) =
        tokio::join!(check::check_all(&servers, home, receivers), futures::future::join_all(looks));
    let diagnosed = servers.iter().zip(checks).zip(looks);
    let diagnosed = diagnosed.map(|((server, check), (status, stored))| DiagnosedServer {
        name: server.name.clone(),
        config: server_config(server),
        status,
        check,
        stored,
    });
    DiagnoseOutcome {
        config: global(settings),
        system_info: system_info(),
        servers: diagnosed.collect(),
    }
}

fn global(settings: &Settings) -> Map<String, Value> {
    let http = &settings.http;
    object(json!({
        "home": settings.home,
        "file": settings.file,
        "group_access": settings.group_access,
        "wal_readers": settings.wal_readers,
        "max_parallel_backups": settings.max_parallel_backups,
        "http": {
            "listen": http.listen.map(|address| address.to_string()),
            "token_file": http.token_file,
            "tls_cert_file": http.tls_cert_file,
            "tls_key_file": http.tls_key_file,
        },
    }))
}

fn system_info() -> Map<String, Value> {
    let system = rustix::system::uname();
    let word = |word: &std::ffi::CStr| word.to_string_lossy().into_owned();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let release = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    object(json!({
        "walrecv_ver": env!("CARGO_PKG_VERSION"),
        "kernel_ver": format!(
            "{} {} {} {} {}",
            word(system.sysname()),
            word(system.nodename()),
            word(system.release()),
            word(system.version()),
            word(system.machine()),
        ),
        "release": release.map(|name| name.trim_matches('"')),
        "timestamp": Timestamp::now(),
    }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn stored(store: &ServerDir) -> StoredFacts {
    let mut facts = StoredFacts::default();
    match Identity::load(store) {
        Ok(identity) => facts.identity = identity,
        Err(error) => facts.problems.push(in_one_line(&error)),
    }
    match Catalog::new(store).list() {
        Ok(entries) => {
            for entry in entries {
                match entry.record {
                    Ok(record) => drop(facts.backups.insert(entry.id, record)),
                    Err(error) => facts.problems.push(in_one_line(&error)),
                }
            }
        }
        Err(error) => facts.problems.push(in_one_line(&error)),
    }
    if let Some(identity) = &facts.identity {
        let size = identity.segment_size;
        match WalStore::new(store, size).coverage() {
            Ok(coverage) => {
                for span in coverage.spans() {
                    let last = size.last_byte_segment_of(span.end);
                    let last = SegmentName::new(span.timeline, last, size);
                    let known = facts.last_wal.entry(span.timeline).or_insert(last);
                    *known = last.max(*known);
                }
            }
            Err(error) => facts.problems.push(in_one_line(&error)),
        }
    }
    for (name, kind) in [
        ("archive", LockKind::Archive),
        ("backup", LockKind::Backup),
        ("receiver", LockKind::Receiver),
    ] {
        match ServerLock::is_held(store, kind) {
            Ok(held) => drop(facts.locks.insert(name, held)),
            Err(error) => facts.problems.push(in_one_line(&error)),
        }
    }
    facts
}
