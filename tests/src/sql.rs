//! Asking a cluster, by the library under test: most servers here come without `psql`.

use pgwire_stream::{Config, ReplicationClient};
use tokio::runtime::{Builder, Runtime};

use crate::cluster::Cluster;
use crate::failure::{Context, Result};

/// The rows of a result; NULL is an empty string.
pub type Rows = Vec<Vec<String>>;

/// A connection for SQL. It may hold a transaction open.
pub struct Session {
    client: ReplicationClient,
    runtime: Runtime,
}

impl Session {
    /// Connects to the database of the connection string.
    pub fn connect(conninfo: &str) -> Result<Self> {
        let about = || format!("cannot connect to {conninfo}");
        let config: Config = conninfo.parse().context(about)?;
        let runtime = Builder::new_current_thread().enable_all().build().context(about)?;
        let client =
            runtime.block_on(ReplicationClient::connect_database(&config)).context(about)?;
        Ok(Self { client, runtime })
    }

    /// Runs SQL and returns the rows of its last result.
    pub fn query(&mut self, sql: &str) -> Result<Rows> {
        let result =
            self.runtime.block_on(self.client.query(sql)).context(|| format!("`{sql}` failed"))?;
        let mut rows = Rows::new();
        for row in &result.rows {
            let text = |column| row.text(column).unwrap_or_default().to_owned();
            rows.push((0..row.len()).map(text).collect());
        }
        Ok(rows)
    }

    /// Runs SQL that returns one value.
    pub fn value(&mut self, sql: &str) -> Result<String> {
        let rows = self.query(sql)?;
        rows.into_iter()
            .next()
            .and_then(|row| row.into_iter().next())
            .context(|| format!("no row from: {sql}"))
    }
}

impl Cluster {
    /// A connection of the superuser, for several statements.
    pub fn session(&self) -> Result<Session> {
        Session::connect(&self.superuser_conninfo())
    }

    /// Runs SQL and returns the rows of its last result.
    pub fn query(&self, sql: &str) -> Result<Rows> {
        self.session()?.query(sql)
    }

    /// Runs SQL that returns nothing of interest.
    pub fn execute(&self, sql: &str) -> Result<()> {
        self.query(sql).map(drop)
    }

    /// Runs SQL that returns one value.
    pub fn value(&self, sql: &str) -> Result<String> {
        self.session()?.value(sql)
    }

    /// Creates a role that may log in with a password; `attributes` such as `REPLICATION`.
    pub fn create_role(&self, name: &str, password: &str, attributes: &str) -> Result<()> {
        let password = password.replace('\'', "''");
        self.execute(&format!("CREATE ROLE {name} LOGIN {attributes} PASSWORD '{password}'"))
    }
}
