//! The other options: how TLS is begun, its versions, its names, the client's certificate, the log.

use std::sync::Arc;

use super::*;
use crate::{Password, SslCertMode, SslNegotiation, TlsVersion};

#[tokio::test]
async fn a_direct_beginning_needs_the_protocol_to_be_selected() {
    let server = Identity::self_signed(|_| {});
    let mut config = config(SslMode::Require, &[]);
    for (negotiation, protocols, accepted) in [
        (SslNegotiation::Direct, vec![b"postgresql".to_vec()], true),
        (SslNegotiation::Direct, vec![], false),
        (SslNegotiation::Postgres, vec![], true),
    ] {
        config.ssl_negotiation = negotiation;
        let port = serve(&server, Behaviour { protocols, ..Behaviour::default() }).await;
        let outcome = connect(&config, HOST, port).await;
        assert_eq!(outcome.is_ok(), accepted, "{negotiation:?}: {outcome:?}");
        if let Err(error) = outcome {
            assert!(error.to_string().contains("did not select"), "{error}");
        }
    }
}

#[tokio::test]
async fn versions_are_kept_within_their_limits() {
    use TlsVersion::{V1_2, V1_3};
    let server = Identity::self_signed(|_| {});
    for (spoken, min, max, accepted) in [
        (&rustls::version::TLS12, V1_2, V1_3, true),
        (&rustls::version::TLS12, V1_2, V1_2, true),
        (&rustls::version::TLS12, V1_3, V1_3, false),
        (&rustls::version::TLS13, V1_3, V1_3, true),
        (&rustls::version::TLS13, V1_2, V1_2, false),
    ] {
        let behaviour = Behaviour { version: Some(spoken), ..Behaviour::default() };
        let port = serve(&server, behaviour).await;
        let config = Config {
            ssl_min_protocol_version: min,
            ssl_max_protocol_version: max,
            ..config(SslMode::Require, &[])
        };
        let outcome = connect(&config, HOST, port).await;
        assert_eq!(outcome.is_ok(), accepted, "{spoken:?} {min:?} {max:?}");
    }
}

#[tokio::test]
async fn the_name_can_be_kept_from_the_server() {
    let port = serve(&Identity::self_signed(|_| {}), Behaviour::default()).await;
    let config = Config { ssl_sni: false, ..config(SslMode::Require, &[]) };
    assert!(!connect(&config, HOST, port).await.unwrap().sni);
}

#[tokio::test]
async fn the_clients_certificate_is_shown_as_its_mode_says() {
    let files = Files::new();
    let authority = Authority::new("clients");
    let client = authority.issue(|_| {});
    let server = Identity::self_signed(|_| {});
    let asking =
        Behaviour { clients_of: Some(authority.certificate.clone()), ..Behaviour::default() };
    let asking = serve(&server, asking).await;
    let silent = serve(&server, Behaviour::default()).await;
    let mut config = Config {
        ssl_cert: Some(files.write("postgresql.crt", &client.certificate_pem)),
        ssl_key: Some(files.write("postgresql.key", &client.key_pem)),
        ..config(SslMode::Require, &[])
    };
    for (mode, by_asking, by_silent) in [
        (SslCertMode::Disable, false, true),
        (SslCertMode::Allow, true, true),
        (SslCertMode::Require, true, false),
    ] {
        config.ssl_cert_mode = mode;
        assert_eq!(connect(&config, HOST, asking).await.is_ok(), by_asking, "{mode:?}");
        let outcome = connect(&config, HOST, silent).await;
        assert_eq!(outcome.is_ok(), by_silent, "{mode:?}");
        if let Err(error) = outcome {
            assert!(matches!(error, Error::Tls(TlsError::CertificateNotUsed { .. })), "{error}");
        }
    }
    config.ssl_cert = None;
    assert!(matches!(TlsConfig::from_config(&config), Err(Error::Config(_))));
}

#[test]
fn an_encrypted_key_is_used_with_its_password() {
    let files = Files::new();
    let mut config = Config {
        ssl_cert: Some(files.write("postgresql.crt", include_str!("../fixtures/version-1.pem"))),
        ssl_key: Some(files.write("postgresql.key", include_str!("../fixtures/encrypted.key"))),
        ..config(SslMode::Require, &[])
    };
    config.ssl_password = Some(Password::new("secret"));
    TlsConfig::from_config(&config).unwrap();
    for (password, reason) in
        [(Some("wrong"), "sslpassword is wrong"), (None, "sslpassword is not set")]
    {
        config.ssl_password = password.map(Password::new);
        let error = TlsConfig::from_config(&config).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[tokio::test]
async fn the_secrets_are_logged_where_they_are_asked_for() {
    let files = Files::new();
    let path = files.write("log", "# before\n");
    let port = serve(&Identity::self_signed(|_| {}), Behaviour::default()).await;
    let mut config =
        Config { ssl_key_log_file: Some(path.clone()), ..config(SslMode::Require, &[]) };
    connect(&config, HOST, port).await.unwrap();
    let log = std::fs::read_to_string(&path).unwrap();
    assert!(log.starts_with("# before\n"));
    let secret = log.lines().find(|line| line.starts_with("CLIENT_TRAFFIC_SECRET_0 ")).unwrap();
    let lengths: Vec<_> = secret.split(' ').skip(1).map(str::len).collect();
    assert!(lengths[0] == 64 && lengths[1] >= 64, "{secret}");

    let fresh = path.with_file_name("fresh");
    config.ssl_key_log_file = Some(fresh.clone());
    TlsConfig::from_config(&config).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(fresh).unwrap().permissions().mode() & 0o777, 0o600);
    }
    config.ssl_key_log_file = Some("/nonexistent/log".into());
    assert!(matches!(TlsConfig::from_config(&config), Err(Error::Tls(TlsError::File { .. }))));
}

#[tokio::test]
async fn a_configuration_of_ones_own_decides_about_trust() {
    let [ours, theirs] = [Authority::new("ours"), Authority::new("theirs")];
    let behaviour = Behaviour { protocols: vec![b"postgresql".to_vec()], ..Behaviour::default() };
    let port = serve(&ours.issue(|_| {}), behaviour).await;
    for (authority, accepted) in [(&ours, true), (&theirs, false)] {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.certificate.clone()).unwrap();
        let provider = Arc::new(super::super::provider().unwrap());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = TlsConfig::custom(Arc::new(client));
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let config =
            Config { ssl_negotiation: SslNegotiation::Direct, ..config(SslMode::Require, &[]) };
        match tls.handshake(&config, HOST, tcp).await {
            Ok(stream) => assert!(accepted && Seen::read(stream).await.unwrap().protocol),
            Err(error) => assert!(!accepted, "{error}"),
        }
    }
}

#[tokio::test]
async fn what_was_made_for_a_weak_mode_is_not_used_for_a_strong_one() {
    let files = Files::new();
    let server = Identity::self_signed(|_| {});
    let root = Some(RootCert::File(files.write("root.crt", &server.certificate_pem)));
    let config = |mode| Config { ssl_root_cert: root.clone(), ..config(mode, &[]) };
    let port = serve(&server, Behaviour::default()).await;
    for (made_for, used_for, accepted) in [
        (SslMode::Prefer, SslMode::VerifyFull, false),
        (SslMode::Require, SslMode::VerifyCa, false),
        (SslMode::VerifyCa, SslMode::VerifyFull, false),
        (SslMode::VerifyFull, SslMode::VerifyFull, true),
        (SslMode::VerifyFull, SslMode::Require, true),
    ] {
        let tls = TlsConfig::from_config(&config(made_for)).unwrap();
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        match tls.handshake(&config(used_for), HOST, tcp).await {
            Ok(_) => assert!(accepted, "{made_for:?} {used_for:?}"),
            Err(Error::Config(_)) => assert!(!accepted, "{made_for:?} {used_for:?}"),
            Err(error) => panic!("{error}"),
        }
    }
}
