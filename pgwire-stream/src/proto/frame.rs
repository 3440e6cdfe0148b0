//! The frame around every message: one byte of type, four of length, checked before anything is
//! allocated for the message.

use bytes::{Buf, Bytes, BytesMut};

use crate::{DecodeError, Error, Violation};

/// The longest `CopyData` message. A walsender sends at most 1 MiB of WAL, a base backup some
/// 50 kB in one message.
pub const MAX_COPY_DATA: usize = 16 << 20;

/// The longest other message, such as the row that holds a timeline history file.
pub const MAX_MESSAGE: usize = 4 << 20;

/// The longest message before the login is complete, when the peer may be anybody: libpq's limit
/// for errors, and more than enough for the rest.
pub const MAX_LOGIN_MESSAGE: usize = 30_000;

const HEADER: usize = 5;

/// Which limit holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before the login is complete.
    Login,
    /// Afterwards.
    Session,
}

/// One whole message, still with its header, or `None` if more bytes are needed; then room for
/// them is reserved.
///
/// # Errors
/// If the announced length cannot be, or is beyond the limit.
pub(super) fn take(input: &mut BytesMut, phase: Phase) -> Result<Option<Frame>, Error> {
    let mut header = input.as_ref();
    let (Ok(tag), Ok(length)) = (header.try_get_u8(), header.try_get_u32()) else {
        input.reserve(HEADER - input.len());
        return Ok(None);
    };
    if length < 4 {
        return Err(DecodeError { message: "message", problem: "its length is impossible" }.into());
    }
    let limit = match (phase, tag) {
        (Phase::Login, _) => MAX_LOGIN_MESSAGE,
        (Phase::Session, b'd') => MAX_COPY_DATA,
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
        input.reserve(total - input.len());
        return Ok(None);
    }
    Ok(Some(Frame { tag, bytes: input.split_to(total) }))
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
