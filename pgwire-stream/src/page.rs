//! Data pages: their checksums, and the files that they lie in.
//!
//! A cluster with data checksums has one in every page of its relations. It is computed when the
//! page is written, so one that does not fit says that the page was damaged since, or is the half
//! of a page that was being written.

use crate::Lsn;

/// A page of a relation.
///
/// Follows `PageHeaderData` in `src/include/storage/bufpage.h`, with the numbers of a little-endian
/// server.
///
/// ```
/// use pgwire_stream::page::Page;
///
/// let empty = [0; 8192];
/// assert!(Page::new(&empty).is_new());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Page<'a>(&'a [u8]);

impl<'a> Page<'a> {
    /// Bytes of a page's header, `SizeOfPageHeaderData`.
    pub const HEADER: usize = 24;

    /// The size of pages of a server that was built as usual, in bytes.
    pub const DEFAULT_SIZE: usize = 8192;

    /// These bytes, all of one page.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The size that a page says it has, in bytes, if it can be one: the header is enough.
    pub fn stated_size(header: &[u8]) -> Option<usize> {
        let size = usize::from(number(header, 18) & 0xFF00);
        (size.is_power_of_two() && (1024..=32 << 10).contains(&size)).then_some(size)
    }

    /// Whether it was never used (`PageIsNew`). It has no checksum then.
    pub fn is_new(self) -> bool {
        number(self.0, 14) == 0
    }

    /// The end of the record that changed it last.
    pub fn lsn(self) -> Lsn {
        let half = |at| u64::from(number(self.0, at)) | u64::from(number(self.0, at + 2)) << 16;
        Lsn::from_u64(half(0) << 32 | half(4))
    }

    /// The checksum in it.
    pub fn noted_checksum(self) -> u16 {
        number(self.0, CHECKSUM_AT)
    }

    /// The checksum that it should have as this block of its relation.
    ///
    /// Follows `pg_checksum_page` in `src/include/storage/checksum_impl.h`.
    pub fn checksum(self, block: u32) -> u16 {
        let mut sums = OFFSETS;
        let mut rows = self.0.chunks_exact(size_of::<[u32; LANES]>());
        if let Some(first) = rows.next() {
            let mut row = words(first);
            // Computed with zero in the place of the checksum.
            if let Some(word) = row.get_mut(CHECKSUM_AT / 4) {
                *word &= 0xFFFF_0000;
            }
            mix(&mut sums, &row);
        }
        for row in rows {
            mix(&mut sums, &words(row));
        }
        // Two rounds of zeros spread the last row.
        mix(&mut sums, &[0; LANES]);
        mix(&mut sums, &[0; LANES]);
        let sum = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
        // Never zero, which says that there is none.
        u16::try_from(sum % 65535 + 1).unwrap_or(u16::MAX)
    }
}

/// Where in the header the checksum is, `pd_checksum`.
const CHECKSUM_AT: usize = 8;

/// How many sums are computed beside each other.
const LANES: usize = 32;

const PRIME: u32 = 16_777_619;

/// What each of the sums begins with.
const OFFSETS: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

fn mix(sums: &mut [u32; LANES], row: &[u32; LANES]) {
    for (sum, word) in sums.iter_mut().zip(row) {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

fn words(row: &[u8]) -> [u32; LANES] {
    let mut words = [0; LANES];
    for (word, bytes) in words.iter_mut().zip(row.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

fn number(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(&[low, high]) => u16::from_le_bytes([low, high]),
        _ => 0,
    }
}

/// A file whose pages have checksums, by its path below the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFile {
    /// Which of its relation's files it is.
    segment: u32,
}

impl PageFile {
    /// A file with pages; `None` if a file with this path has none.
    ///
    /// ```
    /// use pgwire_stream::page::PageFile;
    ///
    /// assert!(PageFile::of("base/5/16384_vm").is_some());
    /// assert!(PageFile::of("pg_tblspc/16385/PG_17_202406281/5/16386.1").is_some());
    /// assert!(PageFile::of("base/5/pg_filenode.map").is_none());
    /// ```
    pub fn of(path: &str) -> Option<Self> {
        let (directory, name) = path.rsplit_once('/')?;
        let has_relations =
            directory == "global" || ["base/", "pg_tblspc/"].iter().any(|d| path.starts_with(d));
        let (name, segment) = match name.split_once('.') {
            Some((name, segment)) => (name, digits(segment)?),
            None => (name, 0),
        };
        let (relation, fork) = name.split_once('_').unwrap_or((name, ""));
        let is_relation = digits(relation).is_some() && ["", "fsm", "vm", "init"].contains(&fork);
        (has_relations && is_relation).then_some(Self { segment })
    }

    /// The number that its first page has within the relation, with pages of so many bytes, and
    /// files of 1 GB as every packaged server has.
    pub fn first_block(self, page_size: usize) -> u32 {
        let blocks = (1_usize << 30).checked_div(page_size).unwrap_or_default();
        self.segment.saturating_mul(u32::try_from(blocks).unwrap_or(u32::MAX))
    }
}

fn digits(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relations_have_pages() {
        for good in ["global/1262", "base/5/2619_fsm", "base/1/16384_init", "base/5/16384.12"] {
            assert!(PageFile::of(good).is_some(), "{good}");
        }
        for bad in [
            "PG_VERSION",
            "global/pg_control",
            "base/5/PG_VERSION",
            "base/5/INCREMENTAL.16384",
            "base/5/16384_x",
            "base/5/16384.x",
            "base/5/16384.1.2",
            "pg_wal/000000010000000000000001",
            "pg_xact/0000",
        ] {
            assert!(PageFile::of(bad).is_none(), "{bad}");
        }
        let second = PageFile::of("base/5/16384.2").unwrap();
        assert_eq!(second.first_block(8192), 262_144);
        assert_eq!(second.first_block(32768), 65_536);
    }

    #[test]
    fn a_checksum_depends_on_the_place_and_not_on_itself() {
        let mut bytes = [0x5A; 8192];
        let sum = Page::new(&bytes).checksum(7);
        // As `page_checksum` of pageinspect has it.
        assert_eq!(sum, 47703);
        assert_eq!(Page::new(&bytes).checksum(131_079), 47701);
        bytes[8] ^= 0xFF;
        bytes[9] ^= 0xFF;
        assert_eq!(Page::new(&bytes).checksum(7), sum);
        assert_ne!(Page::new(&bytes).checksum(8), sum);
        bytes[8191] ^= 1;
        assert_ne!(Page::new(&bytes).checksum(7), sum);
    }

    #[test]
    fn a_header_is_read_as_the_server_writes_it() {
        let mut header = [0; Page::HEADER];
        header[0] = 2;
        header[4..8].copy_from_slice(&0x16B_3748_u32.to_le_bytes());
        header[8..10].copy_from_slice(&0xBEEF_u16.to_le_bytes());
        header[14] = 1;
        header[18..20].copy_from_slice(&0x2004_u16.to_le_bytes());
        let page = Page::new(&header);
        assert_eq!(page.lsn().to_string(), "2/16B3748");
        assert_eq!(page.noted_checksum(), 0xBEEF);
        assert!(!page.is_new());
        assert_eq!(Page::stated_size(&header), Some(8192));
        assert_eq!(Page::stated_size(&[0; 24]), None);
    }
}
