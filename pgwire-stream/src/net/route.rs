//! How a connection was made, so that another can be made to the same place in the same way.

use std::sync::Arc;

use crate::{Config, Error, Host, Result};

use super::encryption::Encryption;
use super::socket::Address;
use super::{Stream, TlsConfig, hosts};

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
        match hosts::within(self.config.connect_timeout, journey).await {
            Err(Error::Io(cause)) => Err(hosts::explain(cause)),
            outcome => outcome,
        }
    }
}
