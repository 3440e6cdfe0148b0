//! Where the daemon keeps how its receivers are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::receiver::Status;
use crate::settings::ServerName;

/// How each receiver is, or was when it ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Board(Arc<Mutex<BTreeMap<ServerName, watch::Receiver<Status>>>>);

impl Board {
    /// A receiver begins, in place of one that ended.
    pub(super) fn post(&self, server: ServerName, status: watch::Receiver<Status>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(server, status);
    }

    /// How they are, in the order of their names.
    pub(super) fn statuses(&self) -> Vec<Status> {
        let board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        board.values().map(|status| status.borrow().clone()).collect()
    }
}
