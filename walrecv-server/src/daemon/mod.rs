//! Many servers in one process, and the control socket.
//!
//! ```text
//! stop ──▶ supervise(main) ──▶ Receiver ──▶ Board ◀── control socket ◀── commands
//!     └──▶ supervise(test) ──▶ Receiver ──▶   ┘
//! ```
//!
//! Each receiver has a task of its own and is started again whatever ends it, so that a server
//! that fails, or is refused, disturbs no other.

mod address;
mod admission;
mod board;
mod client;
mod control;
mod door;
mod http;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use client::{
    BlockingAnswer, BlockingClient, ControlClient, ControlError, DaemonError, ReaderAnswer,
    WalAnswer, WalBody, WalBodyReader, WantedWal,
};

pub use self::board::{Checked, Ended, Running, ServerNews, Task};

use self::board::Board;
use self::control::Control;
use crate::failure::{Class, Failure, in_one_line};
use crate::receiver::{Receiver, ReceiverOptions};
use crate::settings::{ServerSettings, Settings};
use crate::storage::{Home, StorageError, durable};

/// How long a receiver that ended with an error rests.
const REST: Duration = Duration::from_secs(30);

/// How long requests may go on when everything else has stopped.
const LAST_REQUESTS: Duration = Duration::from_secs(3);

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonFailure {
    /// There is nothing to do.
    #[error("no server is configured")]
    NoServers,
    /// There is a daemon for this store.
    #[error("a daemon is already running for the store in `{}`", home.display())]
    AlreadyRunning {
        /// The store.
        home: PathBuf,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Failure for DaemonFailure {
    fn class(&self) -> Class {
        match self {
            Self::NoServers => Class::Usage,
            _ => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoServers => {
                Some("`walrecv-server init` writes a configuration to begin with".to_owned())
            }
            Self::AlreadyRunning { .. } => {
                Some("stop it first; one daemon serves all servers of a store".to_owned())
            }
            Self::Storage(error) => error.hint(),
        }
    }
}

/// Receives the WAL of all configured servers and answers commands, until told to stop. Then all
/// that was received is durable and acknowledged.
///
/// # Errors
/// If nothing is configured, or the store cannot be used or is used by another daemon. What befalls
/// single servers is told in their status, and logged.
pub async fn run(
    settings: &Settings,
    home: &Home,
    stop: watch::Receiver<bool>,
) -> Result<(), DaemonFailure> {
    if settings.servers.is_empty() {
        return Err(DaemonFailure::NoServers);
    }
    durable::create_dir(home.path(), home.access())?;
    let board = Board::default();
    let control = start_control(settings, home, board.clone(), stop.clone()).await?;
    let (_servers, configured) = watch::channel(Arc::from(settings.servers.as_slice()));
    let http =
        http::serve(settings.http.clone(), home.clone(), board.clone(), configured, stop.clone());
    tokio::spawn(http);
    let mut receivers = JoinSet::new();
    for server in &settings.servers {
        receivers.spawn(supervise(server.clone(), home.clone(), board.clone(), stop.clone()));
    }
    tracing::info!(servers = settings.servers.len(), "receiving WAL");
    while receivers.join_next().await.is_some() {}
    if let Some(control) = control {
        // A restored server may be in the middle of a file.
        let _ = tokio::time::timeout(LAST_REQUESTS, control).await;
    }
    Ok(())
}

/// Keeps one server's receiver going.
async fn supervise(
    server: ServerSettings,
    home: Home,
    board: Board,
    mut stop: watch::Receiver<bool>,
) {
    let name = server.name.clone();
    let options = ReceiverOptions { persistent: true, ..ReceiverOptions::default() };
    loop {
        let (receiver, status) = Receiver::new(server.clone(), &home, options);
        board.post(&name, status);
        // In a task of its own: even a panic ends only this receiver.
        match tokio::spawn(receiver.run(stop.clone())).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => {
                let hint = error.hint().unwrap_or_default();
                tracing::error!(server = %name, error = in_one_line(&error), hint, "WAL is not received");
            }
            Err(error) => tracing::error!(server = %name, error = %error, "the receiver was lost"),
        }
        tokio::select! {
            // Also if nobody can say so any more.
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(REST) => {}
        }
    }
}

/// Listens for commands. Somebody who only pretends to be a daemon cannot keep a real one from
/// its work, but from being asked.
async fn start_control(
    settings: &Settings,
    home: &Home,
    board: Board,
    stop: watch::Receiver<bool>,
) -> Result<Option<tokio::task::JoinHandle<()>>, DaemonFailure> {
    let prepared = control::listen(home.path()).and_then(|listener| {
        let keys = settings
            .servers
            .iter()
            .filter_map(|server| Some((server.name.clone(), server.encryption_identity.clone()?)));
        let readers = settings.wal_readers.clone();
        let control = Control::new(home.clone(), readers, board, keys.collect())?;
        Ok((listener, control))
    });
    let (listener, control) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            if error.kind() == io::ErrorKind::AddrInUse
                && ControlClient::connect(home.path()).await.is_ok()
            {
                return Err(DaemonFailure::AlreadyRunning { home: home.path().to_owned() });
            }
            tracing::error!(error = %error, "the control socket cannot be used; going on without");
            return Ok(None);
        }
    };
    Ok(Some(tokio::spawn(async move {
        if let Err(error) = control.serve(listener, stop).await {
            tracing::error!(error = %error, "the control socket failed");
        }
    })))
}
