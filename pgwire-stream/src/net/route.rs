//! How a connection was made, so that another can be made to the same place in the same way.

use std::sync::Arc;

use crate::{Config, Host};

use super::TlsConfig;
use super::socket::Address;

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
