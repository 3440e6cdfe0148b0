//! `archive-wal`: archives the segments that wait.

use tokio::sync::watch;

use crate::receiver::{ArchivePass, ArchivePassError, archive_waiting};
use crate::settings::{ServerName, ServerSettings};
use crate::storage::Home;

/// What became of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveWalOutcome {
    /// The server.
    pub server: ServerName,
    /// What was done.
    pub pass: ArchivePass,
}

/// Archives what waits of a server, unless its receiver does. Blocks.
pub fn archive_wal(
    settings: &ServerSettings,
    home: &Home,
    interrupted: &watch::Receiver<bool>,
) -> Result<ArchiveWalOutcome, ArchivePassError> {
    let pass = archive_waiting(settings, &home.server(&settings.name), &|| *interrupted.borrow())?;
    Ok(ArchiveWalOutcome { server: settings.name.clone(), pass })
}
