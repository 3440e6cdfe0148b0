//! The server's messages.
//!
//! Follows "Message Formats" in PostgreSQL's protocol documentation.

use std::ops::RangeInclusive;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::message::backend::Message;

use super::authentication_request::AuthenticationRequest;
use super::cancel::{CANCEL_SECRET, CancelKey};
use super::frame::{
    self, BUFFER, COPY_DATA_LENGTHS, DOES_NOT_FIT, Frame, MAX_LOGIN_ERROR, MAX_LOGIN_MESSAGE,
    MAX_MESSAGE, MAX_REPORT, MAX_ROW, encode_copy_data, put_text, take_text,
};
use super::protocol_version::{NEGOTIATION, ProtocolVersion};
use super::report;
use super::rows::{Columns, Row};
use crate::{DecodeError, Error, Misuse, ServerError, Violation};

/// How far the login is, which decides what a server may send, and how long it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendPhase {
    /// Before AuthenticationOk, when the peer may be anybody.
    Login,
    /// Afterwards.
    Session,
}

/// A message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendMessage {
    /// `R`: what the server wants to know about the client.
    Authentication(AuthenticationRequest),
    /// `v`: the server speaks another version, or does not know all options.
    NegotiateProtocolVersion {
        /// The latest version that the server speaks.
        version: ProtocolVersion,
        /// The protocol options (`_pq_.…`) that it does not know.
        unrecognized: Vec<String>,
    },
    /// `K`: how to cancel what this session executes. `None` is what some poolers send: a key
    /// without a secret, which can cancel nothing.
    BackendKeyData(Option<CancelKey>),
    /// `S`: the value of a setting.
    ParameterStatus {
        /// The setting.
        name: String,
        /// Its value now.
        value: String,
    },
    /// `Z`: a command can be sent.
    ReadyForQuery(TransactionStatus),
    /// `T`: rows follow.
    RowDescription(Columns),
    /// `D`: a row.
    DataRow(Row),
    /// `C`: a command, or a step of one, is complete. Its tag, such as `SELECT`.
    CommandComplete(String),
    /// `I`: there was no command.
    EmptyQueryResponse,
    /// `G`: the server wants copy data. Formats are not kept here and in the next two: what
    /// replication copies is opaque.
    CopyInResponse,
    /// `H`: copy data follow.
    CopyOutResponse,
    /// `W`: copy data flow in both directions.
    CopyBothResponse,
    /// `d`: copy data.
    CopyData(Bytes),
    /// `c`: the end of the server's copy data.
    CopyDone,
    /// `E`: an error.
    ErrorResponse(ServerError),
    /// `N`: a notice or warning.
    NoticeResponse(ServerError),
    /// `A`: somebody's NOTIFY.
    NotificationResponse {
        /// The notifying server process.
        process: i32,
        /// The channel.
        channel: String,
        /// The payload.
        payload: String,
    },
}

/// How the session's transaction stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: there is none.
    #[default]
    Idle,
    /// `T`: one is open.
    Open,
    /// `E`: one has failed, and waits for its end.
    Failed,
}

impl BackendMessage {
    /// Takes the next message from the input; `None` means that more bytes are needed. Copy data
    /// and the values of rows are slices of the input.
    ///
    /// # Errors
    /// If it is malformed, too long, or not part of this phase of replication.
    pub fn decode(input: &mut BytesMut, phase: BackendPhase) -> Result<Option<Self>, Error> {
        Self::decode_within(input, phase, BUFFER)
    }

    /// As [`decode`](Self::decode), for a buffer of another size.
    pub(super) fn decode_within(
        input: &mut BytesMut,
        phase: BackendPhase,
        buffer: usize,
    ) -> Result<Option<Self>, Error> {
        if phase == BackendPhase::Login && report::is_unframed(input) {
            return Ok(report::take_unframed(input)?.map(Self::ErrorResponse));
        }
        let Some(frame) = frame::take(input, buffer, |tag| lengths(tag, phase))? else {
            return Ok(None);
        };
        let tag = frame.tag;
        let message = match tag {
            b'd' => return Ok(Some(Self::CopyData(frame.body()))),
            // Not known to the message library, or narrower than servers are.
            b'W' => Some(Self::CopyBothResponse),
            b'K' => decode_key(frame.body()),
            b'v' => decode_negotiation(frame.body()),
            _ => decode_by_library(frame),
        };
        message
            .map(Some)
            .ok_or_else(|| DecodeError { message: name_of(tag), problem: DOES_NOT_FIT }.into())
    }

    /// Writes the message. Columns and copies are in text format.
    ///
    /// # Errors
    /// If a text contains a zero byte, or the message or one of its parts is too long; then nothing
    /// is written.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), Misuse> {
        if let Self::CopyData(data) = self {
            return encode_copy_data(data, out);
        }
        frame::write(Some(self.tag()), out, |out| self.encode_body(out))
    }

    fn encode_body(&self, out: &mut BytesMut) -> Result<(), Misuse> {
        match self {
            Self::Authentication(request) => return request.encode(out),
            Self::NegotiateProtocolVersion { version, unrecognized } => {
                out.put_u32(version.code());
                out.put_u32(u32::try_from(unrecognized.len()).map_err(|_| frame::TOO_LONG)?);
                for name in unrecognized {
                    put_text(name, out)?;
                }
            }
            Self::BackendKeyData(None) => out.put_i32(0),
            Self::BackendKeyData(Some(key)) => {
                out.put_i32(key.process());
                out.put_slice(key.secret());
            }
            Self::ParameterStatus { name, value } => {
                put_text(name, out)?;
                put_text(value, out)?;
            }
            Self::ReadyForQuery(status) => out.put_u8(status.code()),
            Self::RowDescription(columns) => return columns.encode(out),
            Self::DataRow(row) => return row.encode(out),
            Self::CommandComplete(tag) => put_text(tag, out)?,
            // The format, and the number of columns.
            Self::CopyInResponse | Self::CopyOutResponse | Self::CopyBothResponse => {
                out.put_slice(&[0; 3]);
            }
            Self::CopyData(data) => out.put_slice(data),
            Self::EmptyQueryResponse | Self::CopyDone => {}
            Self::ErrorResponse(report) | Self::NoticeResponse(report) => {
                return report::encode(report, out);
            }
            Self::NotificationResponse { process, channel, payload } => {
                out.put_i32(*process);
                put_text(channel, out)?;
                put_text(payload, out)?;
            }
        }
        Ok(())
    }

    const fn tag(&self) -> u8 {
        match self {
            Self::Authentication(_) => b'R',
            Self::NegotiateProtocolVersion { .. } => b'v',
            Self::BackendKeyData(_) => b'K',
            Self::ParameterStatus { .. } => b'S',
            Self::ReadyForQuery(_) => b'Z',
            Self::RowDescription(_) => b'T',
            Self::DataRow(_) => b'D',
            Self::CommandComplete(_) => b'C',
            Self::EmptyQueryResponse => b'I',
            Self::CopyInResponse => b'G',
            Self::CopyOutResponse => b'H',
            Self::CopyBothResponse => b'W',
            Self::CopyData(_) => b'd',
            Self::CopyDone => b'c',
            Self::ErrorResponse(_) => b'E',
            Self::NoticeResponse(_) => b'N',
            Self::NotificationResponse { .. } => b'A',
        }
    }

    /// The message's name in PostgreSQL's documentation.
    pub fn name(&self) -> &'static str {
        name_of(self.tag())
    }
}

impl TransactionStatus {
    const fn code(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Open => b'T',
            Self::Failed => b'E',
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Idle, Self::Open, Self::Failed].into_iter().find(|status| status.code() == code)
    }
}

/// The lengths that a message of this type may have, counted as the wire does: libpq's limits where
/// it has any, and ours where it has none.
fn lengths(tag: u8, phase: BackendPhase) -> Result<RangeInclusive<usize>, Error> {
    let refuse = |state| {
        let message = format!("a message of type `{}`", tag.escape_ascii());
        Err(Violation::Unexpected { message, state }.into())
    };
    Ok(match (phase, tag) {
        (BackendPhase::Login, b'R' | b'v') => 8..=MAX_LOGIN_MESSAGE,
        (BackendPhase::Login, b'E') => 8..=MAX_LOGIN_ERROR,
        (BackendPhase::Login, _) => return refuse("logging in"),
        (BackendPhase::Session, b'd') => COPY_DATA_LENGTHS,
        (BackendPhase::Session, b'T' | b'D') => 4..=MAX_ROW,
        (BackendPhase::Session, b'E' | b'N' | b'A') => 4..=MAX_REPORT,
        (
            BackendPhase::Session,
            b'R' | b'v' | b'K' | b'S' | b'Z' | b'C' | b'I' | b'G' | b'H' | b'W' | b'c',
        ) => 4..=MAX_MESSAGE,
        (BackendPhase::Session, _) => return refuse("logged in"),
    })
}

fn decode_by_library(frame: Frame) -> Option<BackendMessage> {
    use BackendMessage as M;
    let text = |result: std::io::Result<&str>| result.map(str::to_owned).ok();
    Some(match Message::parse(&mut frame.whole()).ok()?? {
        Message::CommandComplete(body) => M::CommandComplete(text(body.tag())?),
        Message::EmptyQueryResponse => M::EmptyQueryResponse,
        Message::CopyDone => M::CopyDone,
        Message::CopyInResponse(_) => M::CopyInResponse,
        Message::CopyOutResponse(_) => M::CopyOutResponse,
        Message::DataRow(body) => M::DataRow(Row::decode(&body)?),
        Message::ErrorResponse(body) => M::ErrorResponse(report::decode(body.fields())?),
        Message::NoticeResponse(body) => M::NoticeResponse(report::decode(body.fields())?),
        Message::NotificationResponse(body) => M::NotificationResponse {
            process: body.process_id(),
            channel: text(body.channel())?,
            payload: text(body.message())?,
        },
        Message::ParameterStatus(body) => {
            M::ParameterStatus { name: text(body.name())?, value: text(body.value())? }
        }
        Message::ReadyForQuery(body) => {
            M::ReadyForQuery(TransactionStatus::from_code(body.status())?)
        }
        Message::RowDescription(body) => {
            M::RowDescription(Columns::from_fields(body.fields()).ok()?)
        }
        request => M::Authentication(AuthenticationRequest::from_library(request)?),
    })
}

/// Poolers send other lengths than servers up to 17 do; protocol 3.2 allows up to 256 bytes.
fn decode_key(mut body: Bytes) -> Option<BackendMessage> {
    let process = body.try_get_i32().ok()?;
    let key = CancelKey::new(process, body.clone());
    (key.is_some() || body.len() < *CANCEL_SECRET.start())
        .then_some(BackendMessage::BackendKeyData(key))
}

fn decode_negotiation(mut body: Bytes) -> Option<BackendMessage> {
    let version = ProtocolVersion::from_code(body.try_get_u32().ok()?);
    let count = u32::try_from(body.try_get_i32().ok()?).ok()?;
    // Each takes a byte at least, so a count that lies soon runs out of them.
    let unrecognized = (0..count).map(|_| take_text(&mut body)).collect::<Option<_>>()?;
    body.is_empty().then_some(BackendMessage::NegotiateProtocolVersion { version, unrecognized })
}

/// The name of the message of this type.
const fn name_of(tag: u8) -> &'static str {
    match tag {
        b'R' => "authentication request",
        b'v' => NEGOTIATION,
        b'K' => "BackendKeyData",
        b'S' => "ParameterStatus",
        b'Z' => "ReadyForQuery",
        b'T' => "RowDescription",
        b'D' => "DataRow",
        b'C' => "CommandComplete",
        b'I' => "EmptyQueryResponse",
        b'G' => "CopyInResponse",
        b'H' => "CopyOutResponse",
        b'W' => "CopyBothResponse",
        b'd' => "CopyData",
        b'c' => "CopyDone",
        b'E' => "ErrorResponse",
        b'N' => "NoticeResponse",
        b'A' => "NotificationResponse",
        _ => "message",
    }
}
