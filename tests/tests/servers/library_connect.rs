//! The library's way to a server: every login method and every `sslmode`, on every major.

use pgwire_stream::{AuthError, Config, Error, ReplicationClient, Result, TlsError};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation, tools};

use crate::runtime::block_on;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .every_major("library_logins", logins)
        .every_major("library_sslmodes", sslmodes)
        .every_major("library_refusals", refusals)
}

/// Connects, asks who the server is, and leaves.
fn visit(conninfo: &str) -> Result<()> {
    let config: Config = conninfo.parse()?;
    block_on(async {
        let mut client = ReplicationClient::connect(&config).await?;
        client.identify_system().await?;
        client.close().await
    })
}

fn logins(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::options(installation)
        .hba("host replication trusted 127.0.0.1/32 trust")
        .hba("host replication plain 127.0.0.1/32 password")
        .hba("host replication old 127.0.0.1/32 md5")
        .start()?;
    cluster.create_role("trusted", "x", "REPLICATION")?;
    cluster.create_role("plain", "pässwörd", "REPLICATION")?;
    cluster.create_role("scram", "it's \\ secret", "REPLICATION")?;
    cluster.execute("ALTER SYSTEM SET password_encryption = 'md5'")?;
    cluster.reload()?;
    cluster.wait_for("md5", |cluster| Ok(cluster.value("SHOW password_encryption")? == "md5"))?;
    cluster.create_role("old", "secret", "REPLICATION")?;

    visit(&cluster.conninfo("trusted", ""))?;
    visit(&cluster.conninfo("plain", "pässwörd"))?;
    visit(&cluster.conninfo("old", "secret"))?;
    visit(&cluster.conninfo("scram", r"'it\'s \\ secret'"))?;
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

fn sslmodes(installation: &Installation) -> ScenarioResult {
    if !installation.has_tls() {
        tools::missing("server with TLS", &format!("sslmode with {}", installation.name()));
        return Ok(());
    }
    let cluster = Cluster::options(installation)
        .tls()
        .hba("hostssl replication sealed 127.0.0.1/32 scram-sha-256")
        .hba("hostnossl replication sealed 127.0.0.1/32 reject")
        .hba("hostnossl replication bare 127.0.0.1/32 scram-sha-256")
        .hba("hostssl replication bare 127.0.0.1/32 reject")
        .hba("hostssl replication certified 127.0.0.1/32 cert")
        .start()?;
    for role in ["sealed", "bare", "certified"] {
        cluster.create_role(role, "secret", "REPLICATION")?;
    }
    let stranger = Cluster::options(installation).tls().create()?;
    let conninfo = |host: &str, user: &str, options: &str| {
        let port = cluster.port();
        format!("host={host} port={port} user={user} password=secret {options}")
    };
    let ours = format!("sslrootcert={}", cluster.ca_certificate().display());
    let theirs = format!("sslrootcert={}", stranger.ca_certificate().display());

    // Who insists on TLS, and who insists on none, are both reached by the modes that may.
    for (mode, sealed, bare) in [
        ("disable", false, true),
        ("allow", true, true),
        ("prefer", true, true),
        ("require", true, false),
        ("verify-ca", true, false),
        ("verify-full", true, false),
    ] {
        let options = format!("sslmode={mode} {ours}");
        let visited = visit(&conninfo("localhost", "sealed", &options));
        assert_eq!(visited.is_ok(), sealed, "{mode}: {visited:?}");
        let visited = visit(&conninfo("localhost", "bare", &options));
        assert_eq!(visited.is_ok(), bare, "{mode}: {visited:?}");
    }

    // What is verified, and what is not.
    let elsewhere = conninfo("elsewhere", "sealed", "hostaddr=127.0.0.1");
    visit(&format!("{elsewhere} sslmode=require"))?;
    visit(&format!("{elsewhere} sslmode=verify-ca {ours}"))?;
    for options in [
        format!("{elsewhere} sslmode=verify-full {ours}"),
        conninfo("localhost", "sealed", &format!("sslmode=verify-ca {theirs}")),
        conninfo("localhost", "sealed", &format!("sslmode=verify-full {theirs}")),
        // As in libpq: with a root certificate at hand, it is used.
        conninfo("localhost", "sealed", &format!("sslmode=require {theirs}")),
    ] {
        let error = visit(&options).unwrap_err();
        assert!(
            is_tls(&error, |e| matches!(e, TlsError::Certificate { .. })),
            "{options}: {error}"
        );
    }

    let identity = cluster.client_certificate("certified")?;
    let key =
        format!("sslcert={} sslkey={}", identity.certificate.display(), identity.key.display());
    let certified = conninfo("localhost", "certified", &format!("sslmode=verify-full {ours}"));
    visit(&format!("{certified} {key}"))?;
    assert!(visit(&certified).is_err(), "no certificate was needed");

    // SCRAM bound to the certificate is there from 11 on.
    let bound = conninfo(
        "localhost",
        "sealed",
        &format!("sslmode=verify-full {ours} channel_binding=require"),
    );
    let visited = visit(&bound);
    if installation.major >= 11 {
        visited?;
    } else {
        let error = visited.unwrap_err();
        assert!(
            is_auth(&error, |e| matches!(e, AuthError::ChannelBindingUnavailable { .. })),
            "{error}"
        );
    }

    // A server without TLS.
    let plain = Cluster::options(installation).start()?;
    plain.create_role("sealed", "secret", "REPLICATION")?;
    let there = |mode: &str| {
        format!("host=127.0.0.1 port={} user=sealed password=secret sslmode={mode}", plain.port())
    };
    visit(&there("prefer"))?;
    let error = visit(&there("require")).unwrap_err();
    assert!(is_tls(&error, |e| matches!(e, TlsError::Refused { .. })), "{error}");
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

fn is_tls(error: &Error, matches: impl Fn(&TlsError) -> bool) -> bool {
    last_cause(error, |cause| matches!(cause, Error::Tls(error) if matches(error)))
}

fn is_auth(error: &Error, matches: impl Fn(&AuthError) -> bool) -> bool {
    last_cause(error, |cause| matches!(cause, Error::Auth(error) if matches(error)))
}

fn last_cause(error: &Error, matches: impl Fn(&Error) -> bool) -> bool {
    match error {
        Error::Connect(attempts) => attempts.last().is_some_and(|attempt| matches(&attempt.cause)),
        error => matches(error),
    }
}
