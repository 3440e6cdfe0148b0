//! Messages, each decoded in arbitrary cuts and encoded again.

use bytes::{Bytes, BytesMut};
use postgres_protocol::message::{backend as peer, frontend};

use crate::proto::{
    AuthenticationRequest, BackendMessage, BackendPhase, CopyBothMessage, FrontendMessage,
    FrontendPhase, StandbyMessage,
};

/// What a server says, behind a byte that says how it is cut.
///
/// Asserted: any cut gives the same messages, what is encoded again means the same, and
/// `postgres-protocol` agrees where it knows the message.
pub fn backend(data: &[u8]) {
    let Some((&cut, data)) = data.split_first() else { return };
    let whole = decode_backend(data, data.len());
    assert_eq!(whole, decode_backend(data, usize::from(cut) + 1));
    for message in whole.0 {
        let mut bytes = BytesMut::new();
        // What was decoded from one message may be too long for another limit, never malformed.
        message.encode(&mut bytes).unwrap();
        let of_peer = peer::Message::parse(&mut bytes.clone());
        let phase = match &message {
            BackendMessage::Authentication(_) | BackendMessage::NegotiateProtocolVersion { .. } => {
                BackendPhase::Login
            }
            _ => BackendPhase::Session,
        };
        assert_eq!(BackendMessage::decode(&mut bytes, phase).unwrap().as_ref(), Some(&message));
        assert!(bytes.is_empty());
        match (&message, of_peer) {
            // It knows a key of four bytes only, and neither of the other two.
            (BackendMessage::BackendKeyData(_), _)
            | (BackendMessage::NegotiateProtocolVersion { .. }, _)
            | (BackendMessage::CopyBothResponse, _) => {}
            (BackendMessage::CopyData(data), Ok(Some(peer::Message::CopyData(body)))) => {
                assert_eq!(*data, body.into_bytes());
            }
            (_, of_peer) => assert!(matches!(of_peer, Ok(Some(_))), "{message:?}"),
        }
    }
}

/// The messages of a server in pieces of this length, and why it goes no further.
fn decode_backend(data: &[u8], cut: usize) -> (Vec<BackendMessage>, Option<String>) {
    let mut server = ServerMessages::default();
    let mut messages = Vec::new();
    for piece in data.chunks(cut.max(1)) {
        server.extend(piece);
        loop {
            match server.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(refused) => return (messages, Some(refused)),
            }
        }
    }
    (messages, None)
}

/// Finds the messages in what a server says, from its first byte on.
#[derive(Default)]
pub(super) struct ServerMessages {
    input: BytesMut,
    authenticated: bool,
}

impl ServerMessages {
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    pub(super) fn next(&mut self) -> Result<Option<BackendMessage>, String> {
        let phase = match self.authenticated {
            false => BackendPhase::Login,
            true => BackendPhase::Session,
        };
        let message = BackendMessage::decode(&mut self.input, phase);
        let message = message.map_err(|error| error.to_string())?;
        self.authenticated |=
            matches!(message, Some(BackendMessage::Authentication(AuthenticationRequest::Ok)));
        Ok(message)
    }

    /// Whether the last message is whole.
    pub(super) fn is_empty(&self) -> bool {
        self.input.is_empty()
    }
}

/// What a client says, behind a byte that says how it is cut, and one whose lowest bit says that
/// its passwords are steps of SASL.
///
/// Asserted: any cut gives the same messages, each is encoded in the bytes that it came in, and
/// `postgres-protocol` encodes it so, too.
pub fn frontend(data: &[u8]) {
    let [cut, options, data @ ..] = data else { return };
    let password = if options & 1 == 1 { FrontendPhase::Sasl } else { FrontendPhase::Password };
    let whole = decode_frontend(data, data.len(), password);
    assert_eq!(whole, decode_frontend(data, usize::from(*cut) + 1, password));
    let mut rest = data;
    for message in whole.0 {
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes).unwrap();
        // Of a packet of another protocol nothing but its version is kept.
        if let FrontendMessage::Startup { protocol, .. } = &message
            && protocol.major() != 3
        {
            return;
        }
        let came = rest.split_off(..bytes.len()).unwrap();
        assert_eq!(bytes, came, "{message:?}");
        if let Some(by_peer) = encoded_by_peer(&message) {
            assert_eq!(bytes, by_peer);
        }
    }
}

/// The messages of a client in pieces of this length, and why it goes no further.
fn decode_frontend(
    data: &[u8],
    cut: usize,
    password: FrontendPhase,
) -> (Vec<FrontendMessage>, Option<String>) {
    let mut client = ClientMessages { password, ..ClientMessages::from_startup() };
    let mut messages = Vec::new();
    for piece in data.chunks(cut.max(1)) {
        client.extend(piece);
        loop {
            match client.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(refused) => return (messages, Some(refused)),
            }
        }
    }
    (messages, None)
}

/// Finds the messages in what a client says.
pub(super) struct ClientMessages {
    input: BytesMut,
    started: bool,
    password: FrontendPhase,
}

impl ClientMessages {
    /// From its first byte on.
    pub(super) fn from_startup() -> Self {
        Self { input: BytesMut::new(), started: false, password: FrontendPhase::Password }
    }

    /// Once it is logged in.
    pub(super) fn from_session() -> Self {
        Self { started: true, ..Self::from_startup() }
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    pub(super) fn next(&mut self) -> Result<Option<FrontendMessage>, String> {
        let phase = match (self.started, self.input.first()) {
            (false, _) => FrontendPhase::Startup,
            (true, Some(b'p')) => self.password,
            (true, _) => FrontendPhase::Session,
        };
        let message = FrontendMessage::decode(&mut self.input, phase);
        let message = message.map_err(|error| error.to_string())?;
        self.started |= matches!(message, Some(FrontendMessage::Startup { .. }));
        Ok(message)
    }

    /// Whether the last message is whole.
    pub(super) fn is_empty(&self) -> bool {
        self.input.is_empty()
    }
}

/// The message as `postgres-protocol` encodes it, where it does.
fn encoded_by_peer(message: &FrontendMessage) -> Option<BytesMut> {
    use FrontendMessage as M;
    let mut bytes = BytesMut::new();
    match message {
        M::SslRequest => frontend::ssl_request(&mut bytes),
        M::Query(text) => frontend::query(text, &mut bytes).ok()?,
        M::CopyData(data) => frontend::CopyData::new(data.clone()).ok()?.write(&mut bytes),
        M::CopyDone => frontend::copy_done(&mut bytes),
        M::CopyFail(reason) => frontend::copy_fail(reason, &mut bytes).ok()?,
        M::Sync => frontend::sync(&mut bytes),
        M::Flush => frontend::flush(&mut bytes),
        M::Terminate => frontend::terminate(&mut bytes),
        M::Password(password) => frontend::sasl_response(password.as_bytes(), &mut bytes).ok()?,
        _ => return None,
    }
    Some(bytes)
}

/// A payload of a copy-both conversation, of either side.
///
/// Asserted: WAL is not copied and ends within the address space, and what is encoded again means
/// the same.
pub fn wal_message(data: &[u8]) {
    let payload = Bytes::copy_from_slice(data);
    if let Ok(message) = CopyBothMessage::decode(payload.clone()) {
        if let CopyBothMessage::Data(wal) = &message {
            assert_eq!(wal.end().bytes_since(wal.start), wal.data.len() as u64);
            let range = payload.as_ptr_range();
            assert!((range.start..=range.end).contains(&wal.data.as_ptr()), "it was copied");
        }
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        assert_eq!(bytes.len(), data.len());
        assert_eq!(CopyBothMessage::decode(bytes.freeze()), Ok(message));
    }
    if let Ok(message) = StandbyMessage::decode(payload) {
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        assert_eq!(bytes.len(), data.len());
        assert_eq!(StandbyMessage::decode(bytes.freeze()), Ok(message));
    }
}
