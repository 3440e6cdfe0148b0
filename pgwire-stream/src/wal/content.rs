//! What the few kinds of records say that matter to whoever keeps WAL.

use crate::{Lsn, PgTimestamp};

use super::magic::WalFormat;
use super::page::{u32_at, u64_at};
use super::record::{RecordHeader, ResourceManager};

/// How much of a record's beginning is kept to read it: the longest that is read is a restore
/// point, with 8 bytes of time and 64 of name behind at most 13 bytes of headers.
pub(super) const CAPTURE: usize = 96;

/// `MAXFNAMELEN`.
const RESTORE_POINT_NAME: usize = 64;

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// A transaction committed, plain or prepared: a time that recovery can stop at.
    Commit {
        /// When, by the server's clock.
        time: PgTimestamp,
        /// Which one. Of a prepared one it is not the transaction in the record's header.
        xid: u32,
    },
    /// A transaction was rolled back, plain or prepared: recovery can stop here too.
    Abort {
        /// When, by the server's clock.
        time: PgTimestamp,
        /// Which one. Of a prepared one it is not the transaction in the record's header.
        xid: u32,
    },
    /// `pg_create_restore_point`: a name that recovery can stop at.
    RestorePoint {
        /// When, by the server's clock.
        time: PgTimestamp,
        /// The name, in the encoding of the database it was made from; other bytes than UTF-8 are
        /// replaced.
        name: String,
    },
    /// A checkpoint.
    Checkpoint {
        /// Whether the server was shut down with it.
        shutdown: bool,
        /// Where a recovery from it begins to replay.
        redo: Lsn,
        /// The timeline that it is on.
        timeline: u32,
        /// The next transaction to be, with its epoch in the upper half.
        next_xid: u64,
    },
    /// A WAL switch: the rest of the segment is empty.
    Switch,
    /// A base backup that began at `start` ended: it is consistent from here on.
    BackupEnd {
        /// Where the backup began.
        start: Lsn,
    },
    /// Recovery ended without a shutdown checkpoint, and a timeline begins.
    EndOfRecovery {
        /// When, by the server's clock.
        time: PgTimestamp,
        /// The timeline that begins.
        timeline: u32,
        /// The timeline that was recovered.
        previous: u32,
    },
    /// The record at `lsn` was never completed, and this one stands where the rest of it was to
    /// come.
    OverwriteContrecord {
        /// The record that was given up.
        lsn: Lsn,
    },
}

impl Content {
    /// Whether records of this kind have content that is read.
    pub(super) fn is_read(header: &RecordHeader) -> bool {
        matches!(header.resource_manager, ResourceManager::XLOG | ResourceManager::TRANSACTION)
    }

    /// Reads the beginning of what follows a record's header, and `prepared`, which was found behind
    /// that. `None` if the record is of another kind, or its kind has changed in a way that is not
    /// known.
    pub(super) fn read(
        header: &RecordHeader,
        body: &[u8],
        prepared: Option<u32>,
        format: &WalFormat,
    ) -> Option<Self> {
        let time = || time_at(main_data(body)?, 0);
        match header.resource_manager {
            ResourceManager::XLOG => Self::read_xlog(header.kind(), body, format),
            // `XLOG_XACT_OPMASK`: the bit above is a flag.
            ResourceManager::TRANSACTION => match header.info & 0x70 {
                0x00 => Some(Self::Commit { time: time()?, xid: header.xid }),
                0x20 => Some(Self::Abort { time: time()?, xid: header.xid }),
                0x30 => Some(Self::Commit { time: time()?, xid: prepared? }),
                0x40 => Some(Self::Abort { time: time()?, xid: prepared? }),
                _ => None,
            },
            _ => None,
        }
    }

    fn read_xlog(kind: u8, body: &[u8], format: &WalFormat) -> Option<Self> {
        if kind == 0x40 {
            return Some(Self::Switch);
        }
        if !matches!(kind, 0x00 | 0x10 | 0x50 | 0x70 | 0x90 | 0xD0) {
            return None;
        }
        let data = main_data(body)?;
        let lsn_at = |offset| u64_at(data, offset).map(Lsn::from_u64);
        Some(match kind {
            0x00 | 0x10 => Self::Checkpoint {
                shutdown: kind == 0,
                redo: lsn_at(0)?,
                timeline: u32_at(data, 8)?,
                next_xid: {
                    let number = u64_at(data, format.next_xid_offset)?;
                    if format.major >= 12 { number } else { number.rotate_left(32) }
                },
            },
            0x50 => Self::BackupEnd { start: lsn_at(0)? },
            0x70 => {
                let name = data.get(8..8 + RESTORE_POINT_NAME)?;
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                Self::RestorePoint {
                    time: time_at(data, 0)?,
                    name: String::from_utf8_lossy(name).into_owned(),
                }
            }
            0x90 => Self::EndOfRecovery {
                time: time_at(data, 0)?,
                timeline: u32_at(data, 8)?,
                previous: u32_at(data, 12)?,
            },
            _ => Self::OverwriteContrecord { lsn: lsn_at(0)? },
        })
    }
}

fn time_at(data: &[u8], offset: usize) -> Option<PgTimestamp> {
    u64_at(data, offset).map(|micros| PgTimestamp::from_micros(micros.cast_signed()))
}

/// Finds the main data of a record that touches no blocks.
///
/// Follows `DecodeXLogRecord` in `src/backend/access/transam/xlogreader.c`: small headers, each
/// with its number first, the last of them that of the main data.
fn main_data(mut body: &[u8]) -> Option<&[u8]> {
    loop {
        let (id, rest) = body.split_first()?;
        let (skip, len) = match id {
            // XLR_BLOCK_ID_DATA_SHORT and _LONG.
            0xFF => (1, usize::from(*rest.first()?)),
            0xFE => (4, usize::try_from(u32_at(rest, 0)?).ok()?),
            // XLR_BLOCK_ID_ORIGIN and _TOPLEVEL_XID.
            0xFD => {
                body = rest.get(2..)?;
                continue;
            }
            0xFC => {
                body = rest.get(4..)?;
                continue;
            }
            _ => return None,
        };
        let data = rest.get(skip..)?;
        return Some(data.get(..len).unwrap_or(data));
    }
}
