//! Where WAL files come from: the store, or the daemon.

use std::io::Read;

use jiff::Timestamp;
use pgwire_stream::{TimelineId, WalFileName};

use super::{GetWalFailure, GetWalRequest};
use crate::catalog::{Lease, previous};
use crate::daemon::{BlockingAnswer, BlockingClient, WantedWal};
use crate::restore::get_wal::{Beginnings, Lookup, locate};
use crate::storage::{Home, ServerDir};

/// What there is for a name.
pub(super) enum Answer<'a> {
    /// Nothing: the archive was read completely and ends before it.
    EndOfArchive,
    /// A file; reading it to the end verifies it.
    File { length: u64, settled: bool, reader: Box<dyn Read + 'a> },
}

/// The store where it may be read, the daemon where not.
pub(super) struct Source<'a> {
    home: &'a Home,
    server: &'a ServerDir,
    store: ServerDir,
    request: &'a GetWalRequest,
    daemon: Option<BlockingClient>,
}

impl<'a> Source<'a> {
    pub(super) fn new(home: &'a Home, server: &'a ServerDir, request: &'a GetWalRequest) -> Self {
        let store = previous::store_of(server, request.lease.as_ref());
        Self { home, server, store, request, daemon: None }
    }

    pub(super) fn ask(
        &mut self,
        file: WalFileName,
        partial: bool,
    ) -> Result<Answer<'_>, GetWalFailure> {
        let keys = self.request.keys.as_ref();
        let beginnings = Beginnings::of(partial, self.request.lease.as_ref());
        match locate(&self.store, &file.to_string(), beginnings, keys) {
            Ok(Lookup::EndOfArchive) => Ok(Answer::EndOfArchive),
            Ok(Lookup::Found(file)) => Ok(Answer::File {
                length: file.length(),
                settled: file.is_settled(),
                reader: Box::new(file),
            }),
            Err(error) if error.is_not_permitted() => self.ask_daemon(file, partial),
            // Why it was not delivered from here is then the reason, whatever the daemon says.
            Err(error) if error.is_without_keys() => match self.ask_daemon(file, partial) {
                Ok(file @ Answer::File { .. }) => Ok(file),
                Ok(Answer::EndOfArchive) | Err(_) => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    fn ask_daemon(
        &mut self,
        file: WalFileName,
        partial: bool,
    ) -> Result<Answer<'_>, GetWalFailure> {
        let failed = |source| GetWalFailure::Daemon { file, source };
        let daemon = match self.daemon.take() {
            Some(daemon) => daemon,
            None => BlockingClient::connect(self.home.path()).map_err(failed)?,
        };
        let daemon = self.daemon.insert(daemon);
        let wanted = WantedWal { file, partial, lease: self.request.lease.clone() };
        Ok(match daemon.wal(self.server.name(), &wanted).map_err(failed)? {
            BlockingAnswer::EndOfArchive => Answer::EndOfArchive,
            BlockingAnswer::File(reader) => Answer::File {
                length: reader.body().length(),
                settled: reader.body().is_settled(),
                reader: Box::new(reader),
            },
        })
    }
}

/// Renews the lease where that can be done from here; the daemon does it where it is asked. No
/// WAL is withheld for want of it.
pub(super) fn renew_lease(home: &Home, server: &ServerDir, request: &GetWalRequest) {
    let Some(lease) = &request.lease else { return };
    let store = previous::store_of(server, Some(lease));
    let Err(error) = Lease::renew(&store, lease, Timestamp::now()) else { return };
    tracing::debug!(%error, "the lease is not ours to renew");
    // Where the store is closed, the daemon was asked for the file and has renewed the lease.
    if !store.lease(lease).exists() {
        return;
    }
    // Who reads the store by its group may not write there: the daemon does, whatever it is asked.
    let file = WalFileName::History(TimelineId::FIRST);
    let wanted = WantedWal { file, partial: false, lease: Some(lease.clone()) };
    let asked = BlockingClient::connect(home.path())
        .and_then(|mut daemon| daemon.wal(server.name(), &wanted).map(drop));
    if let Err(error) = asked {
        tracing::debug!(%error, "the lease was not renewed");
    }
}
