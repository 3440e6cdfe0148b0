//! What is kept of page headers and records that come in pieces.

use crate::Lsn;

use super::content::CAPTURE;
use super::page::PageHeader;
use super::prepared::PreparedEnd;
use super::record::{RecordHeader, crc_of_body};

/// The header of a page, of which a part has come.
#[derive(Debug)]
pub(super) struct PartialPageHeader {
    pub(super) bytes: [u8; PageHeader::LONG_LEN],
    pub(super) len: usize,
}

impl PartialPageHeader {
    pub(super) const EMPTY: Self = Self { bytes: [0; PageHeader::LONG_LEN], len: 0 };
}

/// A record of which a part has come.
#[derive(Debug)]
pub(super) struct PartialRecord {
    pub(super) start: Lsn,
    pub(super) header: [u8; RecordHeader::LEN],
    /// How many of its bytes have come.
    pub(super) taken: u32,
    /// Over what has come behind its header.
    pub(super) crc: u32,
    /// The beginning of what has come behind its header.
    pub(super) capture: [u8; CAPTURE],
    pub(super) captured: usize,
    /// What is looked for in all of it.
    pub(super) prepared: PreparedEnd,
}

impl PartialRecord {
    pub(super) const EMPTY: Self = Self {
        start: Lsn::ZERO,
        header: [0; RecordHeader::LEN],
        taken: 0,
        crc: 0,
        capture: [0; CAPTURE],
        captured: 0,
        prepared: PreparedEnd::NOTHING,
    };

    /// Nothing has come yet of a record that begins here.
    pub(super) fn begin(&mut self, start: Lsn) {
        self.start = start;
        self.taken = 0;
        self.crc = 0;
        self.captured = 0;
        self.prepared = PreparedEnd::NOTHING;
    }

    /// Takes a piece of what follows the header.
    pub(super) fn extend(&mut self, piece: &[u8]) {
        self.crc = crc_of_body(self.crc, piece);
        self.taken += piece.len() as u32;
        append(&mut self.capture, &mut self.captured, piece);
        self.prepared.feed(piece);
    }

    /// How many bytes are still to come, known from the fourth on.
    pub(super) fn left(&self) -> u32 {
        RecordHeader::parse(&self.header).total_len.saturating_sub(self.taken)
    }
}

/// Copies as much of `from` as fits behind the first `len` bytes of `to`, and counts it.
pub(super) fn append(to: &mut [u8], len: &mut usize, from: &[u8]) {
    let (_, room) = to.split_at_mut((*len).min(to.len()));
    let fits = from.len().min(room.len());
    let ((room, _), (from, _)) = (room.split_at_mut(fits), from.split_at(fits));
    room.copy_from_slice(from);
    *len += fits;
}
