//! The host loop and the ladder of encryptions, against servers that misbehave.

use std::collections::HashSet;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::test_config::config;
use super::{Stream, connect_any};
use crate::{
    AuthError, Config, ConfigError, ConnectAttempt, Endpoint, Error, Host, LoadBalanceHosts,
    ServerError, SqlState, SslCertMode, SslMode, SslNegotiation,
};

fn fatal(code: &str) -> Error {
    ServerError { severity: "FATAL".into(), code: SqlState::new(code), ..ServerError::default() }
        .into()
}

/// A server that accepts connections and says nothing.
async fn silent() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((tcp, _)) = listener.accept().await {
            open.push(tcp);
        }
    });
    port
}

/// A port where nobody listens.
async fn deserted() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

fn causes(error: Error) -> Vec<ConnectAttempt> {
    match error {
        Error::Connect(attempts) => attempts,
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn the_first_host_that_works_is_taken() {
    let config = config(SslMode::Disable, &[deserted().await, silent().await, silent().await]);
    let port = connect_any(&config, None, |_, host| async move { Ok(host.port) }).await.unwrap();
    assert_eq!(port, config.hosts[1].port);
}

#[tokio::test]
async fn every_failure_is_told() {
    let config = config(SslMode::Disable, &[deserted().await, silent().await]);
    let login = async |_, _| Err::<(), _>(fatal("57P03"));
    let error = connect_any(&config, None, login).await.unwrap_err();
    let text = error.to_string();
    let attempts = causes(error);
    assert_eq!(attempts.len(), 2);
    assert!(matches!(*attempts[0].cause, Error::Io(_)), "{text}");
    assert_eq!(attempts[1].cause.sql_state(), SqlState::new("57P03"), "{text}");
    for host in &config.hosts {
        assert!(text.contains(&format!("{host} (127.0.0.1): ")), "{text}");
    }
}

#[tokio::test]
async fn a_refused_login_ends_the_search() {
    let config = config(SslMode::Disable, &[silent().await, silent().await]);
    for make in [|| fatal("28P01"), || fatal("28000"), || AuthError::PasswordMissing.into()] {
        let login = async |_, _| Err::<(), _>(make());
        assert_eq!(causes(connect_any(&config, None, login).await.unwrap_err()).len(), 1);
    }
}

#[tokio::test]
async fn a_mistake_in_the_configuration_is_no_failed_attempt() {
    let config = config(SslMode::Disable, &[silent().await, silent().await]);
    let login = async |_, _| Err::<(), _>(ConfigError::Conflict("x".into()).into());
    assert!(matches!(connect_any(&config, None, login).await, Err(Error::Config(_))));
}

#[tokio::test]
async fn the_time_limit_includes_the_login_and_is_for_each_host() {
    let limit = Duration::from_millis(50);
    let config = Config {
        connect_timeout: Some(limit),
        ..config(SslMode::Disable, &[silent().await, silent().await])
    };
    let wait = async |mut stream: Stream, _| Ok(stream.read_u8().await?);
    let attempts = causes(connect_any(&config, None, wait).await.unwrap_err());
    assert_eq!(attempts.len(), 2);
    for attempt in attempts {
        assert!(matches!(*attempt.cause, Error::Timeout { limit: told, .. } if told == limit));
    }
}

#[cfg(unix)]
#[tokio::test]
async fn unix_sockets_are_never_asked_for_tls() {
    let directory = tempfile::tempdir().unwrap();
    let _listener = tokio::net::UnixListener::bind(directory.path().join(".s.PGSQL.5432")).unwrap();
    let mut config = config(SslMode::Require, &[]);
    let endpoint = Endpoint::Unix(directory.path().into());
    config.hosts.push(Host { endpoint, port: 5432, password: None });
    let is_tls = connect_any(&config, None, |stream, _| async move { Ok(stream.is_tls()) }).await;
    assert!(!is_tls.unwrap());
}

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn a_build_without_tls_says_so() {
    for (mode, possible) in [
        (SslMode::Allow, true),
        (SslMode::Prefer, true),
        (SslMode::Require, false),
        (SslMode::VerifyFull, false),
    ] {
        let config = config(mode, &[silent().await]);
        match connect_any(&config, None, |_, _| async { Ok(()) }).await {
            Ok(()) => assert!(possible, "{mode:?}"),
            Err(Error::Config(_)) => assert!(!possible, "{mode:?}"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_random_order_reaches_every_host_and_still_all_of_them() {
    let mut config = config(SslMode::Disable, &[silent().await, silent().await, silent().await]);
    config.load_balance_hosts = LoadBalanceHosts::Random;
    let mut reached = HashSet::new();
    for _ in 0..100 {
        reached.insert(connect_any(&config, None, async |_, host| Ok(host.port)).await.unwrap());
    }
    assert_eq!(reached.len(), 3);
    let error = connect_any(&config, None, async |_, _| Err::<(), _>(fatal("57P03"))).await;
    assert_eq!(causes(error.unwrap_err()).len(), 3);
}

#[tokio::test]
async fn options_set_one_by_one_are_checked_before_connecting() {
    let mut config = config(SslMode::Prefer, &[silent().await]);
    config.ssl_negotiation = SslNegotiation::Direct;
    let outcome = connect_any(&config, None, async |_, _| Ok(())).await;
    assert!(matches!(outcome, Err(Error::Config(ConfigError::Conflict(_)))));
    config.ssl_negotiation = SslNegotiation::Postgres;
    config.hosts.clear();
    let outcome = connect_any(&config, None, async |_, _| Ok(())).await;
    assert!(matches!(outcome, Err(Error::Config(ConfigError::Conflict(_)))));
}

#[tokio::test]
async fn a_client_certificate_that_must_be_used_needs_tls() {
    let mut config = config(SslMode::Disable, &[silent().await]);
    config.ssl_cert_mode = SslCertMode::Require;
    let error = connect_any(&config, None, async |_, _| Ok(())).await.unwrap_err();
    assert!(error.to_string().contains("the connection has no TLS"), "{error}");
}

/// The request for TLS and its answers.
#[cfg(feature = "tls")]
mod tls {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;

    use super::*;
    use crate::tls::test_server::{
        Behaviour, Identity, Seen, greet, serve, serve_with, server_config,
    };
    use crate::{Result, RootCert, TlsError};

    /// A server that answers the request for TLS with these bytes.
    async fn answering(answer: &'static [u8]) -> u16 {
        serve_with(async |mut tcp: TcpStream| {
            if is_request(&mut tcp).await {
                let _ = tcp.write_all(answer).await;
                // The client ends the connection.
                let _ = tcp.read_to_end(&mut Vec::new()).await;
            }
        })
        .await
    }

    /// A server that has TLS.
    async fn encrypting() -> u16 {
        let config = server_config(&Identity::self_signed(|_| {}), Behaviour::default());
        serve_with(move |mut tcp: TcpStream| {
            let config = config.clone();
            async move {
                if is_request(&mut tcp).await {
                    let _ = tcp.write_all(b"S").await;
                    greet(tcp, config).await;
                }
            }
        })
        .await
    }

    async fn is_request(tcp: &mut TcpStream) -> bool {
        let mut request = [0; 8];
        // Code and length as the protocol's documentation has them.
        tcp.read_exact(&mut request).await.is_ok()
            && request[..4] == 8_i32.to_be_bytes()
            && request[4..] == 80_877_103_i32.to_be_bytes()
    }

    /// Connects and logs in, where the n-th login gives the n-th of these; gives which of the
    /// logins were encrypted, and the outcome.
    async fn connect(mode: SslMode, port: u16, refusals: &[&str]) -> (Vec<bool>, Result<bool>) {
        let logins = Mutex::new(Vec::new());
        let outcome = connect_any(&config(mode, &[port]), None, async |stream: Stream, _| {
            let nth = {
                let mut logins = logins.lock().unwrap();
                logins.push(stream.is_tls());
                logins.len() - 1
            };
            match refusals.get(nth) {
                Some(code) => Err(fatal(code)),
                None => Ok(stream.is_tls()),
            }
        })
        .await;
        (logins.into_inner().unwrap(), outcome)
    }

    #[tokio::test]
    async fn a_server_with_tls_is_used_as_the_mode_says() {
        let port = encrypting().await;
        for (mode, encrypted) in [
            (SslMode::Disable, false),
            (SslMode::Allow, false),
            (SslMode::Prefer, true),
            (SslMode::Require, true),
        ] {
            let (_, outcome) = connect(mode, port, &[]).await;
            assert_eq!(outcome.unwrap(), encrypted, "{mode:?}");
        }
    }

    #[tokio::test]
    async fn a_direct_beginning_asks_for_nothing_and_never_falls_back() {
        let mut config = config(SslMode::Require, &[encrypting().await]);
        config.ssl_negotiation = SslNegotiation::Direct;
        let login = async |stream: Stream, _| Ok(Seen::read(stream).await?);
        // It waits for the request, as servers before 17 do, and hangs up.
        let error = connect_any(&config, None, login).await.unwrap_err();
        assert!(error.to_string().contains("before PostgreSQL 17"), "{error}");
        assert_eq!(causes(error).len(), 1);
        let behaviour =
            Behaviour { protocols: vec![b"postgresql".to_vec()], ..Behaviour::default() };
        config.hosts[0].port = serve(&Identity::self_signed(|_| {}), behaviour).await;
        assert!(connect_any(&config, None, login).await.unwrap().protocol);
    }

    #[tokio::test]
    async fn data_flows_and_the_login_can_be_bound() {
        let config = config(SslMode::Require, &[encrypting().await]);
        let login = async |stream: Stream, _| {
            // ECDSA with SHA-256, which is what the test's certificates are signed with.
            assert_eq!(stream.channel_binding().map(<[_]>::len), Some(32));
            Ok(Seen::read(stream).await?)
        };
        assert!(connect_any(&config, None, login).await.unwrap().sni);
    }

    #[tokio::test]
    async fn a_server_without_tls_is_used_unless_the_mode_insists() {
        let port = answering(b"N").await;
        let (logins, outcome) = connect(SslMode::Prefer, port, &[]).await;
        assert_eq!((logins, outcome.unwrap()), (vec![false], false));
        // The same connection goes on, so that another one would give the same.
        let (logins, outcome) = connect(SslMode::Prefer, port, &["28000"]).await;
        assert_eq!(logins, [false]);
        assert_eq!(causes(outcome.unwrap_err()).len(), 1);
        let (logins, outcome) = connect(SslMode::Require, port, &[]).await;
        assert!(logins.is_empty());
        let causes = causes(outcome.unwrap_err());
        assert!(matches!(*causes[0].cause, Error::Tls(TlsError::Refused { mode: "require" })));
    }

    #[tokio::test]
    async fn allow_tries_tls_where_the_login_without_it_fails() {
        let port = encrypting().await;
        let (logins, outcome) = connect(SslMode::Allow, port, &["28000"]).await;
        assert_eq!((logins, outcome.unwrap()), (vec![false, true], true));
        let (logins, _) = connect(SslMode::Allow, port, &["28P01"]).await;
        assert_eq!(logins, [false]);
    }

    #[tokio::test]
    async fn prefer_tries_without_tls_where_the_server_refuses_it() {
        let port = encrypting().await;
        let (logins, outcome) = connect(SslMode::Prefer, port, &["28000"]).await;
        assert_eq!((logins, outcome.unwrap()), (vec![true, false], false));
        let (logins, outcome) = connect(SslMode::Prefer, port, &["28000", "28000"]).await;
        assert_eq!(logins, [true, false]);
        assert_eq!(causes(outcome.unwrap_err()).len(), 2);
        let (logins, _) = connect(SslMode::Prefer, port, &["28P01"]).await;
        assert_eq!(logins, [true]);
    }

    #[tokio::test]
    async fn a_broken_handshake_is_final_unless_tls_is_only_preferred() {
        // Closes the connection where the handshake is due.
        let port = serve_with(async |mut tcp: TcpStream| {
            if is_request(&mut tcp).await {
                let _ = tcp.write_all(b"S").await;
            }
        })
        .await;
        let (logins, outcome) = connect(SslMode::Prefer, port, &[]).await;
        assert_eq!((logins, outcome.unwrap()), (vec![false], false));
        let (_, outcome) = connect(SslMode::Require, port, &[]).await;
        let causes = causes(outcome.unwrap_err());
        assert!(matches!(*causes[0].cause, Error::Tls(TlsError::Handshake { .. })));
    }

    #[tokio::test]
    async fn an_error_in_answer_to_the_request_is_not_shown() {
        let port = answering(b"Eyour password has expired, visit evil.example\0").await;
        let (_, outcome) = connect(SslMode::Require, port, &[]).await;
        let error = outcome.unwrap_err();
        assert!(!error.to_string().contains("evil"), "{error}");
        let (logins, _) = connect(SslMode::Prefer, port, &[]).await;
        assert_eq!(logins, [false]);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn files_that_cannot_be_read_yet_are_waited_for_no_longer_than_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.crt");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let config = Config {
            ssl_root_cert: Some(RootCert::File(path.clone())),
            connect_timeout: Some(Duration::from_millis(100)),
            ..config(SslMode::Require, &[silent().await])
        };
        let error = connect_any(&config, None, async |_, _| Ok(())).await.unwrap_err();
        // Lets the reader go.
        std::fs::write(&path, "").unwrap();
        assert!(matches!(*causes(error)[0].cause, Error::Timeout { .. }));
    }

    #[tokio::test]
    async fn any_other_answer_is_not_postgresqls() {
        for (answer, mode) in [(&b"HTTP/1.1"[..], SslMode::Prefer), (b"\0", SslMode::Require)] {
            let (logins, outcome) = connect(mode, answering(answer).await, &[]).await;
            assert!(logins.is_empty());
            assert!(matches!(*causes(outcome.unwrap_err())[0].cause, Error::Decode(_)));
        }
    }

    #[tokio::test]
    async fn plaintext_behind_the_answer_is_not_taken_for_the_servers() {
        // An AuthenticationOk, slipped in.
        let port = answering(b"SR\0\0\0\x08\0\0\0\0").await;
        for mode in [SslMode::Prefer, SslMode::Require] {
            let (logins, outcome) = connect(mode, port, &[]).await;
            assert!(logins.is_empty());
            let causes = causes(outcome.unwrap_err());
            assert!(matches!(*causes[0].cause, Error::Tls(TlsError::UnencryptedData)));
        }
    }

    #[tokio::test]
    async fn plaintext_that_comes_too_late_to_be_seen_breaks_the_handshake() {
        let port = serve_with(async |mut tcp: TcpStream| {
            if is_request(&mut tcp).await {
                let _ = tcp.write_all(b"S").await;
                let _ = tcp.read_u8().await;
                let _ = tcp.write_all(b"R\0\0\0\x08\0\0\0\0").await;
                let _ = tcp.read_to_end(&mut Vec::new()).await;
            }
        })
        .await;
        let (logins, outcome) = connect(SslMode::Require, port, &[]).await;
        assert!(logins.is_empty());
        assert!(matches!(
            *causes(outcome.unwrap_err())[0].cause,
            Error::Tls(TlsError::Handshake { .. })
        ));
    }

    #[tokio::test]
    async fn a_server_that_hangs_up_instead_of_answering_is_told_so() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let port = serve_with(move |mut tcp: TcpStream| {
            let counter = counter.clone();
            async move {
                is_request(&mut tcp).await;
                counter.fetch_add(1, Ordering::Relaxed);
            }
        })
        .await;
        let (_, outcome) = connect(SslMode::Require, port, &[]).await;
        assert!(matches!(*causes(outcome.unwrap_err())[0].cause, Error::Closed { .. }));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
