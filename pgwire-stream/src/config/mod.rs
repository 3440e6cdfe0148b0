//! How to reach a server: connection strings and what else libpq's users expect to be honoured.
//!
//! [`Config`]'s `FromStr` is pure: it reads keyword/value strings and URIs, and neither files nor
//! environment, so it is safe on text from strangers. [`Config::load`] adds the `PG*` environment
//! variables, the password file and the default certificate files, as libpq does.
//!
//! Follows "Connection Strings" and "Parameter Key Words" in PostgreSQL's libpq documentation.

mod error;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

pub use error::ConfigError;

/// Everything that decides how a connection is made. Unset options have libpq's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The servers to try, in this order. Never empty.
    pub hosts: Vec<Host>,
    /// The role. Defaults to the operating system's user name, which only [`Config::load`] knows.
    pub user: Option<String>,
    /// The database, for `replication=database` connections; the user's name by default.
    pub dbname: Option<String>,
    /// The password.
    pub password: Option<Password>,
    /// The password file; read by [`Config::load`] for hosts without a password.
    pub passfile: Option<PathBuf>,
    /// What the server shows in `pg_stat_replication` and matches against
    /// `synchronous_standby_names`.
    pub application_name: Option<String>,
    /// The same, where `application_name` is unset.
    pub fallback_application_name: Option<String>,
    /// Command-line options for the server, such as `-c wal_sender_timeout=30s`.
    pub options: Option<String>,
    /// How long one attempt per address may take; `None` waits as long as the system does.
    pub connect_timeout: Option<Duration>,
    /// TCP keepalives and how long sent data may stay unacknowledged.
    pub keepalive: Keepalive,
    /// Whether TLS is used, and how the server is verified.
    pub ssl_mode: SslMode,
    /// The certificates that the server's must lead to.
    pub ssl_root_cert: Option<RootCert>,
    /// The client's certificate, with those that lead from it to its root.
    pub ssl_cert: Option<PathBuf>,
    /// The key of the client's certificate.
    pub ssl_key: Option<PathBuf>,
    /// Whether the login is bound to the TLS connection (SCRAM-SHA-256-PLUS).
    pub channel_binding: ChannelBinding,
}

/// A server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where the server listens.
    pub endpoint: Endpoint,
    /// The port, which is part of the socket's name for Unix sockets too.
    pub port: u16,
    /// The password for this host, where the password file gave one.
    pub password: Option<Password>,
}

/// What a server's address is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A name or address, and the address to use in its place (`hostaddr`) if given. The name is
    /// what certificates are verified against.
    Tcp {
        /// The name, or the address in text.
        name: String,
        /// The address to connect to without looking the name up.
        address: Option<std::net::IpAddr>,
    },
    /// The directory of a Unix socket (`/var/run/postgresql`, or `@…` for an abstract one).
    Unix(PathBuf),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp { name, .. } if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Endpoint::Tcp { name, .. } => write!(f, "{name}:{}", self.port),
            Endpoint::Unix(directory) => {
                write!(f, "{}/.s.PGSQL.{}", directory.display(), self.port)
            }
        }
    }
}

/// TCP keepalive settings; `None` leaves the system's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Whether keepalives are sent at all.
    pub enabled: bool,
    /// Silence before the first one.
    pub idle: Option<Duration>,
    /// Time between them.
    pub interval: Option<Duration>,
    /// How many may stay unanswered.
    pub count: Option<u32>,
    /// How long sent data may stay unacknowledged (`tcp_user_timeout`).
    pub user_timeout: Option<Duration>,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { enabled: true, idle: None, interval: None, count: None, user_timeout: None }
    }
}

/// Whether TLS is used, and how the server is verified: libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// Without TLS; with it if the server refuses that.
    Allow,
    /// With TLS; without it if the server cannot.
    #[default]
    Prefer,
    /// TLS; the chain is verified only if root certificates are at hand.
    Require,
    /// TLS, and the server's certificate must lead to a trusted root.
    VerifyCa,
    /// The same, and the certificate must name the host.
    VerifyFull,
}

/// Whether the login is bound to the TLS connection: libpq's `channel_binding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// If the server offers it.
    #[default]
    Prefer,
    /// Or the login fails.
    Require,
}

/// Which certificates a server's must lead to: libpq's `sslrootcert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootCert {
    /// Those in this PEM file.
    File(PathBuf),
    /// Those that the operating system trusts.
    System,
}

/// A password. Wiped from memory when dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// A password of these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes, for the login.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}
