//! The frame around every message: one byte of type, four of length, checked before anything is
//! allocated for the message.

use std::ops::RangeInclusive;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{DecodeError, Error, Misuse, Violation};

/// The longest `CopyData` message. A walsender sends at most 1 MiB of WAL, a base backup some
/// 50 kB in one message.
pub const MAX_COPY_DATA: usize = 16 << 20;

/// Which lengths a `CopyData` message may have.
pub(super) const COPY_DATA_LENGTHS: RangeInclusive<usize> = 4..=MAX_COPY_DATA;

/// The longest description of rows, and the longest row, such as the one that holds a timeline
/// history file.
pub const MAX_ROW: usize = 4 << 20;

/// The longest error, notice or notification.
pub const MAX_REPORT: usize = 256 << 10;

/// The longest other message of a server; libpq's limit.
pub const MAX_MESSAGE: usize = 30_000;

/// The longest error before the login is complete, when the peer may be anybody: libpq's limit.
pub const MAX_LOGIN_ERROR: usize = 30_000;

/// The longest authentication request and protocol negotiation: libpq's limit.
pub const MAX_LOGIN_MESSAGE: usize = 2000;

pub(super) const HEADER: usize = 5;

/// A message of 128 KiB of WAL, with its headers: the longest that comes from a server whose WAL has
/// pages of the usual 8 KiB (`MAX_SEND_SIZE` in `walsender.c`).
pub const LONG_WAL_MESSAGE: usize = HEADER + 25 + (128 << 10);

/// What is wrong with a message that cannot be decoded.
pub(super) const DOES_NOT_FIT: &str = "its fields do not fit its length";

/// Below this much room the buffer is renewed, unless there is more than that to copy: a shorter
/// read costs a system call too many.
const LEAST_ROOM: usize = 4 << 10;

/// How large a new buffer is at least, whatever was asked for.
const LEAST_BUFFER: usize = 32 << 10;

/// How many messages like the one that comes it has room for, up to its limit.
const MESSAGES: usize = 8;

/// The limit of a buffer that nobody has set another for.
pub(super) const BUFFER: usize = 2 * LONG_WAL_MESSAGE;

/// One whole message, still with its header, or `None` if more bytes are needed; then there is room
/// for them in the buffer, which is no larger than `buffer` unless the message is. `lengths` says for
/// a type which lengths it may have, counted as the wire does, without the type.
///
/// # Errors
/// If the announced length is beyond the limits, or `lengths` refuses the type.
pub(super) fn take(
    input: &mut BytesMut,
    buffer: usize,
    lengths: impl FnOnce(u8) -> Result<RangeInclusive<usize>, Error>,
) -> Result<Option<Frame>, Error> {
    let mut header = input.as_ref();
    let (Ok(tag), Ok(length)) = (header.try_get_u8(), header.try_get_u32()) else {
        make_room(input, HEADER, buffer);
        return Ok(None);
    };
    let total = check_length(length, &lengths(tag)?)? + 1;
    if input.len() < total {
        make_room(input, total, buffer);
        return Ok(None);
    }
    Ok(Some(Frame { tag, bytes: input.split_to(total) }))
}

/// The payload of a `CopyData` message, if that comes next, is there as a whole, and is not too long.
pub(super) fn take_copy_data(input: &mut BytesMut) -> Option<Bytes> {
    let [b'd', length @ ..] = *input.first_chunk::<HEADER>()? else { return None };
    let payload = check_length(u32::from_be_bytes(length), &COPY_DATA_LENGTHS).ok()? - 4;
    if input.len() - HEADER < payload {
        return None;
    }
    input.advance(HEADER);
    Some(input.split_to(payload).freeze())
}

/// # Errors
/// If a message cannot have this length.
pub(super) fn check_length(length: u32, limits: &RangeInclusive<usize>) -> Result<usize, Error> {
    // Lossless on every platform that there is; elsewhere, over the limit.
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    if size < *limits.start() {
        return Err(DecodeError { message: "message", problem: "its length is impossible" }.into());
    }
    if size > *limits.end() {
        let limit = *limits.end() as u64;
        return Err(Violation::TooLong { length: u64::from(length), limit }.into());
    }
    Ok(size)
}

/// Makes room for all of a message, or part of one, of which the input has the beginning; and for
/// more in the same read, as far as `buffer` allows.
///
/// The beginning is copied into a new buffer. Long messages come in rows of one length, so the
/// buffer ends where such a message does, and there is no beginning to copy next time.
pub(super) fn make_room(input: &mut BytesMut, total: usize, buffer: usize) {
    let (have, room) = (input.len(), input.capacity() - input.len());
    if have + room < total || (room < LEAST_ROOM && have < LEAST_ROOM) {
        let size = total.saturating_mul(MESSAGES).min(buffer).max(LEAST_BUFFER);
        let messages = if total < LEAST_ROOM { size } else { size / total * total };
        input.reserve(messages.max(total).saturating_sub(have));
    }
}

/// A whole message with its header.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) tag: u8,
    bytes: BytesMut,
}

impl Frame {
    /// The message behind the header.
    pub(super) fn body(self) -> Bytes {
        let mut bytes = self.bytes.freeze();
        bytes.advance(HEADER.min(bytes.len()));
        bytes
    }

    /// The message with its header.
    pub(super) fn whole(self) -> BytesMut {
        self.bytes
    }
}

/// Writes a message: the type, if it has one, the length, and what `body` writes.
///
/// # Errors
/// As `body`, and if the message is too long for its length; then nothing is written.
pub(super) fn write(
    tag: Option<u8>,
    out: &mut BytesMut,
    body: impl FnOnce(&mut BytesMut) -> Result<(), Misuse>,
) -> Result<(), Misuse> {
    let start = out.len();
    out.extend(tag);
    let length_at = out.len();
    out.put_u32(0);
    let written = body(out).and_then(|()| {
        let length = i32::try_from(out.len() - length_at).map_err(|_| TOO_LONG)?;
        if let Some(field) = out.get_mut(length_at..length_at + 4) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    });
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// Writes a text and the zero byte that ends it.
///
/// # Errors
/// If it contains a zero byte.
pub(super) fn put_text(text: impl AsRef<[u8]>, out: &mut BytesMut) -> Result<(), Misuse> {
    let text = text.as_ref();
    if text.contains(&0) {
        return Err(Misuse::Argument("a text contains a zero byte"));
    }
    out.put_slice(text);
    out.put_u8(0);
    Ok(())
}

/// Takes a text that a zero byte ends; `None` if there is none, or it is not UTF-8.
pub(super) fn take_text(body: &mut Bytes) -> Option<String> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let text = body.split_to(end);
    body.advance(1);
    String::from_utf8(text.into()).ok()
}

/// Writes a `CopyData` message, which is the same in both directions, from a slice.
///
/// # Errors
/// If the data are too long for one message.
pub fn encode_copy_data(data: &[u8], out: &mut BytesMut) -> Result<(), Misuse> {
    let length = i32::try_from(data.len().saturating_add(4)).map_err(|_| TOO_LONG)?;
    out.reserve(data.len() + HEADER);
    out.put_u8(b'd');
    out.put_i32(length);
    out.put_slice(data);
    Ok(())
}

pub(super) const TOO_LONG: Misuse = Misuse::Argument("the data are too long for one message");
