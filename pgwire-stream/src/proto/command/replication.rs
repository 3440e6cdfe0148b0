//! Streams: `START_REPLICATION`, physical and logical.

use super::{Command, grammar};
use crate::proto::feedback::Intervals;
use crate::{Lsn, Misuse, SlotName, TimelineId};

/// Where and how physical streaming begins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StartReplication {
    /// The slot that keeps WAL for us.
    pub slot: Option<SlotName>,
    /// The first byte wanted. Any position; a whole segment needs its start.
    pub from: Lsn,
    /// The timeline wanted. By default the one that the server was on when the client last asked
    /// (`IDENTIFY_SYSTEM`), even if it is on another by now.
    pub timeline: Option<TimelineId>,
    /// What was durable before: reported as flushed from the start, and the least that
    /// [`Progress::flushed`](crate::Progress::flushed) accepts whatever has been received.
    pub already_flushed: Lsn,
    /// How often to report, and how long to listen to silence.
    pub intervals: Intervals,
}

impl StartReplication {
    /// Streaming from this position, without a slot and with nothing durable yet.
    pub fn new(from: Lsn) -> Self {
        Self {
            slot: None,
            from,
            timeline: None,
            already_flushed: Lsn::ZERO,
            intervals: Intervals::default(),
        }
    }

    /// What is sent of it.
    pub fn command(&self) -> Command {
        Command::StartReplication {
            slot: self.slot.clone(),
            from: self.from,
            timeline: self.timeline,
        }
    }
}

/// Where and how logical streaming begins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StartLogical {
    /// The slot, whose output plugin decodes.
    pub slot: SlotName,
    /// Transactions that were committed before it are left out; so are those that the slot was
    /// told about as flushed. [`Lsn::ZERO`] begins where the slot stands.
    pub from: Lsn,
    /// The output plugin's options, such as `("proto_version", Some("1"))`.
    pub options: Vec<(String, Option<String>)>,
    /// What was durable before: reported as flushed from the start, and the least that
    /// [`Progress::flushed`](crate::Progress::flushed) accepts whatever has been received.
    pub already_flushed: Lsn,
    /// How often to report, and how long to listen to silence.
    pub intervals: Intervals,
}

impl StartLogical {
    /// Streaming from where the slot stands, with nothing durable yet and no options.
    pub fn new(slot: SlotName) -> Self {
        Self {
            slot,
            from: Lsn::ZERO,
            options: Vec::new(),
            already_flushed: Lsn::ZERO,
            intervals: Intervals::default(),
        }
    }

    /// What is sent of it.
    pub fn command(&self) -> Command {
        Command::StartLogicalReplication {
            slot: self.slot.clone(),
            from: self.from,
            options: self.options.clone(),
        }
    }
}

pub(super) fn physical(slot: Option<&SlotName>, from: Lsn, timeline: Option<TimelineId>) -> String {
    let slot = slot.map(|slot| format!(" SLOT {}", grammar::slot(slot))).unwrap_or_default();
    let timeline = timeline.map(|timeline| format!(" TIMELINE {timeline}")).unwrap_or_default();
    format!("START_REPLICATION{slot} PHYSICAL {from}{timeline}")
}

pub(super) fn logical(
    slot: &SlotName,
    from: Lsn,
    options: &[(String, Option<String>)],
) -> Result<String, Misuse> {
    let option = |(name, value): &(String, Option<String>)| {
        let value = value.as_ref().map(|value| format!(" {}", grammar::string(value)));
        Ok(grammar::name(name)? + &value.unwrap_or_default())
    };
    let list = options.iter().map(option).collect::<Result<Vec<_>, Misuse>>()?;
    let list = if list.is_empty() { String::new() } else { format!(" ({})", list.join(", ")) };
    Ok(format!("START_REPLICATION SLOT {} LOGICAL {from}{list}", grammar::slot(slot)))
}
