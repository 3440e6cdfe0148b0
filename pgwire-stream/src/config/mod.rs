//! How to reach a server: connection strings and what else libpq's users expect to be honoured.
//!
//! [`Config`]'s `FromStr` is pure: it reads keyword/value strings and URIs, and neither files nor
//! environment. [`Config::load`] adds the service file, the `PG*` environment variables, the
//! password file and the default certificate files, as libpq does.
//!
//! ```text
//! text ──conninfo, uri──▶ pairs ──keyword──▶ Settings ──▶ Config ──▶ defaults, password file
//!                                               ▲
//!                    service file, environment ─┘ (only load)
//! ```
//!
//! Follows "Connection Strings" and "Parameter Key Words" in PostgreSQL's libpq documentation.

mod conninfo;
mod environment;
mod error;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod host;
mod keyword;
mod load;
mod load_balance;
mod options;
mod pair;
mod passfile;
mod password;
mod require_auth;
mod service;
mod session_attrs;
mod settings;
mod tls;
mod trust;
mod uri;
mod value;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::proto::ProtocolRange;

use settings::Settings;

pub use error::ConfigError;
pub use host::{Endpoint, Host};
pub use load_balance::LoadBalanceHosts;
pub use options::ConnectionOptions;
pub use password::Password;
pub use require_auth::{AuthMethod, RequireAuth};
pub use session_attrs::TargetSessionAttrs;
pub use tls::{SslCertMode, SslNegotiation, TlsVersion};
pub use trust::{ChannelBinding, RootCert, SslMode};

/// Everything that decides how a connection is made. Unset options have libpq's defaults.
///
/// Read from a connection string by [`Config::load`], or by `parse` where neither environment nor
/// files may have a say. Programs that have their own settings start from [`Config::new`] and
/// assign what they want: the fields are public, and each is called like its keyword. There is no
/// builder, because it could do no more.
///
/// ```
/// use pgwire_stream::{Config, SslMode};
///
/// let mut config = Config::new("db.example", 5432, "backup");
/// config.ssl_mode = SslMode::VerifyFull;
/// ```
///
/// # How it differs from libpq
///
/// All of libpq 18's keywords are known, and its grammar is followed to the letter. On purpose:
///
/// * What is not acted upon (GSSAPI, OAuth, compression, handing on SCRAM keys) is refused unless
///   its value asks for nothing, as `gssencmode=prefer` does. `replication` is checked and then
///   ignored, because the client asks for the kind of connection that it needs, and so is
///   `client_encoding`, because it is UTF-8.
/// * Text must be UTF-8, also after percent-decoding.
/// * Values are checked where libpq would not look at them: every number, `replication`, `sslsni`
///   (`0` or `1`), and values in the service file that something else overrides.
/// * A named file that cannot be read is an error, never passed over: password file, certificates,
///   CRLs, key log.
/// * `sslmode=prefer` and `allow` verify no server, whatever root certificates are at hand; libpq
///   then goes on without TLS.
/// * An address in `hostaddr` has no zone; one in `host` may have (`fe80::1%eth0`).
/// * An empty `service` or `PGSERVICE` is no service.
/// * Without a host, the server is looked for in the first of `/var/run/postgresql`,
///   `/run/postgresql` and `/tmp` that exists; libpq's packagers have each chosen one.
/// * The system's service file is searched where Debian's and Red Hat's packages have it, and under
///   `/usr/local/pgsql/etc`.
/// * A line of the password file for the database `replication` is good for physical and database
///   connections.
/// * A server that says "welcome" in the middle of a SCRAM exchange is never believed, whatever
///   `require_auth` is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The servers to try. Never empty.
    pub hosts: Vec<Host>,
    /// Whether they are tried in this order.
    pub load_balance_hosts: LoadBalanceHosts,
    /// Which of them are good enough.
    pub target_session_attrs: TargetSessionAttrs,
    /// The role. Defaults to the operating system's user name, which only [`Config::load`] knows.
    pub user: Option<String>,
    /// The database, for `replication=database` connections; the user's name by default.
    pub dbname: Option<String>,
    /// The password.
    pub password: Option<Password>,
    /// The password file; read by [`Config::load`] for hosts without a password.
    pub passfile: Option<PathBuf>,
    /// What the server shows in `pg_stat_replication` and matches against
    /// `synchronous_standby_names`. An empty name hides the fallback.
    pub application_name: Option<String>,
    /// The same, where `application_name` is unset.
    pub fallback_application_name: Option<String>,
    /// Command-line options for the server, such as `-c wal_sender_timeout=30s`.
    pub options: Option<String>,
    /// How long one attempt per address may take; `None` waits as long as the system does.
    pub connect_timeout: Option<Duration>,
    /// TCP keepalives and how long sent data may stay unacknowledged.
    pub keepalive: TcpKeepalive,
    /// Whether TLS is used, and how the server is verified.
    pub ssl_mode: SslMode,
    /// How TLS is begun.
    pub ssl_negotiation: SslNegotiation,
    /// The certificates that the server's must lead to.
    pub ssl_root_cert: Option<RootCert>,
    /// A file of revoked certificates. With it or `ssl_crl_dir`, every certificate below the root
    /// must be covered by a list that is not out of date.
    pub ssl_crl: Option<PathBuf>,
    /// A directory of files of revoked certificates, as `openssl rehash` names them.
    pub ssl_crl_dir: Option<PathBuf>,
    /// Whether the client's certificate is sent.
    pub ssl_cert_mode: SslCertMode,
    /// The client's certificate, with those that lead from it to its root.
    pub ssl_cert: Option<PathBuf>,
    /// The key of the client's certificate.
    pub ssl_key: Option<PathBuf>,
    /// What the key is encrypted with; not looked at if it is not.
    pub ssl_password: Option<Password>,
    /// Whether the server is sent the host's name (SNI).
    pub ssl_sni: bool,
    /// The oldest TLS to speak.
    pub ssl_min_protocol_version: TlsVersion,
    /// The newest TLS to speak.
    pub ssl_max_protocol_version: TlsVersion,
    /// Where the secrets of TLS connections are appended to, for analysing what is sent: whoever
    /// can read the file can read the connections.
    pub ssl_key_log_file: Option<PathBuf>,
    /// The versions of the frontend/backend protocol (`min_protocol_version` and
    /// `max_protocol_version`). 3.2 has longer cancel keys.
    pub protocols: ProtocolRange,
    /// The operating system's account that a server on a Unix socket must run as.
    pub require_peer: Option<String>,
    /// How the server must have authenticated us.
    pub require_auth: RequireAuth,
    /// Whether the login is bound to the TLS connection (SCRAM-SHA-256-PLUS).
    pub channel_binding: ChannelBinding,
}

/// TCP keepalive settings; `None` leaves the system's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpKeepalive {
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

impl Default for TcpKeepalive {
    fn default() -> Self {
        Self { enabled: true, idle: None, interval: None, count: None, user_timeout: None }
    }
}

/// As an empty connection string: a local server over its Unix socket, and libpq's defaults.
impl Default for Config {
    fn default() -> Self {
        let endpoint = Endpoint::Unix(environment::default_socket_directory());
        Self {
            hosts: vec![Host { endpoint, port: host::DEFAULT_PORT, password: None }],
            load_balance_hosts: LoadBalanceHosts::default(),
            target_session_attrs: TargetSessionAttrs::default(),
            user: None,
            dbname: None,
            password: None,
            passfile: None,
            application_name: None,
            fallback_application_name: None,
            options: None,
            connect_timeout: None,
            keepalive: TcpKeepalive::default(),
            ssl_mode: SslMode::default(),
            ssl_negotiation: SslNegotiation::default(),
            ssl_root_cert: None,
            ssl_crl: None,
            ssl_crl_dir: None,
            ssl_cert_mode: SslCertMode::default(),
            ssl_cert: None,
            ssl_key: None,
            ssl_password: None,
            ssl_sni: true,
            ssl_min_protocol_version: TlsVersion::V1_2,
            ssl_max_protocol_version: TlsVersion::V1_3,
            ssl_key_log_file: None,
            protocols: ProtocolRange::default(),
            require_peer: None,
            require_auth: RequireAuth::default(),
            channel_binding: ChannelBinding::default(),
        }
    }
}

/// Reads text of either form, and neither files nor the environment: a `service` is refused.
impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Settings::parse(text)?.to_pure_config()
    }
}

impl Config {
    /// A configuration for one server and role, with libpq's defaults for everything else. `host`
    /// is a name, an address, or the directory of a Unix socket.
    pub fn new(host: impl Into<String>, port: u16, user: impl Into<String>) -> Self {
        Self { hosts: vec![Host::new(host, port)], user: Some(user.into()), ..Self::default() }
    }

    /// Reads a connection string of which a stranger wrote a part: only these keywords may be in
    /// it, be it as a part of a URI. Like `parse`, it reads neither files nor the environment.
    ///
    /// Many keywords name files that are opened when a connection is made, and `host` can be the
    /// path of a Unix socket: check [`Config::hosts`] where it is among the allowed.
    ///
    /// ```
    /// use pgwire_stream::{Config, ConfigError};
    ///
    /// let allowed = ["host", "port", "user", "password", "dbname"];
    /// assert!(Config::from_untrusted("postgresql://u:p@db/app", &allowed).is_ok());
    /// let refused = Config::from_untrusted("host=db sslkeylogfile=/etc/x", &allowed);
    /// assert!(matches!(refused, Err(ConfigError::ForbiddenKey { key: "sslkeylogfile" })));
    /// ```
    ///
    /// # Errors
    /// [`ConfigError::ForbiddenKey`] for any other keyword; mistakes as in `parse`.
    pub fn from_untrusted(text: &str, allowed: &[&str]) -> Result<Self, ConfigError> {
        let settings = Settings::parse(text)?;
        if let Some(key) = settings.keys().find(|key| !allowed.contains(key)) {
            return Err(ConfigError::ForbiddenKey { key });
        }
        settings.to_pure_config()
    }

    /// Whether the options can be used together. Also asked before connecting, because they can be
    /// set one by one.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.ssl_negotiation.check(self.ssl_mode)?;
        let ProtocolRange { min, max } = self.protocols;
        if min > max {
            return Err(ConfigError::Conflict(format!(
                "`min_protocol_version={min}` is above `max_protocol_version={max}`"
            )));
        }
        if self.ssl_min_protocol_version > self.ssl_max_protocol_version {
            return Err(ConfigError::Conflict(format!(
                "`ssl_min_protocol_version={}` is above `ssl_max_protocol_version={}`",
                self.ssl_min_protocol_version.as_str(),
                self.ssl_max_protocol_version.as_str()
            )));
        }
        if self.ssl_root_cert == Some(RootCert::System) && self.ssl_mode != SslMode::VerifyFull {
            return Err(ConfigError::Conflict(format!(
                "`sslrootcert=system` needs `sslmode=verify-full`; `sslmode={}` is too weak for it",
                self.ssl_mode.as_str()
            )));
        }
        Ok(())
    }

    /// The same, without the passwords of roles, for what lives as long as a connection.
    #[cfg(feature = "tokio")]
    pub(crate) fn without_passwords(&self) -> Self {
        let mut config = Self { password: None, ..self.clone() };
        config.hosts.iter_mut().for_each(|host| host.password = None);
        config
    }

    /// The password to use with a host: its own, or else the one for all.
    pub fn password_for<'a>(&'a self, host: &'a Host) -> Option<&'a Password> {
        host.password.as_ref().or(self.password.as_ref())
    }

    /// The name by which the server will know us, if any.
    pub fn application_name(&self) -> Option<&str> {
        self.application_name
            .as_deref()
            .or(self.fallback_application_name.as_deref())
            .filter(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests;
