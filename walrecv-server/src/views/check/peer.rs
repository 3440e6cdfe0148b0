//! What the server itself can be asked.

use pgwire_stream::{Feature, ReplicationClient, ServerVersion};

use super::{Row, State, slot, synchronous};
use crate::catalog::Identity;
use crate::peer::Peer;
use crate::settings::ServerSettings;

/// The first version that is supported and tested.
const OLDEST: ServerVersion = ServerVersion::from_num(10_00_00);

const STREAMING: &str = "PostgreSQL streaming";
const BACKUP_STREAMING: &str = "PostgreSQL streaming (base backups)";
const PRIVILEGES: &str = "superuser or standard user with backup privileges";
const SQL: &str = "PostgreSQL";
const VERSION: &str = "PostgreSQL version";
const WAL_LEVEL: &str = "wal_level";
const COHERENCE: &str = "systemid coherence";

/// Whether the server can be reached, and is as it should be.
pub(super) async fn rows(settings: &ServerSettings, identity: Option<&Identity>) -> Vec<Row> {
    let mut rows = Vec::new();
    let peer = match Peer::new(&settings.name, settings.streaming_conninfo()) {
        Ok(peer) => peer,
        Err(error) => return vec![Row::failure(STREAMING, State::Failed, &error)],
    };
    match peer.replication().await {
        Ok(client) => {
            rows.push(Row::ok(STREAMING));
            // A server lets nobody else begin to send WAL.
            rows.push(Row::ok(PRIVILEGES));
            streaming(&mut rows, client, &peer, settings, identity).await;
        }
        Err(error) => {
            let denied = error.source.sql_state().is_some_and(|state| state.as_str() == "42501");
            let name = if denied { PRIVILEGES } else { STREAMING };
            rows.push(Row::failure(name, State::Failed, &error));
        }
    }
    if settings.backup_conninfo() != settings.streaming_conninfo() {
        rows.push(backup_source(settings, identity).await);
    }
    rows
}

async fn streaming(
    rows: &mut Vec<Row>,
    mut client: ReplicationClient,
    peer: &Peer,
    settings: &ServerSettings,
    identity: Option<&Identity>,
) {
    let version = client.server_version();
    rows.push(if version < OLDEST {
        Row::remark(VERSION, State::Warning, format!("{version} is older than {OLDEST}"))
    } else {
        Row::ok(VERSION)
    });
    if version.supports(Feature::ReplicationSql) {
        rows.push(match client.show("wal_level").await {
            Ok(level) if level == "minimal" => {
                let remark = "it is `minimal`: set `wal_level = replica` and restart the server";
                Row::remark(WAL_LEVEL, State::Failed, remark)
            }
            Ok(_) => Row::ok(WAL_LEVEL),
            Err(error) => {
                let error = peer.failed("read a setting of")(error);
                Row::failure(WAL_LEVEL, State::Failed, &error)
            }
        });
    }
    rows.push(coherence(&mut client, peer, identity).await);

    // Lines of pg_hba.conf for `replication` are no lines for a database: that this fails is
    // nothing that keeps a server from being backed up.
    let database = match Peer::new(&settings.name, settings.conninfo.as_str()) {
        Ok(peer) => peer.database().await,
        Err(error) => Err(error),
    };
    let mut database = match database {
        Ok(database) => {
            rows.push(Row::ok(SQL));
            Some(database)
        }
        Err(error) => {
            let mut row = Row::failure(SQL, State::Warning, &error);
            if let Some(remark) = &mut row.remark {
                remark.push_str("; needed for switch-wal only");
            }
            rows.push(row);
            None
        }
    };
    let received = identity.is_some();
    rows.extend(slot::rows(&mut client, database.as_mut(), peer, settings, received).await);
    rows.extend(synchronous::row(&mut client, database.as_mut(), settings).await);
    if let Some(database) = database {
        let _ = database.close().await;
    }
    let _ = client.close().await;
}

async fn coherence(
    client: &mut ReplicationClient,
    peer: &Peer,
    identity: Option<&Identity>,
) -> Row {
    match (client.identify_system().await, identity) {
        (Err(error), _) => Row::failure(COHERENCE, State::Failed, &peer.failed("identify")(error)),
        (Ok(_), None) => Row::remark(COHERENCE, State::Ok, "no system identifier stored yet"),
        (Ok(theirs), Some(ours)) if theirs.system_id == ours.system_id => Row::ok(COHERENCE),
        (Ok(theirs), Some(ours)) => Row::remark(
            COHERENCE,
            State::Failed,
            format!(
                "the server has {}, and the WAL and backups stored are of {}",
                theirs.system_id, ours.system_id
            ),
        ),
    }
}

async fn backup_source(settings: &ServerSettings, identity: Option<&Identity>) -> Row {
    let tried = async {
        let peer = Peer::new(&settings.name, settings.backup_conninfo())?;
        let mut client = peer.replication().await?;
        let row = coherence(&mut client, &peer, identity).await;
        let _ = client.close().await;
        Ok(row)
    };
    match tried.await {
        Ok(row) => Row { name: BACKUP_STREAMING, ..row },
        Err(error) => {
            let error: crate::peer::ServerFailure = error;
            Row::failure(BACKUP_STREAMING, State::Failed, &error)
        }
    }
}
