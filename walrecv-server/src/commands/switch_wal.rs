//! `switch-wal`: has the server begin a new WAL segment, and waits for the old one if wanted.

use std::time::{Duration, Instant};

use pgwire_stream::{Error, Lsn, ReplicationClient, SegmentName, SegmentSize};

use crate::catalog::{Held, WalError, WalStore};
use crate::failure::{Class, Failure, quoted_role};
use crate::peer::{Peer, ServerFailure};
use crate::settings::{ServerName, ServerSettings};
use crate::storage::ServerDir;

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchWalOutcome {
    /// The server.
    pub server: ServerName,
    /// Where the server's WAL ended.
    pub ended_at: Lsn,
    /// The segment that was closed; `None` if there was nothing in the current one, so that nothing
    /// was switched.
    pub closed: Option<SegmentName>,
    /// Whether that segment is archived here; `None` if nobody waited for it.
    pub archived: Option<bool>,
}

/// How it is done.
#[derive(Clone, Copy, Debug, Default)]
pub struct SwitchWalOptions {
    /// Make a checkpoint first, so that there is something to switch.
    pub force: bool,
    /// Wait so long until the segment that was closed is archived here.
    pub archive: Option<Duration>,
}

/// How often the archive is looked at.
const GLANCE: Duration = Duration::from_millis(100);

/// Why no new segment was begun.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwitchWalError {
    /// The server cannot be reached.
    #[error(transparent)]
    Connect(#[from] ServerFailure),
    /// The role may not do it.
    #[error("the role {role} may not {} on server `{server}`", .function.action())]
    Denied {
        /// The role.
        role: String,
        /// What it may not do.
        function: Function,
        /// The server.
        server: ServerName,
        /// What the server says.
        source: Box<Error>,
    },
    /// The segment was closed, and did not come into the archive in time.
    #[error(
        "segment {segment} of server `{server}` was closed, and is not archived after {} seconds",
        waited.as_secs()
    )]
    NotArchived {
        /// The segment.
        segment: SegmentName,
        /// The server.
        server: ServerName,
        /// How long was waited.
        waited: Duration,
    },
    /// The archive cannot be read.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The server is a standby.
    #[error("server `{server}` is a standby: its WAL is switched on the primary")]
    Standby {
        /// The server.
        server: ServerName,
    },
}

/// What the command has the server do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `CHECKPOINT`.
    Checkpoint,
    /// `pg_switch_wal()`.
    SwitchWal,
}

impl Function {
    fn action(self) -> &'static str {
        match self {
            Self::Checkpoint => "make a checkpoint",
            Self::SwitchWal => "switch the WAL segment",
        }
    }

    /// The statement that lets a role do it.
    fn grant(self, role: &str) -> String {
        match self {
            Self::Checkpoint => {
                format!("GRANT pg_checkpoint TO {role};  (15 and newer; before, superusers only)")
            }
            Self::SwitchWal => format!("GRANT EXECUTE ON FUNCTION pg_switch_wal() TO {role};"),
        }
    }
}

impl Failure for SwitchWalError {
    fn class(&self) -> Class {
        match self {
            Self::Connect(error) => error.class(),
            Self::Wal(error) => error.class(),
            _ => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.hint(),
            Self::Denied { role, function, .. } => Some(format!(
                "as a superuser, in that database: {}",
                function.grant(&quoted_role(role))
            )),
            Self::NotArchived { server, .. } => Some(format!(
                "`walrecv-server status {server}` tells whether its WAL is received; \
                 `--archive-timeout` waits longer"
            )),
            Self::Wal(error) => error.hint(),
            Self::Standby { .. } => Some(
                "a backup does not need a switch: what is received of a \
                                          segment is durable and restorable"
                    .to_owned(),
            ),
        }
    }
}

/// Has the server begin a new segment, after a checkpoint if there may be nothing to switch.
pub async fn switch_wal(
    server: &ServerSettings,
    store: &ServerDir,
    options: SwitchWalOptions,
) -> Result<SwitchWalOutcome, SwitchWalError> {
    let peer = Peer::new(&server.name, server.conninfo.as_str())?;
    let mut client = peer.database().await?;
    let size = client.wal_segment_size().await.map_err(peer.failed("read a setting of"))?;
    let timeline = client.identify_system().await.map_err(peer.failed("identify"))?.timeline;
    let standby = client.query("SELECT pg_is_in_recovery()").await.map_err(peer.failed("query"))?;
    if standby.single() == Some("t") {
        return Err(SwitchWalError::Standby { server: server.name.clone() });
    }
    if options.force {
        run(&mut client, &peer, &server.name, Function::Checkpoint, "CHECKPOINT").await?;
    }
    let sql = "SELECT pg_switch_wal()";
    let switched = run(&mut client, &peer, &server.name, Function::SwitchWal, sql).await?;
    let _ = client.close().await;
    let ended_at = switched.unwrap_or(Lsn::ZERO);
    let closed =
        closed_segment(ended_at, size).map(|number| SegmentName::new(timeline, number, size));
    let archived = match (options.archive, closed) {
        (Some(patience), Some(segment)) => {
            wait(store, size, segment, patience).await?;
            Some(true)
        }
        (Some(_), None) | (None, _) => None,
    };
    Ok(SwitchWalOutcome { server: server.name.clone(), ended_at, closed, archived })
}

/// Waits until a segment is archived.
async fn wait(
    store: &ServerDir,
    size: SegmentSize,
    segment: SegmentName,
    patience: Duration,
) -> Result<(), SwitchWalError> {
    let (wal, begin) = (WalStore::new(store, size), Instant::now());
    loop {
        if matches!(wal.find(segment)?, Some(Held::Archived { .. })) {
            return Ok(());
        }
        if begin.elapsed() >= patience {
            return Err(SwitchWalError::NotArchived {
                segment,
                server: store.name().clone(),
                waited: patience,
            });
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// The segment that ended at this position: none if that is the beginning of one, where
/// `pg_switch_wal()` does nothing.
fn closed_segment(ended_at: Lsn, size: SegmentSize) -> Option<pgwire_stream::SegmentNumber> {
    (size.offset_in_segment(ended_at) != 0).then(|| size.segment_of(ended_at))
}

async fn run(
    client: &mut ReplicationClient,
    peer: &Peer,
    server: &ServerName,
    function: Function,
    sql: &str,
) -> Result<Option<Lsn>, SwitchWalError> {
    match client.query(sql).await {
        Ok(result) => Ok(result.single().and_then(|text| text.parse().ok())),
        Err(error) if error.sql_state().is_some_and(|state| state.as_str() == "42501") => {
            Err(SwitchWalError::Denied {
                role: peer.role().unwrap_or_default().to_owned(),
                function,
                server: server.clone(),
                source: Box::new(error),
            })
        }
        Err(error) => Err(peer.failed("switch the WAL segment of")(error).into()),
    }
}
