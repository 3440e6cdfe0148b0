//! Asking a cluster, as its superuser over the Unix socket.

use std::path::PathBuf;
use std::process::Command;

use crate::cluster::Cluster;
use crate::failure::{Context, Result};
use crate::{installation, program};

/// Between fields; no test stores it.
const FIELD: &str = "\u{1f}";

/// The rows of a result; NULL is an empty string.
pub type Rows = Vec<Vec<String>>;

/// A connection for SQL.
#[derive(Debug)]
pub struct Session {
    conninfo: String,
}

impl Session {
    /// Connects.
    pub fn connect(conninfo: &str) -> Result<Self> {
        Ok(Self { conninfo: conninfo.to_owned() })
    }

    /// Runs one statement and returns the rows of its result.
    pub fn query(&mut self, sql: &str) -> Result<Rows> {
        let printed = program::run(
            Command::new(psql()?)
                .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-F", FIELD, "-d"])
                .arg(&self.conninfo)
                .args(["-c", sql]),
        )?;
        Ok(printed.lines().map(|line| line.split(FIELD).map(String::from).collect()).collect())
    }

    /// Runs a statement that returns one value.
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

    /// Runs one statement and returns the rows of its result.
    pub fn query(&self, sql: &str) -> Result<Rows> {
        self.session()?.query(sql)
    }

    /// Runs a statement that returns nothing of interest.
    pub fn execute(&self, sql: &str) -> Result<()> {
        self.query(sql).map(drop)
    }

    /// Runs a statement that returns one value.
    pub fn value(&self, sql: &str) -> Result<String> {
        self.session()?.value(sql)
    }

    /// Creates a role that may log in with a password; `attributes` such as `REPLICATION`.
    pub fn create_role(&self, name: &str, password: &str, attributes: &str) -> Result<()> {
        self.execute(&format!("CREATE ROLE {name} LOGIN {attributes} PASSWORD '{password}'"))
    }
}

fn psql() -> Result<PathBuf> {
    installation::all()
        .iter()
        .rev()
        .find_map(|installation| installation.program("psql"))
        .context(|| "no psql on this machine: run `cargo xtask postgres install`".to_owned())
}
