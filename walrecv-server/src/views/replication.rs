//! Who receives WAL from a server, as `pg_stat_replication` tells.

use std::net::IpAddr;

use jiff::Timestamp;
use pgwire_stream::{Lsn, PgTimestamp, ReplicationClient};

use crate::failure::quoted_role;
use crate::peer::{Peer, ServerFailure};
use crate::settings::{ServerName, ServerSettings};
use crate::units::moment;

/// Which of them are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// All of them.
    #[default]
    All,
    /// Those that replay it.
    HotStandby,
    /// Those that only keep it.
    WalStreamer,
}

/// Which server is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The one that SQL goes to.
    #[default]
    Conninfo,
    /// The one that base backups come from.
    BackupHost,
    /// The one that WAL comes from.
    WalHost,
}

/// Who receives WAL from a server.
#[derive(Clone, Debug)]
pub struct ReplicationOutcome {
    /// The server.
    pub server: ServerName,
    /// Who was asked for.
    pub target: Target,
    /// Where the server's WAL ends.
    pub current_lsn: Option<Lsn>,
    /// Who receives it.
    pub clients: Vec<ReplicationPeer>,
    /// What the server did not show to us.
    pub hidden: Option<Hidden>,
}

/// What a server does not show to the role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// How many clients are known by hardly more than their existence.
    pub clients: usize,
    /// The role.
    pub role: String,
    /// The statement that changes it.
    pub grant: String,
}

/// Somebody who receives WAL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicationPeer {
    /// The process on the server that sends it.
    pub process: Option<u32>,
    /// What the other side calls itself.
    pub application: Option<String>,
    /// The role that logged in.
    pub user: Option<String>,
    /// Where the other side is; `None` for a Unix socket.
    pub address: Option<IpAddr>,
    /// Its name, where the server has looked it up.
    pub host: Option<String>,
    /// Its port.
    pub port: Option<i32>,
    /// When it connected.
    pub started_at: Option<Timestamp>,
    /// The transaction that its queries hold back.
    pub xmin: Option<String>,
    /// What the process does; `None` where that is hidden from us.
    pub state: Option<String>,
    /// `async`, `sync`, `quorum` or `potential`.
    pub sync_state: Option<String>,
    /// Its place in `synchronous_standby_names`; 0 where it is not there.
    pub sync_priority: u32,
    /// The slot that it uses.
    pub slot: Option<String>,
    /// How far it was sent.
    pub sent: Option<Lsn>,
    /// How far it has written.
    pub write: Option<Lsn>,
    /// How far that is durable there.
    pub flush: Option<Lsn>,
    /// How far it has replayed.
    pub replay: Option<Lsn>,
}

impl ReplicationPeer {
    /// Whether it replays what it receives.
    pub fn is_standby(&self) -> bool {
        self.replay.is_some()
    }

    /// How far the latest WAL of the server has come: 1 written by the server itself, 2 sent, 3
    /// written by the other side, 4 durable there, 5 replayed.
    pub fn stage(&self, server_end: Lsn) -> u8 {
        let has = |position: Option<Lsn>| position.is_some_and(|position| position >= server_end);
        let reached = [self.sent, self.write, self.flush, self.replay];
        let steps = reached.into_iter().take_while(|position| has(*position)).count();
        let most = if self.is_standby() { 5 } else { 3 };
        u8::try_from(steps + 1).unwrap_or(most).min(most)
    }
}

/// Asks a server who receives its WAL.
///
/// # Errors
/// If the server cannot be reached, or does not answer.
pub async fn replication(
    settings: &ServerSettings,
    target: Target,
    source: Source,
) -> Result<ReplicationOutcome, ServerFailure> {
    let conninfo = match source {
        Source::Conninfo => settings.conninfo.as_str(),
        Source::BackupHost => settings.backup_conninfo(),
        Source::WalHost => settings.streaming_conninfo(),
    };
    let peer = Peer::new(&settings.name, conninfo)?;
    let mut client = peer.database().await?;
    let current_lsn = current(&mut client).await.map_err(peer.failed("query"))?;
    let answer = client.query(CLIENTS).await.map_err(peer.failed("query"))?;
    let _ = client.close().await;
    let mut clients: Vec<_> = answer.rows.iter().map(of_row).collect();
    // Without the privilege, hardly more than the process is shown.
    let unseen = clients.iter().filter(|client| client.state.is_none()).count();
    let role = peer.role().unwrap_or_default();
    let hidden = (unseen > 0).then(|| Hidden {
        clients: unseen,
        role: role.to_owned(),
        grant: format!("GRANT pg_read_all_stats TO {};", quoted_role(role)),
    });
    clients.retain(|client| match target {
        Target::All => true,
        Target::HotStandby => client.is_standby(),
        Target::WalStreamer => !client.is_standby(),
    });
    Ok(ReplicationOutcome { server: settings.name.clone(), target, current_lsn, clients, hidden })
}

async fn current(client: &mut ReplicationClient) -> Result<Option<Lsn>, pgwire_stream::Error> {
    let sql = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() \
               THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END";
    Ok(client.query(sql).await?.single().and_then(|lsn| lsn.parse().ok()))
}

/// The columns in the order of [`of_row`]. Whoever asks is there, too, and left out.
const CLIENTS: &str = "SELECT r.pid, r.application_name, r.usename, host(r.client_addr), r.client_hostname, \
    r.client_port, (extract(epoch FROM r.backend_start) * 1000000)::bigint, r.backend_xmin, \
    r.state, r.sync_state, r.sync_priority, s.slot_name, r.sent_lsn, r.write_lsn, r.flush_lsn, \
    r.replay_lsn \
    FROM pg_catalog.pg_stat_replication AS r \
    LEFT JOIN pg_catalog.pg_replication_slots AS s ON s.active_pid = r.pid \
    WHERE r.pid <> pg_catalog.pg_backend_pid() \
    ORDER BY r.sync_state DESC, r.sync_priority, r.pid";

fn of_row(row: &pgwire_stream::proto::Row) -> ReplicationPeer {
    let text = |column| row.text(column).filter(|text| !text.is_empty()).map(str::to_owned);
    let lsn = |column| row.text(column).and_then(|text| text.parse::<Lsn>().ok());
    let micros = row.text(6).and_then(|text| text.parse().ok());
    ReplicationPeer {
        process: row.text(0).and_then(|text| text.parse().ok()),
        application: text(1),
        user: text(2),
        address: row.text(3).and_then(|text| text.parse().ok()),
        host: text(4),
        port: row.text(5).and_then(|text| text.parse().ok()),
        started_at: micros.map(PgTimestamp::from_unix_micros).and_then(moment),
        xmin: text(7),
        state: text(8),
        sync_state: text(9),
        sync_priority: row.text(10).and_then(|text| text.parse().ok()).unwrap_or_default(),
        slot: text(11),
        sent: lsn(12),
        write: lsn(13),
        flush: lsn(14),
        replay: lsn(15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_count_how_far_the_latest_wal_has_come() {
        let at = |number| Some(Lsn::from_u64(number));
        let end = Lsn::from_u64(100);
        let streamer = |sent, write, flush| ReplicationPeer {
            sent: at(sent),
            write: at(write),
            flush: at(flush),
            ..ReplicationPeer::default()
        };
        assert_eq!(streamer(90, 90, 90).stage(end), 1);
        assert_eq!(streamer(100, 90, 90).stage(end), 2);
        assert_eq!(streamer(100, 100, 100).stage(end), 3);
        let standby = |replay| ReplicationPeer { replay: at(replay), ..streamer(100, 100, 100) };
        assert_eq!(standby(90).stage(end), 4);
        assert_eq!(standby(100).stage(end), 5);
        assert!(standby(1).is_standby() && !streamer(1, 1, 1).is_standby());
    }
}
