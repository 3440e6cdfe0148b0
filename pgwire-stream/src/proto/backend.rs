//! Messages from the server, decoded.

use bytes::{Buf, Bytes};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{ErrorFields, Message};

use super::frame::Frame;
use super::rows::{Columns, Row};
use crate::{DecodeError, ServerError, SqlState};

/// A message from the server.
#[derive(Debug)]
pub(super) enum BackendMessage {
    Authentication(Authentication),
    BackendKeyData,
    Columns(Columns),
    CommandComplete,
    CopyBoth,
    CopyData(Bytes),
    CopyDone,
    CopyIn,
    CopyOut,
    Error(ServerError),
    Notice(ServerError),
    Notification,
    Parameter { name: String, value: String },
    Ready,
    Row(Row),
    Other(u8),
}

/// What the server wants to know about the client.
#[derive(Debug)]
pub(super) enum Authentication {
    Ok,
    CleartextPassword,
    Md5 { salt: [u8; 4] },
    Sasl { mechanisms: Vec<String> },
    SaslContinue(Bytes),
    SaslFinal(Bytes),
    Unsupported(&'static str),
}

impl BackendMessage {
    /// Decodes a whole message.
    ///
    /// # Errors
    /// If it is malformed.
    pub(super) fn decode(frame: Frame) -> Result<Self, DecodeError> {
        match frame.tag {
            // Not known to the message library, or narrower than servers are.
            b'd' => Ok(Self::CopyData(frame.body())),
            b'W' => Ok(Self::CopyBoth),
            b'K' => decode_key(frame.body()),
            tag => match Message::parse(&mut frame.whole()) {
                Ok(Some(message)) => Self::from_library(message, tag),
                Ok(None) | Err(_) => Err(malformed(tag)),
            },
        }
    }

    fn from_library(message: Message, tag: u8) -> Result<Self, DecodeError> {
        let text =
            |result: std::io::Result<&str>| result.map(str::to_owned).map_err(|_| malformed(tag));
        Ok(match message {
            Message::AuthenticationOk => Self::Authentication(Authentication::Ok),
            Message::AuthenticationCleartextPassword => {
                Self::Authentication(Authentication::CleartextPassword)
            }
            Message::AuthenticationMd5Password(body) => {
                Self::Authentication(Authentication::Md5 { salt: body.salt() })
            }
            Message::AuthenticationSasl(body) => {
                let mechanisms = body.mechanisms().map(|name| Ok(name.to_owned())).collect();
                let mechanisms = mechanisms.map_err(|_| malformed(tag))?;
                Self::Authentication(Authentication::Sasl { mechanisms })
            }
            Message::AuthenticationSaslContinue(body) => Self::Authentication(
                Authentication::SaslContinue(Bytes::copy_from_slice(body.data())),
            ),
            Message::AuthenticationSaslFinal(body) => {
                Self::Authentication(Authentication::SaslFinal(Bytes::copy_from_slice(body.data())))
            }
            Message::AuthenticationGss | Message::AuthenticationGssContinue(_) => {
                Self::Authentication(Authentication::Unsupported("GSSAPI"))
            }
            Message::AuthenticationSspi => {
                Self::Authentication(Authentication::Unsupported("SSPI"))
            }
            Message::AuthenticationKerberosV5 => {
                Self::Authentication(Authentication::Unsupported("Kerberos V5"))
            }
            Message::AuthenticationScmCredential => {
                Self::Authentication(Authentication::Unsupported("SCM credential"))
            }
            Message::CommandComplete(_) | Message::EmptyQueryResponse => Self::CommandComplete,
            Message::CopyDone => Self::CopyDone,
            Message::CopyInResponse(_) => Self::CopyIn,
            Message::CopyOutResponse(_) => Self::CopyOut,
            Message::DataRow(body) => Self::Row(Row::decode(&body)?),
            Message::ErrorResponse(body) => Self::Error(decode_report(body.fields(), tag)?),
            Message::NoticeResponse(body) => Self::Notice(decode_report(body.fields(), tag)?),
            Message::NotificationResponse(_) => Self::Notification,
            Message::ParameterStatus(body) => {
                Self::Parameter { name: text(body.name())?, value: text(body.value())? }
            }
            Message::ReadyForQuery(_) => Self::Ready,
            Message::RowDescription(body) => Self::Columns(Columns::decode(&body)?),
            _ => Self::Other(tag),
        })
    }

    /// The message's name in PostgreSQL's documentation.
    pub(super) fn name(&self) -> String {
        let name = match self {
            Self::Authentication(_) => "an authentication request",
            Self::BackendKeyData => "BackendKeyData",
            Self::Columns(_) => "RowDescription",
            Self::CommandComplete => "CommandComplete",
            Self::CopyBoth => "CopyBothResponse",
            Self::CopyData(_) => "CopyData",
            Self::CopyDone => "CopyDone",
            Self::CopyIn => "CopyInResponse",
            Self::CopyOut => "CopyOutResponse",
            Self::Error(_) => "ErrorResponse",
            Self::Notice(_) => "NoticeResponse",
            Self::Notification => "NotificationResponse",
            Self::Parameter { .. } => "ParameterStatus",
            Self::Ready => "ReadyForQuery",
            Self::Row(_) => "DataRow",
            Self::Other(tag) => return format!("a message of type `{}`", tag.escape_ascii()),
        };
        name.to_owned()
    }
}

/// The message of this type could not be decoded.
fn malformed(tag: u8) -> DecodeError {
    let message = match tag {
        b'C' => "CommandComplete",
        b'D' => "DataRow",
        b'E' => "ErrorResponse",
        b'G' => "CopyInResponse",
        b'H' => "CopyOutResponse",
        b'K' => "BackendKeyData",
        b'N' => "NoticeResponse",
        b'R' => "authentication request",
        b'S' => "ParameterStatus",
        b'T' => "RowDescription",
        b'Z' => "ReadyForQuery",
        _ => return DecodeError { message: "message", problem: "its type is unknown" },
    };
    DecodeError { message, problem: "its fields do not fit its length" }
}

/// Poolers send other lengths than servers up to 17 do; protocol 3.2 allows up to 256 bytes.
fn decode_key(mut body: Bytes) -> Result<BackendMessage, DecodeError> {
    match (body.try_get_i32(), body.len()) {
        (Ok(_process), 0..=256) => Ok(BackendMessage::BackendKeyData),
        _ => Err(malformed(b'K')),
    }
}

fn decode_report(mut fields: ErrorFields<'_>, tag: u8) -> Result<ServerError, DecodeError> {
    let mut report = ServerError::default();
    let mut translated_severity = None;
    while let Some(field) = fields.next().map_err(|_| malformed(tag))? {
        // In an unknown encoding before the session has settled on one.
        let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'S' => translated_severity = Some(text),
            b'V' => report.severity = text,
            b'C' => report.code = SqlState::new(&text),
            b'M' => report.message = text,
            b'D' => report.detail = Some(text),
            b'H' => report.hint = Some(text),
            b'W' => report.context = Some(text),
            _ => {}
        }
    }
    if report.severity.is_empty() {
        report.severity = translated_severity.unwrap_or_default();
    }
    Ok(report)
}
