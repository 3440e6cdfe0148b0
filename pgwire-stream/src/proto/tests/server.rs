//! Both ends against each other, and the server's end against clients that misbehave.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use crate::proto::*;
use crate::{Error, Misuse, Password, ServerError};

/// How the client is asked to prove who it is.
#[derive(Clone, Copy, Debug)]
enum Method {
    Trust,
    Password,
    Md5,
    Scram,
    ScramPlus,
}

const METHODS: [Method; 5] =
    [Method::Trust, Method::Password, Method::Md5, Method::Scram, Method::ScramPlus];

/// `secret`, hashed once for all tests: hashing takes its time.
fn verifier() -> ScramVerifier {
    static VERIFIER: std::sync::OnceLock<ScramVerifier> = std::sync::OnceLock::new();
    VERIFIER.get_or_init(|| ScramVerifier::from_password(&Password::new("secret"))).clone()
}

impl Method {
    fn authentication(self) -> Authentication {
        let secret = Some(Password::new("secret"));
        let scram =
            |channel_binding| Authentication::ScramSha256 { verifier: verifier(), channel_binding };
        match self {
            Self::Trust => Authentication::Trust,
            Self::Password => Authentication::Password(secret),
            Self::Md5 => Authentication::Md5(secret),
            Self::Scram => scram(None),
            Self::ScramPlus => scram(Some(Bytes::from_static(b"hash"))),
        }
    }

    fn tls(self) -> TlsBinding {
        match self {
            Self::ScramPlus => TlsBinding::ServerEndPoint(Bytes::from_static(b"hash")),
            _ => TlsBinding::NoTls,
        }
    }
}

fn credentials(password: &str, method: Method) -> Credentials {
    let password = Some(Password::new(password));
    Credentials { password, tls: method.tls(), ..super::credentials() }
}

/// A client and a server, joined by a wire that cuts what it carries anywhere.
struct Pair {
    client: Session,
    server: ServerSession,
    /// What each end has sent, and what of it the other has received.
    from_client: (BytesMut, BytesMut),
    from_server: (BytesMut, BytesMut),
    cuts: Vec<usize>,
    cut: usize,
    authentication: Authentication,
    heard_by_client: Vec<Event>,
    heard_by_server: Vec<ServerEvent>,
}

const NEWEST: ProtocolRange =
    ProtocolRange { min: ProtocolVersion::V3_0, max: ProtocolVersion::V3_2 };

impl Pair {
    fn new(credentials: Credentials, method: Method, cuts: Vec<usize>) -> Self {
        let mut sent = BytesMut::new();
        let parameters = [("user", "walrecv"), ("replication", "true"), ("_pq_.new", "1")];
        Self {
            client: Session::new(credentials, NEWEST, parameters, &mut sent).unwrap(),
            server: ServerSession::new(ProtocolVersion::V3_2),
            from_client: (sent, BytesMut::new()),
            from_server: Default::default(),
            cuts,
            cut: 0,
            authentication: method.authentication(),
            heard_by_client: Vec::new(),
            heard_by_server: Vec::new(),
        }
    }

    fn logged_in(method: Method, cuts: Vec<usize>) -> Self {
        let mut pair = Self::new(credentials("secret", method), method, cuts);
        pair.exchange().unwrap();
        assert!(pair.client.is_idle() && pair.server.is_idle());
        assert!(matches!(pair.heard_by_client[..], [Event::Ready]));
        pair.forget();
        pair
    }

    fn forget(&mut self) {
        self.heard_by_client.clear();
        self.heard_by_server.clear();
    }

    /// Carries what was sent, piece by piece, until both have heard everything.
    fn exchange(&mut self) -> Result<(), Error> {
        loop {
            self.cut += 1;
            let cut = self.cuts[self.cut % self.cuts.len()];
            let moved = carry(&mut self.from_client, cut) | carry(&mut self.from_server, cut);
            let (input, output) = (&mut self.from_client.1, &mut self.from_server.0);
            let mut events = Vec::new();
            while let Some(event) = self.server.handle(input, output)? {
                match event {
                    ServerEvent::Startup(startup) => {
                        assert_eq!(startup.replication, Replication::Physical);
                        let done = self.server.authenticate(self.authentication.clone(), output)?;
                        events.extend(done);
                    }
                    event => events.push(event),
                }
            }
            for event in events {
                if event == ServerEvent::Authenticated {
                    self.greet();
                } else {
                    self.heard_by_server.push(event);
                }
            }
            let (input, output) = (&mut self.from_server.1, &mut self.from_client.0);
            while let Some(event) = self.client.handle(input, output)? {
                self.heard_by_client.push(event);
            }
            if !moved && self.from_client.0.is_empty() && self.from_server.0.is_empty() {
                return Ok(());
            }
        }
    }

    fn greet(&mut self) {
        let (name, value) = ("server_version".into(), "18.0".into());
        self.say(BackendMessage::ParameterStatus { name, value });
        self.say(BackendMessage::BackendKeyData(CancelKey::new(7, vec![9; 32])));
        self.say(BackendMessage::ReadyForQuery(TransactionStatus::Idle));
    }

    fn say(&mut self, message: BackendMessage) {
        self.server.say(&message, &mut self.from_server.0).unwrap();
    }

    fn ask(&mut self, command: &str) {
        self.client.query(command, &mut self.from_client.0).unwrap();
        self.exchange().unwrap();
        assert_eq!(self.heard_by_server, [ServerEvent::Query(command.to_owned())]);
        self.forget();
    }

    /// Ends the command, and checks that the client has heard this.
    fn end(&mut self, expected: &[Event]) {
        self.say(BackendMessage::CommandComplete("DONE".into()));
        self.say(BackendMessage::ReadyForQuery(TransactionStatus::Idle));
        self.exchange().unwrap();
        let described =
            |events: &[Event]| events.iter().map(|event| format!("{event:?}")).collect::<Vec<_>>();
        let (end, rest) = (self.heard_by_client.split_off(expected.len()), &self.heard_by_client);
        assert_eq!(described(rest), described(expected));
        assert!(matches!(end[..], [Event::Complete, Event::Ready]), "{end:?}");
        self.forget();
    }
}

fn carry((sent, received): &mut (BytesMut, BytesMut), cut: usize) -> bool {
    let piece = sent.split_to(cut.min(sent.len()));
    received.extend_from_slice(&piece);
    !piece.is_empty()
}

fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6)
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..80, 1..50)
}

fn data(pieces: &[Vec<u8>]) -> Vec<ServerEvent> {
    pieces.iter().map(|piece| ServerEvent::CopyData(piece.clone().into())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn both_ends_understand_each_other_in_any_cuts(
        method in prop::sample::select(METHODS.to_vec()),
        cuts in cuts(),
        rows in prop::collection::vec(
            prop::collection::vec(prop::option::of("[a-z]{0,9}"), 2), 0..6),
        ours in pieces(),
        theirs in pieces(),
    ) {
        let mut pair = Pair::logged_in(method, cuts);
        prop_assert_eq!(pair.client.cancel_key().unwrap().secret().len(), 32);

        pair.ask("SHOW x");
        let columns = Columns::of_text(&["a", "b"]);
        pair.say(BackendMessage::RowDescription(columns.clone()));
        let mut expected = vec![Event::Columns(columns)];
        for row in &rows {
            let row: Row =
                row.iter().map(|value| value.clone().map(Bytes::from)).collect();
            pair.say(BackendMessage::DataRow(row.clone()));
            expected.push(Event::Row(row));
        }
        pair.end(&expected);

        pair.ask("BASE_BACKUP");
        pair.say(BackendMessage::CopyOutResponse);
        let mut expected = vec![Event::CopyOut];
        for piece in &ours {
            pair.server.copy_data(piece, &mut pair.from_server.0).unwrap();
            expected.push(Event::CopyData(piece.clone().into()));
        }
        pair.say(BackendMessage::CopyDone);
        expected.push(Event::CopyDone);
        pair.end(&expected);

        pair.ask("UPLOAD_MANIFEST");
        pair.say(BackendMessage::CopyInResponse);
        pair.exchange().unwrap();
        for piece in &theirs {
            pair.client.copy_data(piece, &mut pair.from_client.0).unwrap();
        }
        pair.client.copy_done(&mut pair.from_client.0).unwrap();
        pair.exchange().unwrap();
        let mut expected = data(&theirs);
        expected.push(ServerEvent::CopyDone);
        prop_assert_eq!(&pair.heard_by_server, &expected);
        pair.end(&[Event::CopyIn]);

        pair.ask("START_REPLICATION");
        pair.say(BackendMessage::CopyBothResponse);
        pair.exchange().unwrap();
        let mut expected = vec![Event::CopyBoth];
        for (ours, theirs) in ours.iter().zip(&theirs) {
            pair.server.copy_data(ours, &mut pair.from_server.0).unwrap();
            expected.push(Event::CopyData(ours.clone().into()));
            pair.client.copy_data(theirs, &mut pair.from_client.0).unwrap();
            pair.exchange().unwrap();
        }
        let both = ours.len().min(theirs.len());
        prop_assert_eq!(&pair.heard_by_server, &data(&theirs[..both]));
        // The server ends its side; the client's session answers by itself.
        pair.say(BackendMessage::CopyDone);
        expected.push(Event::CopyDone);
        pair.exchange().unwrap();
        prop_assert_eq!(pair.heard_by_server.last(), Some(&ServerEvent::CopyDone));
        pair.end(&expected);
    }

    #[test]
    fn arbitrary_bytes_of_clients_never_panic(bytes: Vec<u8>, phase in 0..4) {
        let (mut server, mut input, mut out) = match phase {
            0 => (ServerSession::new(ProtocolVersion::V3_2), BytesMut::new(), BytesMut::new()),
            _ => {
                let pair = Pair::logged_in(Method::Trust, vec![1000]);
                (pair.server, BytesMut::new(), BytesMut::new())
            }
        };
        if phase > 1 {
            input.extend_from_slice(b"Q\0\0\0\x06x\0");
            server.handle(&mut input, &mut out).unwrap();
            let copy = if phase == 2 {
                BackendMessage::CopyInResponse
            } else {
                BackendMessage::CopyBothResponse
            };
            server.say(&copy, &mut out).unwrap();
        }
        out.clear();
        input.extend_from_slice(&bytes);
        while let Ok(Some(_)) = server.handle(&mut input, &mut out) {}
        // Whatever it answers can be read.
        let phase = if phase == 0 { BackendPhase::Login } else { BackendPhase::Session };
        if !out.starts_with(b"N") && !out.starts_with(b"v") {
            while !out.is_empty() {
                prop_assert!(BackendMessage::decode(&mut out, phase).unwrap().is_some());
            }
        }
    }
}

#[test]
fn every_login_method_lets_the_right_password_in() {
    for method in METHODS {
        let pair = Pair::logged_in(method, vec![7]);
        assert_eq!(pair.client.protocol_version(), ProtocolVersion::V3_2);
        assert_eq!(pair.client.parameter("server_version"), Some("18.0"));
    }
}

#[test]
fn every_login_method_keeps_a_wrong_password_out() {
    for method in METHODS.into_iter().skip(1) {
        let mut pair = Pair::new(credentials("guess", method), method, vec![1000]);
        let error = pair.exchange().unwrap_err();
        assert_eq!(error.sql_state().unwrap().as_str(), "28P01", "{method:?}");
        assert!(pair.server.is_over());
        // It is told.
        let (sent, received) = &mut pair.from_server;
        received.unsplit(sent.split());
        let told = pair.client.handle(received, &mut BytesMut::new()).unwrap_err();
        assert_eq!(told.sql_state(), error.sql_state());
    }
}

#[test]
fn strangers_go_through_the_same_exchange() {
    for authentication in [
        Authentication::Password(None),
        Authentication::Md5(None),
        Authentication::ScramSha256 {
            verifier: ScramVerifier::mock(b"of this server", "walrecv"),
            channel_binding: None,
        },
    ] {
        let method = Method::Scram;
        let mut pair = Pair::new(credentials("secret", method), method, vec![1000]);
        pair.authentication = authentication;
        let error = pair.exchange().unwrap_err();
        assert_eq!(error.sql_state().unwrap().as_str(), "28P01");
    }
}

#[test]
fn a_proof_for_another_certificate_is_refused() {
    let method = Method::ScramPlus;
    let somebody_between = TlsBinding::ServerEndPoint(Bytes::from_static(b"another"));
    let credentials = Credentials { tls: somebody_between, ..credentials("secret", method) };
    let error = Pair::new(credentials, method, vec![1000]).exchange().unwrap_err();
    assert_eq!(error.sql_state().unwrap().as_str(), "28000");
}

#[test]
fn a_copy_that_the_client_gives_up_is_told() {
    let mut pair = Pair::logged_in(Method::Trust, vec![3]);
    pair.ask("UPLOAD_MANIFEST");
    pair.say(BackendMessage::CopyInResponse);
    pair.exchange().unwrap();
    pair.client.copy_fail("no disk", &mut pair.from_client.0).unwrap();
    pair.exchange().unwrap();
    assert_eq!(pair.heard_by_server, [ServerEvent::CopyFail("no disk".into())]);
    pair.say(BackendMessage::ErrorResponse(ServerError::new("ERROR", "57014", "COPY failed")));
    pair.say(BackendMessage::ReadyForQuery(TransactionStatus::Idle));
    pair.exchange().unwrap();
    assert!(matches!(pair.heard_by_client[..], [Event::CopyIn, Event::Error(_), Event::Ready]));
}

#[test]
fn a_stream_is_ended_by_the_client_or_by_a_shutdown() {
    let mut pair = Pair::logged_in(Method::Trust, vec![3]);
    pair.ask("START_REPLICATION");
    pair.say(BackendMessage::CopyBothResponse);
    pair.exchange().unwrap();
    pair.client.copy_done(&mut pair.from_client.0).unwrap();
    pair.exchange().unwrap();
    assert_eq!(pair.heard_by_server, [ServerEvent::CopyDone]);
    pair.server.copy_data(b"on its way", &mut pair.from_server.0).unwrap();
    pair.say(BackendMessage::CopyDone);
    assert!(pair.server.copy_data(b"late", &mut pair.from_server.0).is_err());
    let last = Event::CopyData(Bytes::from_static(b"on its way"));
    pair.end(&[Event::CopyBoth, last, Event::CopyDone]);

    pair.ask("START_REPLICATION");
    pair.say(BackendMessage::CopyBothResponse);
    pair.end(&[Event::CopyBoth]);
}

/// A server that has got these bytes, what it makes of them, and what it answers.
fn hear(
    server: &mut ServerSession,
    bytes: &[u8],
) -> (Result<Vec<ServerEvent>, Error>, Vec<BackendMessage>) {
    let (mut input, mut out) = (BytesMut::from(bytes), BytesMut::new());
    let mut events = Vec::new();
    let result = loop {
        match server.handle(&mut input, &mut out) {
            Ok(Some(event)) => events.push(event),
            Ok(None) => break Ok(events),
            Err(error) => break Err(error),
        }
    };
    let mut answers = Vec::new();
    while let Some(answer) = BackendMessage::decode(&mut out, BackendPhase::Session).unwrap() {
        answers.push(answer);
    }
    (result, answers)
}

fn encoded(messages: &[FrontendMessage]) -> BytesMut {
    let mut out = BytesMut::new();
    for message in messages {
        message.encode(&mut out).unwrap();
    }
    out
}

fn startup(code: u32, parameters: &[(&str, &str)]) -> FrontendMessage {
    let parameters =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    FrontendMessage::Startup { protocol: ProtocolVersion::from_code(code), parameters }
}

#[test]
fn encryption_is_negotiated_once_and_nothing_unencrypted_is_believed() {
    let request = encoded(&[FrontendMessage::SslRequest]);
    let mut server = ServerSession::new(ProtocolVersion::V3_2);
    let (mut input, mut out) = (encoded(&[FrontendMessage::GssEncRequest]), BytesMut::new());
    input.unsplit(request.clone());
    assert_eq!(server.handle(&mut input, &mut out).unwrap(), Some(ServerEvent::TlsRequest));
    server.answer_tls(false, &input, &mut out).unwrap();
    assert_eq!(out, b"NN"[..]);
    let error = server.handle(&mut request.clone(), &mut out).unwrap_err();
    assert_eq!(error.sql_state().unwrap().as_str(), "08P01");

    let mut server = ServerSession::new(ProtocolVersion::V3_2);
    let (mut input, mut out) = (request.clone(), BytesMut::new());
    server.handle(&mut input, &mut out).unwrap();
    input.extend_from_slice(b"too early");
    assert!(server.answer_tls(true, &input, &mut out).is_err());
    assert!(server.is_over() && out.starts_with(b"E"));

    let mut server = ServerSession::new(ProtocolVersion::V3_2);
    let (mut input, mut out) = (request, BytesMut::new());
    server.handle(&mut input, &mut out).unwrap();
    server.answer_tls(true, &input, &mut out).unwrap();
    assert_eq!(out, b"S"[..]);
    assert!(server.answer_tls(true, &input, &mut out).is_err());
    let mut within = encoded(&[FrontendMessage::GssEncRequest]);
    assert!(server.handle(&mut within, &mut out).is_err(), "what is encrypted is encrypted once");
}

#[test]
fn cancel_requests_name_their_key() {
    let key = CancelKey::new(7, vec![9; 32]).unwrap();
    let mut server = ServerSession::new(ProtocolVersion::V3_2);
    let (events, answers) = hear(&mut server, &encoded(&[FrontendMessage::Cancel(key.clone())]));
    assert_eq!(events.unwrap(), [ServerEvent::Cancel(key)]);
    assert!(answers.is_empty() && server.is_over());
}

#[test]
fn clients_that_cannot_be_served_are_told_why() {
    let me = ("user", "me");
    for (packet, code) in [
        (startup(2 << 16, &[]), "0A000"),
        (startup(3 << 16, &[]), "28000"),
        (startup(3 << 16, &[("user", "")]), "28000"),
        (startup(3 << 16, &[me, ("replication", "Database")]), "22023"),
    ] {
        let mut server = ServerSession::new(ProtocolVersion::V3_2);
        let (result, answers) = hear(&mut server, &encoded(std::slice::from_ref(&packet)));
        assert_eq!(result.unwrap_err().sql_state().unwrap().as_str(), code, "{packet:?}");
        assert!(matches!(&answers[..], [BackendMessage::ErrorResponse(error)]
            if error.severity == "FATAL" && error.code.unwrap().as_str() == code));
    }
    let malformed = b"\0\0\0\x0d\0\x03\0\0user\0";
    let (result, answers) = hear(&mut ServerSession::new(ProtocolVersion::V3_2), malformed);
    assert!(result.is_err() && matches!(answers[..], [BackendMessage::ErrorResponse(_)]));
    // Who speaks another protocol is not talked to.
    let (result, answers) =
        hear(&mut ServerSession::new(ProtocolVersion::V3_2), b"GET / HTTP/1.1\r\n\r\n");
    assert!(result.is_err() && answers.is_empty());
}

#[test]
fn newer_protocols_and_unknown_options_are_negotiated_down() {
    for minor in [2, 9999] {
        let grease = startup(3 << 16 | minor, &[("user", "me"), ("_pq_.test", "")]);
        let mut server = ServerSession::new(ProtocolVersion::V3_2);
        let (events, answers) = hear(&mut server, &encoded(&[grease]));
        assert!(matches!(&events.unwrap()[..], [ServerEvent::Startup(startup)]
            if startup.parameters.is_empty() && startup.database == "me"
                && startup.replication == Replication::No));
        let (version, unrecognized) = (ProtocolVersion::V3_2, vec!["_pq_.test".to_owned()]);
        assert_eq!(answers, [BackendMessage::NegotiateProtocolVersion { version, unrecognized }]);
        assert_eq!(server.protocol_version(), ProtocolVersion::V3_2);
    }
}

#[test]
fn only_simple_queries_are_served() {
    let mut server = Pair::logged_in(Method::Trust, vec![1000]).server;
    let extended = |tag| FrontendMessage::ExtendedQuery { tag, body: Bytes::new() };
    let (events, answers) = hear(
        &mut server,
        &encoded(&[extended(b'P'), extended(b'B'), FrontendMessage::Query("skipped".into())]),
    );
    assert!(events.unwrap().is_empty());
    assert!(matches!(&answers[..], [BackendMessage::ErrorResponse(error)]
        if error.message.contains("extended query protocol")));
    let (_, answers) = hear(&mut server, &encoded(&[FrontendMessage::Sync]));
    assert_eq!(answers, [BackendMessage::ReadyForQuery(TransactionStatus::Idle)]);
    let (_, answers) = hear(&mut server, &encoded(&[extended(b'F')]));
    assert!(matches!(
        answers[..],
        [BackendMessage::ErrorResponse(_), BackendMessage::ReadyForQuery(_)]
    ));
    assert!(server.is_idle());
}

#[test]
fn what_comes_after_an_error_is_passed_over() {
    let mut server = Pair::logged_in(Method::Trust, vec![1000]).server;
    let late = [
        FrontendMessage::CopyData(Bytes::from_static(b"late")),
        FrontendMessage::CopyDone,
        FrontendMessage::CopyFail("late".into()),
        FrontendMessage::Flush,
        FrontendMessage::Query("IDENTIFY_SYSTEM".into()),
        FrontendMessage::Query("SHOW x".into()),
    ];
    let (events, answers) = hear(&mut server, &encoded(&late));
    // The second waits for its turn.
    assert_eq!(events.unwrap(), [ServerEvent::Query("IDENTIFY_SYSTEM".into())]);
    assert!(answers.is_empty() && !server.wants_input());
}

#[test]
fn clients_that_break_the_rules_are_told_and_left() {
    let query = FrontendMessage::Query("x".into());
    for (copy, wrong) in [
        (BackendMessage::CopyBothResponse, query.clone()),
        (BackendMessage::CopyBothResponse, FrontendMessage::CopyFail("x".into())),
        (BackendMessage::CopyBothResponse, FrontendMessage::Sync),
        (BackendMessage::CopyInResponse, query.clone()),
    ] {
        let mut server = Pair::logged_in(Method::Trust, vec![1000]).server;
        hear(&mut server, &encoded(std::slice::from_ref(&query))).0.unwrap();
        server.say(&copy, &mut BytesMut::new()).unwrap();
        let (result, answers) = hear(&mut server, &encoded(&[wrong]));
        assert!(matches!(result, Err(Error::Violation(_))));
        assert!(matches!(&answers[..], [BackendMessage::ErrorResponse(error)]
            if error.severity == "FATAL" && error.code.unwrap().as_str() == "08P01"));
        assert!(server.is_over());
        assert!(hear(&mut server, b"Q").0.unwrap().is_empty());
    }
}

#[test]
fn nothing_is_said_out_of_turn() {
    use BackendMessage as M;
    let row = M::DataRow(Row::of_text(&[Some("x")]));
    let ready = M::ReadyForQuery(TransactionStatus::Idle);
    let error = M::ErrorResponse(ServerError::new("ERROR", "42601", "syntax error"));
    let mut out = BytesMut::new();
    let mut stranger = ServerSession::new(ProtocolVersion::V3_2);
    for message in [&row, &ready, &error, &M::Authentication(AuthenticationRequest::Ok)] {
        assert!(stranger.say(message, &mut out).is_err(), "{message:?}");
    }
    let mut server = Pair::logged_in(Method::Trust, vec![1000]).server;
    for message in [&row, &ready, &error, &M::CopyDone, &M::CopyData(Bytes::new())] {
        assert!(server.say(message, &mut out).is_err(), "{message:?}");
    }
    assert!(out.is_empty());
    hear(&mut server, b"Q\0\0\0\x06x\0").0.unwrap();
    server.say(&error, &mut out).unwrap();
    assert!(server.say(&row, &mut out).is_err());
    server.say(&ready, &mut out).unwrap();
    server.say(&M::NoticeResponse(ServerError::new("NOTICE", "00000", "x")), &mut out).unwrap();
    let fatal = ServerError::new("FATAL", "57P01", "terminating connection");
    server.say(&M::ErrorResponse(fatal), &mut out).unwrap();
    assert!(server.is_over());
    let misuse = server.say(&ready, &mut out).unwrap_err();
    assert!(matches!(misuse, Misuse::Argument(_)));
}

#[test]
fn our_side_of_a_stream_can_end_first() {
    let mut server = Pair::logged_in(Method::Trust, vec![1000]).server;
    hear(&mut server, b"Q\0\0\0\x06x\0").0.unwrap();
    let mut out = BytesMut::new();
    server.say(&BackendMessage::CopyBothResponse, &mut out).unwrap();
    server.say(&BackendMessage::CopyDone, &mut out).unwrap();
    assert!(server.copy_data(b"late", &mut out).is_err());
    assert!(server.say(&BackendMessage::CopyDone, &mut out).is_err());
    let theirs =
        [FrontendMessage::CopyData(Bytes::from_static(b"on its way")), FrontendMessage::CopyDone];
    let (events, _) = hear(&mut server, &encoded(&theirs));
    let data = ServerEvent::CopyData(Bytes::from_static(b"on its way"));
    assert_eq!(events.unwrap(), [data, ServerEvent::CopyDone]);
    server.say(&BackendMessage::CommandComplete("DONE".into()), &mut out).unwrap();
}

#[test]
fn an_empty_password_is_nobodys() {
    let method = Method::Password;
    let mut pair = Pair::new(credentials("", method), method, vec![1000]);
    pair.authentication = Authentication::Password(Some(Password::new("")));
    let error = pair.exchange().unwrap_err();
    assert_eq!(error.sql_state().unwrap().as_str(), "28P01");
}

#[test]
fn long_keys_need_protocol_3_2() {
    let mut server = ServerSession::new(ProtocolVersion::V3_2);
    hear(&mut server, &encoded(&[startup(3 << 16, &[("user", "me")])])).0.unwrap();
    let mut out = BytesMut::new();
    server.authenticate(Authentication::Trust, &mut out).unwrap();
    let key = |length| BackendMessage::BackendKeyData(CancelKey::new(7, vec![9; length]));
    assert!(server.say(&key(32), &mut out).is_err());
    server.say(&key(4), &mut out).unwrap();
}
