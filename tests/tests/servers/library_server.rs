//! The library's server end, judged by PostgreSQL's own client library.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pgwire_stream::proto::{
    Authentication, BackendMessage, CancelKey, Columns, ProtocolVersion, Replication, Row,
    ScramVerifier, ServerEvent, TransactionStatus,
};
use pgwire_stream::server::{Accepted, ServerConnection, ServerOptions};
use pgwire_stream::{Password, ServerError};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, pki_types::PrivatePkcs8KeyDer};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::tools;

use crate::runtime::block_on;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .once("library_server_serves_libpq_with_scram_and_protocol_3_2", serves_libpq)
        .once("library_server_binds_libpq_to_its_certificate", binds)
        .once("library_server_is_cancelled_by_libpq", is_cancelled)
        .once("library_server_refuses_as_libpq_expects", refuses)
}

/// A key as servers from 18 on send it.
fn key() -> CancelKey {
    CancelKey::new(4711, vec![0xa5; 32]).unwrap()
}

fn options() -> ServerOptions {
    let mut options = ServerOptions::default();
    options.authentication = Authentication::scram_sha_256(&Password::new("it's secret"));
    options.cancel_key = Some(key());
    options
}

/// psql of 18 or newer, with a command and a way to us.
fn psql(program: &Path, port: u16, more: &str, command: &str) -> Child {
    let conninfo = format!(
        "host=127.0.0.1 port={port} user=walrecv dbname=postgres replication=true \
         password='it\\'s secret' connect_timeout=10 {more}"
    );
    Command::new(program)
        .args(["-X", "-A", "-t", "-v", "VERBOSITY=verbose", "-c", command, "-d", &conninfo])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What psql printed: its answer or its complaint.
fn printed(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    String::from_utf8(text).unwrap()
}

async fn accept(listener: &TcpListener) -> Accepted<TcpStream> {
    let wait = Duration::from_secs(20);
    let (stream, _) = tokio::time::timeout(wait, listener.accept()).await.unwrap().unwrap();
    ServerConnection::accept(stream, options()).await.unwrap()
}

async fn session(listener: &TcpListener) -> ServerConnection<TcpStream> {
    match accept(listener).await {
        Accepted::Session(session) => session,
        Accepted::Cancel(..) => panic!("a cancel request came first"),
    }
}

/// Runs a scenario with psql, if there is one that is new enough.
fn with_psql<F: Future<Output = ()>>(
    scenario: impl FnOnce(&'static Path, TcpListener, u16) -> F,
) -> ScenarioResult {
    let Some(program) = tools::for_server("psql", 18) else {
        tools::missing("psql of 18", "the library's server end");
        return Ok(());
    };
    let program = Box::leak(program.into_boxed_path());
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        scenario(program, listener, port).await;
    });
    Ok(())
}

fn serves_libpq() -> ScenarioResult {
    with_psql(|program, listener, port| async move {
        for (version, range) in [
            (ProtocolVersion::V3_2, "min_protocol_version=3.2 max_protocol_version=3.2"),
            (ProtocolVersion::V3_0, "max_protocol_version=3.0"),
        ] {
            let range = format!("{range} require_auth=scram-sha-256");
            let child = psql(program, port, &range, "IDENTIFY_SYSTEM");
            let mut options = options();
            if version == ProtocolVersion::V3_0 {
                options.cancel_key = None;
            }
            let (stream, _) = listener.accept().await.unwrap();
            let accepted = ServerConnection::accept(stream, options).await.unwrap();
            let Accepted::Session(mut session) = accepted else { panic!("no session") };
            assert_eq!(session.session().protocol_version(), version);
            let asked = session.next_event().await.unwrap();
            assert_eq!(asked, ServerEvent::Query("IDENTIFY_SYSTEM".into()));
            let columns = Columns::of_text(&["systemid", "timeline", "xlogpos", "dbname"]);
            let row = Row::of_text(&[Some("7357089276153"), Some("3"), Some("0/3000148"), None]);
            session.answer(columns, [row], "IDENTIFY_SYSTEM").unwrap();
            assert_eq!(session.next_event().await.unwrap(), ServerEvent::Terminate);
            assert_eq!(printed(child), "7357089276153|3|0/3000148|\n");
        }
    })
}

/// TLS, with a certificate made for this, and its hash.
fn tls() -> (TlsAcceptor, Vec<u8>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    // The certificate is signed with ECDSA and SHA-256.
    let hash = Sha256::digest(&certificate).to_vec();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), hash)
}

/// SCRAM-SHA-256-PLUS, which libpq insists on; with another certificate's hash it is refused.
fn binds() -> ScenarioResult {
    with_psql(|program, listener, port| async move {
        let (acceptor, hash) = tls();
        for genuine in [true, false] {
            let insist = "sslmode=require channel_binding=require";
            let child = psql(program, port, insist, "IDENTIFY_SYSTEM");
            let (stream, _) = listener.accept().await.unwrap();
            let mut plain = ServerConnection::new(stream, ProtocolVersion::LATEST);
            assert_eq!(plain.next_event().await.unwrap(), ServerEvent::TlsRequest);
            let (stream, session) = plain.grant_tls().await.unwrap();
            let encrypted = acceptor.accept(stream).await.unwrap();
            let mut server = ServerConnection::resume(encrypted, session);
            let asked = server.next_event().await.unwrap();
            assert!(matches!(asked, ServerEvent::Startup(_)), "{asked:?}");
            let verifier = ScramVerifier::from_password(&Password::new("it's secret"));
            let hash = if genuine { hash.clone() } else { Sha256::digest("another").to_vec() };
            let channel_binding = Some(hash.into());
            let login = Authentication::ScramSha256 { verifier, channel_binding };
            let let_in = server.authenticate(login).await;
            if genuine {
                let_in.unwrap();
                server.begin(&ServerOptions::default()).await.unwrap();
                let asked = server.next_event().await.unwrap();
                assert_eq!(asked, ServerEvent::Query("IDENTIFY_SYSTEM".into()));
                let row = Row::of_text(&[Some("7357089276153")]);
                server.answer(Columns::of_text(&["systemid"]), [row], "IDENTIFY_SYSTEM").unwrap();
                assert_eq!(server.next_event().await.unwrap(), ServerEvent::Terminate);
                assert_eq!(printed(child), "7357089276153\n");
            } else {
                assert_eq!(let_in.unwrap_err().sql_state().unwrap().as_str(), "28000");
                let complaint = printed(child);
                assert!(complaint.contains("channel binding check failed"), "{complaint}");
            }
        }
    })
}

fn is_cancelled() -> ScenarioResult {
    with_psql(|program, listener, port| async move {
        let child = psql(program, port, "max_protocol_version=3.2", "BASE_BACKUP");
        let mut session = session(&listener).await;
        let asked = session.next_event().await.unwrap();
        assert_eq!(asked, ServerEvent::Query("BASE_BACKUP".into()));

        let process = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(process, Signal::INT).unwrap();
        let Accepted::Cancel(named, stream) = accept(&listener).await else {
            panic!("no cancel request");
        };
        assert_eq!(named, key());
        drop(stream);

        let problem = "canceling statement due to user request";
        let error = ServerError::new("ERROR", "57014", problem);
        session.say(&BackendMessage::ErrorResponse(error)).unwrap();
        session.say(&BackendMessage::ReadyForQuery(TransactionStatus::Idle)).unwrap();
        assert_eq!(session.next_event().await.unwrap(), ServerEvent::Terminate);
        let printed = printed(child);
        assert!(printed.contains(&format!("57014: {problem}")), "{printed}");
    })
}

fn refuses() -> ScenarioResult {
    with_psql(|program, listener, port| async move {
        // The older protocol of a server before 18, and a client that insists on the newer.
        let child = psql(program, port, "min_protocol_version=3.2", "SHOW x");
        let (stream, _) = listener.accept().await.unwrap();
        let mut old = ServerConnection::new(stream, ProtocolVersion::V3_0);
        let startup = loop {
            match old.next_event().await.unwrap() {
                ServerEvent::TlsRequest => old.decline_tls().unwrap(),
                ServerEvent::Startup(startup) => break startup,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((&*startup.user, startup.replication), ("walrecv", Replication::Physical));
        old.send().await.unwrap();
        let complaint = printed(child);
        assert!(complaint.contains("3.0") && complaint.contains("3.2"), "{complaint}");

        let child = psql(program, port, "password=wrong", "SHOW x");
        let (stream, _) = listener.accept().await.unwrap();
        let refused = ServerConnection::accept(stream, options()).await.err().unwrap();
        assert_eq!(refused.sql_state().unwrap().as_str(), "28P01");
        let complaint = printed(child);
        assert!(complaint.contains("password authentication failed for user \"walrecv\""));
    })
}
