//! Physical replication slots: create, read, drop.

use tokio::io::{AsyncRead, AsyncWrite};

use super::ReplicationClient;
use crate::proto::{Command, DropSlot, PhysicalSlot};
use crate::{Lsn, Result, SlotName, TimelineId, Violation};

/// What a physical slot keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPosition {
    /// The oldest position whose WAL is kept, and the timeline it lies on. `None` if the slot keeps
    /// nothing: it never reserved anything, or was invalidated.
    pub restart: Option<(Lsn, TimelineId)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationClient<S> {
    /// Creates a physical slot.
    ///
    /// # Errors
    /// What the server reports ([`Error::is_slot_present`](crate::Error::is_slot_present) if there
    /// is one of that name; 53400 if there are too many), or if the connection fails.
    pub async fn create_physical_slot(
        &mut self,
        slot: &SlotName,
        options: PhysicalSlot,
    ) -> Result<()> {
        let command = Command::create_physical_slot(slot, options, self.version)?;
        self.run(&command).await.map(drop)
    }

    /// Reads what a physical slot keeps (servers from 15 on); `None` if there is no such slot.
    ///
    /// # Errors
    /// What the server reports (0A000 for a logical slot), or if the connection fails.
    pub async fn read_slot(&mut self, slot: &SlotName) -> Result<Option<SlotPosition>> {
        let command = Command::read_slot(slot, self.version)?;
        let rows = self.run(&command).await?;
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

    /// Drops a slot.
    ///
    /// # Errors
    /// What the server reports ([`Error::is_slot_missing`](crate::Error::is_slot_missing),
    /// [`Error::is_slot_in_use`](crate::Error::is_slot_in_use)), or if the connection fails.
    pub async fn drop_slot(&mut self, slot: &SlotName, active: DropSlot) -> Result<()> {
        let command = Command::drop_slot(slot, active, self.version)?;
        self.run(&command).await.map(drop)
    }
}
