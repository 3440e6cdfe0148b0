//! The frame around every message: one byte of type, four of length, checked before anything is
//! allocated for the message.

use bytes::{Buf, Bytes, BytesMut};

use crate::{DecodeError, Error, Violation};

/// The longest `CopyData` message. A walsender sends at most 1 MiB of WAL, a base backup some
/// 50 kB in one message.
pub const MAX_COPY_DATA: usize = 16 << 20;

/// The longest description of rows, and the longest row, such as the one that holds a timeline
/// history file.
pub const MAX_ROW: usize = 4 << 20;

/// The longest error or notice.
pub const MAX_REPORT: usize = 256 << 10;

/// The longest other message; libpq's limit.
pub const MAX_MESSAGE: usize = 30_000;

/// The longest message before the login is complete, when the peer may be anybody: libpq's limit
/// for errors, and more than enough for the rest.
pub const MAX_LOGIN_MESSAGE: usize = 30_000;

const HEADER: usize = 5;

/// Below this much room the buffer is renewed: a shorter read costs a system call too many.
const LEAST_ROOM: usize = 4 << 10;

/// How large a new buffer is at least: two WAL messages of the usual size. What little there is of
/// the next message has to be copied into it.
const NEW_ROOM: usize = 256 << 10;

/// Which limit holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before the login is complete.
    Login,
    /// Afterwards.
    Session,
}

/// One whole message, still with its header, or `None` if more bytes are needed; then there is room
/// for them in the buffer.
///
/// # Errors
/// If the announced length cannot be, or is beyond the limit.
pub(super) fn take(input: &mut BytesMut, phase: Phase) -> Result<Option<Frame>, Error> {
    let mut header = input.as_ref();
    let (Ok(tag), Ok(length)) = (header.try_get_u8(), header.try_get_u32()) else {
        make_room(input, HEADER - input.len());
        return Ok(None);
    };
    if length < 4 {
        return Err(DecodeError { message: "message", problem: "its length is impossible" }.into());
    }
    let limit = match (phase, tag) {
        (Phase::Login, _) => MAX_LOGIN_MESSAGE,
        (Phase::Session, b'd') => MAX_COPY_DATA,
        (Phase::Session, b'T' | b'D') => MAX_ROW,
        (Phase::Session, b'E' | b'N') => MAX_REPORT,
        (Phase::Session, _) => MAX_MESSAGE,
    };
    let total = u64::from(length) + 1;
    // A server that is older than the protocol's version 3, or unable to fork, answers in plain
    // text, which reads as an absurd length.
    if total > limit as u64 {
        return Err(Violation::TooLong { length: total, limit: limit as u64 }.into());
    }
    let total = total as usize;
    if input.len() < total {
        make_room(input, total - input.len());
        return Ok(None);
    }
    Ok(Some(Frame { tag, bytes: input.split_to(total) }))
}

/// Makes room for the rest of a message, and for more in the same read.
fn make_room(input: &mut BytesMut, missing: usize) {
    if input.capacity() - input.len() < missing.max(LEAST_ROOM) {
        input.reserve(missing.max(NEW_ROOM));
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
