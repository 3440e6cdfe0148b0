//! What the server itself can be asked.

use pgwire_stream::{Feature, ReplicationClient, ServerVersion, SystemId};

use super::{Row, State, security, slot, standby, synchronous};
use crate::catalog::Identity;
use crate::peer::{Peer, ServerFailure};
use crate::receiver::SlotView;
use crate::settings::ServerSettings;
use crate::views::server_facts::ServerFacts;

/// The first version that is supported and tested.
const OLDEST: ServerVersion = ServerVersion::from_num(10_00_00);

const STREAMING: &str = "PostgreSQL streaming";
const BACKUP_STREAMING: &str = "PostgreSQL streaming (base backups)";
const PRIVILEGES: &str = "superuser or standard user with backup privileges";
const SQL: &str = "PostgreSQL";
const VERSION: &str = "PostgreSQL version";
const WAL_LEVEL: &str = "wal_level";
const COHERENCE: &str = "systemid coherence";

/// What was seen of a server, up to where the look at it ended.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) rows: Vec<Row>,
    /// What it shows of the slot.
    pub(super) slot: Option<SlotView>,
    /// What it tells of itself by SQL.
    pub(super) facts: Option<ServerFacts>,
    /// The role that asked.
    pub(super) role: String,
}

/// Whether the server can be reached, and is as it should be.
pub(super) async fn look(seen: &mut Seen, settings: &ServerSettings, identity: Option<&Identity>) {
    let peer = match Peer::new(&settings.name, settings.streaming_conninfo()) {
        Ok(peer) => peer,
        Err(error) => {
            seen.rows.push(Row::failure(STREAMING, State::Failed, &error));
            return;
        }
    };
    let (streaming, database, source) =
        tokio::join!(peer.replication(), database(settings), standby::source(settings));
    let mut database = sql(seen, database).await;
    match streaming {
        Ok(client) => {
            seen.rows.push(Row::ok(STREAMING));
            // A server lets nobody else begin to send WAL.
            seen.rows.push(Row::ok(PRIVILEGES));
            let database = database.as_mut().map(|(client, _)| client);
            streamed(seen, client, database, &peer, settings, identity, source).await;
        }
        Err(error) => {
            let denied = error.source.sql_state().is_some_and(|state| state.as_str() == "42501");
            let name = if denied { PRIVILEGES } else { STREAMING };
            seen.rows.push(Row::failure(name, State::Failed, &error));
        }
    }
    if let Some((database, _)) = database {
        let _ = database.close().await;
    }
}

/// A connection to a database, with the role that it is of.
async fn database(settings: &ServerSettings) -> Result<(ReplicationClient, Peer), ServerFailure> {
    let peer = Peer::new(&settings.name, settings.conninfo.as_str())?;
    Ok((peer.database().await?, peer))
}

/// What SQL tells. Lines of pg_hba.conf for `replication` are no lines for a database: that this
/// fails is nothing that keeps a server from being backed up.
async fn sql(
    seen: &mut Seen,
    connected: Result<(ReplicationClient, Peer), ServerFailure>,
) -> Option<(ReplicationClient, Peer)> {
    let asked = match connected {
        Ok((mut client, peer)) => match ServerFacts::ask(&mut client).await {
            Ok(facts) => {
                seen.facts = Some(facts);
                seen.role = peer.role().unwrap_or_default().to_owned();
                Ok((client, peer))
            }
            Err(error) => Err(peer.failed("query")(error)),
        },
        Err(error) => Err(error),
    };
    match asked {
        Ok(connected) => {
            seen.rows.push(Row::ok(SQL));
            Some(connected)
        }
        Err(error) => {
            let mut row = Row::failure(SQL, State::Warning, &error);
            if let Some(remark) = &mut row.remark {
                remark.push_str("; needed for switch-wal and for what else SQL tells only");
            }
            seen.rows.push(row);
            None
        }
    }
}

async fn streamed(
    seen: &mut Seen,
    mut client: ReplicationClient,
    mut database: Option<&mut ReplicationClient>,
    peer: &Peer,
    settings: &ServerSettings,
    identity: Option<&Identity>,
    source: Option<Result<standby::Source, ServerFailure>>,
) {
    let version = client.server_version();
    seen.rows.push(security::row(&client, peer.config().ssl_mode));
    seen.rows.push(if version < OLDEST {
        Row::remark(VERSION, State::Warning, format!("{version} is older than {OLDEST}"))
    } else {
        Row::ok(VERSION)
    });
    if version.supports(Feature::ReplicationSql) {
        seen.rows.push(wal_level(&mut client, peer).await);
    }
    let system_id = client.identify_system().await.map(|system| system.system_id);
    let primary = standby::Source {
        system_id: system_id.as_ref().ok().copied(),
        in_recovery: match &seen.facts {
            Some(facts) => Some(facts.in_recovery),
            None => client.parameter("in_hot_standby").map(|setting| setting == "on"),
        },
    };
    seen.rows.push(match system_id {
        Ok(theirs) => coherence(theirs, identity),
        Err(error) => Row::failure(COHERENCE, State::Failed, &peer.failed("identify")(error)),
    });
    match source {
        None => {}
        Some(Ok(source)) => {
            seen.rows.push(match source.system_id {
                Some(theirs) => Row { name: BACKUP_STREAMING, ..coherence(theirs, identity) },
                None => Row::ok(BACKUP_STREAMING),
            });
            seen.rows.extend(standby::rows(source, primary));
        }
        Some(Err(error)) => {
            seen.rows.push(Row::failure(BACKUP_STREAMING, State::Failed, &error));
        }
    }
    let received = identity.is_some();
    let (row, view) =
        slot::look(&mut client, database.as_deref_mut(), peer, settings, received).await;
    seen.rows.push(row);
    seen.slot = view;
    seen.rows.extend(synchronous::row(&mut client, database, settings).await);
    let _ = client.close().await;
}

async fn wal_level(client: &mut ReplicationClient, peer: &Peer) -> Row {
    match client.show("wal_level").await {
        Ok(level) if level == "minimal" => {
            let remark = "it is `minimal`: set `wal_level = replica` and restart the server";
            Row::remark(WAL_LEVEL, State::Failed, remark)
        }
        Ok(_) => Row::ok(WAL_LEVEL),
        Err(error) => {
            Row::failure(WAL_LEVEL, State::Failed, &peer.failed("read a setting of")(error))
        }
    }
}

fn coherence(theirs: SystemId, identity: Option<&Identity>) -> Row {
    match identity {
        None => Row::remark(COHERENCE, State::Ok, "no system identifier stored yet"),
        Some(ours) if theirs == ours.system_id => Row::ok(COHERENCE),
        Some(ours) => Row::remark(
            COHERENCE,
            State::Failed,
            format!(
                "the server has {theirs}, and the WAL and backups stored are of {}",
                ours.system_id
            ),
        ),
    }
}
