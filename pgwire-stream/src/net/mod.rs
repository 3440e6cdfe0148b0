//! From a [`Config`](crate::Config) to a byte stream on which the login can start: addresses,
//! sockets, the negotiation of TLS, and what is tried after what.
//!
//! Nothing here knows PostgreSQL's messages, apart from the request for TLS and its one-byte answer.

mod encryption;
mod hosts;
#[cfg(feature = "tls")]
mod negotiate;
#[cfg(unix)]
mod peer;
mod route;
mod shuffle;
mod socket;
mod stream;
#[cfg(test)]
pub(crate) mod test_config;
#[cfg(test)]
mod tests;

#[cfg(feature = "tls")]
use crate::tls::TlsConfig;

pub(crate) use hosts::{connect_any, was_refused};
pub(crate) use route::Route;
pub use stream::{Stream, TlsInUse};

/// Nothing can be configured in a build without TLS.
#[cfg(not(feature = "tls"))]
#[derive(Clone)]
pub(crate) enum TlsConfig {}
