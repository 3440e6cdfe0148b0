//! Every `sslmode` against every kind of certificate, over loopback.

use rcgen::{DnType, SanType, date_time_ymd};
use tokio::net::TcpStream;

use super::TlsConfig;
use super::test_server::{Authority, Behaviour, Files, HOST, Identity, Seen, serve};
use crate::net::test_config::config;
use crate::{Config, Error, Result, RootCert, SslMode, TlsError};

mod options;
mod revocation;
mod roots;

const MODES: [SslMode; 5] =
    [SslMode::Allow, SslMode::Prefer, SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull];

/// The modes, by their first letters (`C` and `F` for the two that verify), that accept the server.
async fn accepted_by(files: &Files, root: Option<&str>, server: &Identity, name: &str) -> String {
    let port = serve(server, Behaviour::default()).await;
    let root = root.map(|pem| RootCert::File(files.write("root.crt", pem)));
    let mut accepted = String::new();
    for (mode, letter) in MODES.into_iter().zip("apRCF".chars()) {
        let config = Config { ssl_root_cert: root.clone(), ..config(mode, &[]) };
        match connect(&config, name, port).await {
            Ok(_) => accepted.push(letter),
            Err(Error::Tls(TlsError::Certificate { .. }) | Error::Config(_)) => {}
            Err(error) => panic!("{mode:?}: {error}"),
        }
    }
    accepted
}

async fn connect(config: &Config, name: &str, port: u16) -> Result<Seen> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    let stream = TlsConfig::from_config(config)?.handshake(config, name, tcp).await?;
    Seen::read(stream).await.map_err(super::explain)
}

#[tokio::test]
async fn the_chain_matters_from_require_with_a_root_on() {
    let files = Files::new();
    let authority = Authority::new("root");
    let server = authority.issue(|_| {});
    let root = Some(authority.certificate_pem.as_str());
    assert_eq!(accepted_by(&files, root, &server, HOST).await, "apRCF");
    assert_eq!(accepted_by(&files, None, &server, HOST).await, "apR");
    let other = Authority::new("root").certificate_pem;
    assert_eq!(accepted_by(&files, Some(&other), &server, HOST).await, "ap");
    let both = other + &authority.certificate_pem;
    assert_eq!(accepted_by(&files, Some(&both), &server, HOST).await, "apRCF");
}

#[tokio::test]
async fn the_name_matters_to_verify_full_alone() {
    let files = Files::new();
    let authority = Authority::new("root");
    let server = authority.issue(|_| {});
    let root = Some(authority.certificate_pem.as_str());
    assert_eq!(accepted_by(&files, root, &server, "elsewhere").await, "apRC");
    assert_eq!(accepted_by(&files, root, &server, "127.0.0.1").await, "apRC");
    let by_address = authority.issue(|params| {
        params.subject_alt_names.push(SanType::IpAddress("127.0.0.1".parse().unwrap()));
    });
    assert_eq!(accepted_by(&files, root, &by_address, "127.0.0.1").await, "apRCF");
    let link_local = authority.issue(|params| {
        params.subject_alt_names.push(SanType::IpAddress("fe80::1".parse().unwrap()));
    });
    assert_eq!(accepted_by(&files, root, &link_local, "fe80::1%eth0").await, "apRCF");
    // No name by TLS' rules, but by those of the system's resolver.
    assert_eq!(accepted_by(&files, root, &by_address, "127.1").await, "apRC");
    let by_common_name = authority.issue(|params| {
        params.subject_alt_names.clear();
        params.distinguished_name.push(DnType::CommonName, HOST);
    });
    assert_eq!(accepted_by(&files, root, &by_common_name, HOST).await, "apRCF");
}

#[tokio::test]
async fn expired_certificates_fail_where_the_chain_matters() {
    let files = Files::new();
    let authority = Authority::new("root");
    let server = authority.issue(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let root = Some(authority.certificate_pem.as_str());
    assert_eq!(accepted_by(&files, root, &server, HOST).await, "ap");
    let early = authority.issue(|params| params.not_before = date_time_ymd(3000, 1, 1));
    assert_eq!(accepted_by(&files, root, &early, HOST).await, "ap");
}

#[tokio::test]
async fn a_self_signed_certificate_can_be_its_own_root() {
    let files = Files::new();
    let server = Identity::self_signed(|_| {});
    let root = Some(server.certificate_pem.as_str());
    assert_eq!(accepted_by(&files, root, &server, HOST).await, "apRCF");
    assert_eq!(accepted_by(&files, root, &server, "elsewhere").await, "apRC");
    let impostor = Identity::self_signed(|_| {});
    assert_eq!(accepted_by(&files, root, &impostor, HOST).await, "ap");
    let expired = Identity::self_signed(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let root = Some(expired.certificate_pem.as_str());
    assert_eq!(accepted_by(&files, root, &expired, HOST).await, "ap");
}

#[tokio::test]
async fn certificates_of_version_1_are_accepted_from_the_root_itself() {
    let files = Files::new();
    let root = include_str!("fixtures/version-1-root.pem");
    let server = Identity::from_pem(
        include_str!("fixtures/version-1.pem"),
        include_str!("fixtures/version-1.key"),
    );
    assert_eq!(accepted_by(&files, Some(root), &server, "db.example.com").await, "apRCF");
    assert_eq!(accepted_by(&files, Some(root), &server, HOST).await, "apRC");
    // The issuer's name is not enough.
    let other = Identity::self_signed(|params| {
        params.distinguished_name.push(DnType::CommonName, "db.example.com");
    });
    let other = Some(other.certificate_pem.as_str());
    assert_eq!(accepted_by(&files, other, &server, "db.example.com").await, "ap");
}

#[tokio::test]
async fn the_handshakes_signature_is_verified_in_every_mode() {
    let owner = Authority::new("root").issue(|_| {});
    let version_1 = include_str!("fixtures/version-1.pem");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let honest = Identity::from_pem(version_1, include_str!("fixtures/version-1.key"));
        for (server, accepted) in [
            (&honest, true),
            (&Identity::from_pem(version_1, &owner.key_pem), false),
            (&owner, true),
            (
                &Identity::from_pem(&owner.certificate_pem, include_str!("fixtures/version-1.key")),
                false,
            ),
        ] {
            let behaviour = Behaviour { version: Some(version), ..Behaviour::default() };
            let port = serve(server, behaviour).await;
            let outcome = connect(&config(SslMode::Require, &[]), HOST, port).await;
            assert_eq!(outcome.is_ok(), accepted, "{version:?}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn names_are_sent_to_the_server_and_addresses_are_not() {
    let port = serve(&Identity::self_signed(|_| {}), Behaviour::default()).await;
    let config = config(SslMode::Require, &[]);
    for name in [HOST, "a_service", "db.example.com"] {
        assert!(connect(&config, name, port).await.unwrap().sni, "{name}");
    }
    for address in ["127.0.0.1", "::1", "fe80::1%eth0"] {
        assert!(!connect(&config, address, port).await.unwrap().sni, "{address}");
    }
}

#[tokio::test]
async fn the_protocol_is_postgresql_or_none() {
    let server = Identity::self_signed(|_| {});
    let config = config(SslMode::Require, &[]);
    for (protocols, expected) in [
        (vec![b"postgresql".to_vec()], Some(true)),
        (vec![], Some(false)),
        (vec![b"h2".to_vec()], None),
    ] {
        let port = serve(&server, Behaviour { protocols, ..Behaviour::default() }).await;
        let seen = connect(&config, HOST, port).await;
        assert_eq!(seen.ok().map(|seen| seen.protocol), expected);
    }
}

#[tokio::test]
async fn the_clients_certificate_is_shown() {
    let files = Files::new();
    let authority = Authority::new("clients");
    let client = authority.issue(|_| {});
    let behaviour =
        Behaviour { clients_of: Some(authority.certificate.clone()), ..Behaviour::default() };
    let port = serve(&Identity::self_signed(|_| {}), behaviour).await;
    let without = config(SslMode::Require, &[]);
    assert!(matches!(
        connect(&without, HOST, port).await,
        Err(Error::Tls(TlsError::Handshake { .. }))
    ));
    let with = Config {
        ssl_cert: Some(files.write("postgresql.crt", &client.certificate_pem)),
        ssl_key: Some(files.write("postgresql.key", &client.key_pem)),
        ..without
    };
    assert_eq!(connect(&with, HOST, port).await.unwrap().certificates, 1);
}

#[test]
fn unusable_files_are_named_with_the_reason() {
    let files = Files::new();
    let client = Identity::self_signed(|_| {});
    let certificate = files.write("postgresql.crt", &client.certificate_pem);
    let encrypted = files.write("encrypted.key", include_str!("fixtures/encrypted.key"));
    let foreign = files.write("foreign.key", include_str!("fixtures/version-1.key"));
    let missing = files.write("x", "").with_file_name("missing");
    let empty = files.write("empty", "nothing\n");
    for (certificate, key, reason) in [
        (&certificate, &encrypted, "it is encrypted, and sslpassword is not set"),
        (&certificate, &foreign, "not the key of the certificate"),
        (&certificate, &missing, "No such file"),
        (&certificate, &empty, "no key in it"),
        (&empty, &foreign, "no certificate in it"),
        (&missing, &foreign, "No such file"),
    ] {
        let config = Config {
            ssl_cert: Some(certificate.clone()),
            ssl_key: Some(key.clone()),
            ..config(SslMode::Prefer, &[])
        };
        let Err(error @ Error::Tls(TlsError::File { .. })) = TlsConfig::from_config(&config) else {
            panic!("{reason}");
        };
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_key_that_the_group_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let files = Files::new();
    let client = Identity::self_signed(|_| {});
    let key = files.write("postgresql.key", &client.key_pem);
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let config = Config {
        ssl_cert: Some(files.write("postgresql.crt", &client.certificate_pem)),
        ssl_key: Some(key),
        ..config(SslMode::Prefer, &[])
    };
    let Err(error) = TlsConfig::from_config(&config) else { panic!() };
    assert!(error.to_string().contains("permissions"), "{error}");
}

#[tokio::test]
async fn an_unacceptable_certificate_is_told_with_the_reason() {
    let files = Files::new();
    let server = Identity::self_signed(|_| {});
    let other = Authority::new("root");
    let expired =
        Authority::made_by(None, "root", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let port = serve(&server, Behaviour::default()).await;
    for (name, root, reason) in [
        (
            "elsewhere",
            &server.certificate_pem,
            "it is not for `elsewhere`; its names are: localhost",
        ),
        (HOST, &other.certificate_pem, "it leads to none of the trusted root certificates"),
        (
            HOST,
            &expired.certificate_pem,
            "no trusted root certificate is valid now and may sign others",
        ),
    ] {
        let ssl_root_cert = Some(RootCert::File(files.write("root.crt", root)));
        let config = Config { ssl_root_cert, ..config(SslMode::VerifyFull, &[]) };
        match connect(&config, name, port).await {
            Err(Error::Tls(TlsError::Certificate { reason: told })) => assert_eq!(told, reason),
            outcome => panic!("{outcome:?}"),
        }
    }
}

#[test]
fn verification_without_roots_is_a_mistake_in_the_configuration() {
    for mode in [SslMode::VerifyCa, SslMode::VerifyFull] {
        assert!(matches!(TlsConfig::from_config(&config(mode, &[])), Err(Error::Config(_))));
    }
}
