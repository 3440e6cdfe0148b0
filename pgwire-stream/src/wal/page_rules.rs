//! What the header of a page has to say in its place.

use crate::{Lsn, SegmentSize, ServerVersion, SystemId, TimelineId};

use super::finding::{WalDamage, WalWarning};
use super::magic::WalFormat;
use super::page::{LongPageHeader, PageHeader, PageSize};
use super::record::MAX_RECORD_LEN;

/// What is known about the pages of a stream, partly from the caller and partly from the pages
/// that were seen. It learns from good pages only.
///
/// Follows `XLogReaderValidatePageHeader` in `src/backend/access/transam/xlogreader.c`.
#[derive(Debug)]
pub(super) struct PageRules {
    version: Option<ServerVersion>,
    segment_size: SegmentSize,
    page_size: Option<PageSize>,
    system_id: Option<SystemId>,
    at_most_timeline: Option<TimelineId>,
    timeline: u32,
    format: Option<WalFormat>,
    flags_warned: u16,
}

/// A page header that is right.
#[derive(Clone, Copy, Debug)]
pub(super) struct GoodPage {
    /// How many bytes of a record that began before it are to come.
    pub(super) remaining: u32,
    /// Whether the record that began before it was given up.
    pub(super) overwrites: bool,
}

impl PageRules {
    pub(super) fn new(
        version: Option<ServerVersion>,
        segment_size: SegmentSize,
        page_size: Option<PageSize>,
        system_id: Option<SystemId>,
        at_most_timeline: Option<TimelineId>,
    ) -> Self {
        Self {
            version,
            segment_size,
            page_size,
            system_id,
            at_most_timeline,
            timeline: 1,
            format: None,
            flags_warned: 0,
        }
    }

    pub(super) fn page_size(&self) -> PageSize {
        self.page_size.unwrap_or(PageSize::DEFAULT)
    }

    pub(super) fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    pub(super) fn is_segment_start(&self, lsn: Lsn) -> bool {
        self.segment_size.offset_in_segment(lsn) == 0
    }

    /// How long the header of the page at `lsn` is.
    pub(super) fn header_len(&self, lsn: Lsn) -> usize {
        if self.is_segment_start(lsn) { PageHeader::LONG_LEN } else { PageHeader::SHORT_LEN }
    }

    /// The format of the pages seen, or of the server before any was.
    pub(super) fn format(&self) -> Option<WalFormat> {
        self.format.or_else(|| self.version.and_then(WalFormat::of))
    }

    /// Whether these first bytes of a page at `lsn` are those of a big-endian server.
    pub(super) fn is_big_endian(&self, lsn: Lsn, header: &PageHeader) -> bool {
        self.format.is_none()
            && header.address.as_u64().swap_bytes() == lsn.as_u64()
            && WalFormat::with_magic(header.magic.swap_bytes()).is_some()
    }

    /// Judges the header of the page at `lsn`, and learns from it if it is right.
    pub(super) fn check(
        &mut self,
        lsn: Lsn,
        header: &PageHeader,
        mut warn: impl FnMut(WalWarning),
    ) -> Result<GoodPage, WalDamage> {
        if header.address != lsn {
            return Err(WalDamage::PageAddress { found: header.address });
        }
        if header.long.is_some() != self.is_segment_start(lsn) {
            return Err(WalDamage::LongHeader { found: header.long.is_some() });
        }
        let (format, unusual) = self.format_of(header.magic)?;
        let at_most = self.at_most_timeline.map(TimelineId::get);
        if header.timeline < self.timeline || at_most.is_some_and(|most| header.timeline > most) {
            return Err(WalDamage::Timeline {
                found: header.timeline,
                at_least: self.timeline,
                at_most,
            });
        }
        let overwrites = header.info & format.overwrite_flag != 0;
        let continues = header.continues_record();
        let impossible = continues != (header.remaining > 0)
            || header.remaining > MAX_RECORD_LEN
            || (overwrites && continues);
        if impossible {
            let (info, remaining) = (header.info, header.remaining);
            return Err(WalDamage::PageContradiction { info, remaining });
        }
        if let Some(long) = &header.long {
            self.check_long(long)?;
        }

        self.format = Some(format);
        self.timeline = header.timeline;
        if let Some(warning) = unusual {
            warn(warning);
        }
        let unknown = header.info & !format.known_flags;
        if unknown & !self.flags_warned != 0 {
            self.flags_warned |= unknown;
            warn(WalWarning::Flags { unknown });
        }
        Ok(GoodPage { remaining: header.remaining, overwrites })
    }

    /// The format with this magic, and what is to be said about it.
    ///
    /// A magic that is not expected is no damage, so that WAL of a version to come can be
    /// followed. One that changes within WAL is: unless the one before was the odd one.
    fn format_of(&mut self, magic: u16) -> Result<(WalFormat, Option<WalWarning>), WalDamage> {
        let of_version = self.version.and_then(WalFormat::of);
        let expected = match self.version {
            Some(_) => of_version.filter(|format| format.magic == magic),
            None => WalFormat::with_magic(magic),
        };
        if let Some(before) = self.format.filter(|before| before.magic != magic) {
            let was_odd = WalFormat::with_magic(before.magic).is_none()
                || of_version.is_some_and(|format| format.magic != before.magic);
            // What follows is measured by the better one.
            self.format = expected.or(self.format);
            if expected.is_none() || !was_odd {
                return Err(WalDamage::PageMagic { expected: before.magic, found: magic });
            }
        }
        if let Some(format) = expected {
            return Ok((format, None));
        }
        let format = match (self.format, WalFormat::with_magic(magic), of_version) {
            // Warned of before.
            (Some(format), _, _) => return Ok((format, None)),
            (None, Some(format), _) => format,
            (None, None, Some(format)) => WalFormat { magic, ..format },
            (None, None, None) => WalFormat::like(magic),
        };
        let expected = of_version.map(|format| format.magic);
        Ok((format, Some(WalWarning::Magic { found: magic, expected })))
    }

    fn check_long(&mut self, long: &LongPageHeader) -> Result<(), WalDamage> {
        let found = SystemId::from_u64(long.system_id);
        if let Some(expected) = self.system_id.filter(|expected| *expected != found) {
            return Err(WalDamage::SystemId { expected, found });
        }
        let (expected, size) = (self.segment_size.bytes(), long.segment_size);
        if expected != size {
            return Err(WalDamage::SegmentSize { expected, found: size });
        }
        let damage =
            WalDamage::PageSize { expected: self.page_size().bytes(), found: long.page_size };
        let page_size = PageSize::new(long.page_size);
        if page_size.is_none() || (self.page_size.is_some() && self.page_size != page_size) {
            return Err(damage);
        }
        self.system_id = Some(found);
        self.page_size = page_size;
        Ok(())
    }
}
