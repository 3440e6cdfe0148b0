//! The servers to try: the lists `host`, `hostaddr` and `port`.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::value::Value;
use super::{ConfigError, Password};

pub(super) const DEFAULT_PORT: u16 = 5432;

/// A server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
#[non_exhaustive]
pub enum Endpoint {
    /// A name or address, and the address to use in its place (`hostaddr`) if given. The name is
    /// what certificates are verified against.
    Tcp {
        /// The name, or the address in text.
        name: String,
        /// The address to connect to without looking the name up.
        address: Option<IpAddr>,
    },
    /// The directory of a Unix socket (`/var/run/postgresql`, or `@…` for an abstract one).
    Unix(PathBuf),
}

impl Host {
    /// A server: by a name, an address, or the directory of a Unix socket, which begins with `/`
    /// (or `@`, for an abstract one).
    pub fn new(name: impl Into<String>, port: u16) -> Self {
        let name = name.into();
        let endpoint = if name.starts_with(['/', '@']) {
            Endpoint::Unix(PathBuf::from(name))
        } else {
            Endpoint::Tcp { name, address: None }
        };
        Self { endpoint, port, password: None }
    }
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

/// Puts the three lists together. One port is for all hosts; otherwise the lists must be of one
/// length. `socket_directory` stands in for an empty host.
pub(super) fn assemble(
    host: &Value<'_>,
    address: &Value<'_>,
    port: &Value<'_>,
    socket_directory: &Path,
) -> Result<Vec<Host>, ConfigError> {
    let names = list(host);
    let addresses = list(address);
    let ports = list(port);
    let count = if addresses.is_empty() { names.len().max(1) } else { addresses.len() };
    if !names.is_empty() && names.len() != count {
        return Err(ConfigError::Conflict(format!(
            "`{}` has {} entries and `{}` has {count}; they must match",
            host.name,
            names.len(),
            address.name,
        )));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(ConfigError::Conflict(format!(
            "`{}` has {} entries for {count} hosts; there must be one for all, or one for each",
            port.name,
            ports.len(),
        )));
    }
    let mut hosts = Vec::with_capacity(count);
    for index in 0..count {
        let entry = |list: &[&'_ str]| list.get(index).copied().unwrap_or_default().to_owned();
        let number = match ports.as_slice() {
            [only] => *only,
            several => several.get(index).copied().unwrap_or_default(),
        };
        let number = parse_port(port, number)?;
        let name = entry(&names);
        let numeric = entry(&addresses);
        let mut host = Host::new(name.as_str(), number);
        if !numeric.is_empty() {
            let parsed: IpAddr = numeric
                .parse()
                .map_err(|_| address.invalid("it must be an IPv4 or IPv6 address, not a name"))?;
            let name = if name.is_empty() { numeric } else { name };
            host.endpoint = Endpoint::Tcp { name, address: Some(parsed) };
        } else if name.is_empty() {
            host.endpoint = Endpoint::Unix(socket_directory.to_owned());
        }
        hosts.push(host);
    }
    Ok(hosts)
}

fn list<'a>(value: &Value<'a>) -> Vec<&'a str> {
    if value.text.is_empty() { Vec::new() } else { value.text.split(',').collect() }
}

fn parse_port(value: &Value<'_>, text: &str) -> Result<u16, ConfigError> {
    if text.is_empty() {
        return Ok(DEFAULT_PORT);
    }
    match text.trim_ascii().parse() {
        Ok(0) | Err(_) => Err(value.invalid("a port is a number from 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(host: &str, address: &str, port: &str) -> Result<Vec<String>, ConfigError> {
        let value = |name, text| Value { name, text };
        let assembled = assemble(
            &value("host", host),
            &value("hostaddr", address),
            &value("port", port),
            Path::new("/sockets"),
        )?;
        Ok(assembled
            .iter()
            .map(|host| match &host.endpoint {
                Endpoint::Tcp { address: Some(address), .. } => format!("{host} at {address}"),
                _ => host.to_string(),
            })
            .collect())
    }

    #[test]
    fn lists_are_put_together_as_libpq_does() {
        for (host, address, port, expected) in [
            ("", "", "", &["/sockets/.s.PGSQL.5432"][..]),
            ("", "", "5433", &["/sockets/.s.PGSQL.5433"]),
            ("a", "", "", &["a:5432"]),
            ("a,b", "", "", &["a:5432", "b:5432"]),
            ("a,b", "", "1", &["a:1", "b:1"]),
            ("a,b", "", "1,2", &["a:1", "b:2"]),
            ("a,b", "", ",2", &["a:5432", "b:2"]),
            ("a,", "", "", &["a:5432", "/sockets/.s.PGSQL.5432"]),
            ("/run/pg", "", "", &["/run/pg/.s.PGSQL.5432"]),
            ("@pg", "", "", &["@pg/.s.PGSQL.5432"]),
            ("", "::1,127.0.0.1", "", &["[::1]:5432 at ::1", "127.0.0.1:5432 at 127.0.0.1"]),
            ("a,b", "::1,", "", &["a:5432 at ::1", "b:5432"]),
            ("a,b", "::1,127.0.0.1", " 7 ", &["a:7 at ::1", "b:7 at 127.0.0.1"]),
        ] {
            assert_eq!(hosts(host, address, port).unwrap(), expected, "{host} {address} {port}");
        }
    }

    #[test]
    fn lists_of_different_lengths_are_refused() {
        for (host, address, port) in [
            ("a,b", "::1", ""),
            ("a", "::1,::2", ""),
            ("a,b,c", "", "1,2"),
            ("a", "", "1,2"),
            ("", "", "1,2"),
        ] {
            let error = hosts(host, address, port).unwrap_err();
            assert!(matches!(error, ConfigError::Conflict(_)), "{host} {address} {port}");
        }
    }

    #[test]
    fn impossible_ports_and_addresses_are_refused_and_not_quoted() {
        for port in ["0", "65536", "-1", "hunter2", "1 2"] {
            let error = hosts("a", "", port).unwrap_err();
            assert!(matches!(error, ConfigError::InvalidValue { key: "port", .. }), "{port}");
            assert!(!error.to_string().contains("hunter2"));
        }
        let error = hosts("", "db.example", "").unwrap_err();
        assert!(matches!(error, ConfigError::InvalidValue { key: "hostaddr", .. }));
    }
}
