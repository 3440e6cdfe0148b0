//! TLS to real servers: every `sslmode`, both ways to begin, certificates of both sides.

use std::path::Path;
use std::process::Command;

use pgwire_stream::{AuthError, Config, Error, ReplicationClient, TlsConfig, TlsError, TlsVersion};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::walrecv::{self, Walrecv};
use walrecv_tests::{Cluster, Installation, tools};

use crate::library_connect::{is_auth, last_cause, visit};
use crate::runtime::block_on;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .every_major("library_sslmodes", sslmodes)
        .per_major("library_direct_tls", &[16, 17, 18], direct_tls)
        .per_major("library_revoked_certificate", &[18], revoked_certificate)
        .per_major("library_client_certificate", &[10, 18], client_certificate)
        .per_major("library_tls_versions", &[18], tls_versions)
        .per_major("library_system_roots", &[18], system_roots)
}

/// A server with TLS, and a role that must use it.
fn sealed_cluster(installation: &Installation) -> Result<Cluster, walrecv_tests::Failure> {
    let cluster = Cluster::options(installation)
        .tls()
        .hba("hostssl replication sealed 127.0.0.1/32 scram-sha-256")
        .hba("hostssl replication certified 127.0.0.1/32 cert")
        .start()?;
    for role in ["sealed", "certified"] {
        cluster.create_role(role, "secret", "REPLICATION")?;
    }
    Ok(cluster)
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
        let client = block_on(ReplicationClient::connect(&bound.parse::<Config>()?))?;
        assert!(client.authenticated_by().is_some_and(|used| used.channel_binding));
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

fn direct_tls(installation: &Installation) -> ScenarioResult {
    let cluster = sealed_cluster(installation)?;
    let conninfo = format!("{} sslnegotiation=direct", cluster.tls_conninfo("sealed", "secret"));
    match visit(&conninfo) {
        Ok(()) => assert!(installation.major >= 17),
        Err(error) => {
            assert!(installation.major < 17, "{error}");
            assert!(error.to_string().contains("before PostgreSQL 17"), "{error}");
            assert!(matches!(&error, Error::Connect(attempts) if attempts.len() == 1), "{error}");
        }
    }
    // The login can be bound to it as well.
    if installation.major >= 17 {
        visit(&format!("{conninfo} channel_binding=require"))?;
    }
    Ok(())
}

fn revoked_certificate(installation: &Installation) -> ScenarioResult {
    let cluster = sealed_cluster(installation)?;
    let conninfo = |revoked: bool| -> Result<String, walrecv_tests::Failure> {
        let list = cluster.revocation_list(revoked)?;
        let options = cluster.tls_conninfo("sealed", "secret");
        Ok(format!("{options} sslcrl={}", list.display()))
    };
    visit(&conninfo(false)?)?;
    let error = visit(&conninfo(true)?).unwrap_err();
    assert!(error.to_string().contains("it has been revoked"), "{error}");
    // The same when the files were read before.
    for (revoked, accepted) in [(false, true), (true, false)] {
        let config: Config = conninfo(revoked)?.parse()?;
        let tls = TlsConfig::from_config(&config)?;
        let connected = block_on(ReplicationClient::connect_with(&config, tls));
        assert_eq!(connected.is_ok(), accepted);
    }
    Ok(())
}

fn client_certificate(installation: &Installation) -> ScenarioResult {
    let cluster = sealed_cluster(installation)?;
    let identity = cluster.client_certificate("certified")?;
    let conninfo = |key: &Path, options: &str| {
        format!(
            "{} sslcert={} sslkey={} {options}",
            cluster.tls_conninfo("certified", "x"),
            identity.certificate.display(),
            key.display()
        )
    };
    visit(&conninfo(&identity.key, "sslcertmode=require"))?;
    // The server refuses, and not we.
    let error = visit(&conninfo(&identity.key, "sslcertmode=disable")).unwrap_err();
    assert_eq!(error.sql_state().map(|code| code.to_string()), Some("28000".into()), "{error}");

    let encrypted = cluster.base_directory().join("encrypted.key");
    let made = Command::new("openssl")
        .args(["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "pass:it is secret", "-in"])
        .arg(&identity.key)
        .arg("-out")
        .arg(&encrypted)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        tools::missing("openssl", "encrypted client keys");
        return Ok(());
    }
    visit(&conninfo(&encrypted, "sslpassword='it is secret'"))?;
    let error = visit(&conninfo(&encrypted, "sslpassword=hunter2")).unwrap_err();
    assert!(is_tls(&error, |e| matches!(e, TlsError::File { .. })), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    Ok(())
}

fn tls_versions(installation: &Installation) -> ScenarioResult {
    let cluster = sealed_cluster(installation)?;
    let conninfo = cluster.tls_conninfo("sealed", "secret");
    visit(&format!("{conninfo} ssl_max_protocol_version=TLSv1.2"))?;
    cluster.execute("ALTER SYSTEM SET ssl_max_protocol_version = 'TLSv1.2'")?;
    cluster.reload()?;
    cluster.wait_for("the new version", |cluster| {
        Ok(cluster.value("SHOW ssl_max_protocol_version")? == "TLSv1.2")
    })?;
    visit(&conninfo)?;
    let client = block_on(ReplicationClient::connect(&conninfo.parse::<Config>()?))?;
    let used = client.tls().map(|tls| (tls.version, tls.cipher.starts_with("TLS_")));
    assert_eq!(used, Some((TlsVersion::V1_2, true)));
    let error = visit(&format!("{conninfo} ssl_min_protocol_version=TLSv1.3")).unwrap_err();
    assert!(is_tls(&error, |e| matches!(e, TlsError::Handshake { .. })), "{error}");
    Ok(())
}

/// With the product's own binary, which can be given an environment.
fn system_roots(installation: &Installation) -> ScenarioResult {
    let cluster = sealed_cluster(installation)?;
    let init = |host: &str, roots: &Path| -> Result<walrecv::Output, walrecv_tests::Failure> {
        let walrecv = Walrecv::new(&format!(
            "[servers.main]\nconninfo = \"host={host} hostaddr=127.0.0.1 port={} user=sealed \
             password=secret sslrootcert=system\"\n",
            cluster.port()
        ))?;
        let mut command = walrecv.command(&["init", "main"])?;
        walrecv::finish(command.env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR"))
    };
    init("localhost", &cluster.ca_certificate())?.success()?;
    let output = init("elsewhere", &cluster.ca_certificate())?;
    assert!(output.code != 0 && output.stderr.contains("elsewhere"), "{}", output.stderr);
    let stranger = Cluster::options(installation).tls().create()?;
    assert_ne!(init("localhost", &stranger.ca_certificate())?.code, 0);
    Ok(())
}

fn is_tls(error: &Error, matches: impl Fn(&TlsError) -> bool) -> bool {
    last_cause(error, |cause| matches!(cause, Error::Tls(error) if matches(error)))
}
