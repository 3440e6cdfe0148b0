//! What has to be done on a server before it can be backed up: statements, and lines of
//! `pg_hba.conf`.

use std::net::{IpAddr, SocketAddr};

use pgwire_stream::{Config, Endpoint, ServerVersion, SslMode};
use tokio::net::{UdpSocket, lookup_host};

use crate::failure::quoted_role;
use crate::peer::DATABASE;

/// The role that the example uses.
pub(super) const EXAMPLE_ROLE: &str = "walrecv";

/// What stands for this machine where its address is not known.
const SOME_ADDRESS: &str = "THIS-HOST/32";

/// What is to be done on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// What a superuser runs there.
    pub sql: Vec<String>,
    /// What a superuser may run there for more comfort.
    pub comfort: Vec<String>,
    /// What goes into its `pg_hba.conf`.
    pub hba: Vec<String>,
}

/// What a server needs that is reached by this conninfo, from these addresses.
pub fn what_is_needed(
    conninfo: &str,
    version: Option<ServerVersion>,
    addresses: &[IpAddr],
) -> Needs {
    let config = Config::load(conninfo).ok();
    let role = config.as_ref().and_then(|config| config.user.clone());
    let role = quoted_role(role.as_deref().unwrap_or(EXAMPLE_ROLE));
    let database = config.as_ref().and_then(|config| config.dbname.clone());
    let database = quoted_role(database.as_deref().unwrap_or(DATABASE));
    Needs {
        sql: vec![format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD '…';")],
        comfort: comfort(&role, version),
        hba: hba(config.as_ref(), &database, &role, addresses),
    }
}

/// A privilege that adds comfort.
struct Grant {
    /// The first major that has it.
    since: u32,
    /// The statement up to the role's name.
    statement: &'static str,
    purpose: &'static str,
}

const COMFORT: [Grant; 5] = [
    Grant {
        since: 10,
        statement: "GRANT EXECUTE ON FUNCTION pg_switch_wal() TO",
        purpose: "switch-wal",
    },
    Grant { since: 15, statement: "GRANT pg_checkpoint TO", purpose: "switch-wal --force" },
    Grant {
        since: 10,
        statement: "GRANT pg_monitor TO",
        purpose: "what other senders do, sizes, settings",
    },
    Grant {
        since: 11,
        statement: "GRANT pg_read_server_files TO",
        purpose: "configuration files outside of the data directory",
    },
    Grant {
        since: 11,
        statement: "GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint) TO",
        purpose: "the same, as Debian has them",
    },
];

/// The statements, each with what it is good for; those that this server does not know left out.
fn comfort(role: &str, version: Option<ServerVersion>) -> Vec<String> {
    let known = |grant: &&Grant| version.is_none_or(|version| version.major() >= grant.since);
    let text = |grant: &Grant| {
        let Grant { since, statement, purpose } = grant;
        let from = match version {
            None if *since > 10 => format!(" ({since} and newer)"),
            _ => String::new(),
        };
        (format!("{statement} {role};"), format!("-- {purpose}{from}"))
    };
    let rows: Vec<_> = COMFORT.iter().filter(known).map(text).collect();
    let width = rows.iter().map(|(statement, _)| statement.len()).max().unwrap_or_default();
    rows.iter().map(|(statement, purpose)| format!("{statement:width$}  {purpose}")).collect()
}

fn hba(config: Option<&Config>, database: &str, role: &str, addresses: &[IpAddr]) -> Vec<String> {
    let kind = match config.map(|config| config.ssl_mode) {
        Some(SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => "hostssl",
        _ => "host",
    };
    let local = config.is_some_and(|config| {
        config.hosts.iter().all(|host| matches!(host.endpoint, Endpoint::Unix(_)))
    });
    if local {
        return vec![format!("local  replication,{database}  {role}  scram-sha-256")];
    }
    let mut addresses: Vec<_> = addresses.iter().map(with_bits).collect();
    if addresses.is_empty() {
        addresses.push(SOME_ADDRESS.to_owned());
    }
    let line =
        |address| format!("{kind}  replication,{database}  {role}  {address}  scram-sha-256");
    addresses.into_iter().map(line).collect()
}

fn with_bits(address: &IpAddr) -> String {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    format!("{address}/{bits}")
}

/// This machine's addresses, as the hosts of the conninfo see them: what the way to them begins
/// with. Nothing is sent. Behind a translation of addresses, they see another one.
pub async fn this_machine(conninfo: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for host in Config::load(conninfo).ok().iter().flat_map(|config| &config.hosts) {
        let Endpoint::Tcp { name, address } = &host.endpoint else { continue };
        let target = match address {
            Some(address) => Some(SocketAddr::new(*address, host.port)),
            None => match lookup_host((name.as_str(), host.port)).await {
                Ok(mut addresses) => addresses.next(),
                Err(_) => None,
            },
        };
        let Some(target) = target else { continue };
        match way_to(target).await {
            Ok(address) if !found.contains(&address) => found.push(address),
            Ok(_) => {}
            Err(error) => tracing::debug!(error = %error, %target, "no way there"),
        }
    }
    found
}

async fn way_to(target: SocketAddr) -> std::io::Result<IpAddr> {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(conninfo: &str) -> Needs {
        what_is_needed(conninfo, None, &[])
    }

    #[test]
    fn role_and_database_are_those_of_the_conninfo() {
        let needs = needs("host=db user=Backup dbname=app password=geheim");
        assert_eq!(needs.sql, ["CREATE ROLE \"Backup\" LOGIN REPLICATION PASSWORD '…';"]);
        assert_eq!(needs.hba, ["host  replication,app  \"Backup\"  THIS-HOST/32  scram-sha-256"]);
        assert!(!format!("{needs:?}").contains("geheim"));
    }

    #[test]
    fn lines_are_as_the_connection_is() {
        let encrypted = needs("host=db sslmode=verify-full");
        assert!(encrypted.hba.iter().all(|line| line.starts_with("hostssl  ")));
        let local = needs("host=/run user=backup");
        assert_eq!(local.hba, ["local  replication,postgres  backup  scram-sha-256"]);
        let addresses = ["192.0.2.10".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let needs = what_is_needed("host=db user=w", None, &addresses);
        assert_eq!(needs.hba[0], "host  replication,postgres  w  192.0.2.10/32  scram-sha-256");
        assert_eq!(needs.hba[1], "host  replication,postgres  w  2001:db8::1/128  scram-sha-256");
    }

    #[test]
    fn a_server_is_told_only_what_it_knows() {
        let told = |number: u32| {
            let version = Some(ServerVersion::from_num(number));
            what_is_needed("host=db user=w", version, &[]).comfort.join("\n")
        };
        assert!(!told(10_00_00).contains("pg_read_server_files"));
        assert!(!told(14_00_00).contains("pg_checkpoint"));
        assert!(told(15_00_00).contains("GRANT pg_checkpoint TO w;"));
        assert!(!told(18_00_00).contains("newer"));
        assert!(needs("host=db").comfort.join("\n").contains("(15 and newer)"));
    }

    #[tokio::test]
    async fn the_way_to_this_machine_begins_here() {
        let here = this_machine("host=127.0.0.1 port=9").await;
        assert_eq!(here, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(this_machine("host=/run/postgresql").await.is_empty());
    }
}
