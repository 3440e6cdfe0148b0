//! The login: each method, and each way in which a server can fail to deserve trust.

use super::*;
use crate::proto::{BackendMessage, CancelKey, ProtocolVersion};
use crate::{AuthError, Violation};

fn sasl(mechanisms: &[&str]) -> Vec<u8> {
    let list: String = mechanisms.iter().map(|name| format!("{name}\0")).collect();
    authentication(10, format!("{list}\0").as_bytes())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// What is answered to an offer of SASL mechanisms.
fn answer(
    channel_binding: ChannelBinding,
    tls: TlsBinding,
    offer: &[&str],
) -> Result<Bytes, Error> {
    let mut peer = Peer::new(Credentials { channel_binding, tls, ..credentials() });
    peer.said();
    peer.hear(&[sasl(offer)])?;
    Ok(peer.said())
}

const PLAIN: &[&str] = &["SCRAM-SHA-256"];
const BOTH: &[&str] = &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];

fn end_point() -> TlsBinding {
    TlsBinding::ServerEndPoint(Bytes::from_static(b"hash"))
}

#[test]
fn the_startup_packet_carries_the_parameters() {
    let mut peer = Peer::new(credentials());
    let said = peer.said();
    assert_eq!(said[..8], [0, 0, 0, said.len() as u8, 0, 3, 0, 0]);
    assert!(said.ends_with(b"user\0walrecv\0replication\0true\0\0"));
}

#[test]
fn trust_asks_for_nothing() {
    let peer = Peer::logged_in();
    assert_eq!(peer.session.parameter("server_version"), Some("15.20"));
    assert!(peer.session.is_idle());
}

#[test]
fn passwords_are_sent_as_they_are_asked_for() {
    let mut peer = Peer::new(credentials());
    peer.said();
    peer.hear(&[authentication(3, b"")]).unwrap();
    assert_eq!(peer.said(), message(b'p', b"secret\0"));

    let mut peer = Peer::new(credentials());
    peer.said();
    peer.hear(&[authentication(5, b"salt")]).unwrap();
    // md5(md5("secretwalrecv") + "salt"), by md5sum.
    assert_eq!(peer.said(), message(b'p', b"md562a9411940c4457c8e861d651f10025f\0"));
}

#[test]
fn without_a_password_the_login_fails_here() {
    for request in [authentication(3, b""), authentication(5, b"salt"), sasl(PLAIN)] {
        let mut peer = Peer::new(Credentials { password: None, ..credentials() });
        peer.said();
        let error = peer.hear(&[request]).unwrap_err();
        assert!(matches!(error, Error::Auth(AuthError::PasswordMissing)), "{error}");
        assert!(peer.said().is_empty());
    }
}

#[test]
fn scram_is_bound_whenever_it_can_be() {
    use ChannelBinding::{Disable, Prefer, Require};
    for (binding, tls, offer, mechanism, header) in [
        (Prefer, TlsBinding::NoTls, PLAIN, "SCRAM-SHA-256\0", "n,,n="),
        (Prefer, end_point(), BOTH, "SCRAM-SHA-256-PLUS\0", "p=tls-server-end-point,,n="),
        (Require, end_point(), BOTH, "SCRAM-SHA-256-PLUS\0", "p=tls-server-end-point,,n="),
        // We could, the server did not offer.
        (Prefer, end_point(), PLAIN, "SCRAM-SHA-256\0", "y,,n="),
        (Prefer, TlsBinding::Undefined, BOTH, "SCRAM-SHA-256\0", "n,,n="),
        // Encrypted by somebody else.
        (Prefer, TlsBinding::Unknown, BOTH, "SCRAM-SHA-256\0", "n,,n="),
        (Prefer, TlsBinding::Unknown, PLAIN, "SCRAM-SHA-256\0", "n,,n="),
        (Disable, end_point(), BOTH, "SCRAM-SHA-256\0", "n,,n="),
    ] {
        let said = answer(binding, tls, offer).unwrap();
        let expected = format!("p{}", mechanism);
        assert_eq!(said[0], expected.as_bytes()[0]);
        assert!(said[5..].starts_with(mechanism.as_bytes()), "{said:?}");
        assert!(contains(&said, header.as_bytes()), "{said:?}");
    }
}

#[test]
fn required_binding_is_had_or_the_login_fails_before_the_password_leaves() {
    use ChannelBinding::Require;
    for (tls, offer) in [
        (TlsBinding::NoTls, PLAIN),
        (TlsBinding::Undefined, BOTH),
        (TlsBinding::Unknown, BOTH),
        (end_point(), PLAIN),
    ] {
        let error = answer(Require, tls, offer).unwrap_err();
        let unavailable = AuthError::ChannelBindingUnavailable { reason: "" };
        assert!(
            matches!(&error, Error::Auth(cause)
                if std::mem::discriminant(cause) == std::mem::discriminant(&unavailable)),
            "{error}"
        );
    }
    for request in [authentication(3, b""), authentication(5, b"salt"), authentication(0, b"")] {
        let credentials =
            Credentials { channel_binding: Require, tls: end_point(), ..credentials() };
        let mut peer = Peer::new(credentials);
        peer.said();
        assert!(matches!(peer.hear(&[request]), Err(Error::Auth(_))));
        assert!(peer.said().is_empty());
    }
}

#[test]
fn an_offer_to_bind_without_tls_is_an_attack() {
    assert!(matches!(
        answer(ChannelBinding::Prefer, TlsBinding::NoTls, BOTH),
        Err(Error::Auth(AuthError::Scram { .. }))
    ));
}

#[test]
fn a_server_that_skips_its_proof_is_refused() {
    let mut peer = Peer::new(credentials());
    let error = peer.hear(&[sasl(PLAIN), authentication(0, b"")]).unwrap_err();
    assert!(matches!(error, Error::Auth(AuthError::Scram { .. })), "{error}");
}

#[test]
fn a_server_that_repeats_another_nonce_is_refused() {
    let mut peer = Peer::new(credentials());
    let challenge = b"r=somebodyelses,s=c2FsdA==,i=4096";
    let error = peer.hear(&[sasl(PLAIN), authentication(11, challenge)]).unwrap_err();
    assert!(matches!(error, Error::Auth(AuthError::Scram { .. })), "{error}");
}

#[test]
fn a_server_that_wants_too_much_work_is_told_so() {
    let mut peer = Peer::new(credentials());
    peer.said();
    peer.hear(&[sasl(PLAIN)]).unwrap();
    let said = String::from_utf8_lossy(&peer.said()).into_owned();
    let nonce = said.rsplit("r=").next().unwrap();
    let challenge = format!("r={nonce}more,s=c2FsdA==,i=100001");
    let error = peer.hear(&[authentication(11, challenge.as_bytes())]).unwrap_err();
    assert!(error.to_string().contains("scram_iterations"), "{error}");
}

#[test]
fn requests_out_of_order_are_violations() {
    for requests in [
        vec![authentication(11, b"r=x")],
        vec![authentication(12, b"v=x")],
        vec![authentication(3, b""), authentication(3, b"")],
    ] {
        let error = Peer::new(credentials()).hear(&requests).unwrap_err();
        assert!(matches!(error, Error::Violation(_)), "{error}");
    }
}

#[test]
fn other_methods_are_named() {
    let error = Peer::new(credentials()).hear(&[authentication(7, b"")]).unwrap_err();
    assert!(error.to_string().contains("GSSAPI"), "{error}");
    let error = Peer::new(credentials()).hear(&[sasl(&["OAUTHBEARER"])]).unwrap_err();
    assert!(error.to_string().contains("OAUTHBEARER"), "{error}");
}

#[test]
fn the_servers_refusal_is_passed_on() {
    let refusal = report(b'E', "FATAL", "28P01", "password authentication failed");
    let error = Peer::new(credentials()).hear(&[refusal]).unwrap_err();
    assert_eq!(error.sql_state().unwrap().as_str(), "28P01");
}

/// What a server knows how to say about versions: this one, and not these options.
fn negotiation(version: ProtocolVersion, unrecognized: &[&str]) -> Vec<u8> {
    let unrecognized = unrecognized.iter().map(|name| (*name).to_owned()).collect();
    let mut out = BytesMut::new();
    BackendMessage::NegotiateProtocolVersion { version, unrecognized }.encode(&mut out).unwrap();
    out.to_vec()
}

#[test]
fn protocol_3_2_is_asked_for_and_spoken() {
    let protocols = ProtocolRange { min: ProtocolVersion::V3_0, max: ProtocolVersion::V3_2 };
    let mut peer = Peer::with_protocols(credentials(), protocols);
    assert_eq!(peer.said()[4..8], [0, 3, 0, 2]);
    let key = [&7_i32.to_be_bytes()[..], &[9; 32]].concat();
    peer.hear(&[authentication(0, b""), message(b'K', &key), ready()]).unwrap();
    assert_eq!(peer.session.protocol_version(), ProtocolVersion::V3_2);
    assert_eq!(peer.session.cancel_key(), CancelKey::new(7, vec![9; 32]).as_ref());
}

#[test]
fn an_older_server_brings_the_version_down() {
    let (old, new) = (ProtocolVersion::V3_0, ProtocolVersion::V3_2);
    let mut peer = Peer::with_protocols(credentials(), ProtocolRange { min: old, max: new });
    peer.hear(&[negotiation(old, &[]), authentication(0, b""), ready()]).unwrap();
    assert_eq!(peer.session.protocol_version(), old);

    let mut peer = Peer::with_protocols(credentials(), ProtocolRange { min: new, max: new });
    let error = peer.hear(&[negotiation(old, &[]), authentication(3, b"")]).unwrap_err();
    assert!(matches!(error, Error::ProtocolVersion { .. }), "{error}");
    assert!(!contains(&peer.said(), b"secret"));

    let error = Peer::new(credentials()).hear(&[negotiation(old, &[])]).unwrap_err();
    assert!(matches!(error, Error::Decode(_)), "nothing was to be negotiated: {error}");
}

#[test]
fn keys_of_any_server_or_pooler_are_taken() {
    for (secret, usable) in [(0, false), (3, false), (4, true), (32, true), (256, true)] {
        let key = vec![1; 4 + secret];
        let mut peer = Peer::new(credentials());
        peer.hear(&[authentication(0, b""), message(b'K', &key), ready()]).unwrap();
        assert_eq!(peer.session.cancel_key().is_some(), usable, "{secret}");
    }
    let mut peer = Peer::new(credentials());
    peer.hear(&[authentication(0, b""), ready()]).unwrap();
    assert_eq!(peer.session.cancel_key(), None, "there was none");
    for length in [3, 4 + 257] {
        let mut peer = Peer::new(credentials());
        let messages = [authentication(0, b""), message(b'K', &vec![1; length])];
        assert!(matches!(peer.hear(&messages), Err(Error::Decode(_))), "{length}");
    }
}

#[test]
fn errors_in_the_manner_of_old_servers_are_told() {
    let text = b"Ecould not fork new process for connection: Resource temporarily unavailable\n\0";
    let mut peer = Peer::new(credentials());
    for byte in &text[..text.len() - 1] {
        assert!(peer.hear(&[vec![*byte]]).unwrap().is_empty());
    }
    let error = peer.hear(&[vec![0]]).unwrap_err();
    let told = error.server_error().unwrap();
    assert_eq!(
        told.message,
        "could not fork new process for connection: Resource temporarily unavailable"
    );
    let endless = [b"E".as_slice(), &[b'x'; 40_000]].concat();
    let error = Peer::new(credentials()).hear(&[endless]).unwrap_err();
    assert!(matches!(error, Error::Violation(Violation::TooLong { .. })), "{error}");
}

#[test]
fn before_the_login_only_its_own_messages_may_come() {
    for stranger in
        [b"HTTP/1.1 400 Bad Request\r\n".to_vec(), report(b'N', "WARNING", "01000", "x")]
    {
        let error = Peer::new(credentials()).hear(&[stranger]).unwrap_err();
        assert!(matches!(error, Error::Violation(Violation::Unexpected { .. })), "{error}");
    }
    for request in [authentication(10, &[b'x'; 2000]), message(b'R', b"")] {
        assert!(Peer::new(credentials()).hear(&[request]).is_err());
    }
}
