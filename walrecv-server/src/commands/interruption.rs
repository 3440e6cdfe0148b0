//! The wish to stop, SIGINT and SIGTERM; and SIGHUP, which is another one.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::failure::{Class, Failure};

/// Signals cannot be listened to.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen to signals")]
pub struct NoSignals(#[source] io::Error);

impl Failure for NoSignals {}

/// Becomes true when the user, or the system, wants the program to stop. A second signal ends it
/// at once.
///
/// To be called within the runtime, by commands that have something to bring to an end.
pub fn interruption() -> Result<watch::Receiver<bool>, NoSignals> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(NoSignals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(NoSignals)?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        tracing::info!("stopping");
        sender.send_replace(true);
        either(&mut interrupt, &mut terminate).await;
        std::process::exit(i32::from(Class::Interrupted.exit_code()));
    });
    Ok(receiver)
}

/// Changes with each SIGHUP, which asks a daemon to read its configuration again.
///
/// To be called within the runtime.
pub fn hangups() -> Result<watch::Receiver<()>, NoSignals> {
    let mut hangup = signal(SignalKind::hangup()).map_err(NoSignals)?;
    let (sender, receiver) = watch::channel(());
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            sender.send_replace(());
        }
    });
    Ok(receiver)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
