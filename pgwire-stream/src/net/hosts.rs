//! Which host, which of its addresses, and which encryption is tried after which.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use crate::{Config, ConfigError, ConnectAttempt, Endpoint, Error, Host, LoadBalanceHosts, Result};

use super::encryption::{self, Encryption};
use super::route::{Route, explain, within};
use super::shuffle::shuffle;
use super::socket::{self, Address};
use super::{Stream, TlsConfig};

/// Connects to the first host that lets `login` succeed.
///
/// `connect_timeout` is for each address and encryption, and includes the login. As in libpq, a
/// refused login ([`Error::Auth`], or a server's error of class 28) ends the search: another host
/// would refuse it too, or is the wrong one. Whatever else fails leads to the next address, so a
/// `login` that finds the server unsuitable (`target_session_attrs`) just fails.
pub(crate) async fn connect_any<T, L, F>(
    config: &Config,
    tls: Option<TlsConfig>,
    login: L,
) -> Result<T>
where
    L: Fn(Stream, Host) -> F,
    F: Future<Output = Result<T>>,
{
    config.check()?;
    if config.hosts.is_empty() {
        return Err(ConfigError::Conflict("there is no host to connect to".to_owned()).into());
    }
    let bare = Arc::new(config.without_passwords());
    let mut hosts: Vec<&Host> = config.hosts.iter().collect();
    let balance = config.load_balance_hosts == LoadBalanceHosts::Random;
    if balance {
        shuffle(&mut hosts);
    }
    let mut failed = Vec::new();
    for host in hosts {
        let resolution = async { Ok(socket::resolve(host).await?) };
        let mut addresses = match within(config.connect_timeout, resolution).await {
            Ok(addresses) => addresses,
            Err(cause) => {
                failed.push(ConnectAttempt { host: host.to_string(), cause: Box::new(cause) });
                continue;
            }
        };
        if balance {
            shuffle(&mut addresses);
        }
        for address in &addresses {
            let route = Route {
                config: bare.clone(),
                host: Host { password: None, ..host.clone() },
                address: address.clone(),
                tls: tls.clone(),
            };
            let causes = match connect_one(config, host, route, &login).await {
                Ok(connected) => return Ok(connected),
                Err(causes) => causes,
            };
            for cause in causes {
                if matches!(cause, Error::Config(_) | Error::Misuse(_)) {
                    return Err(cause);
                }
                let host = described(host, address);
                failed.push(ConnectAttempt { host, cause: Box::new(cause) });
            }
            if was_refused(&failed) {
                return Err(Error::Connect(failed));
            }
        }
    }
    Err(Error::Connect(failed))
}

/// Tries the encryptions that `sslmode` has, in its order; gives the causes of all failures.
async fn connect_one<T, L, F>(
    config: &Config,
    host: &Host,
    route: Route,
    login: &L,
) -> Result<T, Vec<Error>>
where
    L: Fn(Stream, Host) -> F,
    F: Future<Output = Result<T>>,
{
    let mut causes = Vec::new();
    for step in ladder(config, host).map_err(|cause| vec![cause])? {
        let encrypted = OnceLock::new();
        let attempt = async {
            let stream = Stream::open(route.clone(), *step).await?;
            let _ = encrypted.set(stream.is_tls());
            login(stream, host.clone()).await
        };
        let cause = match within(config.connect_timeout, attempt).await {
            Ok(connected) => return Ok(connected),
            Err(Error::Io(cause)) => explain(cause),
            Err(cause) => cause,
        };
        let go_on = encryption::may_be_at_fault(*step, encrypted.get().copied(), &cause);
        causes.push(cause);
        if !go_on {
            break;
        }
    }
    Err(causes)
}

fn ladder(config: &Config, host: &Host) -> Result<&'static [Encryption]> {
    match host.endpoint {
        // Nobody listens on the way there.
        Endpoint::Unix(_) => Ok(&[Encryption::Plain]),
        Endpoint::Tcp { .. } => Ok(encryption::attempts(config.ssl_mode)?),
    }
}

/// Whether the last of these attempts was refused, which ends the search.
pub(crate) fn was_refused(attempts: &[ConnectAttempt]) -> bool {
    attempts.last().is_some_and(|last| match &*last.cause {
        Error::Auth(_) => true,
        cause => cause.sql_state().is_some_and(|code| code.class() == "28"),
    })
}

/// The host as configured, and the address it was found at if that says more.
fn described(host: &Host, address: &Address) -> String {
    match (&host.endpoint, address) {
        (Endpoint::Tcp { name, .. }, Address::Tcp(found)) if found.ip().to_string() != *name => {
            format!("{host} ({address})")
        }
        _ => host.to_string(),
    }
}
