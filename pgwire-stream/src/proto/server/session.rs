//! The conversation with a client as a state machine.

use bytes::{Bytes, BytesMut};

use super::fatal;
use super::login::{Authentication, Login};
use super::startup::Startup;
use crate::proto::{
    AuthenticationRequest, BackendMessage, CancelKey, FrontendMessage, FrontendPhase,
    ProtocolVersion, TransactionStatus, encode_copy_data,
};
use crate::{DecodeError, Error, Misuse, ServerError, Violation};

/// One conversation with a client, from the first packet on: the mirror image of
/// [`Session`](crate::proto::Session).
///
/// ```text
///  new() ──▶ Startup
///            Startup  ──SSLRequest──▶ TlsAsked ──answer_tls()──▶ Startup
///            Startup  ──startup packet──▶ Named ──authenticate()──▶ Login
///            Login    (p, R ⟲) ──R (Ok)──▶ Starting
///            Starting (S, K ⟲) ──Z──▶ Idle
///
///            Idle     ──Q──▶ Query
///            Query    (T, D, C ⟲) ──Z──▶ Idle
///            Query    ──G──▶ CopyIn   (their d ⟲) ──their c, or f──▶ Query
///            Query    ──H──▶ CopyOut  (d ⟲) ──c──▶ Query
///            Query    ──W──▶ CopyBoth (d, their d ⟲) ──c and their c, or C──▶ Query
///            Query, CopyIn, CopyOut, CopyBoth ──E──▶ Draining ──Z──▶ Idle
///
///  Letters are messages: p password, Q query and f copy fail are the client's; R authentication,
///  S parameter, K cancel key, Z ready, T columns, D row, C complete, G/H/W copy in/out/both,
///  E error are ours; d copy data and c copy done are either's. ⟲ stays in the state. Notices, S
///  and notifications can be sent at any time after the login, and an E of severity FATAL always,
///  which ends the session, as do X (Terminate), a CancelRequest and a violation.
/// ```
///
/// Input: [`handle`](Self::handle), called with whatever has arrived until it gives `None`. Output:
/// [`say`](Self::say) for every message after the login, in any order that the diagram allows, and
/// [`copy_data`](Self::copy_data). Messages of the extended query protocol are refused here, as the
/// real server does on replication connections; GSSAPI encryption is declined.
///
/// A client that does not keep to the protocol or cannot log in is told so, as the real server tells
/// it, and the session is over: send what is in the output buffer, and close the connection.
#[derive(Debug)]
pub struct ServerSession {
    state: State,
    /// The latest version that we speak.
    latest: ProtocolVersion,
    /// The version that is spoken.
    protocol: ProtocolVersion,
    tls_answered: bool,
    gss_answered: bool,
}

#[derive(Debug)]
enum State {
    Startup,
    TlsAsked,
    Named(String),
    Login(Box<Login>),
    Starting,
    Idle,
    /// An extended query was refused; the rest of it is passed over.
    Skipping,
    Query,
    CopyIn,
    CopyOut,
    /// Which sides still send.
    CopyBoth {
        ours: bool,
        theirs: bool,
    },
    Draining,
    Over,
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Startup | Self::TlsAsked => "waiting for a startup packet",
            Self::Named(_) | Self::Login(_) => "authenticating the client",
            Self::Starting => "starting the session",
            Self::Idle | Self::Skipping => "waiting for a command",
            Self::Query => "executing a command",
            Self::CopyIn => "receiving copy data",
            Self::CopyOut => "sending copy data",
            Self::CopyBoth { .. } => "streaming",
            Self::Draining => "ending a failed command",
            Self::Over => "closed",
        }
    }
}

/// What the client said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerEvent {
    /// May it use TLS? To be answered by [`ServerSession::answer_tls`].
    TlsRequest,
    /// It wants to cancel what another session executes. Nothing is answered; close the connection.
    Cancel(CancelKey),
    /// It has said who it is. To be answered by [`ServerSession::authenticate`].
    Startup(Startup),
    /// It has proved who it is. Parameters and a cancel key are due, and then
    /// [`BackendMessage::ReadyForQuery`].
    Authenticated,
    /// A command or SQL. To be answered up to [`BackendMessage::ReadyForQuery`].
    Query(String),
    /// Copy data: a slice of the input buffer.
    CopyData(Bytes),
    /// It has sent all its copy data.
    CopyDone,
    /// Its copy data come to no end, for this reason. To be answered by an error (57014).
    CopyFail(String),
    /// It is leaving; close the connection.
    Terminate,
}

impl ServerSession {
    /// A conversation that begins, for a server that speaks the protocol up to this version.
    pub fn new(latest: ProtocolVersion) -> Self {
        Self {
            state: State::Startup,
            latest,
            protocol: latest,
            tls_answered: false,
            gss_answered: false,
        }
    }

    /// The version of the protocol that is spoken, once the startup packet is there.
    pub fn protocol_version(&self) -> ProtocolVersion {
        self.protocol
    }

    /// What is going on, for error messages.
    pub fn activity(&self) -> &'static str {
        self.state.name()
    }

    /// Whether the client has the word. If not, [`handle`](Self::handle) takes nothing, and what the
    /// client sends ahead should be left in the socket.
    pub fn wants_input(&self) -> bool {
        !matches!(
            self.state,
            State::TlsAsked
                | State::Named(_)
                | State::Starting
                | State::Query
                | State::CopyOut
                | State::CopyBoth { theirs: false, .. }
                | State::Draining
                | State::Over
        )
    }

    /// Whether the client may send a command, or leave.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether the conversation has ended: close the connection when the output is sent.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Takes the next event from the input, writing what it must be answered with. `None` means
    /// that more bytes are needed, or that it is our turn.
    ///
    /// # Errors
    /// [`Error::Server`] if the client was refused, with what it was told; [`Error::Decode`] and
    /// [`Error::Violation`] if it does not keep to the protocol. The session is over.
    pub fn handle(
        &mut self,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<ServerEvent>, Error> {
        let result = self.next_event(input, out);
        if let Err(error) = &result {
            self.fail(error, out);
        }
        result
    }

    fn next_event(
        &mut self,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<ServerEvent>, Error> {
        while self.wants_input() {
            let phase = match &self.state {
                State::Startup => FrontendPhase::Startup,
                State::Login(login) => login.phase(),
                _ => FrontendPhase::Session,
            };
            let Some(message) = FrontendMessage::decode(input, phase)? else { return Ok(None) };
            if let Some(event) = self.advance(message, out)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn advance(
        &mut self,
        message: FrontendMessage,
        out: &mut BytesMut,
    ) -> Result<Option<ServerEvent>, Error> {
        use FrontendMessage as M;
        let (next, event) = match (&mut self.state, message) {
            (State::Startup, M::SslRequest) if !self.tls_answered => {
                (State::TlsAsked, Some(ServerEvent::TlsRequest))
            }
            (State::Startup, M::GssEncRequest) if !self.gss_answered => {
                self.gss_answered = true;
                out.extend_from_slice(b"N");
                (State::Startup, None)
            }
            (State::Startup, M::SslRequest | M::GssEncRequest) => {
                return Err(fatal("08P01", "encryption was negotiated before"));
            }
            (State::Startup, M::Cancel(key)) => (State::Over, Some(ServerEvent::Cancel(key))),
            (State::Startup, M::Startup { protocol, parameters }) => {
                let startup = self.start(protocol, parameters, out)?;
                (State::Named(startup.user.clone()), Some(ServerEvent::Startup(startup)))
            }
            (State::Login(login), M::Password(answer)) => {
                if !login.handle(&answer, out)? {
                    return Ok(None);
                }
                BackendMessage::Authentication(AuthenticationRequest::Ok).encode(out)?;
                (State::Starting, Some(ServerEvent::Authenticated))
            }
            (_, M::Terminate) => (State::Over, Some(ServerEvent::Terminate)),
            (State::Idle, M::Query(text)) => (State::Query, Some(ServerEvent::Query(text))),
            // On its way before the client knew of an error; the real server ignores it, too.
            (State::Idle, M::CopyData(_) | M::CopyDone | M::CopyFail(_) | M::Flush) => {
                (State::Idle, None)
            }
            (State::Idle | State::Skipping, M::Sync) => {
                BackendMessage::ReadyForQuery(TransactionStatus::Idle).encode(out)?;
                (State::Idle, None)
            }
            (State::Idle, M::ExtendedQuery { tag, .. }) => (refuse_extended(tag, out)?, None),
            (State::Skipping, _) => (State::Skipping, None),
            (State::CopyIn, M::CopyData(data)) => {
                (State::CopyIn, Some(ServerEvent::CopyData(data)))
            }
            (State::CopyIn, M::CopyDone) => (State::Query, Some(ServerEvent::CopyDone)),
            (State::CopyIn, M::CopyFail(reason)) => {
                (State::Query, Some(ServerEvent::CopyFail(reason)))
            }
            (State::CopyIn, M::Flush | M::Sync) => (State::CopyIn, None),
            (&mut State::CopyBoth { ours, theirs: true }, M::CopyData(data)) => {
                let next = State::CopyBoth { ours, theirs: true };
                (next, Some(ServerEvent::CopyData(data)))
            }
            (&mut State::CopyBoth { ours, theirs: true }, M::CopyDone) => {
                let next =
                    if ours { State::CopyBoth { ours, theirs: false } } else { State::Query };
                (next, Some(ServerEvent::CopyDone))
            }
            (state, message) => {
                let (message, state) = (message.name().to_owned(), state.name());
                return Err(Violation::Unexpected { message, state }.into());
            }
        };
        self.state = next;
        Ok(event)
    }

    /// Agrees on a version and on who is talking.
    fn start(
        &mut self,
        asked: ProtocolVersion,
        parameters: Vec<(String, String)>,
        out: &mut BytesMut,
    ) -> Result<Startup, Error> {
        if asked.major() != 3 {
            let latest = self.latest;
            let problem =
                format!("unsupported frontend protocol {asked}: server supports 3.0 to {latest}");
            return Err(fatal("0A000", problem));
        }
        self.protocol = asked.min(self.latest);
        let (startup, unrecognized) = Startup::new(self.protocol, parameters)?;
        if self.protocol < asked || !unrecognized.is_empty() {
            let version = self.protocol;
            BackendMessage::NegotiateProtocolVersion { version, unrecognized }.encode(out)?;
        }
        Ok(startup)
    }

    /// Answers [`ServerEvent::TlsRequest`]. After a yes, which must be sent in the clear, the
    /// handshake is next, and then the client's first packet again.
    ///
    /// # Errors
    /// If there was no request; if it is granted although `input` is not empty: what the client, or
    /// somebody in its name, sent in the clear must not pass for what it will send encrypted.
    pub fn answer_tls(
        &mut self,
        granted: bool,
        input: &BytesMut,
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        let State::TlsAsked = self.state else {
            return Err(Misuse::Argument("the client did not ask for TLS").into());
        };
        if granted && !input.is_empty() {
            let problem = "received unencrypted data after SSL request";
            let error = fatal("08P01", problem);
            self.fail(&error, out);
            return Err(error);
        }
        out.extend_from_slice(if granted { b"S" } else { b"N" });
        self.tls_answered = true;
        // What is encrypted already, is not encrypted once more.
        self.gss_answered |= granted;
        self.state = State::Startup;
        Ok(())
    }

    /// Answers [`ServerEvent::Startup`]. [`ServerEvent::Authenticated`] follows, from
    /// [`handle`](Self::handle) or, where nothing is asked, from here.
    ///
    /// # Errors
    /// If the client has not said who it is, or there is no randomness.
    pub fn authenticate(
        &mut self,
        authentication: Authentication,
        out: &mut BytesMut,
    ) -> Result<Option<ServerEvent>, Error> {
        let State::Named(user) = &self.state else {
            return Err(Misuse::Argument("there is nobody to authenticate").into());
        };
        match Login::begin(user, authentication, out)? {
            Some(login) => {
                self.state = State::Login(Box::new(login));
                Ok(None)
            }
            None => {
                BackendMessage::Authentication(AuthenticationRequest::Ok).encode(out)?;
                self.state = State::Starting;
                Ok(Some(ServerEvent::Authenticated))
            }
        }
    }

    /// Says something to the client.
    ///
    /// # Errors
    /// If it cannot be said now, or cannot be encoded; then nothing is written.
    pub fn say(&mut self, message: &BackendMessage, out: &mut BytesMut) -> Result<(), Misuse> {
        use BackendMessage as M;
        let next = match (&self.state, message) {
            (State::Over, _) => None,
            (_, M::ErrorResponse(error)) if error.is_fatal() => Some(State::Over),
            (State::Starting, M::BackendKeyData(key)) => {
                let length = key.as_ref().map_or(4, |key| key.secret().len());
                if self.protocol < ProtocolVersion::V3_2 && length != 4 {
                    return Err(Misuse::Argument("a cancel key is too long for protocol 3.0"));
                }
                Some(State::Starting)
            }
            (State::Starting | State::Query | State::Draining, M::ReadyForQuery(_)) => {
                Some(State::Idle)
            }
            (
                State::Query,
                M::RowDescription(_)
                | M::DataRow(_)
                | M::CommandComplete(_)
                | M::EmptyQueryResponse,
            ) => Some(State::Query),
            // A server that shuts down ends the stream with a bare CommandComplete.
            (State::CopyBoth { .. }, M::CommandComplete(_)) => Some(State::Query),
            (State::Query, M::CopyInResponse) => Some(State::CopyIn),
            (State::Query, M::CopyOutResponse) => Some(State::CopyOut),
            (State::Query, M::CopyBothResponse) => {
                Some(State::CopyBoth { ours: true, theirs: true })
            }
            (_, M::CopyData(data)) => return self.copy_data(data, out),
            (State::CopyOut | State::CopyBoth { ours: true, theirs: false }, M::CopyDone) => {
                Some(State::Query)
            }
            (State::CopyBoth { ours: true, theirs: true }, M::CopyDone) => {
                Some(State::CopyBoth { ours: false, theirs: true })
            }
            (
                State::Query | State::CopyIn | State::CopyOut | State::CopyBoth { .. },
                M::ErrorResponse(_),
            ) => Some(State::Draining),
            (State::Startup | State::TlsAsked | State::Named(_) | State::Login(_), _) => None,
            (
                _,
                M::NoticeResponse(_) | M::ParameterStatus { .. } | M::NotificationResponse { .. },
            ) => {
                message.encode(out)?;
                return Ok(());
            }
            _ => None,
        };
        let Some(next) = next else {
            return Err(Misuse::Argument("the message cannot be sent now"));
        };
        message.encode(out)?;
        self.state = next;
        Ok(())
    }

    /// Sends copy data from a slice.
    ///
    /// # Errors
    /// If there is no copy to the client, or they are too long for one message.
    pub fn copy_data(&mut self, data: &[u8], out: &mut BytesMut) -> Result<(), Misuse> {
        match self.state {
            State::CopyOut | State::CopyBoth { ours: true, .. } => encode_copy_data(data, out),
            _ => Err(Misuse::Argument("no copy data can be sent now")),
        }
    }

    /// Ends the session, telling the client why, except where the real server does not: whoever
    /// sends a first packet of an impossible length does not speak this protocol.
    fn fail(&mut self, error: &Error, out: &mut BytesMut) {
        let report = match (&self.state, error) {
            (_, Error::Server(report)) => Some((**report).clone()),
            (State::Startup, Error::Decode(DecodeError { message: "startup packet", .. })) => {
                Some(ServerError::new("FATAL", "08P01", "invalid startup packet layout"))
            }
            (State::Startup | State::Over, _) => None,
            (_, error) => Some(ServerError::new("FATAL", "08P01", error.to_string())),
        };
        self.state = State::Over;
        if let Some(report) = report {
            // What cannot be said is left unsaid: the session is over either way.
            let _ = BackendMessage::ErrorResponse(report).encode(out);
        }
    }
}

/// Refuses an extended query as a walsender does, and passes over the rest of it.
fn refuse_extended(tag: u8, out: &mut BytesMut) -> Result<State, Misuse> {
    let (problem, next) = match tag {
        b'F' => ("fastpath function calls not supported in a replication connection", State::Idle),
        _ => ("extended query protocol not supported in a replication connection", State::Skipping),
    };
    let error = ServerError::new("ERROR", "08P01", problem);
    BackendMessage::ErrorResponse(error).encode(out)?;
    if let State::Idle = next {
        BackendMessage::ReadyForQuery(TransactionStatus::Idle).encode(out)?;
    }
    Ok(next)
}
