//! What flows in a physical copy-both conversation: WAL and keepalives one way, status updates the
//! other.

use bytes::{Buf, BufMut, Bytes};

use crate::{DecodeError, Lsn, PgTimestamp};

/// A message of the server in a copy-both conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyBothMessage {
    /// WAL.
    Data(WalData),
    /// A sign of life.
    Keepalive(Keepalive),
}

/// A piece of WAL. It may begin and end in the middle of a record, page or segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalData {
    /// The position of the first byte.
    pub start: Lsn,
    /// How far the server could send when it sent this.
    pub server_end: Lsn,
    /// When the server sent it, by its clock.
    pub sent_at: PgTimestamp,
    /// The WAL itself: a slice of the receive buffer, never empty.
    pub data: Bytes,
}

impl WalData {
    /// The position behind the last byte.
    pub fn end(&self) -> Lsn {
        self.start.saturating_add(self.data.len() as u64)
    }
}

/// A sign of life from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How far the server has sent WAL to us.
    pub server_end: Lsn,
    /// When the server sent it, by its clock.
    pub sent_at: PgTimestamp,
    /// Whether the server waits for a status update. During its shutdown it asks until the flush
    /// position equals `server_end`, so whoever is asked should make all WAL durable at once.
    pub reply_requested: bool,
}

impl CopyBothMessage {
    /// Decodes the payload of a `CopyData` message.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn decode(mut payload: Bytes) -> Result<Self, DecodeError> {
        let error = |problem| DecodeError { message: "streaming message", problem };
        let short = |_| error("it is too short");
        let kind = payload.try_get_u8().map_err(short)?;
        match kind {
            b'w' => {
                let start = Lsn::from_u64(payload.try_get_u64().map_err(short)?);
                let server_end = Lsn::from_u64(payload.try_get_u64().map_err(short)?);
                let sent_at = PgTimestamp::from_micros(payload.try_get_i64().map_err(short)?);
                if payload.is_empty() {
                    return Err(error("it has no WAL"));
                }
                if start.checked_add(payload.len() as u64).is_none() {
                    return Err(error("its position is impossible"));
                }
                Ok(Self::Data(WalData { start, server_end, sent_at, data: payload }))
            }
            b'k' => {
                let server_end = Lsn::from_u64(payload.try_get_u64().map_err(short)?);
                let sent_at = PgTimestamp::from_micros(payload.try_get_i64().map_err(short)?);
                let reply_requested = payload.try_get_u8().map_err(short)? != 0;
                if payload.has_remaining() {
                    return Err(error("it is too long"));
                }
                Ok(Self::Keepalive(Keepalive { server_end, sent_at, reply_requested }))
            }
            _ => Err(error("its kind is unknown")),
        }
    }
}

/// What a receiver tells the server. Positions name the first byte that is not included;
/// [`Lsn::ZERO`] is "unknown".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandbyStatus {
    /// Received and written.
    pub written: Lsn,
    /// Durable: the server may forget what lies before it.
    pub flushed: Lsn,
    /// Replayed.
    pub applied: Lsn,
    /// When this is sent, by our clock.
    pub sent_at: PgTimestamp,
    /// Whether the server shall answer with a keepalive at once.
    pub reply_requested: bool,
}

impl StandbyStatus {
    /// The payload of the `CopyData` message.
    pub fn encode(&self) -> [u8; 34] {
        let mut payload = [0; 34];
        let mut out = payload.as_mut_slice();
        out.put_u8(b'r');
        out.put_u64(self.written.as_u64());
        out.put_u64(self.flushed.as_u64());
        out.put_u64(self.applied.as_u64());
        out.put_i64(self.sent_at.as_micros());
        out.put_u8(u8::from(self.reply_requested));
        payload
    }
}
