//! `get-wal`: one WAL file for a recovering server, from the store, or from the daemon where the
//! user who asks may not read the store.

use std::path::Path;

use crate::failure::Failure;
use crate::restore::get_wal::{GetWalError, Lookup, deliver, locate};
use crate::storage::ServerDir;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetWalOutcome {
    /// The file is where it is wanted.
    Delivered,
    /// The archive was read completely and ends before this file.
    EndOfArchive,
}
