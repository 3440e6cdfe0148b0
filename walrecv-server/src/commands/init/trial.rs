//! Tries whether a server can be backed up, and leaves nothing behind there.

use pgwire_stream::{Feature, PhysicalSlot, ReplicationClient, SqlState};

use super::{Reached, TriedSlot};
use crate::failure::{Class, Failure, in_one_line};
use crate::peer::{Peer, ServerFailure};
use crate::receiver::view_slot;
use crate::settings::{ServerName, ServerSettings};

/// Why the server cannot be backed up yet.
#[derive(Debug, thiserror::Error)]
pub enum TrialFailure {
    /// It cannot be reached, or refuses something.
    #[error(transparent)]
    Server(#[from] ServerFailure),
    /// It writes too little WAL.
    #[error("server `{server}` has wal_level = {level}, and writes too little WAL for backups")]
    WalLevel {
        /// The server.
        server: ServerName,
        /// What it has.
        level: String,
    },
}

impl TrialFailure {
    /// Whether the password is not the role's.
    pub fn is_wrong_password(&self) -> bool {
        let invalid_password = SqlState::new("28P01");
        matches!(self, Self::Server(failure) if failure.source.sql_state() == invalid_password)
    }
}

impl Failure for TrialFailure {
    fn class(&self) -> Class {
        match self {
            Self::Server(error) => error.class(),
            Self::WalLevel { .. } => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Server(error) => error.hint(),
            Self::WalLevel { .. } => Some(
                "as a superuser: ALTER SYSTEM SET wal_level = replica; then restart the server"
                    .to_owned(),
            ),
        }
    }
}

/// Connects as the receiver and a backup will, makes a slot that goes with its connection, and
/// tries SQL.
pub async fn attempt(server: &ServerSettings) -> Result<Reached, TrialFailure> {
    let peer = Peer::new(&server.name, server.streaming_conninfo())?;
    let mut client = peer.replication().await?;
    let version = client.server_version();
    let system = client.identify_system().await.map_err(peer.failed("identify"))?;
    if version.supports(Feature::ReplicationSql) {
        let level = client.show("wal_level").await.map_err(peer.failed("read wal_level of"))?;
        if level == "minimal" {
            return Err(TrialFailure::WalLevel { server: server.name.clone(), level });
        }
    }
    let (exists, sql) = match look_with_sql(server).await {
        Ok(exists) => (exists, Ok(())),
        Err(error) => (exists(&mut client, &peer, server).await?, Err(in_words(&error))),
    };
    let slot = if exists { TriedSlot::Exists } else { try_slot(&mut client, &peer).await? };
    let _ = client.close().await;
    Ok(Reached { version, system_id: system.system_id, timeline: system.timeline, slot, sql })
}

fn in_words(error: &ServerFailure) -> String {
    let reason = in_one_line(error);
    error.hint().map_or(reason.clone(), |hint| format!("{reason}\n{hint}"))
}

/// Whether the slot exists, as SQL tells.
async fn look_with_sql(server: &ServerSettings) -> Result<bool, ServerFailure> {
    let peer = Peer::new(&server.name, server.conninfo.as_str())?;
    let mut database = peer.database().await?;
    let slot = view_slot(&mut database, &server.slot_name).await;
    let exists = slot.map_err(peer.failed("read the slot of"))?.is_some();
    let _ = database.close().await;
    Ok(exists)
}

/// The same without SQL, where the server has a command for it.
async fn exists(
    client: &mut ReplicationClient,
    peer: &Peer,
    server: &ServerSettings,
) -> Result<bool, ServerFailure> {
    if !client.server_version().supports(Feature::ReadSlot) {
        return Ok(false);
    }
    let slot = client.read_slot(&server.slot_name).await;
    Ok(slot.map_err(peer.failed("read the slot of"))?.is_some())
}

/// Makes a slot that goes with the connection.
async fn try_slot(client: &mut ReplicationClient, peer: &Peer) -> Result<TriedSlot, ServerFailure> {
    let version = client.server_version();
    let name = format!("walrecv_trial_{}", std::process::id());
    let (Ok(name), true) = (name.parse(), version.supports(Feature::TemporarySlots)) else {
        return Ok(TriedSlot::Untried);
    };
    let mut options = PhysicalSlot::default();
    options.temporary = true;
    options.reserve_wal = true;
    let made = client.create_physical_slot(&name, options).await;
    made.map_err(peer.failed("make a replication slot on"))?;
    Ok(TriedSlot::CanBeMade)
}
