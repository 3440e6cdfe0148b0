//! What the connection is secured by. Advice only.

use std::net::IpAddr;

use pgwire_stream::{
    AuthMethod, AuthenticatedBy, Endpoint, Host, ReplicationClient, SslMode, TlsInUse,
};

use super::{Row, State};

const NAME: &str = "connection security";

/// What protects the connection to the server.
pub(super) fn row(client: &ReplicationClient, mode: SslMode) -> Row {
    let here = is_here(&client.host());
    judge(here, client.tls().as_ref(), mode, client.authenticated_by())
}

/// Whether what is sent there does not leave this machine.
fn is_here(host: &Host) -> bool {
    match &host.endpoint {
        Endpoint::Unix(_) => true,
        Endpoint::Tcp { name, address } => {
            let address = address.or_else(|| name.parse::<IpAddr>().ok());
            address.map_or(name == "localhost", |address| address.is_loopback())
        }
        _ => false,
    }
}

fn judge(here: bool, tls: Option<&TlsInUse>, mode: SslMode, login: Option<AuthenticatedBy>) -> Row {
    let mut problems = Vec::new();
    let encrypted = match tls {
        Some(tls) => {
            let verified = match mode {
                SslMode::VerifyFull => "the server's certificate and name verified",
                SslMode::VerifyCa => "the server's certificate verified, not its name",
                _ => {
                    problems.push("the server is not verified: set `sslmode=verify-full`");
                    "the server's certificate not verified"
                }
            };
            format!("{} ({}), {verified}", tls.version.as_str(), tls.cipher)
        }
        None => {
            problems.push("WAL and backups are sent in the clear: set `sslmode=verify-full`");
            "no TLS".to_owned()
        }
    };
    let proved = match login {
        Some(AuthenticatedBy { method: AuthMethod::None, .. }) => {
            // A client certificate is asked for in the handshake, and nothing afterwards.
            if tls.is_none() {
                problems.push("the server asks for no password (`trust` in pg_hba.conf)");
            }
            "no password asked for".to_owned()
        }
        Some(login) => {
            if matches!(login.method, AuthMethod::Password | AuthMethod::Md5) {
                problems.push("the password is weakly protected: use `scram-sha-256`");
            }
            let bound = if login.channel_binding { ", bound to the TLS connection" } else { "" };
            format!("{}{bound}", login.method.as_str())
        }
        None => "no login".to_owned(),
    };
    let told = format!("{encrypted}; {proved}");
    if here || problems.is_empty() {
        return Row::advice(NAME, State::Ok, told);
    }
    Row::advice(NAME, State::Warning, format!("{told}: {}", problems.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(here: bool, mode: SslMode) -> (State, String) {
        let row = judge(here, None, mode, None);
        assert!(row.advisory);
        (row.state, row.remark.unwrap())
    }

    #[test]
    fn what_leaves_the_machine_in_the_clear_is_worth_a_warning() {
        assert_eq!(told(true, SslMode::Prefer).0, State::Ok);
        let (state, remark) = told(false, SslMode::Prefer);
        assert_eq!(state, State::Warning);
        assert!(remark.contains("in the clear"), "{remark}");
    }

    #[test]
    fn this_machine_is_known_by_its_addresses() {
        for (host, here) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("localhost", true),
            ("/run/postgresql", true),
            ("192.0.2.1", false),
            ("db1.example", false),
        ] {
            assert_eq!(is_here(&Host::new(host, 5432)), here, "{host}");
        }
    }
}
