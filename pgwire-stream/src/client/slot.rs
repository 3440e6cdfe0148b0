//! Replication slots: create, read, alter, drop.

use tokio::io::{AsyncRead, AsyncWrite};

use super::ReplicationClient;
use crate::proto::{AlterSlot, Command, DropSlot, LogicalSlot, PhysicalSlot, ResultSet};
use crate::{Lsn, Result, SlotName, TimelineId, Violation};

/// A slot that was just created.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedSlot {
    /// Its name.
    pub name: SlotName,
    /// Where a logical slot begins: it gives every transaction that is committed later, and the
    /// snapshot shows those before. [`Lsn::ZERO`] for every physical slot.
    pub consistent_point: Lsn,
    /// What `SET TRANSACTION SNAPSHOT` takes, if the snapshot was exported.
    pub snapshot_name: Option<String>,
    /// A logical slot's output plugin.
    pub plugin: Option<String>,
}

impl CreatedSlot {
    fn decode(rows: &ResultSet) -> Result<Self> {
        Ok(Self {
            name: rows.required("slot_name")?,
            consistent_point: rows.required("consistent_point")?,
            snapshot_name: rows.parsed("snapshot_name")?,
            plugin: rows.parsed("output_plugin")?,
        })
    }
}

/// What a physical slot keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotPosition {
    /// The oldest position whose WAL is kept, and the timeline it lies on. `None` if the slot keeps
    /// nothing: it never reserved anything, or was invalidated.
    pub restart: Option<(Lsn, TimelineId)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationClient<S> {
    /// Creates a physical slot.
    ///
    /// Cancel-safe in that the client stays usable; the slot may have been created.
    ///
    /// # Errors
    /// What the server reports ([`Error::is_slot_present`](crate::Error::is_slot_present) if there
    /// is one of that name; 53400 if there are too many), or if the connection fails.
    pub async fn create_physical_slot(
        &mut self,
        slot: &SlotName,
        options: PhysicalSlot,
    ) -> Result<CreatedSlot> {
        let command = Command::CreatePhysicalSlot { slot: slot.clone(), options };
        CreatedSlot::decode(&self.run(&command).await?)
    }

    /// Creates a logical slot, on connections made by
    /// [`connect_database`](ReplicationClient::connect_database). Waits until every transaction
    /// that runs now is over.
    ///
    /// Cancel-safe in that the client stays usable; the slot may have been created.
    ///
    /// # Errors
    /// What the server reports (55000 if its `wal_level` is not `logical`, 58P01 or
    /// 42501 without such a plugin, and as for a physical slot), or if the connection fails.
    pub async fn create_logical_slot(
        &mut self,
        slot: &SlotName,
        options: &LogicalSlot,
    ) -> Result<CreatedSlot> {
        let command = Command::CreateLogicalSlot { slot: slot.clone(), options: options.clone() };
        CreatedSlot::decode(&self.run(&command).await?)
    }

    /// Reads what a physical slot keeps (servers from 15 on); `None` if there is no such slot.
    ///
    /// # Errors
    /// What the server reports (0A000 for a logical slot), or if the connection fails.
    pub async fn read_slot(&mut self, slot: &SlotName) -> Result<Option<SlotPosition>> {
        let rows = self.run(&Command::ReadSlot(slot.clone())).await?;
        if rows.bytes("slot_type")?.is_none() {
            return Ok(None);
        }
        let restart = match (rows.parsed("restart_lsn")?, rows.parsed("restart_tli")?) {
            (Some(lsn), Some(timeline)) => Some((lsn, timeline)),
            (None, None) => None,
            _ => {
                let (command, column) = ("READ_REPLICATION_SLOT", "restart_tli");
                return Err(Violation::Column { command, column }.into());
            }
        };
        Ok(Some(SlotPosition { restart }))
    }

    /// Changes a logical slot (servers from 17 on), which nobody may be using.
    ///
    /// Cancel-safe in that the client stays usable; the slot may have been changed.
    ///
    /// # Errors
    /// What the server reports ([`Error::is_slot_missing`](crate::Error::is_slot_missing),
    /// [`Error::is_slot_in_use`](crate::Error::is_slot_in_use), 0A000 or 55000 for a slot that
    /// cannot be changed so), or if the connection fails.
    pub async fn alter_slot(&mut self, slot: &SlotName, changes: AlterSlot) -> Result<()> {
        self.run(&Command::AlterSlot { slot: slot.clone(), changes }).await.map(drop)
    }

    /// Drops a slot, physical or logical.
    ///
    /// Cancel-safe in that the client stays usable; the slot may have been dropped.
    ///
    /// # Errors
    /// What the server reports ([`Error::is_slot_missing`](crate::Error::is_slot_missing),
    /// [`Error::is_slot_in_use`](crate::Error::is_slot_in_use)), or if the connection fails.
    pub async fn drop_slot(&mut self, slot: &SlotName, active: DropSlot) -> Result<()> {
        self.run(&Command::DropSlot { slot: slot.clone(), active }).await.map(drop)
    }
}
