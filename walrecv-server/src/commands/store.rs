//! The store that the settings name, and the servers in it.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use crate::failure::{Class, Failure};
use crate::hooks::Hooks;
use crate::settings::{ServerName, Settings, SettingsError};
use crate::storage::{Access, Home, ServerDir, StorageError};

/// Why a server's part of the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The server is neither configured nor is anything stored for it.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The store cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Failure for StoreError {
    fn class(&self) -> Class {
        match self {
            Self::Settings(error) => error.class(),
            Self::Storage(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Settings(error) => error.hint(),
            Self::Storage(error) => error.hint(),
        }
    }
}

/// The store.
pub fn home(settings: &Settings) -> Home {
    let access = if settings.group_access { Access::Group } else { Access::Private };
    Home::new(&settings.home, access)
}

/// The servers with these names, or all that are configured or have something stored.
pub fn servers(settings: &Settings, named: &[ServerName]) -> Result<Vec<ServerDir>, StoreError> {
    let home = home(settings);
    if !named.is_empty() {
        return named.iter().map(|name| server(settings, name)).collect();
    }
    let known = known(settings, &home)?;
    if known.is_empty() {
        return Err(SettingsError::NoServers.into());
    }
    Ok(known.iter().map(|name| home.server(name)).collect())
}

/// The server with this name.
pub fn server(settings: &Settings, name: &ServerName) -> Result<ServerDir, StoreError> {
    let home = home(settings);
    let server = home.server(name);
    let configured = settings.servers.iter().any(|server| server.name == *name);
    if configured || server.path().exists() {
        return Ok(server);
    }
    let configured = known(settings, &home)?.into_iter().collect();
    Err(SettingsError::UnknownServer { name: name.clone(), configured }.into())
}

/// The scripts of a server, which has none if it is not configured.
pub fn hooks(settings: &Settings, name: &ServerName) -> Hooks {
    settings
        .server(name)
        .map_or_else(|_| Hooks::none(name), |server| Hooks::new(&server.name, &server.hooks))
}

fn known(settings: &Settings, home: &Home) -> Result<BTreeSet<ServerName>, StorageError> {
    let mut known: BTreeSet<_> = home.servers()?.into_iter().collect();
    known.extend(settings.servers.iter().map(|server| server.name.clone()));
    Ok(known)
}

/// The most threads that decompress where nobody says otherwise: one that writes has enough of so
/// many.
const MOST_JOBS: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// How many threads decompress where nobody says otherwise.
pub(crate) fn jobs() -> NonZeroUsize {
    std::thread::available_parallelism().map_or(NonZeroUsize::MIN, |cores| cores.min(MOST_JOBS))
}
