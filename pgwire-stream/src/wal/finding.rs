//! What a validator has to say.

use crate::{Lsn, SystemId};

use super::content::Content;
use super::record::RecordHeader;

/// Something that a [`WalValidator`](super::WalValidator) found, in the order of positions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A record whose checksum is right and whose place in the chain is too, as far as that can be
    /// told.
    Record(Record),
    /// WAL that was passed over without a verdict: the rest of a record whose beginning was not
    /// seen, what may follow a switch that was not seen, a record that the server itself gave up,
    /// or what follows damage until WAL makes sense again.
    Unchecked {
        /// Its first byte.
        from: Lsn,
        /// The byte behind it.
        to: Lsn,
    },
    /// WAL that is unusual. PostgreSQL may well be able to replay it.
    Warning {
        /// Where.
        lsn: Lsn,
        /// What.
        what: WalWarning,
    },
    /// WAL that PostgreSQL could not replay. The range in doubt follows as
    /// [`Unchecked`](Self::Unchecked) with the next record that is right; what else is wrong up to
    /// there is not told.
    Damage {
        /// Where: the beginning of the record or page.
        lsn: Lsn,
        /// What.
        what: WalDamage,
    },
}

/// A record whose checksum is right.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Where it begins.
    pub start: Lsn,
    /// Where the next one may begin: behind this one and its alignment. Behind a WAL switch, the
    /// next segment.
    pub end: Lsn,
    /// Its header.
    pub header: RecordHeader,
    /// What it says, if it is of the few kinds that matter to whoever keeps WAL.
    pub content: Option<Content>,
}

/// What is unusual about WAL that may be all right. Told once, not for every page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalWarning {
    /// A page's magic is not that of the server's version, or of any that is known.
    #[error("the magic number of WAL pages is {found:04X}{}", .expected.map_or_else(String::new, |expected| format!(", not {expected:04X}")))]
    Magic {
        /// `xlp_magic`.
        found: u16,
        /// That of the server's version.
        expected: Option<u16>,
    },
    /// A page has flags that its version does not have.
    #[error("a WAL page has unknown flags {unknown:#06x}")]
    Flags {
        /// The unknown bits of `xlp_info`.
        unknown: u16,
    },
    /// A record is of a resource manager that its version does not have.
    #[error("a WAL record is of the unknown resource manager {number}")]
    ResourceManager {
        /// `xl_rmid`.
        number: u8,
    },
    /// What follows a WAL switch in its segment is not empty. Nobody reads it. Told once for each
    /// such segment.
    #[error("the rest of a WAL segment behind a switch is not empty")]
    NotEmpty,
    /// The server counts bytes from the other end. Nothing can be checked.
    #[error("the WAL is of a server with big-endian numbers, which cannot be checked")]
    ByteOrder,
}

/// Why PostgreSQL could not replay this WAL: what was expected, and what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalDamage {
    /// A page is not the one that belongs here (`xlp_pageaddr`).
    #[error("the page says that it belongs at {found}")]
    PageAddress {
        /// What the page says.
        found: Lsn,
    },
    /// A page is of another version than those before it.
    #[error("the page's magic number is {found:04X}, not {expected:04X} as before")]
    PageMagic {
        /// That of the pages before.
        expected: u16,
        /// `xlp_magic`.
        found: u16,
    },
    /// The long header is not where it has to be: on the first page of each segment, and only there.
    #[error("the page has a {} header", if *.found { "long" } else { "short" })]
    LongHeader {
        /// Whether the page has a long header.
        found: bool,
    },
    /// A page is of a timeline that it cannot be of.
    #[error("the page is of timeline {found}, not of {at_least}{}", .at_most.map_or_else(String::new, |most| format!(" to {most}")))]
    Timeline {
        /// `xlp_tli`.
        found: u32,
        /// That of the page before.
        at_least: u32,
        /// That of the segment.
        at_most: Option<u32>,
    },
    /// A segment is another cluster's.
    #[error("the segment is of system {found}, not {expected}")]
    SystemId {
        /// The system identifier of the WAL before, or that was asked for.
        expected: SystemId,
        /// `xlp_sysid`.
        found: SystemId,
    },
    /// A segment says that it has another size.
    #[error("the segment says that segments have {found} bytes, not {expected}")]
    SegmentSize {
        /// The size that was asked for.
        expected: u32,
        /// `xlp_seg_size`.
        found: u32,
    },
    /// A segment says that pages have another size, or an impossible one.
    #[error("the segment says that pages have {found} bytes, not {expected}")]
    PageSize {
        /// The size so far.
        expected: u32,
        /// `xlp_xlog_blcksz`.
        found: u32,
    },
    /// A page's flags and its `xlp_rem_len` contradict each other.
    #[error("the page's flags are {info:#06x}, and {remaining} bytes of a record are to come")]
    PageContradiction {
        /// `xlp_info`.
        info: u16,
        /// `xlp_rem_len`.
        remaining: u32,
    },
    /// A page does not go on as the record before it wants.
    #[error("the page has {found} bytes of the record that began before it, not {expected}")]
    Remaining {
        /// How much of the record is still to come; 0 if the record before the page is complete.
        expected: u32,
        /// `xlp_rem_len`.
        found: u32,
    },
    /// There are only zeros, as if WAL ended here; but it goes on.
    #[error("there are zeros only, up to {resumes}")]
    Hole {
        /// The first byte that is not zero.
        resumes: Lsn,
    },
    /// No record has this length.
    #[error("the record says that it has {found} bytes")]
    RecordLength {
        /// `xl_tot_len`.
        found: u32,
    },
    /// The record does not follow the one before it.
    #[error("the record says that the one before it is at {found}{}", .expected.map_or_else(String::new, |lsn| format!(", not at {lsn}")))]
    Chain {
        /// Where the record before it begins, if that is known.
        expected: Option<Lsn>,
        /// `xl_prev`.
        found: Lsn,
    },
    /// The record's checksum is wrong.
    #[error("the record's CRC is {found:08X}, not {expected:08X}")]
    RecordCrc {
        /// The CRC-32C of what is there.
        expected: u32,
        /// `xl_crc`.
        found: u32,
    },
    /// A page says that a record was given up before it, and is not followed by the record that
    /// names that one.
    #[error(
        "no record says which one was given up before this page{}",
        .expected.map_or_else(String::new, |lsn| format!(", namely the one at {lsn}"))
    )]
    Overwrite {
        /// The record that was given up, if its beginning was seen.
        expected: Option<Lsn>,
    },
}
