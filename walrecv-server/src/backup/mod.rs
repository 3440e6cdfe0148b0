//! Taking one base backup.
//!
//! ```text
//!  socket ─▶ events ─▶ receive ═bounded queue═▶ contents ─┬▶ archive: tar reader ─▶ hashes ─▶ spool
//!                                                         │           compressor ─▶ age ─▶ hash ─▶ file
//!                                                         └▶ manifest: file, and merged with spool
//! ```
//!
//! There is one pass and no second read: the manifest comes last and is merged with what was
//! hashed on the way. A backup is a directory; its record says that it is being taken before
//! anything else is in it, and that it is complete after everything else is durable.

mod archive;
mod attempt;
mod blocking;
mod check;
mod config_files;
mod contents;
mod error;
mod look;
pub(crate) mod made_manifest;
pub(crate) mod pages;
mod parent;
mod receive;
mod reception;
mod reclaim;
mod retry;
mod scripts;
mod spool;
mod sql;
mod tablespace_names;
#[cfg(test)]
mod tests;
mod unpacking;
mod wait;

use std::time::Duration;

use jiff::Timestamp;
use pgwire_stream::{Config, ReplicationClient};
use tokio::sync::watch;

use self::attempt::Attempt;
use self::blocking::blocking;
pub use self::error::BackupError;
pub use self::parent::{Incremental, Unfit};
pub use self::reception::{Received, Reception};
pub use self::retry::{Retries, take_with_retries};
use self::scripts::Scripts;
pub use self::wait::wait_for_wal;
use crate::catalog::{BackupOutcome, BackupRecord, Catalog, EarlyLook, Identity};
use crate::failure::in_one_line;
use crate::progress::ProgressSink;
use crate::settings::ServerSettings;
use crate::storage::{BackupDir, LockKind, ServerDir, ServerLock};

/// Which backup is wanted.
#[derive(Clone, Debug)]
pub struct BackupRequest {
    /// Where it goes.
    pub server: ServerDir,
    /// What it is taken of, and how.
    pub settings: ServerSettings,
    /// What the operator calls it.
    pub name: Option<String>,
    /// Whether it is kept although pages of the cluster are damaged.
    pub accept_damaged_pages: bool,
    /// What it is to be built on; a full one on nothing.
    pub incremental: Option<Incremental>,
}

/// Takes a base backup.
///
/// The record that is returned says `Copied`: data and manifest are verified and durable. Whether
/// the WAL is there that the backup needs is another question: [`wait_for_wal`].
///
/// Scripts of the operator's run around each attempt that has an id: the one before may refuse it,
/// and the lock on the backups is free again when the one after runs.
///
/// Nothing is changed on disk before the server is known to be the one whose backups are kept
/// here. After that, every failure, the interruption by `interrupted` included, leaves a record
/// that says so and none of the backup's data.
///
/// Not cancel-safe: dropped, it leaves a backup that looks as if it was being taken, which the
/// next one settles. Raise `interrupted` instead.
///
/// # Errors
/// See [`BackupError`].
pub async fn take(
    request: &BackupRequest,
    progress: &dyn ProgressSink,
    mut interrupted: watch::Receiver<bool>,
) -> Result<BackupRecord, BackupError> {
    let conninfo = request.settings.backup_conninfo().to_owned();
    let mut config = blocking(move || Config::load(&conninfo)).await?;
    notice_dead_servers(&mut config);
    let (client, identity) = tokio::select! {
        connected = connect(&config) => connected?,
        () = receive::raised(&mut interrupted) => return Err(BackupError::Interrupted),
    };

    let (server, settings) = (request.server.clone(), request.settings.clone());
    let (name, at_server) = (request.name.clone(), identity.clone());
    let (lock, backup, record) =
        blocking(move || begin(&server, &settings, name, &at_server)).await?;

    let scripts = Scripts::new(request, &interrupted);
    let mut reached = record;
    let outcome = match scripts.before(&reached).await {
        Ok(()) => {
            let (backup, identity) = (&backup, &identity);
            let attempt = Attempt { request, backup, identity, config: &config, progress };
            attempt.run(client, &mut reached, &mut interrupted).await
        }
        Err(error) => Err(error.into()),
    };
    let (server, id) = (request.server.clone(), reached.id);
    let outcome = blocking(move || end(&server, lock, reached, outcome)).await;
    scripts.after(id, outcome.as_ref().map_err(|error| in_one_line(error)).err()).await;
    outcome
}

/// Asks an idle connection whether there is still anybody, unless the operator has said how: by the
/// system's defaults, that takes hours, and a server may be silent for long before data comes.
fn notice_dead_servers(config: &mut Config) {
    let keepalive = &mut config.keepalive;
    keepalive.idle.get_or_insert(Duration::from_secs(60));
    keepalive.interval.get_or_insert(Duration::from_secs(10));
    keepalive.count.get_or_insert(6);
}

/// A connection for the backup, and what is at its other end.
async fn connect(config: &Config) -> pgwire_stream::Result<(ReplicationClient, Identity)> {
    let mut client = ReplicationClient::connect(config).await?;
    // Also required before a backup by servers that are older than 15.
    let system = client.identify_system().await?;
    let identity = Identity {
        system_id: system.system_id,
        segment_size: client.wal_segment_size().await?,
        server_version: client.server_version(),
        data_checksums: Some(client.show("data_checksums").await? == "on"),
    };
    Ok((client, identity))
}

/// Claims a directory for a backup, whose record says that it is being taken.
fn begin(
    server: &ServerDir,
    settings: &ServerSettings,
    name: Option<String>,
    identity: &Identity,
) -> Result<(ServerLock, BackupDir, BackupRecord), BackupError> {
    identity.establish(server)?;
    let lock = ServerLock::try_acquire(server, LockKind::Backup)?;
    reclaim::settle_abandoned(server, &lock)?;
    let began_at = Timestamp::now();
    let record = |id| BackupRecord {
        id,
        server: settings.name.clone(),
        outcome: BackupOutcome::Started,
        name,
        label: format!("walrecv-server {id}"),
        parent: None,
        system_id: identity.system_id,
        segment_size: identity.segment_size,
        server_version: identity.server_version,
        data_checksums: identity.data_checksums,
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        began_at,
        ended_at: None,
        done_at: None,
        begin: None,
        end: None,
        tablespaces: Vec::new(),
        archives: Vec::new(),
        manifest: None,
        config_files: None,
        damaged_pages: None,
    };
    let (backup, record) = Catalog::new(server).begin(began_at, &lock, record)?;
    Ok((lock, backup, record))
}

/// Records how the backup ended. The lock is held until then.
fn end(
    server: &ServerDir,
    lock: ServerLock,
    mut record: BackupRecord,
    outcome: Result<EarlyLook, BackupError>,
) -> Result<BackupRecord, BackupError> {
    match outcome {
        Ok(look) => {
            record.outcome = BackupOutcome::Copied;
            record.ended_at = Some(Timestamp::now());
            Catalog::new(server).conclude(&mut record, look, &lock)?;
            Ok(record)
        }
        Err(error) => {
            // What went wrong first is what the user has to know.
            let id = record.id;
            if let Err(also) = reclaim::fail(server, record, in_one_line(&error)) {
                tracing::error!(error = %also, backup = %id, "cannot record the failure");
            }
            Err(error)
        }
    }
}

#[cfg(test)]
mod keepalives {
    use super::*;

    #[test]
    fn a_server_that_is_gone_is_noticed_as_the_operator_says() {
        let mut config = Config::default();
        config.keepalive.idle = Some(Duration::from_secs(7));
        notice_dead_servers(&mut config);
        let keepalive = config.keepalive;
        assert_eq!(keepalive.idle, Some(Duration::from_secs(7)));
        assert_eq!((keepalive.interval, keepalive.count), (Some(Duration::from_secs(10)), Some(6)));
    }
}
