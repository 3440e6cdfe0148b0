//! Writes WAL as a server does: pages, records, switches, records that were given up.
//!
//! Shared by the tests and the bench, so it stands on nothing but the format.

/// WAL in the making.
#[derive(Clone, Debug)]
pub(super) struct WalBuilder {
    /// `xlp_magic`.
    pub(super) magic: u16,
    /// `xlp_info` of every page, besides what its place demands.
    pub(super) flags: u16,
    /// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`.
    pub(super) overwrite_flag: u16,
    pub(super) system_id: u64,
    pub(super) timeline: u32,
    /// Whether pages behind a switch have headers, as up to 10.
    pub(super) headers_behind_switch: bool,
    segment_size: u64,
    page_size: u64,
    start: u64,
    wal: Vec<u8>,
    previous: u64,
    /// Start and end, alignment included, of every complete record.
    records: Vec<(u64, u64)>,
}

impl WalBuilder {
    /// WAL of PostgreSQL 18 that begins at the beginning of a page.
    pub(super) fn new(start: u64, segment_size: u32, page_size: u32) -> Self {
        Self {
            magic: 0xD118,
            flags: 0x4,
            overwrite_flag: 0x8,
            system_id: 0x1122_3344_5566_7788,
            timeline: 1,
            headers_behind_switch: false,
            segment_size: u64::from(segment_size),
            page_size: u64::from(page_size),
            start,
            wal: Vec::new(),
            previous: start.saturating_sub(100),
            records: Vec::new(),
        }
    }

    /// The position behind the last byte.
    pub(super) fn end(&self) -> u64 {
        self.start + self.wal.len() as u64
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.wal
    }

    pub(super) fn records(&self) -> &[(u64, u64)] {
        &self.records
    }

    /// Appends a record; its length is that of the body and 24 bytes of header.
    pub(super) fn record(&mut self, resource_manager: u8, info: u8, body: &[u8]) -> &mut Self {
        let start = self.next_record();
        let bytes = self.encode(resource_manager, info, body);
        self.append(&bytes, bytes.len());
        self.align();
        self.complete(start);
        self
    }

    /// Appends a switch, and the empty rest of the segment.
    pub(super) fn switch(&mut self) -> &mut Self {
        let start = self.next_record();
        let bytes = self.encode(0, 0x40, &[]);
        self.append(&bytes, bytes.len());
        while !self.end().is_multiple_of(self.segment_size) {
            if self.headers_behind_switch && self.end().is_multiple_of(self.page_size) {
                self.page_header(0, 0);
            } else {
                self.wal.push(0);
            }
        }
        self.complete(start);
        self
    }

    /// Begins a record that will not be completed: what fits on this page and `pages` more. On the
    /// next page it is given up, as a server does that crashed.
    pub(super) fn given_up_record(&mut self, len: usize, pages: u64) -> &mut Self {
        let start = self.next_record();
        let bytes = self.encode(10, 0, &vec![0x55; len - 24]);
        let until = (self.end() / self.page_size + 1 + pages) * self.page_size;
        let mut rest = &bytes[..];
        while self.end() < until {
            if self.end().is_multiple_of(self.page_size) {
                self.page_header(0x1, rest.len());
            }
            let room = (self.page_size - self.end() % self.page_size) as usize;
            let (piece, left) = rest.split_at(room.min(rest.len()));
            assert!(!left.is_empty(), "the record is too short not to be completed");
            self.wal.extend_from_slice(piece);
            rest = left;
        }
        self.page_header(self.overwrite_flag, 0);
        let mut body = vec![0xFF, 16];
        body.extend_from_slice(&start.to_le_bytes());
        body.extend_from_slice(&[0; 8]);
        self.record(0, 0xD0, &body)
    }

    /// The bytes of a record at the present end.
    fn encode(&mut self, resource_manager: u8, info: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24 + body.len());
        bytes.extend_from_slice(&(24 + body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&700u32.to_le_bytes());
        bytes.extend_from_slice(&self.previous.to_le_bytes());
        bytes.extend_from_slice(&[info, resource_manager, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn complete(&mut self, start: u64) {
        self.records.push((start, self.end()));
        self.previous = start;
    }

    /// Where the next record begins: behind the header, if its page has none yet.
    fn next_record(&mut self) -> u64 {
        if self.end().is_multiple_of(self.page_size) {
            self.page_header(0, 0);
        }
        self.end()
    }

    /// Appends bytes of a record of which `remaining` are to come.
    fn append(&mut self, mut bytes: &[u8], mut remaining: usize) {
        while !bytes.is_empty() {
            if self.end().is_multiple_of(self.page_size) {
                self.page_header(0x1, remaining);
            }
            let room = (self.page_size - self.end() % self.page_size) as usize;
            let (piece, rest) = bytes.split_at(room.min(bytes.len()));
            self.wal.extend_from_slice(piece);
            remaining -= piece.len();
            bytes = rest;
        }
    }

    fn align(&mut self) {
        self.wal.resize(self.wal.len().next_multiple_of(8), 0);
    }

    fn page_header(&mut self, flags: u16, remaining: usize) {
        let address = self.end();
        let long = address.is_multiple_of(self.segment_size);
        let info = self.flags | flags | if long { 0x2 } else { 0 };
        self.wal.extend_from_slice(&self.magic.to_le_bytes());
        self.wal.extend_from_slice(&info.to_le_bytes());
        self.wal.extend_from_slice(&self.timeline.to_le_bytes());
        self.wal.extend_from_slice(&address.to_le_bytes());
        self.wal.extend_from_slice(&(remaining as u32).to_le_bytes());
        self.wal.extend_from_slice(&[0; 4]);
        if long {
            self.wal.extend_from_slice(&self.system_id.to_le_bytes());
            self.wal.extend_from_slice(&(self.segment_size as u32).to_le_bytes());
            self.wal.extend_from_slice(&(self.page_size as u32).to_le_bytes());
        }
    }
}
