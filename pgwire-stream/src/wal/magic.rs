//! What the WAL of each major looks like, told by the magic number of its pages.

use crate::ServerVersion;

/// What differs between the WAL of majors: the only place where they are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WalFormat {
    /// The major version that writes it.
    pub(super) major: u32,
    /// `XLOG_PAGE_MAGIC`.
    pub(super) magic: u16,
    /// The bit of `XLP_FIRST_IS_OVERWRITE_CONTRECORD`.
    pub(super) overwrite_flag: u16,
    /// `XLP_ALL_FLAGS`.
    pub(super) known_flags: u16,
    /// How many resource managers are built in.
    pub(super) resource_managers: u8,
    /// Whether extensions may have resource managers of their own.
    pub(super) custom_resource_managers: bool,
    /// Where a checkpoint record has the next transaction (`CheckPoint` in `pg_control.h`): as one
    /// number of 64 bits from 12 on, before that as epoch and transaction.
    pub(super) next_xid_offset: usize,
}

const fn until_18(major: u32, magic: u16) -> WalFormat {
    WalFormat {
        major,
        magic,
        // 0x4 is XLP_BKP_REMOVABLE.
        overwrite_flag: 0x8,
        known_flags: 0xF,
        resource_managers: 22,
        custom_resource_managers: major >= 15,
        next_xid_offset: if major >= 12 { 24 } else { 20 },
    }
}

/// Ordered by magic. Follows `src/include/access/xlog_internal.h` and `rmgrlist.h` of each major.
const FORMATS: [WalFormat; 10] = [
    until_18(10, 0xD097),
    until_18(11, 0xD098),
    until_18(12, 0xD101),
    until_18(13, 0xD106),
    until_18(14, 0xD10D),
    until_18(15, 0xD110),
    until_18(16, 0xD113),
    until_18(17, 0xD116),
    until_18(18, 0xD118),
    // Of the release candidate: should the magic change once more, that is only warned of.
    WalFormat {
        overwrite_flag: 0x4,
        known_flags: 0x7,
        resource_managers: 23,
        next_xid_offset: 32,
        ..until_18(19, 0xD122)
    },
];

impl WalFormat {
    /// The format with this magic, if it is known.
    pub(super) fn with_magic(magic: u16) -> Option<Self> {
        FORMATS.into_iter().find(|format| format.magic == magic)
    }

    /// The format of a server, if it is known.
    pub(super) fn of(version: ServerVersion) -> Option<Self> {
        FORMATS.into_iter().find(|format| format.major == version.major())
    }

    /// The format that a magic nobody knows is probably like: of the newest that is not newer.
    pub(super) fn like(magic: u16) -> Self {
        let [first, ..] = FORMATS;
        let older = FORMATS.into_iter().rev().find(|format| format.magic <= magic);
        Self { magic, ..older.unwrap_or(first) }
    }

    /// Whether a server of this major may have a resource manager with this number.
    pub(super) fn has_resource_manager(&self, number: u8) -> bool {
        number < self.resource_managers || (self.custom_resource_managers && number >= 128)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_major_has_its_own_magic() {
        assert!(FORMATS.is_sorted_by(|a, b| a.magic < b.magic && a.major + 1 == b.major));
        assert_eq!((FORMATS[0].major, FORMATS[9].major), (10, 19));
    }

    #[test]
    fn an_unknown_magic_is_like_the_one_before_it() {
        for (magic, major) in [(0, 10), (0xD10E, 14), (0xD121, 18), (0xD123, 19), (0xFFFF, 19)] {
            assert_eq!(WalFormat::like(magic).major, major, "{magic:X}");
        }
    }

    #[test]
    fn extensions_have_resource_managers_since_15() {
        for (major, number, known) in
            [(10, 21, true), (14, 22, false), (14, 128, false), (15, 128, true), (19, 22, true)]
        {
            let format = WalFormat::of(ServerVersion::from_num(major * 10_000)).unwrap();
            assert_eq!(format.has_resource_manager(number), known, "{major} {number}");
        }
    }
}
