//! The fields of an error or a notice, and the errors that have none.
//!
//! Follows "Error and Notice Message Fields" in PostgreSQL's protocol documentation.

use bytes::{Buf, BufMut, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

use super::frame::{self, MAX_LOGIN_ERROR, put_text};
use crate::{Error, Misuse, ServerError, SqlState, Violation};

/// The report in these fields; `None` if they are malformed.
pub(super) fn decode(mut fields: ErrorFields<'_>) -> Option<ServerError> {
    let mut report = ServerError::default();
    let mut translated_severity = None;
    while let Some(field) = fields.next().ok()? {
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
    Some(report)
}

/// # Errors
/// If a text contains a zero byte.
pub(super) fn encode(report: &ServerError, out: &mut BytesMut) -> Result<(), Misuse> {
    let code = report.code.as_ref().map(SqlState::as_str);
    let fields = [
        (b'S', Some(&*report.severity)),
        (b'V', Some(&*report.severity)),
        (b'C', code),
        (b'M', Some(&*report.message)),
        (b'D', report.detail.as_deref()),
        (b'H', report.hint.as_deref()),
        (b'W', report.context.as_deref()),
    ];
    for (field, text) in fields {
        if let Some(text) = text {
            out.put_u8(field);
            put_text(text, out)?;
        }
    }
    out.put_u8(0);
    Ok(())
}

/// Whether the input begins with an error in the manner of protocol 2: `E`, text and a zero byte.
/// Servers up to 13 have no other for a client that they cannot start a process for. The text
/// reads as an absurd length, by which libpq knows it (`PQconnectPoll`).
pub(super) fn is_unframed(input: &BytesMut) -> bool {
    let mut header = input.as_ref();
    header.try_get_u8() == Ok(b'E')
        && header.try_get_u32().is_ok_and(|length| !(8..=MAX_LOGIN_ERROR as u32).contains(&length))
}

/// Takes such an error; `None` if its end has not come yet.
///
/// # Errors
/// If it comes to no end.
pub(super) fn take_unframed(input: &mut BytesMut) -> Result<Option<ServerError>, Error> {
    let Some(end) = input.iter().position(|byte| *byte == 0) else {
        if input.len() > MAX_LOGIN_ERROR {
            let (length, limit) = (input.len() as u64, MAX_LOGIN_ERROR as u64);
            return Err(Violation::TooLong { length, limit }.into());
        }
        frame::make_room(input, input.len() + 1, frame::BUFFER);
        return Ok(None);
    };
    let mut text = input.split_to(end);
    input.advance(1);
    text.advance(1);
    let message = String::from_utf8_lossy(&text).trim_end().to_owned();
    Ok(Some(ServerError { severity: "FATAL".to_owned(), message, ..ServerError::default() }))
}
