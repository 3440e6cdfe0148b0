//! How to reach a server: connection strings and what else libpq's users expect to be honoured.
//!
//! [`Config`]'s `FromStr` is pure: it reads keyword/value strings and URIs, and neither files nor
//! environment, so it is safe on text from strangers. [`Config::load`] adds the `PG*` environment
//! variables, the password file and the default certificate files, as libpq does.
//!
//! ```text
//! text ──conninfo, uri──▶ pairs ──keyword──▶ Settings ──▶ Config ──▶ defaults, password file
//!                                               ▲
//!                               environment ────┘ (only load)
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
mod pair;
mod passfile;
mod password;
mod session_attrs;
mod settings;
mod trust;
mod uri;
mod value;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use environment::Environment;
use passfile::PassFile;
use settings::Settings;

pub use error::ConfigError;
pub use host::{Endpoint, Host};
pub use password::Password;
pub use session_attrs::TargetSessionAttrs;
pub use trust::{ChannelBinding, RootCert, SslMode};

/// Everything that decides how a connection is made. Unset options have libpq's defaults.
///
/// Read from a connection string by [`Config::load`], or by `parse` where neither environment nor
/// files may have a say. All of libpq 18's keywords are known. Those that are not acted upon are
/// refused unless their value asks for nothing (`gssencmode=prefer`), and unknown ones are always
/// refused. `replication` is checked and then ignored: the client asks for the kind of connection
/// that it needs.
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
    /// `synchronous_standby_names`. An empty name hides the fallback.
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
    /// Which of the hosts are good enough.
    pub target_session_attrs: TargetSessionAttrs,
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

impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Settings::parse(text)?.to_config(&|_| environment::default_socket_directory())
    }
}

impl Config {
    /// Reads a connection string, and adds what it is silent about: from the `PG*` environment
    /// variables, then from `~/.postgresql` and the operating system. If that gives no password,
    /// it is looked up in the password file for every host.
    ///
    /// Reads small files, and blocks meanwhile.
    ///
    /// # Errors
    ///
    /// Besides mistakes in the string and the variables: a password file that is named but
    /// missing, or that cannot be read, or that others can.
    pub fn load(text: &str) -> Result<Self, ConfigError> {
        Self::load_in(text, &Environment::of_process())
    }

    fn load_in(text: &str, environment: &Environment<'_>) -> Result<Self, ConfigError> {
        let mut settings = Settings::parse(text)?;
        environment.fill_in(&mut settings)?;
        let mut config = settings.to_config(&|port| environment.socket_directory(port))?;
        if config.ssl_root_cert.is_none() {
            config.ssl_root_cert = environment.certificate_file("root.crt").map(RootCert::File);
        }
        if !settings.client_certificate_forbidden()? {
            config.ssl_cert =
                config.ssl_cert.or_else(|| environment.certificate_file("postgresql.crt"));
            config.ssl_key =
                config.ssl_key.or_else(|| environment.certificate_file("postgresql.key"));
        }
        let user = match config.user.take().or_else(environment.user_name) {
            Some(user) => user,
            None => {
                return Err(ConfigError::InvalidValue {
                    key: "user",
                    problem:
                        "it is not set, and the operating system does not know the user's name"
                            .to_owned(),
                });
            }
        };
        config.look_up_passwords(&user, environment)?;
        config.user = Some(user);
        Ok(config)
    }

    fn look_up_passwords(
        &mut self,
        user: &str,
        environment: &Environment<'_>,
    ) -> Result<(), ConfigError> {
        if self.password.is_some() {
            return Ok(());
        }
        let Some(path) = self.passfile.clone().or_else(|| environment.password_file()) else {
            return Ok(());
        };
        let Some(file) = PassFile::read(&path)? else {
            if self.passfile.is_none() {
                return Ok(());
            }
            let problem = "it does not exist".to_owned();
            return Err(ConfigError::File { what: "password file", path, problem });
        };
        let database = self.dbname.as_deref().unwrap_or(user);
        for host in &mut self.hosts {
            // A role has one password for all databases. Those who keep a line for replication
            // call its database `replication`, as pg_basebackup and standbys do.
            host.password = file
                .password(host, "replication", user)
                .or_else(|| file.password(host, database, user));
        }
        Ok(())
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
