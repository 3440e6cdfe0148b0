//! Both ends of a login, and somebody between them.

use bytes::{Bytes, BytesMut};

use crate::proto::{
    Authentication, BackendMessage, Credentials, ProtocolRange, ProtocolVersion, ScramVerifier,
    ServerEvent, ServerSession, Session, TlsBinding, TransactionStatus,
};
use crate::{Error, Password};

/// The password `secret`, in one iteration: what takes its time is not what is tested here.
const VERIFIER: &str = "SCRAM-SHA-256$1:c2FsdHNhbHRzYWx0c2FsdA==\
    $03wBIFW79nT8pWEWcElBzplnn8dKKnxzI9TjuI/JODU=:m73G7+EfOkBsR94WhDDKAy6ptSJ9vCOtT7wcUuuy4Uc=";

/// What stands for the hash of the server's certificate.
const CERTIFICATE: Bytes = Bytes::from_static(b"hash");

/// How a server authenticates, by the lowest bits of a number.
pub(super) fn authentication(options: u8) -> Authentication {
    let secret = Some(Password::new("secret"));
    let verifier = ScramVerifier::parse(VERIFIER).unwrap();
    match options & 7 {
        0 => Authentication::Trust,
        1 => Authentication::Password(secret),
        2 => Authentication::Md5(secret),
        3 => Authentication::Password(None),
        4..=5 => Authentication::ScramSha256 { verifier, channel_binding: None },
        _ => Authentication::ScramSha256 { verifier, channel_binding: Some(CERTIFICATE) },
    }
}

/// A login. The first byte chooses how the client is authenticated, the second how everything is
/// cut; three bytes each change a byte of the authentication messages on their way: where it stands
/// in all of them together, and how.
///
/// Asserted: without changes, both ends come to the same end; with SCRAM, nobody is logged in who
/// was lied to. The ends are random, so a find may need a few runs to come back.
pub fn login(data: &[u8]) {
    let [options, cut, changes @ ..] = data else { return };
    let (bound, mechanism) = match options & 6 {
        6 => (TlsBinding::ServerEndPoint(CERTIFICATE), "SCRAM-SHA-256-PLUS"),
        _ => (TlsBinding::NoTls, "SCRAM-SHA-256"),
    };
    let mut wire = Wire { changes, mechanism, passed: 0, changed: false, lied: false };
    let mut credentials = Credentials::new("walrecv", Some(Password::new("secret")));
    credentials.tls = bound;
    let (mut from_client, mut from_server) = (BytesMut::new(), BytesMut::new());
    let parameters = [("user", "walrecv")];
    let mut client =
        Session::new(credentials, ProtocolRange::default(), parameters, &mut from_client).unwrap();
    let mut server = ServerSession::new(ProtocolVersion::V3_2);
    let (mut to_client, mut to_server) = (BytesMut::new(), BytesMut::new());
    let mut failed = false;
    for _ in 0..8 {
        for piece in wire.pass(from_client.split()).chunks(usize::from(*cut) + 1) {
            to_server.extend_from_slice(piece);
            failed |= serve(&mut server, *options, &mut to_server, &mut from_server).is_err();
        }
        for piece in wire.pass(from_server.split()).chunks(usize::from(*cut) + 1) {
            to_client.extend_from_slice(piece);
            loop {
                match client.handle(&mut to_client, &mut from_client) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => {
                        failed = true;
                        to_client.clear();
                        break;
                    }
                }
            }
        }
    }
    if !wire.changed {
        let nobody = options & 7 == 3;
        assert_eq!((client.is_idle(), server.is_idle(), failed), (!nobody, !nobody, nobody));
    }
    if wire.lied && options & 4 != 0 {
        assert!(!client.is_idle(), "it was lied to, and is logged in");
    }
}

/// What the server does about everything that has come.
fn serve(
    server: &mut ServerSession,
    options: u8,
    input: &mut BytesMut,
    output: &mut BytesMut,
) -> Result<(), Error> {
    while let Some(event) = server.handle(input, output)? {
        let event = match event {
            ServerEvent::Startup(_) => server.authenticate(authentication(options), output)?,
            event => Some(event),
        };
        if let Some(ServerEvent::Authenticated) = event {
            server.say(&BackendMessage::ReadyForQuery(TransactionStatus::Idle), output)?;
        }
    }
    Ok(())
}

/// What carries the messages, and changes some.
struct Wire<'a> {
    changes: &'a [u8],
    /// The best that the server offers. What else it offers is nobody's concern.
    mechanism: &'static str,
    /// How many bytes of authentication messages have passed.
    passed: u16,
    changed: bool,
    /// Whether a change is one that SCRAM must find.
    lied: bool,
}

impl Wire<'_> {
    fn pass(&mut self, mut sent: BytesMut) -> BytesMut {
        let mut at = 0;
        while let Some(&[tag, a, b, c, d]) = sent.get(at..at + 5) {
            let end = at + 1 + u32::from_be_bytes([a, b, c, d]) as usize;
            // The startup packet ends with its first message.
            let Some(body) = sent.get_mut(at + 5..end) else { break };
            if let b'R' | b'p' = tag {
                self.change(body);
            }
            at = end;
        }
        sent
    }

    fn change(&mut self, body: &mut [u8]) {
        let offers = body.starts_with(&10_u32.to_be_bytes());
        let covered = if offers { 4 + self.mechanism.len() } else { body.len() };
        for (index, byte) in body.iter_mut().enumerate() {
            let before = *byte;
            for change in self.changes.chunks_exact(3) {
                if [change[0], change[1]] == self.passed.to_be_bytes() {
                    *byte ^= change[2];
                }
            }
            self.changed |= *byte != before;
            self.lied |= *byte != before && index < covered;
            self.passed = self.passed.saturating_add(1);
        }
    }
}
