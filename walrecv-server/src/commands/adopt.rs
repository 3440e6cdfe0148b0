//! `adopt`: has a new cluster take over the name of a server, as after `pg_upgrade`. What is stored of
//! the old one is kept.

use pgwire_stream::SystemId;

use crate::catalog::previous::{self, PreviousError};
use crate::catalog::{Identity, IdentityError};
use crate::failure::{Class, Failure};
use crate::peer::{Peer, ServerFailure};
use crate::settings::{ServerName, ServerSettings};
use crate::storage::{Home, LockError, LockKind, ServerDir, ServerLock};

/// What became of the old cluster's store.
#[derive(Clone, Debug)]
pub struct AdoptOutcome {
    /// The server.
    pub server: ServerName,
    /// Where it lies now.
    pub previous: ServerDir,
}

/// Why everything stays as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptFailure {
    /// It is not a new cluster.
    #[error(
        "server `{server}` is the cluster {system} whose store this is: there is nothing to adopt"
    )]
    Same {
        /// The server.
        server: ServerName,
        /// The cluster.
        system: SystemId,
    },
    /// Nobody said that it is meant.
    #[error(
        "what is stored of cluster {ours} is about to be set apart in `{}`, and backups of server \
         `{server}` begin anew with cluster {theirs}",
        previous.display()
    )]
    Unconfirmed {
        /// The server.
        server: ServerName,
        /// The old cluster.
        ours: SystemId,
        /// The new one.
        theirs: SystemId,
        /// Where the old one's would lie.
        previous: std::path::PathBuf,
    },
    /// Somebody writes into the store.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The server cannot be asked which cluster it is.
    #[error(transparent)]
    Server(#[from] ServerFailure),
    /// Nobody knows whose store it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It cannot be set apart.
    #[error(transparent)]
    Previous(#[from] PreviousError),
}

impl Failure for AdoptFailure {
    fn class(&self) -> Class {
        match self {
            Self::Same { .. } | Self::Unconfirmed { .. } => Class::Refused,
            Self::Lock(error) => error.class(),
            Self::Server(error) => error.class(),
            Self::Identity(error) => error.class(),
            Self::Previous(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Same { .. } => None,
            Self::Unconfirmed { .. } => Some("`--yes` does it".to_owned()),
            Self::Lock(LockError::Held { process: Some(id), .. }) => Some(format!(
                "stop it first: `systemctl stop walrecv-server` if it is the daemon, or `kill {id}`"
            )),
            Self::Lock(error) => error.hint(),
            Self::Server(error) => error.hint(),
            Self::Identity(error) => error.hint(),
            Self::Previous(error) => error.hint(),
        }
    }
}

/// Sets apart what is stored of the cluster that had the server's name before.
pub async fn adopt(
    settings: &ServerSettings,
    home: &Home,
    confirmed: bool,
) -> Result<AdoptOutcome, AdoptFailure> {
    let name = &settings.name;
    let done = |previous| Ok(AdoptOutcome { server: name.clone(), previous });
    if let Some(previous) = previous::finish(home, name)? {
        return done(previous);
    }
    let server = home.server(name);
    let ours = Identity::require(&server)?.system_id;
    let peer = Peer::new(name, settings.streaming_conninfo())?;
    let mut client = peer.replication().await?;
    let theirs = client.identify_system().await.map_err(peer.failed("identify"))?.system_id;
    let _ = client.close().await;
    if ours == theirs {
        return Err(AdoptFailure::Same { server: name.clone(), system: ours });
    }
    let locks = [LockKind::Receiver, LockKind::Archive, LockKind::Backup]
        .map(|kind| ServerLock::try_acquire(&server, kind));
    let locks: Vec<_> = locks.into_iter().collect::<Result<_, _>>()?;
    if !confirmed {
        let previous = server.previous().path().join(ours.to_string());
        return Err(AdoptFailure::Unconfirmed { server: name.clone(), ours, theirs, previous });
    }
    match previous::set_apart(home, name, &locks)? {
        Some(previous) => done(previous),
        None => Err(IdentityError::Absent { path: server.path().to_owned() }.into()),
    }
}
