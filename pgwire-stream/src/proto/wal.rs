//! What flows in a copy-both conversation: WAL and signs of life one way, the receiver's reports
//! and questions the other.
//!
//! Follows "START_REPLICATION" in PostgreSQL's "Streaming Replication Protocol".

use bytes::{Buf, BufMut, Bytes};

use crate::{DecodeError, Lsn, PgTimestamp};

/// A message of the server in a copy-both conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyBothMessage {
    /// WAL, or what an output plugin made of it.
    Data(WalData),
    /// A sign of life.
    Keepalive(Keepalive),
    /// The answer to [`StandbyMessage::PrimaryStatusRequest`] (servers from 19 on).
    PrimaryStatus(PrimaryStatus),
}

/// A piece of WAL. It may begin and end in the middle of a record, page or segment.
///
/// In a logical stream it is one message of the output plugin instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalData {
    /// The position of the first byte. In a logical stream, the position of the change; zero where
    /// the plugin names none.
    pub start: Lsn,
    /// How far the server could send when it sent this.
    pub server_end: Lsn,
    /// When the server sent it, by its clock.
    pub sent_at: PgTimestamp,
    /// The WAL itself: a slice of the receive buffer. Empty only where an output plugin writes
    /// empty messages.
    pub data: Bytes,
}

impl WalData {
    /// The position behind the last byte; means nothing in a logical stream.
    pub fn end(&self) -> Lsn {
        self.start.saturating_add(self.data.len() as u64)
    }
}

/// A sign of life from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How far the server has sent WAL to us; in a logical stream, how far it has decoded it.
    pub server_end: Lsn,
    /// When the server sent it, by its clock.
    pub sent_at: PgTimestamp,
    /// Whether the server waits for a status update. During its shutdown it asks until the flush
    /// position equals `server_end`, so whoever is asked should make all WAL durable at once.
    pub reply_requested: bool,
}

/// Where the server's transactions are. Transaction IDs have their epoch in the upper half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrimaryStatus {
    /// How far the server has written WAL.
    pub written: Lsn,
    /// The oldest transaction that is being committed.
    pub oldest_committing: u64,
    /// The next transaction ID that will be assigned.
    pub next_transaction: u64,
    /// When the server sent it, by its clock.
    pub sent_at: PgTimestamp,
}

impl CopyBothMessage {
    /// Decodes the payload of a `CopyData` message.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut fields = Fields { payload, message: "streaming message" };
        let message = match fields.u8()? {
            b'w' => {
                let (start, server_end) = (fields.lsn()?, fields.lsn()?);
                let (sent_at, data) = (fields.timestamp()?, fields.rest());
                if start.checked_add(data.len() as u64).is_none() {
                    return Err(fields.error("its position is impossible"));
                }
                Self::Data(WalData { start, server_end, sent_at, data })
            }
            b'k' => Self::Keepalive(Keepalive {
                server_end: fields.lsn()?,
                sent_at: fields.timestamp()?,
                reply_requested: fields.u8()? != 0,
            }),
            b's' => Self::PrimaryStatus(PrimaryStatus {
                written: fields.lsn()?,
                oldest_committing: fields.u64()?,
                next_transaction: fields.u64()?,
                sent_at: fields.timestamp()?,
            }),
            _ => return Err(fields.error("its kind is unknown")),
        };
        fields.end()?;
        Ok(message)
    }

    /// Appends the payload of the `CopyData` message.
    pub fn encode(&self, out: &mut impl BufMut) {
        match self {
            Self::Data(data) => {
                out.put_u8(b'w');
                out.put_u64(data.start.as_u64());
                out.put_u64(data.server_end.as_u64());
                out.put_i64(data.sent_at.as_micros());
                out.put_slice(&data.data);
            }
            Self::Keepalive(keepalive) => {
                out.put_u8(b'k');
                out.put_u64(keepalive.server_end.as_u64());
                out.put_i64(keepalive.sent_at.as_micros());
                out.put_u8(u8::from(keepalive.reply_requested));
            }
            Self::PrimaryStatus(status) => {
                out.put_u8(b's');
                out.put_u64(status.written.as_u64());
                out.put_u64(status.oldest_committing);
                out.put_u64(status.next_transaction);
                out.put_i64(status.sent_at.as_micros());
            }
        }
    }
}

/// A message of the receiver in a copy-both conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StandbyMessage {
    /// How far WAL has come.
    Status(StandbyStatus),
    /// What the server must not clean up.
    HotStandbyFeedback {
        /// When this is sent, by our clock.
        sent_at: PgTimestamp,
        /// What is still needed.
        feedback: HotStandbyFeedback,
    },
    /// Asks for [`CopyBothMessage::PrimaryStatus`] (servers from 19 on).
    PrimaryStatusRequest {
        /// When this is sent, by our clock.
        sent_at: PgTimestamp,
    },
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

/// Row versions that the server must keep for queries elsewhere.
///
/// Transaction IDs have their epoch in the upper half, as `txid_current()` shows them. A server
/// ignores those that it has not assigned yet or has long forgotten. Zero is "none"; the default,
/// with neither, takes earlier feedback back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HotStandbyFeedback {
    /// The oldest transaction whose row versions are still needed.
    pub xmin: u64,
    /// The same for the system catalogs alone, on behalf of logical slots.
    pub catalog_xmin: u64,
}

impl StandbyMessage {
    /// Appends the payload of the `CopyData` message, in the layout of servers from 10 on.
    pub fn encode(&self, out: &mut impl BufMut) {
        match self {
            Self::Status(status) => {
                out.put_u8(b'r');
                out.put_u64(status.written.as_u64());
                out.put_u64(status.flushed.as_u64());
                out.put_u64(status.applied.as_u64());
                out.put_i64(status.sent_at.as_micros());
                out.put_u8(u8::from(status.reply_requested));
            }
            Self::HotStandbyFeedback { sent_at, feedback } => {
                out.put_u8(b'h');
                out.put_i64(sent_at.as_micros());
                for transaction in [feedback.xmin, feedback.catalog_xmin] {
                    // The epoch comes last.
                    out.put_u64(transaction.rotate_left(32));
                }
            }
            Self::PrimaryStatusRequest { sent_at } => {
                out.put_u8(b'p');
                out.put_i64(sent_at.as_micros());
            }
        }
    }

    /// Decodes the payload of a `CopyData` message.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut fields = Fields { payload, message: "standby message" };
        let message = match fields.u8()? {
            b'r' => Self::Status(StandbyStatus {
                written: fields.lsn()?,
                flushed: fields.lsn()?,
                applied: fields.lsn()?,
                sent_at: fields.timestamp()?,
                reply_requested: fields.u8()? != 0,
            }),
            b'h' => Self::HotStandbyFeedback {
                sent_at: fields.timestamp()?,
                feedback: HotStandbyFeedback {
                    xmin: fields.u64()?.rotate_left(32),
                    catalog_xmin: fields.u64()?.rotate_left(32),
                },
            },
            b'p' => Self::PrimaryStatusRequest { sent_at: fields.timestamp()? },
            _ => return Err(fields.error("its kind is unknown")),
        };
        fields.end()?;
        Ok(message)
    }
}

/// The fields of a message, in order.
struct Fields {
    payload: Bytes,
    message: &'static str,
}

impl Fields {
    fn error(&self, problem: &'static str) -> DecodeError {
        DecodeError { message: self.message, problem }
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.payload.try_get_u8().map_err(|_| self.error("it is too short"))
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.payload.try_get_u64().map_err(|_| self.error("it is too short"))
    }

    fn lsn(&mut self) -> Result<Lsn, DecodeError> {
        self.u64().map(Lsn::from_u64)
    }

    fn timestamp(&mut self) -> Result<PgTimestamp, DecodeError> {
        self.u64().map(|micros| PgTimestamp::from_micros(micros.cast_signed()))
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.payload)
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.payload.has_remaining() { Err(self.error("it is too long")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn micros() -> impl Strategy<Value = PgTimestamp> {
        any::<i64>().prop_map(PgTimestamp::from_micros)
    }

    fn lsn() -> impl Strategy<Value = Lsn> {
        // Some room for the data behind it.
        (0..u64::MAX - 1000).prop_map(Lsn::from_u64)
    }

    fn copy_both_message() -> impl Strategy<Value = CopyBothMessage> {
        let data = prop::collection::vec(any::<u8>(), 0..100).prop_map(Bytes::from);
        prop_oneof![
            (lsn(), lsn(), micros(), data).prop_map(|(start, server_end, sent_at, data)| {
                CopyBothMessage::Data(WalData { start, server_end, sent_at, data })
            }),
            (lsn(), micros(), any::<bool>()).prop_map(|(server_end, sent_at, reply_requested)| {
                CopyBothMessage::Keepalive(Keepalive { server_end, sent_at, reply_requested })
            }),
            (lsn(), any::<(u64, u64)>(), micros()).prop_map(
                |(written, (oldest, next), sent_at)| {
                    CopyBothMessage::PrimaryStatus(PrimaryStatus {
                        written,
                        oldest_committing: oldest,
                        next_transaction: next,
                        sent_at,
                    })
                }
            ),
        ]
    }

    fn standby_message() -> impl Strategy<Value = StandbyMessage> {
        prop_oneof![
            ([lsn(), lsn(), lsn()], micros(), any::<bool>()).prop_map(
                |([written, flushed, applied], sent_at, reply_requested)| {
                    StandbyMessage::Status(StandbyStatus {
                        written,
                        flushed,
                        applied,
                        sent_at,
                        reply_requested,
                    })
                }
            ),
            (micros(), any::<(u64, u64)>()).prop_map(|(sent_at, (xmin, catalog_xmin))| {
                let feedback = HotStandbyFeedback { xmin, catalog_xmin };
                StandbyMessage::HotStandbyFeedback { sent_at, feedback }
            }),
            micros().prop_map(|sent_at| StandbyMessage::PrimaryStatusRequest { sent_at }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(server in copy_both_message(), ours in standby_message()) {
            let mut payload = Vec::new();
            server.encode(&mut payload);
            prop_assert_eq!(CopyBothMessage::decode(payload.into()), Ok(server));
            let mut payload = Vec::new();
            ours.encode(&mut payload);
            prop_assert_eq!(StandbyMessage::decode(payload.into()), Ok(ours));
        }

        #[test]
        fn neither_shorter_nor_longer(ours in standby_message(), server in copy_both_message()) {
            let mut payload = Vec::new();
            ours.encode(&mut payload);
            prop_assert!(StandbyMessage::decode(payload[..payload.len() - 1].to_vec().into()).is_err());
            payload.push(0);
            prop_assert!(StandbyMessage::decode(payload.into()).is_err());
            if !matches!(server, CopyBothMessage::Data(_)) {
                let mut payload = Vec::new();
                server.encode(&mut payload);
                prop_assert!(CopyBothMessage::decode(payload[..payload.len() - 1].to_vec().into()).is_err());
                payload.push(0);
                prop_assert!(CopyBothMessage::decode(payload.into()).is_err());
            }
        }
    }

    /// Bytes as `pg_recvlogical` and a walreceiver write them.
    #[test]
    fn layouts_are_postgresqls() {
        let feedback =
            HotStandbyFeedback { xmin: 0x0000_0002_0000_0003, catalog_xmin: 0x0000_0004_0000_0005 };
        let sent_at = PgTimestamp::from_micros(1);
        let mut payload = Vec::new();
        StandbyMessage::HotStandbyFeedback { sent_at, feedback }.encode(&mut payload);
        let expected = [b"h".as_slice(), &[0, 0, 0, 0, 0, 0, 0, 1]].concat();
        assert_eq!(payload.len(), 25);
        assert_eq!(payload[..9], expected);
        assert_eq!(payload[9..], [0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 4]);
        for (length, message) in [
            (9, StandbyMessage::PrimaryStatusRequest { sent_at }),
            (
                34,
                StandbyMessage::Status(StandbyStatus {
                    written: Lsn::ZERO,
                    flushed: Lsn::ZERO,
                    applied: Lsn::ZERO,
                    sent_at,
                    reply_requested: true,
                }),
            ),
        ] {
            let mut payload = Vec::new();
            message.encode(&mut payload);
            assert_eq!(payload.len(), length);
        }
    }
}
