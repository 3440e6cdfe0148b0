//! What the tablespaces are called. The replication protocol does not say it; SQL does, where the
//! role may connect to a database.

use std::time::Duration;

use super::sql;
use crate::catalog::Tablespace;

/// Names are a comfort: a backup does not wait longer for them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Fills the names in, as far as the server tells them.
pub(super) async fn fill_in(conninfo: &str, tablespaces: &mut [Tablespace]) {
    let named = match tokio::time::timeout(PATIENCE, ask(conninfo.to_owned())).await {
        Ok(Some(named)) => named,
        Ok(None) | Err(_) => {
            tracing::info!("the tablespaces' names are not known: the role may not ask for them");
            return;
        }
    };
    for tablespace in tablespaces {
        let name = named.iter().find(|(oid, _)| *oid == tablespace.oid);
        tablespace.name = name.map(|(_, name)| name.clone());
    }
}

async fn ask(conninfo: String) -> Option<Vec<(u32, String)>> {
    let mut client = sql::connect(conninfo).await?;
    let rows = client.query("SELECT oid, spcname FROM pg_catalog.pg_tablespace").await.ok()?.rows;
    // What was wanted is here, with or without a goodbye.
    let _ = client.close().await;
    rows.iter().map(|row| Some((row.text(0)?.parse().ok()?, row.text(1)?.to_owned()))).collect()
}
