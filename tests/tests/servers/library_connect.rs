//! The library's way to a server: every login method, what may be demanded of it, and refusals.

use std::path::Path;
use std::time::Instant;

use pgwire_stream::{AuthError, Config, Error, ReplicationClient, Result};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::walrecv::{self, Walrecv};
use walrecv_tests::{Cluster, Installation};

use crate::runtime::block_on;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .every_major("library_logins", logins)
        .every_major("library_refusals", refusals)
        .per_major("library_require_auth", &[10, 14, 18], require_auth)
        .per_major("library_protocol_versions", &[10, 15, 18], protocol_versions)
        .per_major("library_requirepeer", &[18], requirepeer)
        .per_major("library_service_file", &[18], service_file)
        .once("library_connect_timeout", connect_timeout)
}

/// Connects, asks who the server is, and leaves.
pub(crate) fn visit(conninfo: &str) -> Result<()> {
    let config: Config = conninfo.parse()?;
    block_on(async {
        let mut client = ReplicationClient::connect(&config).await?;
        client.identify_system().await?;
        client.close().await
    })
}

/// Roles with their passwords, and how the server has each of them log in.
const LOGINS: [(&str, &str, &str); 4] = [
    ("trusted", "x", "none"),
    ("plain", "pässwörd", "password"),
    ("old", "secret", "md5"),
    ("scram", "secret", "scram-sha-256"),
];

fn cluster_with_every_login(
    installation: &Installation,
) -> Result<Cluster, walrecv_tests::Failure> {
    let cluster = Cluster::options(installation)
        .hba("host replication trusted 127.0.0.1/32 trust")
        .hba("host replication plain 127.0.0.1/32 password")
        .hba("host replication old 127.0.0.1/32 md5")
        .start()?;
    for (user, password, method) in LOGINS {
        let stored = if method == "md5" { "md5" } else { "scram-sha-256" };
        let password = password.replace('\'', "''");
        cluster.execute(&format!(
            "SET password_encryption = '{stored}'; \
             CREATE ROLE {user} LOGIN REPLICATION PASSWORD '{password}'"
        ))?;
    }
    Ok(cluster)
}

fn logins(installation: &Installation) -> ScenarioResult {
    let cluster = cluster_with_every_login(installation)?;
    cluster.create_role("quoted", "it's \\ secret", "REPLICATION")?;
    for (user, password, method) in LOGINS {
        let config: Config = cluster.conninfo(user, password).parse()?;
        let client = block_on(ReplicationClient::connect(&config))?;
        let used = client.authenticated_by().map(|used| used.method.as_str());
        assert_eq!(used, Some(method), "{user}");
        assert_eq!(client.tls(), None);
        visit(&cluster.conninfo(user, password))?;
    }
    visit(&cluster.conninfo("quoted", r"'it\'s \\ secret'"))?;
    visit(&cluster.superuser_conninfo())?;

    for (user, wrong) in [("plain", "x"), ("old", "x"), ("scram", "x")] {
        let error = visit(&cluster.conninfo(user, wrong)).unwrap_err();
        assert_eq!(error.sql_state().map(|code| code.to_string()), Some("28P01".into()), "{error}");
    }
    let unencrypted = format!("{} channel_binding=require", cluster.conninfo("plain", "x"));
    let error = visit(&unencrypted).unwrap_err();
    assert!(error.to_string().contains("channel binding is required"), "{error}");
    Ok(())
}

fn refusals(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::options(installation)
        .hba("host replication unlisted 127.0.0.1/32 reject")
        .config("max_wal_senders = 6")
        .start()?;
    cluster.create_role("unprivileged", "secret", "")?;
    cluster.create_role("unlisted", "secret", "REPLICATION")?;
    cluster.create_role("fine", "secret", "REPLICATION")?;

    let state = |conninfo: &str| {
        let error = visit(conninfo).unwrap_err();
        error.sql_state().map(|code| code.to_string()).ok_or(error)
    };
    assert_eq!(state(&cluster.conninfo("unprivileged", "secret"))?, "42501");
    assert_eq!(state(&cluster.conninfo("unlisted", "secret"))?, "28000");
    assert_eq!(state(&cluster.conninfo("nobody", "secret"))?, "28P01");

    let config: Config = cluster.conninfo("fine", "secret").parse()?;
    let full = block_on(async {
        let mut connected = Vec::new();
        loop {
            match ReplicationClient::connect(&config).await {
                Ok(client) => connected.push(client),
                Err(error) => break error,
            }
            assert!(connected.len() <= 6, "max_wal_senders has no say");
        }
    });
    assert_eq!(full.sql_state().map(|code| code.to_string()), Some("53300".into()), "{full}");

    let closed = format!("host=127.0.0.1 port={} user=x", walrecv_tests::port::free_port()?);
    let error = visit(&closed).unwrap_err();
    assert!(matches!(&error, Error::Connect(attempts) if attempts.len() == 1), "{error}");
    let error = visit("host=no-such-host.invalid user=x").unwrap_err();
    assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    Ok(())
}

fn require_auth(installation: &Installation) -> ScenarioResult {
    let cluster = cluster_with_every_login(installation)?;
    for (user, password, method) in LOGINS {
        for required in ["none", "password", "md5", "scram-sha-256"] {
            for (list, allowed) in [
                (required.to_owned(), method == required),
                (format!("!{required}"), method != required),
                (format!("gss,{required}"), method == required),
            ] {
                let conninfo = format!("{} require_auth={list}", cluster.conninfo(user, password));
                match visit(&conninfo) {
                    Ok(()) => assert!(allowed, "{user} {list}"),
                    Err(error) => {
                        let expected =
                            is_auth(&error, |e| matches!(e, AuthError::MethodNotAllowed { .. }));
                        assert!(!allowed && expected, "{user} {list}: {error}");
                    }
                }
            }
        }
    }
    Ok(())
}

fn protocol_versions(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    cluster.create_role("someone", "secret", "REPLICATION")?;
    let secret = |options: &str| -> Result<usize> {
        let config: Config =
            format!("{} {options}", cluster.conninfo("someone", "secret")).parse()?;
        block_on(async {
            let mut client = ReplicationClient::connect(&config).await?;
            client.identify_system().await?;
            let length = client.cancel_key().map_or(0, |key| key.secret().len());
            client.close().await?;
            Ok(length)
        })
    };
    let newest = if installation.major >= 18 { 32 } else { 4 };
    assert_eq!(secret("")?, 4);
    assert_eq!(secret("max_protocol_version=3.2")?, newest);
    assert_eq!(secret("max_protocol_version=latest")?, newest);
    match secret("min_protocol_version=3.2") {
        Ok(length) => assert!(length == 32 && installation.major >= 18),
        Err(error) => {
            assert!(installation.major < 18, "{error}");
            assert!(error.to_string().contains("3.2"), "{error}");
        }
    }
    Ok(())
}

fn requirepeer(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    let conninfo =
        |account: &str| format!("{} requirepeer={account}", cluster.superuser_conninfo());
    visit(&conninfo(&cluster.account().name))?;
    let error = visit(&conninfo("somebody-else")).unwrap_err();
    assert!(is_auth(&error, |e| matches!(e, AuthError::WrongPeer { .. })), "{error}");
    // It is about Unix sockets alone.
    cluster.create_role("someone", "secret", "REPLICATION")?;
    visit(&format!("{} requirepeer=somebody-else", cluster.conninfo("someone", "secret")))?;
    Ok(())
}

/// With the product's own binary, which can be given an environment.
fn service_file(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    cluster.create_role("someone", "secret", "REPLICATION")?;
    let walrecv = Walrecv::new("[servers.main]\nconninfo = \"service=prod\"\n")?;
    let file = walrecv.directory().join("services");
    let text =
        |port: u16| format!("[prod]\nhost=127.0.0.1\nport={port}\nuser=someone\npassword=secret\n");
    let init = |variable: &str, value: &Path| -> ScenarioResult {
        let mut command = walrecv.command(&["init", "main"])?;
        walrecv::finish(command.env(variable, value).env("PGUSER", "nobody"))?.success()?;
        Ok(())
    };
    std::fs::write(&file, text(cluster.port()))?;
    init("PGSERVICEFILE", &file)?;
    std::fs::rename(&file, walrecv.directory().join("pg_service.conf"))?;
    init("PGSYSCONFDIR", walrecv.directory())?;

    let mut command = walrecv.command(&["init", "main"])?;
    let output = walrecv::finish(command.env("PGSYSCONFDIR", "/nonexistent"))?;
    assert!(output.code != 0 && output.stderr.contains("service"), "{}", output.stderr);
    Ok(())
}

fn connect_timeout() -> ScenarioResult {
    // The system accepts for it, and nobody ever answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let conninfo = format!(
        "host=127.0.0.1 port={} user=x sslmode=disable connect_timeout=1",
        silent.local_addr()?.port()
    );
    let begin = Instant::now();
    let error = visit(&conninfo).unwrap_err();
    assert!(last_cause(&error, |cause| matches!(cause, Error::Timeout { .. })), "{error}");
    assert!((1..10).contains(&begin.elapsed().as_secs()));
    Ok(())
}

pub(crate) fn is_auth(error: &Error, matches: impl Fn(&AuthError) -> bool) -> bool {
    last_cause(error, |cause| matches!(cause, Error::Auth(error) if matches(error)))
}

pub(crate) fn last_cause(error: &Error, matches: impl Fn(&Error) -> bool) -> bool {
    match error {
        Error::Connect(attempts) => attempts.last().is_some_and(|attempt| matches(&attempt.cause)),
        error => matches(error),
    }
}
