//! Writes WAL of PostgreSQL 18 for tests: pages, and the few records that the catalog looks at.

use pgwire_stream::{Lsn, PgTimestamp, SegmentSize};

const PAGE: u64 = 8192;

/// WAL in the making, from the beginning of a page on.
#[derive(Clone, Debug)]
pub(crate) struct TestWal {
    segment_size: u64,
    start: u64,
    bytes: Vec<u8>,
    previous: u64,
}

impl TestWal {
    pub(crate) fn new(segment_size: SegmentSize, start: u64) -> Self {
        let segment_size = segment_size.bytes().into();
        Self { segment_size, start, bytes: Vec::new(), previous: start - 100 }
    }

    /// The position behind the last byte.
    pub(crate) fn end(&self) -> Lsn {
        Lsn::from_u64(self.at())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn at(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    pub(crate) fn commit(&mut self, xid: u32, time: i64) -> Lsn {
        self.record(1, 0x00, xid, &[&[0xFF, 8][..], &time.to_le_bytes()].concat())
    }

    pub(crate) fn abort(&mut self, xid: u32) -> Lsn {
        self.record(1, 0x20, xid, &[&[0xFF, 8][..], &[0; 8]].concat())
    }

    pub(crate) fn restore_point(&mut self, name: &str, time: PgTimestamp) -> Lsn {
        let mut body = [&[0xFF, 72][..], &time.as_micros().to_le_bytes(), name.as_bytes()].concat();
        body.resize(74, 0);
        self.record(0, 0x70, 0, &body)
    }

    /// A record of so many bytes that says nothing.
    pub(crate) fn filler(&mut self, len: usize) -> Lsn {
        self.record(10, 0, 0, &vec![0x55; len - 24])
    }

    /// A switch, and the empty rest of the segment.
    pub(crate) fn switch(&mut self) {
        self.record(0, 0x40, 0, &[]);
        let rest = self.at().wrapping_neg() % self.segment_size;
        self.bytes.resize(self.bytes.len() + rest as usize, 0);
    }

    /// Fillers up to a record that begins in this segment and ends in the next.
    pub(crate) fn cross_into_next_segment(&mut self) -> Lsn {
        let end = (self.at() / self.segment_size + 1) * self.segment_size;
        loop {
            let start = self.filler(6000);
            if self.at() > end {
                return start;
            }
        }
    }

    /// Appends a record; where it begins.
    fn record(&mut self, resource_manager: u8, info: u8, xid: u32, body: &[u8]) -> Lsn {
        if self.at().is_multiple_of(PAGE) {
            self.page_header(0);
        }
        let start = self.at();
        let mut record = (24 + body.len() as u32).to_le_bytes().to_vec();
        record.extend(xid.to_le_bytes());
        record.extend(self.previous.to_le_bytes());
        record.extend([info, resource_manager, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &record);
        record.extend(crc.to_le_bytes());
        record.extend(body);
        let mut rest = &record[..];
        while !rest.is_empty() {
            if self.at().is_multiple_of(PAGE) {
                self.page_header(rest.len() as u32);
            }
            let room = (PAGE - self.at() % PAGE) as usize;
            let (piece, later) = rest.split_at(room.min(rest.len()));
            self.bytes.extend(piece);
            rest = later;
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.previous = start;
        Lsn::from_u64(start)
    }

    fn page_header(&mut self, remaining: u32) {
        let address = self.at();
        let long = address.is_multiple_of(self.segment_size);
        let info = 0x4 | u16::from(remaining > 0) | if long { 0x2 } else { 0 };
        self.bytes.extend(0xD118_u16.to_le_bytes());
        self.bytes.extend(info.to_le_bytes());
        self.bytes.extend(1_u32.to_le_bytes());
        self.bytes.extend(address.to_le_bytes());
        self.bytes.extend(remaining.to_le_bytes());
        self.bytes.extend([0; 4]);
        if long {
            self.bytes.extend(7_u64.to_le_bytes());
            self.bytes.extend((self.segment_size as u32).to_le_bytes());
            self.bytes.extend((PAGE as u32).to_le_bytes());
        }
    }
}
