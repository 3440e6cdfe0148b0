//! The servers that are configured.

use crate::settings::{ServerName, Settings};

/// The servers that are configured, in order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListServersOutcome {
    /// The servers.
    pub servers: Vec<ListedServer>,
}

/// A server in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedServer {
    /// Its name.
    pub name: ServerName,
    /// What it is to its operators.
    pub description: Option<String>,
    /// Whether it is backed up at all.
    pub active: bool,
}

/// Lists the servers.
pub fn list_servers(settings: &Settings) -> ListServersOutcome {
    let listed = settings.servers.iter().map(|server| ListedServer {
        name: server.name.clone(),
        description: server.description.clone(),
        active: server.active,
    });
    ListServersOutcome { servers: listed.collect() }
}
