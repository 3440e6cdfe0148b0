//! Asking the server what the replication protocol does not say: a comfort, which no backup fails
//! over.

use pgwire_stream::{Config, ReplicationClient};

use super::blocking::blocking;

/// The database that every server has.
const DATABASE: &str = "postgres";

/// A connection that understands SQL; `None` if there is none for this role.
pub(super) async fn connect(conninfo: String) -> Option<ReplicationClient> {
    let mut config = blocking(move || Config::load(&conninfo)).await.ok()?;
    config.dbname.get_or_insert_with(|| DATABASE.to_owned());
    ReplicationClient::connect_database(&config).await.ok()
}
