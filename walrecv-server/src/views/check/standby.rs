//! Where base backups come from another server than WAL: a standby, as a rule.

use pgwire_stream::SystemId;

use super::{Row, State};
use crate::peer::{Peer, ServerFailure};
use crate::settings::ServerSettings;

const STANDBY: &str = "PostgreSQL server is standby";
const PRIMARY: &str = "Primary server is not a standby";
const SAME: &str = "Primary and standby have same system ID";

/// A server, as far as it tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) system_id: Option<SystemId>,
    pub(super) in_recovery: Option<bool>,
}

/// Asks the server that base backups come from; `None` if WAL comes from the same.
pub(super) async fn source(settings: &ServerSettings) -> Option<Result<Source, ServerFailure>> {
    if settings.backup_conninfo() == settings.streaming_conninfo() {
        return None;
    }
    Some(ask(settings).await)
}

async fn ask(settings: &ServerSettings) -> Result<Source, ServerFailure> {
    let peer = Peer::new(&settings.name, settings.backup_conninfo())?;
    let mut client = peer.replication().await?;
    let system = client.identify_system().await.map_err(peer.failed("identify"))?;
    // Servers from 14 on say so by themselves.
    let in_recovery = match client.parameter("in_hot_standby") {
        Some(setting) => Some(setting == "on"),
        None => in_recovery(&peer).await,
    };
    let _ = client.close().await;
    Ok(Source { system_id: Some(system.system_id), in_recovery })
}

async fn in_recovery(peer: &Peer) -> Option<bool> {
    let mut database = peer.database().await.ok()?;
    let answer = database.query("SELECT pg_is_in_recovery()").await.ok()?;
    let in_recovery = answer.single().map(|answer| answer == "t");
    let _ = database.close().await;
    in_recovery
}

/// Barman's rows of a standby; none where the source of base backups is none.
pub(super) fn rows(source: Source, primary: Source) -> Vec<Row> {
    if source.in_recovery != Some(true) {
        return Vec::new();
    }
    let mut rows = vec![Row::ok(STANDBY)];
    rows.extend(primary.in_recovery.map(|standby| {
        if standby {
            Row::remark(PRIMARY, State::Warning, "WAL is received from a standby, too")
        } else {
            Row::ok(PRIMARY)
        }
    }));
    if let (Some(ours), Some(theirs)) = (primary.system_id, source.system_id) {
        rows.push(if ours == theirs {
            Row::ok(SAME)
        } else {
            let remark = format!("the primary has {ours}, and the standby {theirs}");
            Row::remark(SAME, State::Failed, remark)
        });
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(id: u64, in_recovery: bool) -> Source {
        Source { system_id: Some(SystemId::from_u64(id)), in_recovery: Some(in_recovery) }
    }

    fn states(source: Source, primary: Source) -> Vec<State> {
        rows(source, primary).into_iter().map(|row| row.state).collect()
    }

    #[test]
    fn a_standby_belongs_to_its_primary() {
        use State::{Failed, Ok, Warning};
        assert_eq!(states(server(7, true), server(7, false)), [Ok, Ok, Ok]);
        assert_eq!(states(server(7, true), server(7, true)), [Ok, Warning, Ok]);
        assert_eq!(states(server(8, true), server(7, false)), [Ok, Ok, Failed]);
        assert_eq!(states(server(7, false), server(7, false)), []);
    }
}
