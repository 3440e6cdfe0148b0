//! Many servers in one process, and the control socket.
//!
//! ```text
//! settings ─▶ Fleet ─┬▶ receiving (main) ─▶ Receiver ──┐
//!                    ├▶ keeper    (main) ─▶ tasks ─────┼▶ Board ◀── control socket ◀── commands
//!                    ├▶ receiving (test) ─▶ Receiver ──┤
//!                    └▶ keeper    (test) ─▶ tasks ─────┘
//! ```
//!
//! Each receiver has a task of its own and is started again whatever ends it, so that a server
//! that fails, or is refused, disturbs no other. What is scheduled goes on beside it: the
//! agenda says what is due, the diary which moments have had their turn. Another configuration
//! changes what it says, and nothing else.

mod address;
mod admission;
mod agenda;
mod board;
mod client;
mod control;
mod diary;
mod door;
mod fleet;
mod herald;
mod http;
mod keeper;
mod places;
mod receiving;
mod respite;
mod systemd;
mod tasks;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use client::{
    BlockingAnswer, BlockingClient, ControlClient, ControlError, DaemonError, ReaderAnswer,
    WalAnswer, WalBody, WalBodyReader, WantedWal,
};

pub use self::board::{Checked, Ended, Running, ServerNews, Task};

use self::board::Board;
use self::control::Control;
use self::fleet::Fleet;
use crate::failure::{Class, Failure, in_one_line};
use crate::receiver::State;
use crate::settings::{ServerName, Settings};
use crate::storage::{Home, StorageError, durable};

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

/// Looks after all configured servers and answers commands, until told to stop. Then all that was
/// received is durable and acknowledged.
///
/// Whenever `reload` is raised, the settings are read again with `read`: what they change changes,
/// and everything else goes on. Where they cannot be read, or are wrong, nothing changes.
///
/// # Errors
/// If nothing is configured, or the store cannot be used or is used by another daemon. What befalls
/// single servers is told in their status, and logged.
pub async fn run(
    settings: Settings,
    home: &Home,
    mut stop: watch::Receiver<bool>,
    mut reload: watch::Receiver<()>,
    read: impl Fn() -> Result<Settings, Box<dyn Failure>>,
) -> Result<(), DaemonFailure> {
    if settings.servers.is_empty() {
        return Err(DaemonFailure::NoServers);
    }
    durable::create_dir(home.path(), home.access())?;
    let board = Board::default();
    let (current, changing) = watch::channel(Arc::new(settings));
    // The tasks end first, and are asked how they are until then.
    let (hang_up, hung_up) = watch::channel(false);
    let control = start_control(home, changing.clone(), board.clone(), hung_up).await?;
    let http = http::serve(changing.clone(), home.clone(), board.clone(), stop.clone());
    tokio::spawn(http);
    let mut fleet = Fleet::new(home.clone(), board.clone());
    fleet.apply(&changing.borrow());
    tracing::info!(servers = changing.borrow().servers.len(), "receiving WAL");
    systemd::ready();
    let pulse = systemd::pulse(|| summary(&board));
    tokio::pin!(pulse);
    loop {
        tokio::select! {
            () = raised(&mut stop) => break,
            () = changed(&mut reload) => {
                reload.mark_unchanged();
                systemd::reloading();
                let before = Arc::clone(&changing.borrow());
                let read = reread(&before, &read);
                board.configured(read.as_ref().err().cloned());
                match read {
                    Ok(settings) => {
                        let servers = settings.servers.len();
                        tracing::info!(servers, "the configuration was read again");
                        fleet.apply(&settings);
                        current.send_replace(Arc::new(settings));
                    }
                    Err(error) => {
                        tracing::error!(error, "the configuration is refused: nothing is changed");
                    }
                }
                systemd::ready();
            }
            () = &mut pulse => {}
        }
    }
    systemd::stopping();
    fleet.stop().await;
    hang_up.send_replace(true);
    if let Some(control) = control {
        // A restored server may be in the middle of a file.
        let _ = tokio::time::timeout(LAST_REQUESTS, control).await;
    }
    Ok(())
}

/// The settings as they are to be from now on; or why they stay as they are.
fn reread(
    current: &Settings,
    read: impl Fn() -> Result<Settings, Box<dyn Failure>>,
) -> Result<Settings, String> {
    match read() {
        Ok(settings) if settings.home != current.home => {
            let home = settings.home.display();
            Err(format!("another store takes a daemon of its own: `{home}`"))
        }
        Ok(settings) if settings.group_access != current.group_access => {
            Err("`group_access` changes with a restart only".to_owned())
        }
        Ok(settings) if settings.servers.is_empty() => {
            Err("no server is configured any more".to_owned())
        }
        Ok(settings) => Ok(settings),
        Err(error) => {
            let line = in_one_line(&*error);
            Err(error.hint().map_or(line.clone(), |hint| format!("{line}; {hint}")))
        }
    }
}

/// How the receivers are, for people who look at the service.
fn summary(board: &Board) -> String {
    let statuses = board.statuses();
    let streaming = statuses.iter().filter(|status| status.state == State::Streaming).count();
    let servers = if streaming == 1 { "server" } else { "servers" };
    let receiving = match statuses.len() - streaming {
        0 => format!("receiving WAL of {streaming} {servers}"),
        others => format!("receiving WAL of {streaming} {servers}, and not of {others}"),
    };
    match board.refused() {
        None => receiving,
        Some(error) => {
            let error = error.lines().next().unwrap_or_default();
            format!("configuration refused: {error}; {receiving}")
        }
    }
}

/// Completes when a signal is raised, or nobody can raise it any more.
async fn raised(signal: &mut watch::Receiver<bool>) {
    let _ = signal.wait_for(|raised| *raised).await;
}

/// How long is waited before work goes on that was lost.
const LOST: Duration = Duration::from_secs(10);

/// Has work done in a task of its own until it comes to its end: a panic begins it anew.
async fn persist<F: Future<Output = ()> + Send + 'static>(
    server: &ServerName,
    mut stop: watch::Receiver<bool>,
    work: impl Fn() -> F,
) {
    while let Err(error) = tokio::spawn(work()).await {
        tracing::error!(server = %server, error = %error, "work for a server was lost, and begins anew");
        tokio::select! {
            () = raised(&mut stop) => return,
            () = tokio::time::sleep(LOST) => {}
        }
    }
}

/// Completes when there is something new; never if nothing new can come.
async fn changed<T>(news: &mut watch::Receiver<T>) {
    if news.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Has work done that blocks. It is not cancelled: if it does not end, it has panicked, and so does
/// whoever waits for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Listens for commands. Somebody who only pretends to be a daemon cannot keep a real one from
/// its work, but from being asked.
async fn start_control(
    home: &Home,
    settings: watch::Receiver<Arc<Settings>>,
    board: Board,
    stop: watch::Receiver<bool>,
) -> Result<Option<tokio::task::JoinHandle<()>>, DaemonFailure> {
    let prepared = control::listen(home.path()).and_then(|listener| {
        let control = Control::new(home.clone(), settings, board)?;
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_panics_begins_anew_until_told_to_stop() {
        let begun = Arc::new(AtomicU32::new(0));
        let work = || {
            let begun = Arc::clone(&begun);
            async move { assert!(begun.fetch_add(1, Ordering::SeqCst) == 2, "lost") }
        };
        let name = "main".parse().unwrap();
        let (raise, stop) = watch::channel(false);
        persist(&name, stop.clone(), work).await;
        assert_eq!(begun.load(Ordering::SeqCst), 3);
        raise.send_replace(true);
        persist(&name, stop, work).await;
        assert_eq!(begun.load(Ordering::SeqCst), 4);
    }
}
