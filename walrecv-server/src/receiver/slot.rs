//! The slot: what it keeps, and making one where that leaves no gap.

use pgwire_stream::{
    Config, DropSlot, Feature, Lsn, PhysicalSlot, ReplicationClient, SlotName, StartReplication,
    TimelineId,
};

use super::ReceiverError;
use super::slot_view::{SlotView, view};
use super::start::Kept;

/// What is known about the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// It keeps WAL from here on.
    Keeps(Kept),
    /// It exists and keeps nothing: it was never used, or the server gave it up.
    KeepsNothing,
    /// The server gave it up.
    Lost,
    /// There is none.
    Missing,
    /// The server is too old to be asked on a replication connection, and there is no other.
    Unknown,
}

impl Slot {
    pub(super) fn kept(self) -> Option<Kept> {
        match self {
            Self::Keeps(kept) => Some(kept),
            Self::KeepsNothing | Self::Lost | Self::Missing | Self::Unknown => None,
        }
    }
}

/// What is being done where a slot is read.
pub(super) const READ: &str = "read the slot";

/// Looks at the slot: with its own command on servers that have it (15+), else with SQL if the
/// configuration names a database. Of one that keeps nothing, SQL also tells whether it ever will.
pub(super) async fn look(
    client: &mut ReplicationClient,
    config: &Config,
    name: &SlotName,
) -> Result<Slot, ReceiverError> {
    let version = client.server_version();
    let mut slot = Slot::Unknown;
    if version.supports(Feature::ReadSlot) {
        let position = client.read_slot(name).await.map_err(ReceiverError::server(READ))?;
        slot = match position.map(|position| position.restart) {
            Some(Some((lsn, timeline))) => {
                Slot::Keeps(Kept { lsn, timeline: Some(timeline), by_us: false })
            }
            Some(None) => Slot::KeepsNothing,
            None => Slot::Missing,
        };
    }
    let told = !matches!(slot, Slot::Unknown | Slot::KeepsNothing);
    if told || config.dbname.is_none() || !version.supports(Feature::ReplicationSql) {
        return Ok(slot);
    }
    match look_with_sql(config, name).await {
        Ok(Some(view)) if view.logical => Err(ReceiverError::SlotLogical { slot: name.clone() }),
        Ok(Some(view)) if view.is_lost() => Ok(Slot::Lost),
        Ok(Some(SlotView { restart: Some(lsn), .. })) => {
            Ok(Slot::Keeps(Kept { lsn, timeline: None, by_us: false }))
        }
        Ok(Some(_)) => Ok(Slot::KeepsNothing),
        Ok(None) => Ok(Slot::Missing),
        Err(error) => {
            tracing::debug!(error = %error, "cannot look at the slot with SQL");
            Ok(slot)
        }
    }
}

async fn look_with_sql(
    config: &Config,
    name: &SlotName,
) -> Result<Option<SlotView>, pgwire_stream::Error> {
    let mut client = ReplicationClient::connect_database(config).await?;
    let view = view(&mut client, name).await?;
    client.close().await?;
    Ok(view)
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
