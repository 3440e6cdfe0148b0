//! Receiving the WAL of a backup where nobody else does: from before it begins until its end is
//! durable.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time;

use crate::failure::{Class, Failure, in_one_line};
use crate::receiver::{Finished, Receiver, ReceiverError, ReceiverOptions, State, Status};
use crate::settings::ServerSettings;
use crate::storage::{Home, LockError, LockKind, ServerLock};

/// How long the backup waits for WAL to flow. It may flow later, but then the backup tells.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long nothing may become durable before nobody waits for more. A server that is there sends
/// the end of a backup at once.
const STALLED: Duration = Duration::from_secs(60);

/// A receiver that runs beside a backup.
pub struct Reception {
    stop: watch::Sender<bool>,
    status: watch::Receiver<Status>,
    /// Absent when it has ended by itself.
    task: Option<JoinHandle<Result<Finished, ReceiverError>>>,
}

/// Whether a backup's WAL is received.
pub enum Received {
    /// By somebody else.
    Elsewhere,
    /// By us, for this backup.
    Here(Reception),
    /// By nobody: why.
    Nowhere(String),
    /// By nobody, and it never will be unless somebody does something about it first.
    Refused(ReceiverError),
}

impl Reception {
    /// Begins to receive, unless somebody does or it is not `wanted`, and waits until WAL flows.
    pub async fn begin(settings: &ServerSettings, home: &Home, wanted: bool) -> Received {
        match ServerLock::is_held(&home.server(&settings.name), LockKind::Receiver) {
            Ok(true) => return Received::Elsewhere,
            Ok(false) if wanted => {}
            Ok(false) => return Received::Nowhere("that was not wanted".to_owned()),
            Err(error) => return Received::Nowhere(in_one_line(&error)),
        }
        let options = ReceiverOptions::default();
        let (receiver, mut status) = Receiver::new(settings.clone(), home, options);
        let (stop, stopped) = watch::channel(false);
        let mut task = tokio::spawn(receiver.run(stopped));
        let ended = tokio::select! {
            ended = &mut task => Some(ended),
            Ok(_) = status.wait_for(flows) => None,
            () = time::sleep(PATIENCE) => None,
        };
        match ended {
            None => Received::Here(Self { stop, status, task: Some(task) }),
            // Somebody was quicker.
            Some(Ok(Err(ReceiverError::Lock(LockError::Held {
                kind: LockKind::Receiver,
                ..
            })))) => Received::Elsewhere,
            Some(Ok(Err(error))) if error.class() == Class::Refused => Received::Refused(error),
            Some(Ok(Err(error))) => Received::Nowhere(in_one_line(&error)),
            Some(Ok(Ok(_))) => Received::Nowhere("receiving ended".to_owned()),
            Some(Err(error)) => Received::Nowhere(error.to_string()),
        }
    }

    /// How far it has come.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Waits until it ends by itself, which it does only if it fails, or until nothing has become
    /// durable for so long that more is not to be expected; says why. Can be dropped at any time.
    pub async fn ended(&mut self) -> String {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let ended = tokio::select! {
            ended = task => ended,
            () = stalled(self.status.clone()) => {
                return format!("nothing has come for {} seconds", STALLED.as_secs());
            }
        };
        self.task = None;
        match ended {
            Ok(Err(error)) => in_one_line(&error),
            Ok(Ok(_)) => "receiving ended".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// Ends it. What was received is durable.
    pub async fn end(self) {
        self.stop.send_replace(true);
        let Some(task) = self.task else { return };
        match task.await {
            Ok(Err(error)) => tracing::warn!(error = %error, "receiving WAL ended badly"),
            Ok(Ok(_)) => {}
            Err(error) => tracing::error!(error = %error, "receiving WAL was lost"),
        }
    }
}

/// Whether WAL flows. A server begins to stream before it finds out that it no longer has what is wanted.
fn flows(status: &Status) -> bool {
    let has_more = status.server_end > status.started_at;
    status.state == State::Streaming && (!has_more || status.received > status.started_at)
}

/// Returns when nothing has become durable for a while.
async fn stalled(mut status: watch::Receiver<Status>) {
    loop {
        let flushed = status.borrow().flushed;
        let more = status.wait_for(|status| status.flushed > flushed);
        match time::timeout(STALLED, more).await {
            Ok(Ok(_)) => {}
            // It has ended, which its task tells.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => return,
        }
    }
}
