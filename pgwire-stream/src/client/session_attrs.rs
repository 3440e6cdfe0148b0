//! Whether a server is what `target_session_attrs` asks for.

use tokio::io::{AsyncRead, AsyncWrite};

use super::ReplicationClient;
use crate::{Error, Result, TargetSessionAttrs};

/// Checks a fresh connection.
///
/// Servers from 14 on report what is needed by themselves. Older ones are asked for
/// `transaction_read_only`, which is on for every standby; libpq's own query cannot be used on a
/// connection for physical replication. Where that does not tell a standby from a primary, SQL
/// does, on a connection that has a database.
///
/// # Errors
/// [`Error::Unsuitable`] if the server is something else, or what the server reports.
pub(super) async fn check_session<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut ReplicationClient<S>,
    wanted: TargetSessionAttrs,
) -> Result<()> {
    let suitable = match wanted {
        TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby => true,
        TargetSessionAttrs::ReadWrite => !read_only(client).await?,
        TargetSessionAttrs::ReadOnly => read_only(client).await?,
        TargetSessionAttrs::Primary => !is_standby(client).await?,
        TargetSessionAttrs::Standby => is_standby(client).await?,
    };
    if suitable { Ok(()) } else { Err(Error::Unsuitable { wanted: wanted.as_str() }) }
}

async fn read_only<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut ReplicationClient<S>,
) -> Result<bool> {
    match (client.parameter("in_hot_standby"), client.parameter("default_transaction_read_only")) {
        (Some(standby), Some(default)) => Ok(standby == "on" || default == "on"),
        _ => Ok(client.show("transaction_read_only").await? == "on"),
    }
}

async fn is_standby<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut ReplicationClient<S>,
) -> Result<bool> {
    if let Some(standby) = client.parameter("in_hot_standby") {
        return Ok(standby == "on");
    }
    if client.show("transaction_read_only").await? == "off" {
        return Ok(false);
    }
    // A primary can be read-only by default, too; only then is a read-only server ambiguous.
    if client.show("default_transaction_read_only").await? == "off" {
        return Ok(true);
    }
    if client.identify_system().await?.database.is_none() {
        return Err(Error::Unsuitable {
            wanted: "known to be a primary or standby: default_transaction_read_only hides it",
        });
    }
    let rows = client.query("SELECT pg_catalog.pg_is_in_recovery()").await?;
    Ok(rows.required::<String>("pg_is_in_recovery")? == "t")
}
