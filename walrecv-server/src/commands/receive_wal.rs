//! `receive-wal`: the WAL of one server in the foreground, and what belongs to that.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use pgwire_stream::{DropSlot, Feature, Lsn, PhysicalSlot, SlotName};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;
use tokio::time::Instant;

use super::interruption::{NoSignals, interruption};
use crate::daemon::ControlClient;
use crate::failure::{Class, Failure, advice};
use crate::peer::{Peer, ServerFailure, role_of};
use crate::receiver::{Finished, Receiver, ReceiverError, ReceiverOptions, State, Status};
use crate::settings::{ServerName, ServerSettings};
use crate::storage::{Home, LockError, LockKind, ServerLock, StorageError};

/// How long a receiver that was told to stop is waited for.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// How often is looked whether it has stopped.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// How often is shown how the receiver is.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// How long a server may send nothing before that means that there is nothing to send.
const QUIET: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Receive.
    Receive {
        /// Stop when everything before this position is durable.
        end_at: Option<Lsn>,
        /// Leave a gap where the server no longer has the WAL that comes next.
        reset: bool,
    },
    /// Leave that gap, and receive no longer than it takes to know that WAL comes again.
    Reset,
    /// Create the slot.
    CreateSlot {
        /// One that exists is no error.
        if_not_exists: bool,
    },
    /// Drop the slot.
    DropSlot,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct ReceiveWalOutcome {
    /// The server.
    pub server: ServerName,
    /// What was done.
    pub done: Done,
}

/// What was done.
#[derive(Clone, Debug)]
pub enum Done {
    /// WAL was received until the end position, or until somebody wanted it to stop.
    Received {
        /// Why it ended.
        finished: Finished,
        /// Where it got to.
        status: Box<Status>,
    },
    /// WAL comes again, whether a gap had to be left or not.
    Reset {
        /// Where it got to, and what was left out.
        status: Box<Status>,
    },
    /// The slot was created.
    SlotCreated(SlotName),
    /// The slot was there already.
    SlotPresent(SlotName),
    /// The slot was dropped.
    SlotDropped(SlotName),
    /// A process was stopped.
    ProcessStopped(u32),
    /// There was no process to stop.
    NobodyReceives,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveWalError {
    /// The server refuses.
    #[error(transparent)]
    Server(#[from] ServerFailure),
    /// WAL is not received.
    #[error("cannot receive the WAL of server `{server}`")]
    Receiver {
        /// The server.
        server: ServerName,
        /// The role that tried it, where known.
        role: Option<String>,
        /// Why.
        source: ReceiverError,
    },
    /// Signals cannot be listened to.
    #[error(transparent)]
    Signals(#[from] NoSignals),
    /// The store cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The lock of the process that receives cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The daemon receives, for other servers as well.
    #[error("the WAL of server `{server}` is received by the daemon, process {process}")]
    Daemon {
        /// The server.
        server: ServerName,
        /// The daemon.
        process: u32,
    },
    /// A process cannot be told to stop.
    #[error("cannot stop process {process}")]
    Kill {
        /// The process.
        process: u32,
        /// Why.
        source: std::io::Error,
    },
    /// A process was told to stop and goes on.
    #[error("process {process} was told to stop, and still goes on after {} s", .after.as_secs())]
    GoesOn {
        /// The process.
        process: u32,
        /// How long it was waited for.
        after: Duration,
    },
}

impl Failure for ReceiveWalError {
    fn class(&self) -> Class {
        match self {
            Self::Server(error) => error.class(),
            Self::Receiver { source, .. } => source.class(),
            Self::Storage(error) => error.class(),
            Self::Lock(error) => error.class(),
            _ => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Server(error) => error.hint(),
            Self::Receiver { role, source, .. } => match source {
                ReceiverError::Connect(error) | ReceiverError::Server { source: error, .. } => {
                    advice(error, role.as_deref())
                }
                error => error.hint(),
            },
            Self::Signals(_) => None,
            Self::Storage(error) => error.hint(),
            Self::Lock(error) => error.hint(),
            Self::Daemon { process, .. } => Some(format!(
                "stop the daemon as it was started, or with `kill {process}`: that ends the \
                 receiving of all servers"
            )),
            Self::Kill { .. } => Some("stop it as the user that it runs as".to_owned()),
            Self::GoesOn { process, .. } => Some(format!("`ps -fp {process}` shows it")),
        }
    }
}

/// Does what is asked for. `watch` is shown now and then how the receiver is.
pub async fn receive_wal(
    settings: &ServerSettings,
    home: &Home,
    action: Action,
    watch: impl Fn(&Status),
) -> Result<ReceiveWalOutcome, ReceiveWalError> {
    let done = match action {
        Action::Receive { end_at, reset } => {
            let options = ReceiverOptions { end_at, reset, persistent: false };
            let stop = interruption()?;
            let (finished, status) = receive(settings, home, options, stop, watch).await?;
            Done::Received { finished, status }
        }
        Action::Reset => reset(settings, home, watch).await?,
        Action::CreateSlot { if_not_exists } => create_slot(settings, if_not_exists).await?,
        Action::DropSlot => drop_slot(settings).await?,
    };
    Ok(ReceiveWalOutcome { server: settings.name.clone(), done })
}

async fn receive(
    settings: &ServerSettings,
    home: &Home,
    options: ReceiverOptions,
    stop: watch::Receiver<bool>,
    watch: impl Fn(&Status),
) -> Result<(Finished, Box<Status>), ReceiveWalError> {
    let (receiver, status) = Receiver::new(settings.clone(), home, options);
    let mut receiving = pin!(receiver.run(stop));
    let mut often = tokio::time::interval(WATCH_INTERVAL);
    let finished = loop {
        tokio::select! {
            finished = &mut receiving => break finished,
            _ = often.tick() => watch(&status.borrow()),
        }
    };
    let finished = finished.map_err(|source| ReceiveWalError::Receiver {
        server: settings.name.clone(),
        role: role_of(settings.streaming_conninfo()),
        source,
    })?;
    let status = Box::new(status.borrow().clone());
    Ok((finished, status))
}

/// Receives until WAL comes, behind a gap if there has to be one.
async fn reset(
    settings: &ServerSettings,
    home: &Home,
    watch: impl Fn(&Status),
) -> Result<Done, ReceiveWalError> {
    let mut interrupted = interruption()?;
    let (stop, stopped) = watch::channel(false);
    let began = Cell::new(None);
    let watch = |status: &Status| {
        watch(status);
        if comes(status, &began) {
            stop.send_replace(true);
        }
    };
    let options = ReceiverOptions { reset: true, ..ReceiverOptions::default() };
    let receiving = receive(settings, home, options, stopped, watch);
    let interruption = async {
        let _ = interrupted.wait_for(|interrupted| *interrupted).await;
        stop.send_replace(true);
        std::future::pending().await
    };
    let (finished, status) = tokio::select! {
        received = receiving => received?,
        never = interruption => never,
    };
    let interrupted = *interrupted.borrow();
    Ok(if interrupted { Done::Received { finished, status } } else { Done::Reset { status } })
}

/// Whether WAL comes. A server that does not have what was asked for says so at once, so one that is
/// quiet has it; but behind a gap, only WAL that came tells that it can be received.
fn comes(status: &Status, began: &Cell<Option<(Option<Lsn>, Instant)>>) -> bool {
    if status.state != State::Streaming {
        began.set(None);
        return false;
    }
    let (from, since) = began.get().unwrap_or((status.started_at, Instant::now()));
    began.set(Some((from, since)));
    let quiet = status.left_out.is_none() && since.elapsed() >= QUIET;
    quiet || status.flushed > from
}

async fn create_slot(
    settings: &ServerSettings,
    if_not_exists: bool,
) -> Result<Done, ServerFailure> {
    let peer = Peer::new(&settings.name, settings.streaming_conninfo())?;
    let mut client = peer.replication().await?;
    let slot = &settings.slot_name;
    let mut options = PhysicalSlot::default();
    options.reserve_wal = client.server_version().supports(Feature::ReserveWal);
    let created = client.create_physical_slot(slot, options).await;
    let _ = client.close().await;
    match created {
        Ok(_) => Ok(Done::SlotCreated(slot.clone())),
        Err(error) if if_not_exists && error.is_slot_present() => {
            Ok(Done::SlotPresent(slot.clone()))
        }
        Err(error) => Err(peer.failed("create the replication slot on")(error)),
    }
}

async fn drop_slot(settings: &ServerSettings) -> Result<Done, ServerFailure> {
    let peer = Peer::new(&settings.name, settings.streaming_conninfo())?;
    let mut client = peer.replication().await?;
    let dropped = client.drop_slot(&settings.slot_name, DropSlot::FailIfActive).await;
    let _ = client.close().await;
    dropped.map_err(peer.failed("drop the replication slot on"))?;
    Ok(Done::SlotDropped(settings.slot_name.clone()))
}

/// Stops the process that receives a server's WAL. Needs to know no more than where the store is.
pub async fn stop(home: &Home, server: &ServerName) -> Result<ReceiveWalOutcome, ReceiveWalError> {
    let done = stop_process(home, server).await?;
    Ok(ReceiveWalOutcome { server: server.clone(), done })
}

async fn stop_process(home: &Home, server: &ServerName) -> Result<Done, ReceiveWalError> {
    let store = &home.server(server);
    if !ServerLock::is_held(store, LockKind::Receiver)? {
        return Ok(Done::NobodyReceives);
    }
    let process = match ServerLock::try_acquire(store, LockKind::Receiver) {
        Ok(_) => return Ok(Done::NobodyReceives),
        Err(LockError::Held { process: Some(process), .. }) => process,
        Err(error) => return Err(error.into()),
    };
    if is_of_daemon(home, server).await {
        return Err(ReceiveWalError::Daemon { server: server.clone(), process });
    }
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else { return Ok(Done::NobodyReceives) };
    kill_process(pid, Signal::TERM)
        .map_err(|error| ReceiveWalError::Kill { process, source: error.into() })?;
    let deadline = Instant::now() + STOP_PATIENCE;
    while ServerLock::is_held(store, LockKind::Receiver)? {
        if Instant::now() >= deadline {
            return Err(ReceiveWalError::GoesOn { process, after: STOP_PATIENCE });
        }
        tokio::time::sleep(STOP_INTERVAL).await;
    }
    Ok(Done::ProcessStopped(process))
}

/// Whether the daemon receives this server's WAL.
async fn is_of_daemon(home: &Home, server: &ServerName) -> bool {
    let Ok(mut client) = ControlClient::connect(home.path()).await else { return false };
    let servers = client.servers().await;
    servers.is_ok_and(|servers| servers.iter().any(|status| status.server == *server))
}
