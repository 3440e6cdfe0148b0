//! The client's messages.
//!
//! Follows "Message Formats" in PostgreSQL's protocol documentation.

use std::fmt;
use std::ops::RangeInclusive;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::cancel::CancelKey;
use super::frame::{
    self, BUFFER, DOES_NOT_FIT, MAX_COPY_DATA, encode_copy_data, put_text, take_text,
};
use super::protocol_version::ProtocolVersion;
use crate::{DecodeError, Error, Misuse, Violation};

/// The longest startup packet behind its length, as in the server
/// (`MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_STARTUP_PACKET: usize = 10_000;

/// The longest password message, as in the server (`PG_MAX_AUTH_TOKEN_LENGTH`).
pub const MAX_PASSWORD_MESSAGE: usize = 65_535;

/// The longest message of a SCRAM exchange, as in the server (`PG_MAX_SASL_MESSAGE_LENGTH`).
pub const MAX_SASL_MESSAGE: usize = 1024;

/// The longest command. The server itself takes up to a gigabyte.
pub const MAX_COMMAND: usize = 1 << 20;

/// The longest message that carries no more than a word, as in the server
/// (`PQ_SMALL_MESSAGE_LIMIT`).
pub const MAX_SMALL_MESSAGE: usize = 10_000;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_ENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// What the server is waiting for, which decides how a client's messages are framed and how long
/// they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontendPhase {
    /// A first packet, which has no type.
    Startup,
    /// A password.
    Password,
    /// A step of a SASL exchange.
    Sasl,
    /// Commands and copy data.
    Session,
}

/// A message from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrontendMessage {
    /// StartupMessage: begins a session.
    Startup {
        /// The version that the client asks for.
        protocol: ProtocolVersion,
        /// `user`, `database`, `replication`, settings, and protocol options (`_pq_.…`). Not
        /// decoded if the major version is not 3.
        parameters: Vec<(String, String)>,
    },
    /// SSLRequest: may TLS be used? Answered by one byte, `S` or `N`.
    SslRequest,
    /// GSSENCRequest: may GSSAPI encryption be used? Answered by one byte, `G` or `N`.
    GssEncRequest,
    /// CancelRequest: interrupts what another session executes. Answered by closing the
    /// connection.
    Cancel(CancelKey),
    /// `p`: the answer to an authentication request.
    Password(PasswordMessage),
    /// `Q`: a command or SQL.
    Query(String),
    /// `d`: copy data.
    CopyData(Bytes),
    /// `c`: the end of the client's copy data.
    CopyDone,
    /// `f`: the client's copy data come to no end, for this reason.
    CopyFail(String),
    /// `H`.
    Flush,
    /// `S`: the end of a series of extended-query messages.
    Sync,
    /// `X`: the end of the session.
    Terminate,
    /// A message of the extended query protocol or a function call, which servers refuse on
    /// replication connections.
    ExtendedQuery {
        /// `P`arse, `B`ind, `D`escribe, `E`xecute, `C`lose or `F`unctionCall.
        tag: u8,
        /// The rest, not looked at.
        body: Bytes,
    },
}

/// What answers an authentication request: a password, the hash of one, or a step of a SASL
/// exchange. Which of them it is, only the request tells. Not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordMessage(Bytes);

impl PasswordMessage {
    /// PasswordMessage: a password as it is, or its MD5 hash.
    ///
    /// # Errors
    /// If it contains a zero byte.
    pub fn password(password: &[u8]) -> Result<Self, Misuse> {
        let mut body = BytesMut::with_capacity(password.len() + 1);
        put_text(password, &mut body)?;
        Ok(Self(body.freeze()))
    }

    /// SASLInitialResponse: the chosen mechanism and its first message.
    ///
    /// # Errors
    /// If the mechanism contains a zero byte, or the message is too long.
    pub fn sasl_initial_response(mechanism: &str, data: &[u8]) -> Result<Self, Misuse> {
        let length = i32::try_from(data.len()).map_err(|_| frame::TOO_LONG)?;
        let mut body = BytesMut::with_capacity(mechanism.len() + 5 + data.len());
        put_text(mechanism, &mut body)?;
        body.put_i32(length);
        body.put_slice(data);
        Ok(Self(body.freeze()))
    }

    /// SASLResponse: a further message of the mechanism.
    pub fn sasl_response(data: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(data))
    }

    /// The message, read as a SASLResponse.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The message, read as a password.
    ///
    /// # Errors
    /// If its only zero byte is not the last one.
    pub fn to_password(&self) -> Result<Bytes, DecodeError> {
        match self.0.iter().position(|byte| *byte == 0) {
            Some(end) if end + 1 == self.0.len() => Ok(self.0.slice(..end)),
            _ => Err(DecodeError { message: "PasswordMessage", problem: DOES_NOT_FIT }),
        }
    }

    /// The message, read as a SASLInitialResponse: the mechanism, and its first message if there is
    /// one.
    ///
    /// # Errors
    /// If it is none.
    pub fn to_sasl_initial_response(&self) -> Result<(String, Option<Bytes>), DecodeError> {
        let malformed = DecodeError { message: "SASLInitialResponse", problem: DOES_NOT_FIT };
        let mut body = self.0.clone();
        match (take_text(&mut body), body.try_get_i32()) {
            (Some(mechanism), Ok(-1)) if body.is_empty() => Ok((mechanism, None)),
            (Some(mechanism), Ok(length)) if usize::try_from(length) == Ok(body.len()) => {
                Ok((mechanism, Some(body)))
            }
            _ => Err(malformed),
        }
    }
}

impl fmt::Debug for PasswordMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordMessage(…)")
    }
}

impl FrontendMessage {
    /// Takes the next message from the input; `None` means that more bytes are needed. Copy data
    /// are a slice of the input.
    ///
    /// # Errors
    /// If it is malformed, too long or not allowed in this phase.
    pub fn decode(input: &mut BytesMut, phase: FrontendPhase) -> Result<Option<Self>, Error> {
        if phase == FrontendPhase::Startup {
            return decode_startup(input);
        }
        let Some(frame) = frame::take(input, BUFFER, |tag| lengths(tag, phase))? else {
            return Ok(None);
        };
        let tag = frame.tag;
        decode_body(tag, frame.body())
            .map(Some)
            .ok_or_else(|| DecodeError { message: name(tag), problem: DOES_NOT_FIT }.into())
    }

    /// Writes the message.
    ///
    /// # Errors
    /// If a text contains a zero byte, or the message is too long; then nothing is written.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), Misuse> {
        let packet = |code: u32, out: &mut BytesMut| {
            frame::write(None, out, |out| {
                out.put_u32(code);
                Ok(())
            })
        };
        match self {
            Self::Startup { protocol, parameters } => {
                let parameters = parameters.iter().map(|(name, value)| (&**name, &**value));
                encode_startup(*protocol, parameters, out)
            }
            Self::SslRequest => packet(SSL_REQUEST, out),
            Self::GssEncRequest => packet(GSS_ENC_REQUEST, out),
            Self::Cancel(key) => frame::write(None, out, |out| {
                out.put_u32(CANCEL_REQUEST);
                out.put_i32(key.process());
                out.put_slice(key.secret());
                Ok(())
            }),
            Self::Password(message) => write_slice(b'p', &message.0, out),
            Self::Query(text) => encode_query(text, out),
            Self::CopyData(data) => encode_copy_data(data, out),
            Self::CopyDone => write_slice(b'c', b"", out),
            Self::CopyFail(reason) => frame::write(Some(b'f'), out, |out| put_text(reason, out)),
            Self::Flush => write_slice(b'H', b"", out),
            Self::Sync => write_slice(b'S', b"", out),
            Self::Terminate => write_slice(b'X', b"", out),
            Self::ExtendedQuery { tag, body } => write_slice(*tag, body, out),
        }
    }

    /// The message's name in PostgreSQL's documentation.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Startup { .. } => "StartupMessage",
            Self::SslRequest => "SSLRequest",
            Self::GssEncRequest => "GSSENCRequest",
            Self::Cancel(_) => "CancelRequest",
            Self::Password(_) => name(b'p'),
            Self::Query(_) => name(b'Q'),
            Self::CopyData(_) => name(b'd'),
            Self::CopyDone => name(b'c'),
            Self::CopyFail(_) => name(b'f'),
            Self::Flush => name(b'H'),
            Self::Sync => name(b'S'),
            Self::Terminate => name(b'X'),
            Self::ExtendedQuery { .. } => "a message of the extended query protocol",
        }
    }
}

/// Writes a startup packet without building it first.
///
/// # Errors
/// As [`FrontendMessage::encode`].
pub(super) fn encode_startup<'a>(
    protocol: ProtocolVersion,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    out: &mut BytesMut,
) -> Result<(), Misuse> {
    frame::write(None, out, |out| {
        out.put_u32(protocol.code());
        for (name, value) in parameters {
            put_text(name, out)?;
            put_text(value, out)?;
        }
        out.put_u8(0);
        Ok(())
    })
}

/// Writes a query without building it first.
///
/// # Errors
/// As [`FrontendMessage::encode`].
pub(super) fn encode_query(text: &str, out: &mut BytesMut) -> Result<(), Misuse> {
    frame::write(Some(b'Q'), out, |out| put_text(text, out))
}

fn write_slice(tag: u8, body: &[u8], out: &mut BytesMut) -> Result<(), Misuse> {
    frame::write(Some(tag), out, |out| {
        out.put_slice(body);
        Ok(())
    })
}

/// The lengths that a message of this type may have, counted as the wire does.
fn lengths(tag: u8, phase: FrontendPhase) -> Result<RangeInclusive<usize>, Error> {
    let most = match (phase, tag) {
        (FrontendPhase::Password, b'p') => MAX_PASSWORD_MESSAGE,
        (FrontendPhase::Sasl, b'p') => MAX_SASL_MESSAGE,
        (FrontendPhase::Session, b'd') => MAX_COPY_DATA,
        (FrontendPhase::Session, b'Q' | b'P' | b'B' | b'F') => MAX_COMMAND,
        (FrontendPhase::Session, b'c' | b'f' | b'H' | b'S' | b'X' | b'D' | b'E' | b'C') => {
            MAX_SMALL_MESSAGE
        }
        (phase, tag) => {
            let message = format!("a message of type `{}`", tag.escape_ascii());
            let state = match phase {
                FrontendPhase::Session => "waiting for a command",
                _ => "waiting for a password",
            };
            return Err(Violation::Unexpected { message, state }.into());
        }
    };
    // The server's limits are for what follows the length.
    Ok(4..=most + 4)
}

/// The body of a message whose type was let in.
fn decode_body(tag: u8, mut body: Bytes) -> Option<FrontendMessage> {
    use FrontendMessage as M;
    let message = match tag {
        b'd' => return Some(M::CopyData(body)),
        b'p' => return Some(M::Password(PasswordMessage(body))),
        b'P' | b'B' | b'D' | b'E' | b'C' | b'F' => return Some(M::ExtendedQuery { tag, body }),
        b'Q' => M::Query(take_text(&mut body)?),
        b'c' => M::CopyDone,
        b'f' => M::CopyFail(take_text(&mut body)?),
        b'H' => M::Flush,
        b'S' => M::Sync,
        b'X' => M::Terminate,
        _ => return None,
    };
    body.is_empty().then_some(message)
}

fn decode_startup(input: &mut BytesMut) -> Result<Option<FrontendMessage>, Error> {
    let Ok(length) = input.as_ref().try_get_u32() else {
        frame::make_room(input, 8, BUFFER);
        return Ok(None);
    };
    let total = frame::check_length(length, &(8..=MAX_STARTUP_PACKET + 4))?;
    if input.len() < total {
        frame::make_room(input, total, BUFFER);
        return Ok(None);
    }
    let mut body = input.split_to(total).freeze();
    body.advance(4);
    decode_startup_body(body)
        .map(Some)
        .ok_or_else(|| DecodeError { message: "startup packet", problem: DOES_NOT_FIT }.into())
}

fn decode_startup_body(mut body: Bytes) -> Option<FrontendMessage> {
    use FrontendMessage as M;
    match body.try_get_u32().ok()? {
        SSL_REQUEST => body.is_empty().then_some(M::SslRequest),
        GSS_ENC_REQUEST => body.is_empty().then_some(M::GssEncRequest),
        CANCEL_REQUEST => {
            let process = body.try_get_i32().ok()?;
            CancelKey::new(process, body).map(M::Cancel)
        }
        code => {
            let protocol = ProtocolVersion::from_code(code);
            let mut parameters = Vec::new();
            // What stands in other packets is anybody's guess.
            if protocol.major() != 3 {
                return Some(M::Startup { protocol, parameters });
            }
            loop {
                let name = take_text(&mut body)?;
                if name.is_empty() {
                    return body.is_empty().then_some(M::Startup { protocol, parameters });
                }
                parameters.push((name, take_text(&mut body)?));
            }
        }
    }
}

fn name(tag: u8) -> &'static str {
    match tag {
        b'p' => "PasswordMessage",
        b'Q' => "Query",
        b'd' => "CopyData",
        b'c' => "CopyDone",
        b'f' => "CopyFail",
        b'H' => "Flush",
        b'S' => "Sync",
        b'X' => "Terminate",
        _ => "message",
    }
}
