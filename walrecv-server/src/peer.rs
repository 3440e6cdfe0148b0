//! A server that is asked something, and what is told when that fails.

use pgwire_stream::{Config, Error, ReplicationClient};

use crate::failure::{Class, Failure, advice};
use crate::settings::ServerName;

/// What the server shows in `pg_stat_replication` where the conninfo names nothing else.
const APPLICATION_NAME: &str = "walrecv-server";

/// The database where the conninfo names none.
pub(crate) const DATABASE: &str = "postgres";

/// Something that a server refused, or could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} server `{server}`")]
pub struct ServerFailure {
    /// What was tried, up to the server's name.
    pub action: &'static str,
    /// The server.
    pub server: ServerName,
    /// The role that tried it, where known.
    pub role: Option<String>,
    /// Why not.
    pub source: Box<Error>,
}

impl Failure for ServerFailure {
    fn class(&self) -> Class {
        self.source.class()
    }

    fn hint(&self) -> Option<String> {
        advice(&self.source, self.role.as_deref())
    }
}

/// A server and the role that talks to it, for telling what failed.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    server: ServerName,
    config: Config,
}

impl Peer {
    /// Reads the conninfo, with what environment and password file add to it.
    pub(crate) fn new(server: &ServerName, conninfo: &str) -> Result<Self, ServerFailure> {
        let mut config = Config::load(conninfo).map_err(|error| ServerFailure {
            action: "use the conninfo of",
            server: server.clone(),
            role: None,
            source: Box::new(error.into()),
        })?;
        config.fallback_application_name = Some(APPLICATION_NAME.to_owned());
        Ok(Self { server: server.clone(), config })
    }

    /// The role that logs in.
    pub(crate) fn role(&self) -> Option<&str> {
        self.config.user.as_deref()
    }

    /// How it connects.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Connects for replication commands.
    pub(crate) async fn replication(&self) -> Result<ReplicationClient, ServerFailure> {
        ReplicationClient::connect(&self.config).await.map_err(self.failed("connect to"))
    }

    /// Connects to a database, for SQL.
    pub(crate) async fn database(&self) -> Result<ReplicationClient, ServerFailure> {
        let action = "connect to the database of";
        let mut config = self.config.clone();
        // There is rarely a database named after the role, and always this one.
        config.dbname.get_or_insert_with(|| DATABASE.to_owned());
        ReplicationClient::connect_database(&config).await.map_err(self.failed(action))
    }

    /// What is told when `action` fails.
    pub(crate) fn failed(&self, action: &'static str) -> impl FnOnce(Error) -> ServerFailure {
        let (server, role) = (self.server.clone(), self.config.user.clone());
        move |source| ServerFailure { action, server, role, source: Box::new(source) }
    }
}

/// The role of a conninfo, for telling what it lacks.
pub(crate) fn role_of(conninfo: &str) -> Option<String> {
    Config::load(conninfo).ok()?.user
}
