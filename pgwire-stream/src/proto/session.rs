//! The conversation with a server as a state machine.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use super::auth::{AuthenticatedBy, Credentials, Login};
use super::backend::{BackendMessage, BackendPhase};
use super::cancel::CancelKey;
use super::frame::{self, encode_copy_data};
use super::frontend::{self, FrontendMessage};
use super::protocol_version::{Negotiation, ProtocolRange, ProtocolVersion};
use super::rows::{Columns, Row};
use crate::{Error, Misuse, ServerError, Violation};

/// How many run-time parameters a server may report; real ones report about fifteen.
const MAX_PARAMETERS: usize = 128;

/// One conversation with a server, from the startup packet on.
///
/// ```text
///                    R (request), v ⟲                       S, K ⟲
///  new() ──────────▶ Login ──────────────R (Ok)──────────▶ Starting ──Z──┐
///                                                                        ▼
///           ┌──────────────────────────────────────────────Z─────────── Idle ◀──┐
///           │                                                            │      │
///           │                                                     query()│      │
///           │                         T, D, C ⟲                          ▼      │
///           │         ┌──────────────────────────────────────────────▶ Query ─Z─┘
///           │         │                                        ┌────┬────┤
///           │         │ c                                    H │  G │  W │
///           │         ├───────────────── CopyOut ◀─────────────┘    │    │
///           │         │ copy_done()      d ⟲                        │    │
///           │         ├───────────────── CopyIn ◀───────────────────┘    │
///           │         │ c (answered with c)                              │
///           │         ├───────────────── CopyBoth ◀──────────────────────┘
///           │         │ c                 │ copy_done()   d ⟲, C
///           │         └──C,T── CopyOver ◀──c── CopyStopped   d ⟲
///           │                    d ⟲ (passed over)
///           │
///        Draining ◀── E, from Idle, Query, every Copy state and itself
///
///  Letters are the server's messages: R authentication, v negotiation of the protocol,
///  S parameter, K cancel key, Z ready, T columns, D row, C complete, H/G/W copy out/in/both,
///  d copy data, c copy done, E error. N (notice), S and A (notification) may come at any time
///  after the login. ⟲ stays in the state.
/// ```
///
/// Getters: [`parameter`](Self::parameter), [`is_idle`](Self::is_idle),
/// [`cancel_key`](Self::cancel_key), [`protocol_version`](Self::protocol_version). Commands, which
/// write to the output buffer: [`query`](Self::query), [`copy_data`](Self::copy_data),
/// [`copy_done`](Self::copy_done), [`copy_fail`](Self::copy_fail),
/// [`terminate`](Self::terminate). Input: [`handle`](Self::handle), called with whatever has
/// arrived until it gives `None`.
///
/// After an `Err` the conversation cannot be continued, and every further call says
/// [`Misuse::Failed`]; an [`Event::Error`] is the server's own
/// and leaves it usable once [`Event::Ready`] has come.
pub struct Session {
    state: State,
    parameters: HashMap<String, String>,
    negotiation: Negotiation,
    cancel_key: Option<CancelKey>,
    authenticated_by: Option<AuthenticatedBy>,
    /// How many values a row of the command's answer has.
    columns: usize,
    /// How large the input buffer becomes for the sake of more messages than one.
    receive_buffer: usize,
}

enum State {
    Login(Box<Login>),
    Starting,
    Idle,
    Query,
    CopyOut,
    CopyIn,
    CopyBoth,
    CopyStopped,
    /// Both sides have ended the copy that we stopped.
    CopyOver,
    Draining,
    Failed,
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Login(_) => "logging in",
            Self::Starting => "starting the session",
            Self::Idle => "idle",
            Self::Query => "executing a command",
            Self::CopyOut => "sending copy data",
            Self::CopyIn => "receiving copy data",
            Self::CopyBoth => "streaming",
            Self::CopyStopped | Self::CopyOver => "ending the stream",
            Self::Draining => "ending a failed command",
            Self::Failed => "failed",
        }
    }
}

/// What the server said.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The session is idle: the login or the command is over.
    Ready,
    /// A result set begins.
    Columns(Columns),
    /// A row of it.
    Row(Row),
    /// A command, or one of its steps, is complete.
    Complete,
    /// The server wants copy data.
    CopyIn,
    /// Copy data follow.
    CopyOut,
    /// Copy data flow in both directions: streaming has begun.
    CopyBoth,
    /// Copy data: a slice of the input buffer.
    CopyData(Bytes),
    /// The server has sent all its copy data. In a copy-both conversation ours is over, too.
    CopyDone,
    /// The command failed; [`Event::Ready`] follows unless the server closes the connection.
    Error(ServerError),
    /// A notice or warning.
    Notice(ServerError),
}

impl Session {
    /// Begins a conversation by writing the startup packet.
    ///
    /// # Errors
    /// If a parameter contains a zero byte, or the range of versions is empty.
    pub fn new<'a>(
        credentials: Credentials,
        protocols: ProtocolRange,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
        out: &mut BytesMut,
    ) -> Result<Self, Misuse> {
        let mut negotiation = Negotiation::new(protocols)?;
        let parameters = parameters.into_iter().inspect(|(name, _)| negotiation.asked_for(name));
        frontend::encode_startup(protocols.max, parameters, out)?;
        let state = State::Login(Box::new(Login::new(credentials)));
        Ok(Self {
            state,
            parameters: HashMap::new(),
            negotiation,
            cancel_key: None,
            authenticated_by: None,
            columns: 0,
            receive_buffer: frame::BUFFER,
        })
    }

    /// From now on, a new input buffer has room for so many bytes, or for one message if that is
    /// longer; 256 KiB to begin with, and never under 32 KiB.
    pub fn set_receive_buffer(&mut self, bytes: usize) {
        self.receive_buffer = bytes;
    }

    /// The version of the protocol that is spoken; final once the login is complete.
    pub fn protocol_version(&self) -> ProtocolVersion {
        self.negotiation.version()
    }

    /// How to cancel what the session executes. `None` before the login is complete, and where a
    /// pooler sends no usable key.
    pub fn cancel_key(&self) -> Option<&CancelKey> {
        self.cancel_key.as_ref()
    }

    /// How the server has had us prove who we are; `None` before it has let us in.
    pub fn authenticated_by(&self) -> Option<AuthenticatedBy> {
        self.authenticated_by
    }

    /// The last value that the server reported for a run-time parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Whether a command can be sent.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// What is going on, for error messages.
    pub fn activity(&self) -> &'static str {
        self.state.name()
    }

    /// Sends a command or simple query.
    ///
    /// # Errors
    /// If the session is not idle, or the command contains a zero byte.
    pub fn query(&mut self, sql: &str, out: &mut BytesMut) -> Result<(), Misuse> {
        if !self.is_idle() {
            return Err(Misuse::Argument("the session is busy with another command"));
        }
        frontend::encode_query(sql, out)?;
        self.state = State::Query;
        self.columns = 0;
        Ok(())
    }

    /// Sends copy data.
    ///
    /// # Errors
    /// If the server is not listening to any, or they are too long for one message.
    pub fn copy_data(&mut self, data: &[u8], out: &mut BytesMut) -> Result<(), Misuse> {
        match self.state {
            State::CopyIn | State::CopyBoth => encode_copy_data(data, out),
            _ => Err(Misuse::Argument("no copy data can be sent now")),
        }
    }

    /// Ends our side of a copy-in or copy-both conversation.
    ///
    /// # Errors
    /// If there is none.
    pub fn copy_done(&mut self, out: &mut BytesMut) -> Result<(), Misuse> {
        self.state = match self.state {
            State::CopyIn => State::Query,
            State::CopyBoth => State::CopyStopped,
            _ => return Err(Misuse::Argument("there is no copy to end")),
        };
        FrontendMessage::CopyDone.encode(out)
    }

    /// Gives up a copy-in conversation, which makes the server give up the command, too.
    ///
    /// # Errors
    /// If there is none, or the reason contains a zero byte.
    pub fn copy_fail(&mut self, reason: &str, out: &mut BytesMut) -> Result<(), Misuse> {
        let State::CopyIn = self.state else {
            return Err(Misuse::Argument("there is no copy to give up"));
        };
        FrontendMessage::CopyFail(reason.to_owned()).encode(out)?;
        self.state = State::Query;
        Ok(())
    }

    /// Says goodbye; the connection can be closed when this is sent.
    pub fn terminate(&mut self, out: &mut BytesMut) {
        let _ = FrontendMessage::Terminate.encode(out);
    }

    /// Takes the next event from the input, writing what it must be answered with. `None` means
    /// that more bytes are needed.
    ///
    /// # Errors
    /// If the input is not PostgreSQL's protocol or not allowed now, or the login fails. An error
    /// that the server reports is an [`Event`], except during the login.
    pub fn handle(
        &mut self,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<Event>, Error> {
        let result = self.next_event(input, out);
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }

    fn next_event(
        &mut self,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Option<Event>, Error> {
        loop {
            // Nearly all that ever comes, so it takes the shortest way.
            if let State::CopyOut | State::CopyBoth | State::CopyStopped = self.state
                && let Some(data) = frame::take_copy_data(input)
            {
                return Ok(Some(Event::CopyData(data)));
            }
            let phase = match self.state {
                State::Failed => return Err(Misuse::Failed.into()),
                State::Login(_) => BackendPhase::Login,
                _ => BackendPhase::Session,
            };
            let message = BackendMessage::decode_within(input, phase, self.receive_buffer)?;
            let Some(message) = message else { return Ok(None) };
            if let Some(event) = self.advance(message, out)? {
                return Ok(Some(event));
            }
        }
    }

    fn advance(
        &mut self,
        message: BackendMessage,
        out: &mut BytesMut,
    ) -> Result<Option<Event>, Error> {
        use BackendMessage as M;
        let (next, event) = match (&mut self.state, message) {
            (_, M::NoticeResponse(notice)) => return Ok(Some(Event::Notice(notice))),
            (State::Login(_) | State::Starting, M::ErrorResponse(error)) => {
                return Err(error.into());
            }
            (State::Login(login), M::Authentication(request)) => {
                if login.handle(request, out)? {
                    self.authenticated_by = Some(login.authenticated_by());
                    self.state = State::Starting;
                }
                return Ok(None);
            }
            (State::Login(_), M::NegotiateProtocolVersion { version, unrecognized }) => {
                self.negotiation.answered(version, &unrecognized)?;
                return Ok(None);
            }
            (state, M::ParameterStatus { name, value }) if !matches!(state, State::Login(_)) => {
                self.note_parameter(name, value);
                return Ok(None);
            }
            (state, M::NotificationResponse { .. }) if !matches!(state, State::Login(_)) => {
                return Ok(None);
            }
            (State::Starting, M::BackendKeyData(key)) => {
                self.cancel_key = key;
                return Ok(None);
            }
            // Up to 10, a logical stream has a keepalive behind its end.
            (State::CopyOver, M::CopyData(_)) => return Ok(None),
            (
                State::Starting | State::Query | State::CopyOver | State::Draining,
                M::ReadyForQuery(_),
            ) => (State::Idle, Event::Ready),
            // Sent before the connection is closed: an administrator's or a shutdown's last word.
            (State::Idle, M::ErrorResponse(error)) => (State::Draining, Event::Error(error)),
            (State::Query | State::CopyOver, M::RowDescription(columns)) => {
                self.columns = columns.names().len();
                (State::Query, Event::Columns(columns))
            }
            // A value that is missing would read as NULL.
            (State::Query, M::DataRow(row)) if row.len() == self.columns => {
                (State::Query, Event::Row(row))
            }
            (State::Query, M::EmptyQueryResponse) => (State::Query, Event::Complete),
            // A server that shuts down ends the stream with a bare CommandComplete.
            (
                State::Query | State::CopyBoth | State::CopyStopped | State::CopyOver,
                M::CommandComplete(_),
            ) => (State::Query, Event::Complete),
            (State::Query, M::CopyInResponse) => (State::CopyIn, Event::CopyIn),
            (State::Query, M::CopyOutResponse) => (State::CopyOut, Event::CopyOut),
            (State::Query, M::CopyBothResponse) => (State::CopyBoth, Event::CopyBoth),
            (State::CopyBoth, M::CopyDone) => {
                FrontendMessage::CopyDone.encode(out)?;
                (State::Query, Event::CopyDone)
            }
            (State::CopyOut, M::CopyDone) => (State::Query, Event::CopyDone),
            (State::CopyStopped, M::CopyDone) => (State::CopyOver, Event::CopyDone),
            (
                State::Query
                | State::CopyOut
                | State::CopyIn
                | State::CopyBoth
                | State::CopyStopped
                | State::CopyOver
                // The server may be shut down while it recovers from an error.
                | State::Draining,
                M::ErrorResponse(error),
            ) => (State::Draining, Event::Error(error)),
            (state, message) => {
                let (message, state) = (message.name().to_owned(), state.name());
                return Err(Violation::Unexpected { message, state }.into());
            }
        };
        self.state = next;
        Ok(Some(event))
    }

    fn note_parameter(&mut self, name: String, value: String) {
        if self.parameters.len() < MAX_PARAMETERS || self.parameters.contains_key(&name) {
            self.parameters.insert(name, value);
        }
    }
}
