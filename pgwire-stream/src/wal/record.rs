//! WAL records: their header and their checksum.

use std::fmt;

use crate::Lsn;

/// The longest record that any PostgreSQL can read back: its memory allocation limit. From 16 on
/// servers refuse to write more than 1020 MB.
pub(super) const MAX_RECORD_LEN: u32 = 0x3FFF_FFFF;

/// Records begin at multiples of this many bytes (`MAXALIGN`).
pub(super) const ALIGNMENT: u64 = 8;

/// The header of a record.
///
/// Follows `XLogRecord` in `src/include/access/xlogrecord.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordHeader {
    /// `xl_tot_len`: bytes of the whole record, this header included, page headers not.
    pub total_len: u32,
    /// `xl_xid`: the transaction that wrote it; 0 is none.
    pub xid: u32,
    /// `xl_prev`: where the record before it begins.
    pub prev: Lsn,
    /// `xl_info`: the kind, in the upper half the resource manager's own.
    pub info: u8,
    /// `xl_rmid`: the resource manager.
    pub resource_manager: ResourceManager,
    /// `xl_crc`: CRC-32C of the record.
    pub crc: u32,
}

impl RecordHeader {
    /// Bytes of a record's header, `SizeOfXLogRecord`.
    pub const LEN: usize = 24;

    /// Reads the header at the beginning of a record.
    pub const fn parse(bytes: &[u8; Self::LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, p0, p1, p2, p3, p4, p5, p6, p7, ..] = *bytes;
        let [.., info, resource_manager, _, _, i, j, k, l] = *bytes;
        Self {
            total_len: u32::from_le_bytes([a, b, c, d]),
            xid: u32::from_le_bytes([e, f, g, h]),
            prev: Lsn::from_u64(u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7])),
            info,
            resource_manager: ResourceManager(resource_manager),
            crc: u32::from_le_bytes([i, j, k, l]),
        }
    }

    /// The kind within the resource manager, without the flags that all of them share
    /// (`~XLR_INFO_MASK`).
    pub const fn kind(&self) -> u8 {
        self.info & 0xF0
    }

    /// Whether it ends its segment early.
    pub(super) fn is_switch(&self) -> bool {
        self.resource_manager == ResourceManager::XLOG && self.kind() == 0x40
    }
}

/// Extends the checksum of a record by a piece of what follows its header, in order.
pub(super) fn crc_of_body(crc: u32, piece: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, piece)
}

/// Completes the checksum of a record with its header, which comes last and without `xl_crc`.
pub(super) fn crc_with_header(crc: u32, header: &[u8; RecordHeader::LEN]) -> u32 {
    let (covered, _) = header.split_at(RecordHeader::LEN - size_of::<u32>());
    crc32c::crc32c_append(crc, covered)
}

/// The part of the server that wrote a record and can replay it.
///
/// Follows `src/include/access/rmgrlist.h`. Printed as `pg_waldump` does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceManager(u8);

/// The names of the built-in ones.
const NAMES: [&str; 23] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
    "XLOG2",
];

impl ResourceManager {
    /// Checkpoints, switches, restore points, full-page images.
    pub const XLOG: Self = Self(0);
    /// Commits and aborts.
    pub const TRANSACTION: Self = Self(1);

    /// Its number, `xl_rmid`.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its name, if it is built in.
    pub fn name(self) -> Option<&'static str> {
        NAMES.get(usize::from(self.0)).copied()
    }
}

impl fmt::Display for ResourceManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "custom{:03}", self.0),
        }
    }
}

impl fmt::Debug for ResourceManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
