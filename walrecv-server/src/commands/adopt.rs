//! `adopt`: has a new cluster take over the name of a server, as after `pg_upgrade`. What is stored of
//! the old one is kept.

use pgwire_stream::SystemId;

use crate::catalog::previous::{self, PreviousError};
use crate::catalog::{DocumentError, Identity, IdentityError, Lease, Leases, NoNewLeases};
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
    /// A server that was restored from the store may not have all its WAL yet.
    #[error(
        "the restore of server `{server}` into `{}` by {} still needs what is stored",
        lease.destination,
        lease.holder
    )]
    Leased {
        /// The server.
        server: ServerName,
        /// The lease of the restore.
        lease: Box<Lease>,
    },
    /// Nobody knows whether a restored server needs the store.
    #[error("cannot tell whether a restore of server `{server}` needs what is stored")]
    Lease {
        /// The server.
        server: ServerName,
        /// Why not.
        source: DocumentError,
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
            Self::Same { .. }
            | Self::Unconfirmed { .. }
            | Self::Leased { .. }
            | Self::Lease { .. } => Class::Refused,
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
            Self::Leased { .. } => Some(
                "wait until the restored server has all its WAL, or set the store apart all the same \
                 with `--ignore-leases`"
                    .to_owned(),
            ),
            Self::Lease { .. } => Some(
                "see to that file; `--ignore-leases` sets the store apart all the same".to_owned(),
            ),
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

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct AdoptOptions {
    /// Whether it was said that it is meant.
    pub confirmed: bool,
    /// Whether it is done although a restored server needs what is stored.
    pub ignore_leases: bool,
}

/// Sets apart what is stored of the cluster that had the server's name before.
pub async fn adopt(
    settings: &ServerSettings,
    home: &Home,
    options: AdoptOptions,
) -> Result<AdoptOutcome, AdoptFailure> {
    let name = &settings.name;
    let done = |previous| Ok(AdoptOutcome { server: name.clone(), previous });
    // What was interrupted may have been about another cluster than this is about.
    let finished = previous::finish(home, name)?;
    let server = home.server(name);
    let ours = match (Identity::load(&server)?, finished.clone()) {
        (Some(identity), _) => identity.system_id,
        (None, Some(previous)) => return done(previous),
        (None, None) => return Err(IdentityError::Absent { path: server.path().to_owned() }.into()),
    };
    let peer = Peer::new(name, settings.streaming_conninfo())?;
    let mut client = peer.replication().await?;
    let theirs = client.identify_system().await.map_err(peer.failed("identify"))?.system_id;
    let _ = client.close().await;
    if ours == theirs {
        let same = AdoptFailure::Same { server: name.clone(), system: ours };
        return finished.map_or(Err(same), done);
    }
    let locks = [LockKind::Receiver, LockKind::Archive, LockKind::Backup]
        .map(|kind| ServerLock::try_acquire(&server, kind));
    let locks: Vec<_> = locks.into_iter().collect::<Result<_, _>>()?;
    let _no_new_leases = NoNewLeases::hold(&server).map_err(PreviousError::from)?;
    if !options.ignore_leases {
        let leases = Leases::load(&server).into_readable();
        let leases =
            leases.map_err(|source| AdoptFailure::Lease { server: name.clone(), source })?;
        if let Some(lease) = leases.live().first().cloned() {
            return Err(AdoptFailure::Leased { server: name.clone(), lease: Box::new(lease) });
        }
    }
    if !options.confirmed {
        let previous = server.previous().path().join(ours.to_string());
        return Err(AdoptFailure::Unconfirmed { server: name.clone(), ours, theirs, previous });
    }
    match previous::set_apart(home, name, &locks)? {
        Some(previous) => done(previous),
        None => Err(IdentityError::Absent { path: server.path().to_owned() }.into()),
    }
}
