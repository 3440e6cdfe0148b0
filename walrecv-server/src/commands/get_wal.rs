//! `get-wal`: one WAL file for a recovering server, from the store, or from the daemon where the
//! user who asks may not read the store, or has no key to what is encrypted there.
//!
//! Takes no lock and writes nothing but the file. Does not listen to signals: PostgreSQL has to
//! see a `restore_command` that was told to end die by the signal.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::daemon::{ControlClient, ControlError, WalAnswer};
use crate::failure::{Class, Failure};
use crate::restore::get_wal::{GetWalError, Lookup, deliver, exit_code, locate};
use crate::storage::{Home, KeyFile, ServerDir};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct GetWalRequest {
    /// The file: PostgreSQL's `%f`.
    pub file: String,
    /// Where to put it: PostgreSQL's `%p`.
    pub destination: PathBuf,
    /// Whether the segment that is still being received is delivered, too.
    pub partial: bool,
    /// What opens it, if it is encrypted.
    pub keys: Option<KeyFile>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetWalOutcome {
    /// The file is where it is wanted.
    Delivered,
    /// The archive was read completely and ends before this file.
    EndOfArchive,
}

/// Why the file is not delivered, although the archive does not end before it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetWalFailure {
    /// The store was read.
    #[error(transparent)]
    Store(#[from] GetWalError),
    /// The store may not be read, and the daemon does not help.
    #[error("`{file}` cannot be read from the store, and the daemon does not deliver it")]
    Daemon {
        /// The file.
        file: String,
        /// Why not.
        source: ControlError,
    },
    /// Reading it was given up.
    #[error("reading the file was given up")]
    Thread(#[from] tokio::task::JoinError),
}

impl Failure for GetWalFailure {
    fn class(&self) -> Class {
        match self {
            Self::Store(error) => error.class(),
            Self::Daemon { source, .. } => source.class(),
            Self::Thread(_) => Class::Failed,
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Store(error) => error.exit_code(),
            Self::Daemon { source, .. } => source.get_wal_exit_code(),
            Self::Thread(_) => exit_code::PANIC,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Daemon { source, .. } => source.hint(),
            Self::Thread(_) => None,
        }
    }
}

/// Finds the file and puts it where it is wanted.
pub async fn get_wal(
    home: &Home,
    server: &ServerDir,
    request: GetWalRequest,
) -> Result<GetWalOutcome, GetWalFailure> {
    let (here, asked) = (server.clone(), request.clone());
    let from_store = tokio::task::spawn_blocking(move || from_store(&here, &asked)).await?;
    match from_store {
        Err(error) if error.is_not_permitted() => from_daemon(home, server, request).await,
        // Why it was not delivered from here is then the reason, whatever the daemon says.
        Err(error) if error.is_without_keys() => match from_daemon(home, server, request).await {
            Ok(GetWalOutcome::Delivered) => Ok(GetWalOutcome::Delivered),
            Ok(GetWalOutcome::EndOfArchive) | Err(_) => Err(error.into()),
        },
        result => Ok(result?),
    }
}

fn from_store(server: &ServerDir, request: &GetWalRequest) -> Result<GetWalOutcome, GetWalError> {
    match locate(server, &request.file, request.partial, request.keys.as_ref())? {
        Lookup::EndOfArchive => Ok(GetWalOutcome::EndOfArchive),
        Lookup::Found(mut file) => {
            let length = file.length();
            put(&request.file, &mut file, length, &request.destination)
        }
    }
}

async fn from_daemon(
    home: &Home,
    server: &ServerDir,
    request: GetWalRequest,
) -> Result<GetWalOutcome, GetWalFailure> {
    let failed = |source| GetWalFailure::Daemon { file: request.file.clone(), source };
    let name = request.file.parse().map_err(GetWalError::Name)?;
    let mut client = ControlClient::connect(home.path()).await.map_err(failed)?;
    match client.wal(server.name(), name, request.partial).await.map_err(failed)? {
        WalAnswer::EndOfArchive => Ok(GetWalOutcome::EndOfArchive),
        WalAnswer::File(body) => {
            let length = body.length();
            let mut reader = body.into_reader();
            let delivered = tokio::task::spawn_blocking(move || {
                put(&request.file, &mut reader, length, &request.destination)
            });
            Ok(delivered.await??)
        }
    }
}

fn put(
    name: &str,
    source: &mut dyn Read,
    length: u64,
    destination: &Path,
) -> Result<GetWalOutcome, GetWalError> {
    deliver(name, source, length, destination)?;
    Ok(GetWalOutcome::Delivered)
}
