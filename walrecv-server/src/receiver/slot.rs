//! The slot: what it keeps, and making one where that leaves no gap.

use pgwire_stream::{
    Config, DropSlot, Feature, Lsn, PhysicalSlot, ReplicationClient, SlotName, StartReplication,
    TimelineId,
};

use super::ReceiverError;
use super::start::Kept;

/// What is known about the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// It keeps WAL from here on.
    Keeps(Kept),
    /// It exists and keeps nothing: it was never used, or the server gave it up.
    KeepsNothing,
    /// There is none.
    Missing,
    /// The server is too old to be asked on a replication connection, and there is no other.
    Unknown,
}

impl Slot {
    pub(super) fn kept(self) -> Option<Kept> {
        match self {
            Self::Keeps(kept) => Some(kept),
            Self::KeepsNothing | Self::Missing | Self::Unknown => None,
        }
    }
}

/// Looks at the slot: with its own command on servers that have it (15+), else with SQL if the
/// configuration names a database.
pub(super) async fn look(
    client: &mut ReplicationClient,
    config: &Config,
    name: &SlotName,
) -> Result<Slot, ReceiverError> {
    if client.server_version().supports(Feature::ReadSlot) {
        let position =
            client.read_slot(name).await.map_err(ReceiverError::server("read the slot"))?;
        return Ok(match position.map(|position| position.restart) {
            Some(Some((lsn, timeline))) => {
                Slot::Keeps(Kept { lsn, timeline: Some(timeline), by_us: false })
            }
            Some(None) => Slot::KeepsNothing,
            None => Slot::Missing,
        });
    }
    if config.dbname.is_none() || !client.server_version().supports(Feature::ReplicationSql) {
        return Ok(Slot::Unknown);
    }
    match look_with_sql(config, name).await {
        Ok(slot) => Ok(slot),
        Err(error) => {
            tracing::debug!(error = %error, "cannot look at the slot with SQL");
            Ok(Slot::Unknown)
        }
    }
}

async fn look_with_sql(config: &Config, name: &SlotName) -> Result<Slot, pgwire_stream::Error> {
    let mut client = ReplicationClient::connect_database(config).await?;
    // A slot name cannot hold a quote.
    let sql = format!(
        "SELECT restart_lsn FROM pg_catalog.pg_replication_slots WHERE slot_name = '{name}'"
    );
    let answer = client.query(&sql).await?;
    client.close().await?;
    Ok(match answer.rows.first().map(|row| row.text(0)) {
        None => Slot::Missing,
        Some(None) => Slot::KeepsNothing,
        Some(Some(text)) => match text.parse() {
            Ok(lsn) => Slot::Keeps(Kept { lsn, timeline: None, by_us: false }),
            Err(_) => Slot::Unknown,
        },
    })
}

/// Makes the slot, which keeps WAL from the last checkpoint on.
pub(super) async fn create(
    client: &mut ReplicationClient,
    name: &SlotName,
) -> Result<(), ReceiverError> {
    let mut options = PhysicalSlot::default();
    options.reserve_wal = true;
    match client.create_physical_slot(name, options).await {
        Ok(_) => {
            tracing::info!(slot = %name, "created the replication slot");
            Ok(())
        }
        Err(error) if error.is_slot_present() => Ok(()),
        Err(error) => Err(ReceiverError::server("create the replication slot")(error)),
    }
}

/// Replaces a slot that the server has given up.
pub(super) async fn recreate(
    client: &mut ReplicationClient,
    name: &SlotName,
) -> Result<(), ReceiverError> {
    tracing::warn!(slot = %name, "the server has given up the replication slot; making it anew");
    client
        .drop_slot(name, DropSlot::FailIfActive)
        .await
        .map_err(ReceiverError::server("drop the replication slot that the server has given up"))?;
    create(client, name).await
}

/// Whether the server still has the WAL from here on, found out by asking for it without a slot.
/// Gives the client back.
///
/// # Errors
/// [`pgwire_stream::Error::is_wal_removed`] if not.
pub(super) async fn probe(
    client: ReplicationClient,
    timeline: TimelineId,
    from: Lsn,
) -> Result<ReplicationClient, pgwire_stream::Error> {
    let mut options = StartReplication::new(from);
    options.timeline = Some(timeline);
    let mut stream = client.start_replication(options).await?;
    // The refusal comes in place of the first byte.
    stream.next().await?;
    stream.stop()?;
    while stream.next().await?.is_some() {}
    Ok(stream.finish()?.0)
}
