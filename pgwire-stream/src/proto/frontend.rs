//! Messages to the server, written into an output buffer.

use bytes::{BufMut, BytesMut};
use postgres_protocol::message::frontend;

use crate::Misuse;

const ZERO_BYTE: Misuse = Misuse::Argument("a text for the server contains a zero byte");

/// The first packet: protocol 3.0 and the session's parameters.
///
/// # Errors
/// If a parameter contains a zero byte.
pub(super) fn startup<'a>(
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    out: &mut BytesMut,
) -> Result<(), Misuse> {
    frontend::startup_message(parameters, out).map_err(|_| ZERO_BYTE)
}

/// Asks whether the server speaks TLS; it answers with one byte, `S` or `N`.
#[cfg(feature = "tls")]
pub(crate) fn ssl_request(out: &mut BytesMut) {
    frontend::ssl_request(out);
}

/// A simple query or replication command.
///
/// # Errors
/// If it contains a zero byte.
pub(super) fn query(sql: &str, out: &mut BytesMut) -> Result<(), Misuse> {
    frontend::query(sql, out).map_err(|_| ZERO_BYTE)
}

/// # Errors
/// If the password contains a zero byte.
pub(super) fn password(password: &[u8], out: &mut BytesMut) -> Result<(), Misuse> {
    frontend::password_message(password, out).map_err(|_| ZERO_BYTE)
}

/// # Errors
/// If the mechanism contains a zero byte, or the data are too long for a message.
pub(super) fn sasl_initial_response(
    mechanism: &str,
    data: &[u8],
    out: &mut BytesMut,
) -> Result<(), Misuse> {
    frontend::sasl_initial_response(mechanism, data, out).map_err(|_| ZERO_BYTE)
}

/// # Errors
/// If the data are too long for a message.
pub(super) fn sasl_response(data: &[u8], out: &mut BytesMut) -> Result<(), Misuse> {
    frontend::sasl_response(data, out).map_err(|_| ZERO_BYTE)
}

/// Data of a copy-in or copy-both conversation.
///
/// # Errors
/// If the data are too long for a message.
pub(super) fn copy_data(data: &[u8], out: &mut BytesMut) -> Result<(), Misuse> {
    let length = i32::try_from(data.len() + 4)
        .map_err(|_| Misuse::Argument("the data are too long for one message"))?;
    out.reserve(data.len() + 5);
    out.put_u8(b'd');
    out.put_i32(length);
    out.put_slice(data);
    Ok(())
}

/// The end of our side of a copy-in or copy-both conversation.
pub(super) fn copy_done(out: &mut BytesMut) {
    frontend::copy_done(out);
}

/// The end of the session.
pub(super) fn terminate(out: &mut BytesMut) {
    frontend::terminate(out);
}
