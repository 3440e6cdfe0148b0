//! How a connection was made, so that another can be made to the same place in the same way.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::{Config, Endpoint, Error, Host, Result};

use super::encryption::Encryption;
use super::socket::Address;
use super::{Stream, TlsConfig};

/// Where a connection leads, and what it took to make it. Holds no role's password.
#[derive(Clone)]
#[cfg_attr(not(feature = "tls"), expect(dead_code))]
pub(crate) struct Route {
    pub(super) config: Arc<Config>,
    pub(super) host: Host,
    pub(super) address: Address,
    /// The configuration that was made for TLS, if that was needed.
    pub(super) tls: Option<TlsConfig>,
}

impl Route {
    /// The host as configured, with the address at which it was found.
    pub(crate) fn host(&self) -> Host {
        let mut host = self.host.clone();
        if let (Endpoint::Tcp { address, .. }, Address::Tcp(found)) =
            (&mut host.endpoint, &self.address)
        {
            // An address within a zone leads nowhere without it.
            let zoned = matches!(found, SocketAddr::V6(found) if found.scope_id() != 0);
            *address = address.or((!zoned).then_some(found.ip()));
        }
        host
    }

    /// Connects to the same address once more, with TLS if `encrypted`, and only then; and does
    /// something there. `connect_timeout` is for both.
    pub(crate) async fn travel<T, F>(
        &self,
        encrypted: bool,
        then: impl FnOnce(Stream) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let encryption = if encrypted { Encryption::encrypted()? } else { Encryption::Plain };
        let journey = async { then(Stream::open(self.clone(), encryption).await?).await };
        match within(self.config.connect_timeout, journey).await {
            Err(Error::Io(cause)) => Err(explain(cause)),
            outcome => outcome,
        }
    }
}

/// An attempt to connect, and the time that it may take.
pub(super) async fn within<T>(
    limit: Option<Duration>,
    attempt: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(limit) = limit else { return attempt.await };
    tokio::time::timeout(limit, attempt)
        .await
        .unwrap_or(Err(Error::Timeout { what: "connecting", limit }))
}

/// What a failed socket has to tell.
#[cfg(feature = "tls")]
pub(super) fn explain(cause: io::Error) -> Error {
    crate::tls::explain(cause)
}

#[cfg(not(feature = "tls"))]
pub(super) fn explain(cause: io::Error) -> Error {
    cause.into()
}
