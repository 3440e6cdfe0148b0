//! What a server says, as bytes and in few words, for tests that hold its end of the line.

use bytes::{BufMut, BytesMut};

use crate::ServerError;
use crate::proto::{BackendMessage, Columns, Row, TransactionStatus, encode_copy_data};

/// A message of any type, well formed or not.
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.put_u32(body.len() as u32 + 4);
    bytes.extend(body);
    bytes
}

/// A message as the server's end encodes it.
pub(crate) fn said(message: &BackendMessage) -> Vec<u8> {
    let mut out = BytesMut::new();
    message.encode(&mut out).unwrap();
    out.to_vec()
}

pub(crate) fn authentication(code: u32, payload: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), payload].concat())
}

pub(crate) fn parameter(name: &str, value: &str) -> Vec<u8> {
    let (name, value) = (name.to_owned(), value.to_owned());
    said(&BackendMessage::ParameterStatus { name, value })
}

pub(crate) fn columns(names: &[&str]) -> Vec<u8> {
    said(&BackendMessage::RowDescription(Columns::of_text(names)))
}

pub(crate) fn row(values: &[Option<&str>]) -> Vec<u8> {
    said(&BackendMessage::DataRow(Row::of_text(values)))
}

pub(crate) fn complete(tag: &str) -> Vec<u8> {
    said(&BackendMessage::CommandComplete(tag.to_owned()))
}

pub(crate) fn report(tag: u8, severity: &str, code: &str, text: &str) -> Vec<u8> {
    let report = ServerError::new(severity, code, text);
    said(&match tag {
        b'E' => BackendMessage::ErrorResponse(report),
        _ => BackendMessage::NoticeResponse(report),
    })
}

pub(crate) fn copy_response(tag: u8) -> Vec<u8> {
    said(&match tag {
        b'G' => BackendMessage::CopyInResponse,
        b'H' => BackendMessage::CopyOutResponse,
        _ => BackendMessage::CopyBothResponse,
    })
}

pub(crate) fn copy_data(payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode_copy_data(payload, &mut out).unwrap();
    out.to_vec()
}

pub(crate) fn copy_done() -> Vec<u8> {
    said(&BackendMessage::CopyDone)
}

pub(crate) fn ready() -> Vec<u8> {
    said(&BackendMessage::ReadyForQuery(TransactionStatus::Idle))
}
