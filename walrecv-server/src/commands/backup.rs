//! `backup`: takes a base backup, and waits for its WAL if that is wanted.

use std::time::Duration;

use tokio::sync::watch;

use crate::backup::{self, BackupError, BackupRequest, Incremental, Received, Reception};
use pgwire_stream::SlotName;

use crate::catalog::{BackupRecord, BackupStatus};
use crate::failure::{Class, Failure, advice};
use crate::hooks::{News, Notice, Webhook};
use crate::progress::ProgressSink;
use crate::settings::{CompressionLocation, ServerName, ServerSettings};
use crate::storage::Home;

use crate::peer::role_of;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// What the operator calls the backup.
    pub name: Option<String>,
    /// Whether to wait until the WAL that it needs is durable here.
    pub wait: bool,
    /// How long to wait for that at most.
    pub wait_timeout: Option<Duration>,
    /// Whether to receive its WAL if nobody else does.
    pub receive: bool,
    /// Whether it is kept although pages of the cluster are damaged.
    pub accept_damaged_pages: bool,
    /// What it is to be built on.
    pub incremental: Option<Incremental>,
}

/// A backup that was taken.
#[derive(Clone, Debug)]
pub struct BackupOutcome {
    /// Its record.
    pub record: BackupRecord,
    /// What it is worth.
    pub status: BackupStatus,
    /// The slot, if the server keeps WAL in it that nobody receives any more.
    pub left_slot: Option<SlotName>,
}

/// Why there is no backup, or none that is good.
#[derive(Debug, thiserror::Error)]
#[error("the backup of server `{server}` failed")]
pub struct BackupFailure {
    server: ServerName,
    role: Option<String>,
    /// Whether the server was to compress.
    by_server: bool,
    source: BackupError,
}

impl Failure for BackupFailure {
    fn class(&self) -> Class {
        self.source.class()
    }

    fn hint(&self) -> Option<String> {
        match &self.source {
            BackupError::Server(error) if self.by_server && is_syntax(error) => Some(
                "this server may have been built without that compression: set \
                 backup_compression_location = \"client\", or another backup_compression"
                    .to_owned(),
            ),
            // With the role's name, where it is known.
            BackupError::Server(error) => advice(error, self.role.as_deref()),
            error => error.hint(),
        }
    }
}

/// Whether the server does not know what it is asked for.
fn is_syntax(error: &pgwire_stream::Error) -> bool {
    error.sql_state().is_some_and(|state| state.as_str() == "42601")
}

/// Takes a base backup. Its WAL is received by this command if nobody else does; then it ends only
/// when the backup can be restored.
pub async fn backup(
    settings: &ServerSettings,
    home: &Home,
    options: &BackupOptions,
    progress: &dyn ProgressSink,
    interrupted: watch::Receiver<bool>,
) -> Result<BackupOutcome, BackupFailure> {
    let mut received = Reception::begin(settings, home, options.receive).await;
    match &received {
        Received::Elsewhere => {}
        // Before hours of copying.
        Received::Refused(error) => {
            return Err(failed(settings, BackupError::not_received(&settings.name, error)).await);
        }
        Received::Here(_) => progress.note(
            "nobody receives the WAL of this server: receiving it until the backup can be restored",
        ),
        Received::Nowhere(reason) => progress.note(&format!(
            "nobody receives the WAL of this server, without which a backup cannot be restored, \
             and it is not received here: {reason}"
        )),
    }
    let taken = take(settings, home, options, progress, interrupted, &mut received).await;
    let mut left_slot = None;
    if let Received::Here(reception) = received {
        reception.end().await;
        left_slot = Some(settings.slot_name.clone());
    }
    match taken {
        Ok((record, status)) => Ok(BackupOutcome { record, status, left_slot }),
        Err(source) => {
            if let Some(slot) = left_slot {
                progress.note(&format!(
                    "the server keeps the WAL that comes now, in the slot `{slot}`"
                ));
            }
            Err(failed(settings, source).await)
        }
    }
}

/// The failure that the command ends with, of which the webhook is told.
async fn failed(settings: &ServerSettings, source: BackupError) -> BackupFailure {
    let (server, role) = (settings.name.clone(), role_of(settings.backup_conninfo()));
    let by_server = settings.backup_compression.location == CompressionLocation::Server;
    let failure = BackupFailure { server, role, by_server, source };
    if failure.class() != Class::Interrupted {
        let notice = Notice::of(&settings.name, News::BackupFailed, &failure);
        Webhook::tell_last(settings.failure_webhook.as_ref(), notice).await;
    }
    failure
}

async fn take(
    settings: &ServerSettings,
    home: &Home,
    options: &BackupOptions,
    progress: &dyn ProgressSink,
    interrupted: watch::Receiver<bool>,
    received: &mut Received,
) -> Result<(BackupRecord, BackupStatus), BackupError> {
    let store = home.server(&settings.name);
    let request = BackupRequest {
        server: store.clone(),
        settings: settings.clone(),
        name: options.name.clone(),
        accept_damaged_pages: options.accept_damaged_pages,
        incremental: options.incremental.clone(),
    };
    let record = backup::take_with_retries(&request, progress, interrupted.clone()).await?;
    if record.done_at.is_some() {
        // Found out when it was recorded.
        return Ok((record, BackupStatus::Done));
    }
    let waits = options.wait || matches!(received, Received::Here(_));
    if waits {
        progress.note("waiting for the WAL that the backup needs");
    }
    // One look is taken without waiting, too: the WAL may be there already.
    let patience = if waits { options.wait_timeout } else { Some(Duration::ZERO) };
    let status = match received {
        Received::Here(reception) => Some(reception.status()),
        _ => None,
    };
    let wait = |patience| {
        backup::wait_for_wal(&store, &record, patience, status.clone(), interrupted.clone())
    };
    let outcome = match received {
        Received::Here(reception) => tokio::select! {
            biased;
            outcome = wait(patience) => outcome,
            reason = reception.ended() => {
                progress.note(&format!("the WAL is not received any more: {reason}"));
                // It may have come with the last that did.
                wait(Some(Duration::ZERO)).await
            }
        },
        _ => wait(patience).await,
    };
    match outcome {
        // Nobody has asked for more than the backup.
        Err(BackupError::NoWal { .. } | BackupError::Interrupted) if !options.wait => {
            Ok((record, BackupStatus::WaitingForWals))
        }
        outcome => outcome,
    }
}
