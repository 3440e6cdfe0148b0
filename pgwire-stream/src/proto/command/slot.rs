//! Slots: `CREATE_`, `READ_`, `ALTER_` and `DROP_REPLICATION_SLOT`.

use super::grammar;
use crate::{Error, Feature, Misuse, ServerVersion, SlotName, Unsupported};

/// How a physical slot is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PhysicalSlot {
    /// The slot ends with the connection, and with the first command that fails on it. Servers
    /// from 10 on.
    pub temporary: bool,
    /// WAL is kept from the last checkpoint on, rather than from the first status update that
    /// reports something as flushed.
    pub reserve_wal: bool,
}

/// How a logical slot is created.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogicalSlot {
    /// The output plugin that decodes for it, such as `pgoutput`.
    pub plugin: String,
    /// The slot ends with the connection, and with the first command that fails on it.
    pub temporary: bool,
    /// What becomes of the snapshot in which the slot begins.
    pub snapshot: Snapshot,
    /// Prepared transactions are decoded when they are prepared (servers from 15 on).
    pub two_phase: bool,
    /// The slot is synchronised to standbys, so that it outlives a failover (servers from 17 on).
    pub failover: bool,
}

impl LogicalSlot {
    /// A slot of this output plugin that lasts, without a snapshot.
    pub fn new(plugin: impl Into<String>) -> Self {
        Self {
            plugin: plugin.into(),
            temporary: false,
            snapshot: Snapshot::default(),
            two_phase: false,
            failover: false,
        }
    }
}

/// What becomes of the snapshot that shows the database as it is where a logical slot begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Snapshot {
    /// Other sessions can take it over, until the next command on this connection.
    Export,
    /// The current transaction takes it over. It must be `REPEATABLE READ` and have done nothing.
    Use,
    /// Nothing, as `pg_recvlogical` has it. (A server that is not told exports it.)
    #[default]
    Nothing,
}

/// What to change about a logical slot; at least one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AlterSlot {
    /// Whether the slot is synchronised to standbys.
    pub failover: Option<bool>,
    /// Whether prepared transactions are decoded when they are prepared (servers from 18 on).
    pub two_phase: Option<bool>,
}

/// What to do about a slot that somebody uses when it is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DropSlot {
    /// Fail.
    #[default]
    FailIfActive,
    /// Wait until it is free.
    Wait,
}

pub(super) fn create_physical(
    slot: &SlotName,
    options: PhysicalSlot,
    version: ServerVersion,
) -> Result<String, Unsupported> {
    let mut text = create(slot, options.temporary, version)?;
    text.push_str(" PHYSICAL");
    if options.reserve_wal {
        version.require(Feature::ReserveWal)?;
        let lists = version.supports(Feature::OptionLists);
        text.push_str(if lists { " (RESERVE_WAL)" } else { " RESERVE_WAL" });
    }
    Ok(text)
}

pub(super) fn create_logical(
    slot: &SlotName,
    options: &LogicalSlot,
    version: ServerVersion,
) -> Result<String, Error> {
    let mut text = create(slot, options.temporary, version)?;
    text.push_str(" LOGICAL ");
    text.push_str(&grammar::name(&options.plugin)?);
    for (wanted, feature) in [
        // Servers that cannot be told always export it.
        (options.snapshot != Snapshot::Export, Feature::SnapshotChoice),
        (options.two_phase, Feature::TwoPhaseSlots),
        (options.failover, Feature::FailoverSlots),
    ] {
        if wanted {
            version.require(feature)?;
        }
    }
    if !version.supports(Feature::SnapshotChoice) {
        return Ok(text);
    }
    if !version.supports(Feature::OptionLists) {
        text.push_str(match options.snapshot {
            Snapshot::Export => " EXPORT_SNAPSHOT",
            Snapshot::Use => " USE_SNAPSHOT",
            Snapshot::Nothing => " NOEXPORT_SNAPSHOT",
        });
        return Ok(text);
    }
    text.push_str(match options.snapshot {
        Snapshot::Export => " (SNAPSHOT 'export'",
        Snapshot::Use => " (SNAPSHOT 'use'",
        Snapshot::Nothing => " (SNAPSHOT 'nothing'",
    });
    if options.two_phase {
        text.push_str(", TWO_PHASE");
    }
    if options.failover {
        text.push_str(", FAILOVER");
    }
    text.push(')');
    Ok(text)
}

fn create(slot: &SlotName, temporary: bool, version: ServerVersion) -> Result<String, Unsupported> {
    let mut text = format!("CREATE_REPLICATION_SLOT {}", grammar::slot(slot));
    if temporary {
        version.require(Feature::TemporarySlots)?;
        text.push_str(" TEMPORARY");
    }
    Ok(text)
}

pub(super) fn read(slot: &SlotName, version: ServerVersion) -> Result<String, Unsupported> {
    version.require(Feature::ReadSlot)?;
    Ok(format!("READ_REPLICATION_SLOT {}", grammar::slot(slot)))
}

pub(super) fn alter(
    slot: &SlotName,
    changes: AlterSlot,
    version: ServerVersion,
) -> Result<String, Error> {
    version.require(Feature::AlterSlot)?;
    let mut list = Vec::new();
    if let Some(failover) = changes.failover {
        list.push(format!("FAILOVER {failover}"));
    }
    if let Some(two_phase) = changes.two_phase {
        version.require(Feature::AlterTwoPhase)?;
        list.push(format!("TWO_PHASE {two_phase}"));
    }
    if list.is_empty() {
        return Err(Misuse::Argument("there is nothing to change about the slot").into());
    }
    Ok(format!("ALTER_REPLICATION_SLOT {} ({})", grammar::slot(slot), list.join(", ")))
}

pub(super) fn drop(
    slot: &SlotName,
    active: DropSlot,
    version: ServerVersion,
) -> Result<String, Unsupported> {
    let mut text = format!("DROP_REPLICATION_SLOT {}", grammar::slot(slot));
    if active == DropSlot::Wait {
        version.require(Feature::DropSlotWait)?;
        text.push_str(" WAIT");
    }
    Ok(text)
}
