//! Every message in both directions, against itself and against another implementation.

use bytes::{Bytes, BytesMut};
use postgres_protocol::message::{backend, frontend};
use proptest::prelude::*;

use crate::proto::*;
use crate::{Misuse, ServerError, SqlState};

/// A text that can be sent: anything but zero bytes.
fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,20}"
}

fn name() -> impl Strategy<Value = String> {
    "[^\0]{1,20}"
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..100).prop_map(Bytes::from)
}

fn key() -> impl Strategy<Value = CancelKey> {
    (any::<i32>(), prop::collection::vec(any::<u8>(), 4..=256))
        .prop_map(|(process, secret)| CancelKey::new(process, secret).unwrap())
}

fn report() -> impl Strategy<Value = ServerError> {
    let more = (prop::option::of(text()), prop::option::of(text()), prop::option::of(text()));
    (name(), prop::option::of("[0-9A-Z]{5}"), text(), more).prop_map(
        |(severity, code, message, (detail, hint, context))| {
            let code = code.and_then(|code| SqlState::new(&code));
            ServerError { severity, code, message, detail, hint, context }
        },
    )
}

fn request() -> impl Strategy<Value = AuthenticationRequest> {
    use AuthenticationRequest as A;
    prop_oneof![
        prop::sample::select(vec![
            A::Ok,
            A::KerberosV5,
            A::CleartextPassword,
            A::ScmCredential,
            A::Gss,
            A::Sspi,
        ]),
        any::<[u8; 4]>().prop_map(|salt| A::Md5Password { salt }),
        prop::collection::vec(name(), 0..4).prop_map(|mechanisms| A::Sasl { mechanisms }),
        bytes().prop_map(A::GssContinue),
        bytes().prop_map(A::SaslContinue),
        bytes().prop_map(A::SaslFinal),
    ]
}

fn backend_message() -> impl Strategy<Value = BackendMessage> {
    use BackendMessage as M;
    let status = prop::sample::select(vec![
        TransactionStatus::Idle,
        TransactionStatus::Open,
        TransactionStatus::Failed,
    ]);
    let column = (text(), any::<u32>()).prop_map(|(name, type_oid)| Column { name, type_oid });
    let names = prop::collection::vec(text(), 0..4);
    prop_oneof![
        request().prop_map(M::Authentication),
        (any::<u32>(), names).prop_map(|(code, unrecognized)| M::NegotiateProtocolVersion {
            version: ProtocolVersion::from_code(code),
            unrecognized,
        }),
        prop::option::of(key()).prop_map(M::BackendKeyData),
        (text(), text()).prop_map(|(name, value)| M::ParameterStatus { name, value }),
        status.prop_map(M::ReadyForQuery),
        prop::collection::vec(column, 0..6)
            .prop_map(|columns| M::RowDescription(columns.into_iter().collect())),
        prop::collection::vec(prop::option::of(bytes()), 0..6)
            .prop_map(|values| M::DataRow(values.into_iter().collect())),
        text().prop_map(M::CommandComplete),
        prop::sample::select(vec![
            M::EmptyQueryResponse,
            M::CopyInResponse,
            M::CopyOutResponse,
            M::CopyBothResponse,
            M::CopyDone,
        ]),
        bytes().prop_map(M::CopyData),
        report().prop_map(M::ErrorResponse),
        report().prop_map(M::NoticeResponse),
        (any::<i32>(), text(), text()).prop_map(|(process, channel, payload)| {
            M::NotificationResponse { process, channel, payload }
        }),
    ]
}

fn first_packet() -> impl Strategy<Value = FrontendMessage> {
    use FrontendMessage as M;
    let parameters = prop::collection::vec((name(), text()), 0..6);
    prop_oneof![
        (any::<u16>(), parameters).prop_map(|(minor, parameters)| M::Startup {
            protocol: ProtocolVersion::new(3, minor),
            parameters,
        }),
        Just(M::SslRequest),
        Just(M::GssEncRequest),
        key().prop_map(M::Cancel),
    ]
}

fn command() -> impl Strategy<Value = FrontendMessage> {
    use FrontendMessage as M;
    prop_oneof![
        text().prop_map(M::Query),
        bytes().prop_map(M::CopyData),
        prop::sample::select(vec![M::CopyDone, M::Flush, M::Sync, M::Terminate]),
        text().prop_map(M::CopyFail),
        (prop::sample::select(b"PBDECF".to_vec()), bytes())
            .prop_map(|(tag, body)| M::ExtendedQuery { tag, body }),
    ]
}

fn frontend_bytes(message: &FrontendMessage) -> BytesMut {
    let mut out = BytesMut::new();
    message.encode(&mut out).unwrap();
    out
}

fn backend_bytes(message: &BackendMessage) -> BytesMut {
    let mut out = BytesMut::new();
    message.encode(&mut out).unwrap();
    out
}

proptest! {
    #[test]
    fn the_servers_messages_are_decoded_as_they_were_encoded(message in backend_message()) {
        let mut encoded = backend_bytes(&message);
        let decoded = BackendMessage::decode(&mut encoded, BackendPhase::Session).unwrap();
        prop_assert_eq!(decoded, Some(message));
        prop_assert!(encoded.is_empty());
    }

    #[test]
    fn first_packets_are_decoded_as_they_were_encoded(message in first_packet()) {
        let mut encoded = frontend_bytes(&message);
        let decoded = FrontendMessage::decode(&mut encoded, FrontendPhase::Startup).unwrap();
        prop_assert_eq!(decoded, Some(message));
        prop_assert!(encoded.is_empty());
    }

    #[test]
    fn the_clients_messages_are_decoded_as_they_were_encoded(message in command()) {
        let mut encoded = frontend_bytes(&message);
        let decoded = FrontendMessage::decode(&mut encoded, FrontendPhase::Session).unwrap();
        prop_assert_eq!(decoded, Some(message));
        prop_assert!(encoded.is_empty());
    }

    #[test]
    fn answers_to_authentication_requests_are_read_as_they_were_written(
        password in prop::collection::vec(1..=255_u8, 0..40), mechanism in text(), data in bytes(),
    ) {
        let decode = |message: PasswordMessage| {
            let mut encoded = frontend_bytes(&FrontendMessage::Password(message.clone()));
            let decoded = FrontendMessage::decode(&mut encoded, FrontendPhase::Sasl).unwrap();
            assert_eq!(decoded, Some(FrontendMessage::Password(message.clone())));
            message
        };
        let message = decode(PasswordMessage::password(&password).unwrap());
        prop_assert_eq!(message.to_password().unwrap(), password);
        let message = decode(PasswordMessage::sasl_initial_response(&mechanism, &data).unwrap());
        let read = message.to_sasl_initial_response().unwrap();
        prop_assert_eq!(read, (mechanism, Some(data.clone())));
        let message = decode(PasswordMessage::sasl_response(&data));
        prop_assert_eq!(message.as_bytes(), data);
    }

    /// Another parser takes what we write, for every message that it knows.
    #[test]
    fn the_servers_messages_are_understood_elsewhere(message in backend_message()) {
        use BackendMessage as M;
        prop_assume!(!matches!(
            message,
            M::CopyBothResponse | M::NegotiateProtocolVersion { .. } | M::BackendKeyData(_)
        ));
        let mut encoded = backend_bytes(&message);
        let parsed = backend::Message::parse(&mut encoded).unwrap().unwrap();
        prop_assert!(encoded.is_empty());
        match (&message, parsed) {
            (M::CopyData(data), backend::Message::CopyData(body)) => {
                prop_assert_eq!(&data[..], body.data());
            }
            (M::CommandComplete(tag), backend::Message::CommandComplete(body)) => {
                prop_assert_eq!(tag, body.tag().unwrap());
            }
            _ => {}
        }
    }

    /// Another writer writes what we write.
    #[test]
    fn the_clients_messages_are_written_so_elsewhere(
        parameters in prop::collection::vec((name(), text()), 0..6),
        sql in text(), password in text(), data in bytes(), process: i32, secret: i32,
    ) {
        use FrontendMessage as M;
        let written = |write: &dyn Fn(&mut BytesMut)| {
            let mut out = BytesMut::new();
            write(&mut out);
            out
        };
        let pairs = || parameters.iter().map(|(name, value)| (&**name, &**value));
        let startup = M::Startup { protocol: ProtocolVersion::V3_0, parameters: parameters.clone() };
        let key = CancelKey::new(process, secret.to_be_bytes().to_vec()).unwrap();
        let login = PasswordMessage::password(password.as_bytes()).unwrap();
        let initial = PasswordMessage::sasl_initial_response(&sql, &data).unwrap();
        let response = PasswordMessage::sasl_response(&data);
        for (ours, theirs) in [
            (startup, written(&|out| frontend::startup_message(pairs(), out).unwrap())),
            (M::SslRequest, written(&frontend::ssl_request)),
            (M::Cancel(key), written(&|out| frontend::cancel_request(process, secret, out))),
            (M::Password(login), written(&|out| {
                frontend::password_message(password.as_bytes(), out).unwrap();
            })),
            (M::Password(initial), written(&|out| {
                frontend::sasl_initial_response(&sql, &data, out).unwrap();
            })),
            (M::Password(response), written(&|out| frontend::sasl_response(&data, out).unwrap())),
            (M::Query(sql.clone()), written(&|out| frontend::query(&sql, out).unwrap())),
            (M::CopyData(data.clone()), written(&|out| {
                frontend::CopyData::new(data.clone()).unwrap().write(out);
            })),
            (M::CopyDone, written(&frontend::copy_done)),
            (M::CopyFail(sql.clone()), written(&|out| frontend::copy_fail(&sql, out).unwrap())),
            (M::Flush, written(&frontend::flush)),
            (M::Sync, written(&frontend::sync)),
            (M::Terminate, written(&frontend::terminate)),
        ] {
            prop_assert_eq!(frontend_bytes(&ours), theirs, "{:?}", ours);
        }
    }

    #[test]
    fn arbitrary_packets_of_clients_never_panic(
        bytes: Vec<u8>,
        phase in prop::sample::select(vec![
            FrontendPhase::Startup,
            FrontendPhase::Password,
            FrontendPhase::Sasl,
            FrontendPhase::Session,
        ]),
    ) {
        let mut input = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = FrontendMessage::decode(&mut input, phase) {}
        prop_assert!(input.capacity() < 1 << 20);
    }
}

#[test]
fn a_message_that_cannot_be_sent_leaves_nothing_behind() {
    let mut out = BytesMut::from(&b"before"[..]);
    let report = ServerError { message: "a\0b".into(), ..ServerError::default() };
    assert!(BackendMessage::ErrorResponse(report).encode(&mut out).is_err());
    let error = FrontendMessage::Query("a\0b".into()).encode(&mut out).unwrap_err();
    assert!(matches!(error, Misuse::Argument(_)));
    assert_eq!(out, b"before"[..]);
}

#[test]
fn passwords_are_not_printed() {
    let message = PasswordMessage::password(b"secret").unwrap();
    assert!(!format!("{:?}", FrontendMessage::Password(message)).contains("secret"));
}

#[test]
fn clients_are_held_to_the_servers_limits() {
    let header = |tag: u8, length: usize| {
        [&[tag][..], &u32::try_from(length).unwrap().to_be_bytes()].concat()
    };
    use FrontendPhase as P;
    for (phase, tag, most) in [
        (P::Password, b'p', MAX_PASSWORD_MESSAGE),
        (P::Sasl, b'p', MAX_SASL_MESSAGE),
        (P::Session, b'Q', MAX_COMMAND),
        (P::Session, b'c', MAX_SMALL_MESSAGE),
    ] {
        let decode =
            |length| FrontendMessage::decode(&mut BytesMut::from(&header(tag, length)[..]), phase);
        assert!(matches!(decode(most + 4), Ok(None)));
        assert!(decode(most + 5).is_err());
        assert!(decode(3).is_err());
    }
    let startup = |length: usize| {
        let mut input = BytesMut::from(&u32::try_from(length).unwrap().to_be_bytes()[..]);
        FrontendMessage::decode(&mut input, P::Startup)
    };
    assert!(matches!(startup(MAX_STARTUP_PACKET + 4), Ok(None)));
    assert!(startup(MAX_STARTUP_PACKET + 5).is_err());
    assert!(startup(7).is_err());
}

#[test]
fn startup_packets_must_fit_their_length() {
    let packet = |body: &[u8]| {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        let mut input = BytesMut::from(&[&length[..], body].concat()[..]);
        FrontendMessage::decode(&mut input, FrontendPhase::Startup)
    };
    assert!(packet(b"\0\x03\0\0user\0me\0\0").is_ok());
    // No end, something behind the end, a name without a value, a request with a tail.
    for body in [
        b"\0\x03\0\0user\0me\0".as_slice(),
        b"\0\x03\0\0user\0me\0\0\0",
        b"\0\x03\0\0user\0\0",
        b"\x04\xd2\x16\x2f\0",
        b"\x04\xd2\x16\x2e\0\0\0\x01key",
    ] {
        assert!(packet(body).is_err(), "{body:?}");
    }
    // Another major version, of whatever make.
    assert!(matches!(
        packet(b"\0\x02\0\0whatever"),
        Ok(Some(FrontendMessage::Startup { protocol, .. })) if protocol.major() == 2
    ));
}
