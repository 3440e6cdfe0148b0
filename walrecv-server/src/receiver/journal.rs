//! What the receiver notes of what happened to WAL.

use pgwire_stream::{Lsn, TimelineId};

use super::start::Switch;
use crate::catalog::{self, RecordedSwitch};
use crate::storage::{ServerDir, StorageError};

/// Notes a gap that the operator accepted.
pub(super) fn record_gap(
    dir: &ServerDir,
    timeline: TimelineId,
    from: Lsn,
    to: Lsn,
) -> Result<(), StorageError> {
    catalog::journal::record_gap(dir, timeline, from, to)
}

/// Notes a change of timelines that is followed.
pub(super) fn record_switch(dir: &ServerDir, switch: &Switch) -> Result<(), StorageError> {
    let Switch { left, entered, fork, held_to } = *switch;
    let at = std::time::SystemTime::now().into();
    catalog::journal::record_switch(dir, RecordedSwitch { left, entered, fork, held_to, at })
}
