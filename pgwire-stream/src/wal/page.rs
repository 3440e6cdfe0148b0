//! WAL pages: their size and their headers.

use crate::Lsn;

/// `XLP_FIRST_IS_CONTRECORD`.
const CONTINUES_RECORD: u16 = 0x1;
/// `XLP_LONG_HEADER`.
const LONG: u16 = 0x2;

/// The size of a WAL page (`XLOG_BLCKSZ`): a power of two from 1 kB to 64 kB, chosen when
/// PostgreSQL is built. Nearly always [`PageSize::DEFAULT`].
///
/// Follows `--with-wal-blocksize` in PostgreSQL's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageSize(u32);

impl PageSize {
    /// 8 kB.
    pub const DEFAULT: Self = Self(8192);

    /// A page size of so many bytes, as `SHOW wal_block_size` answers it; `None` if no PostgreSQL
    /// can be built with it.
    pub const fn new(bytes: u32) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 1 << 10 && bytes <= 1 << 16 {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// How far into its page the byte at `lsn` lies.
    pub(super) const fn offset_in_page(self, lsn: Lsn) -> u32 {
        // The remainder is less than 2^16.
        (lsn.as_u64() & (self.0 as u64 - 1)) as u32
    }
}

/// The header of a WAL page, in the little-endian form of the platforms that matter.
///
/// Follows `XLogPageHeaderData` and `XLogLongPageHeaderData` in
/// `src/include/access/xlog_internal.h`. Only what the bytes say: [`WalValidator`] judges it.
///
/// [`WalValidator`]: super::WalValidator
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageHeader {
    /// `xlp_magic`: the version of the format.
    pub magic: u16,
    /// `xlp_info`: flags.
    pub info: u16,
    /// `xlp_tli`: the timeline of the first record on the page; 0 is none.
    pub timeline: u32,
    /// `xlp_pageaddr`: the position of the page.
    pub address: Lsn,
    /// `xlp_rem_len`: how many bytes of a record that began on an earlier page are still to come.
    pub remaining: u32,
    /// What only the first page of a segment says.
    pub long: Option<LongPageHeader>,
}

/// What the header of a segment's first page says besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LongPageHeader {
    /// `xlp_sysid`: the system identifier.
    pub system_id: u64,
    /// `xlp_seg_size`: bytes in a segment.
    pub segment_size: u32,
    /// `xlp_xlog_blcksz`: bytes in a page.
    pub page_size: u32,
}

impl PageHeader {
    /// Bytes of the header of most pages.
    pub const SHORT_LEN: usize = 24;
    /// Bytes of the header of a segment's first page.
    pub const LONG_LEN: usize = 40;

    /// Reads the header at the beginning of a page: the long part too, if the flags announce it.
    /// `None` if there are not bytes enough.
    pub fn parse(page: &[u8]) -> Option<Self> {
        let (short, rest) = page.split_first_chunk::<{ Self::SHORT_LEN }>()?;
        let info = u16_at(short, 2)?;
        let long = if info & LONG == 0 {
            None
        } else {
            Some(LongPageHeader {
                system_id: u64_at(rest, 0)?,
                segment_size: u32_at(rest, 8)?,
                page_size: u32_at(rest, 12)?,
            })
        };
        Some(Self {
            magic: u16_at(short, 0)?,
            info,
            timeline: u32_at(short, 4)?,
            address: Lsn::from_u64(u64_at(short, 8)?),
            remaining: u32_at(short, 16)?,
            long,
        })
    }

    /// Whether the page begins within a record.
    pub const fn continues_record(&self) -> bool {
        self.info & CONTINUES_RECORD != 0
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().copied().map(u64::from_le_bytes)
}
