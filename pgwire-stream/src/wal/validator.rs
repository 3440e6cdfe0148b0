//! Following records from page to page.

use crate::{Lsn, SegmentSize, ServerVersion, SystemId, TimelineId};

use super::content::{CAPTURE, Content};
use super::finding::{Finding, Record, WalDamage, WalWarning};
use super::page::{PageHeader, PageSize};
use super::page_rules::{GoodPage, PageRules};
use super::partial::{PartialPageHeader, PartialRecord, append};
use super::prepared::PreparedEnd;
use super::record::{ALIGNMENT, MAX_RECORD_LEN, RecordHeader, crc_of_body, crc_with_header};

/// What is known about the WAL before it is seen. What is left open is learned from it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WalOptions {
    /// The server's version. Open: the first page tells.
    pub version: Option<ServerVersion>,
    /// The size of segments.
    pub segment_size: SegmentSize,
    /// The size of pages. Open: [`PageSize::DEFAULT`], until the first page of a segment tells.
    pub page_size: Option<PageSize>,
    /// The cluster that the WAL is of. Open: the first page of a segment tells, and later ones
    /// have to say the same.
    pub system_id: Option<SystemId>,
    /// The timeline of the segments, which is in their names. Pages may be of an older one, for a
    /// timeline begins with a copy of its parent's last segment. Open: any that never goes back.
    pub timeline: Option<TimelineId>,
}

impl WalOptions {
    /// Everything is open but the size of segments.
    pub const fn new(segment_size: SegmentSize) -> Self {
        Self { version: None, segment_size, page_size: None, system_id: None, timeline: None }
    }
}

/// Where WAL begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Anywhere, such as at the beginning of a page or segment. What is there of a record that
    /// began earlier is passed over, and so is all before the first page boundary.
    Anywhere(Lsn),
    /// At a record, such as at the end of the last valid one, or at the redo position of a
    /// checkpoint.
    Record(Lsn),
}

/// How far a [`WalValidator`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalPosition {
    /// The byte that it wants next.
    pub next: Lsn,
    /// The last valid record. To go on from here another time, begin with the page that it
    /// begins on.
    pub last_record: Option<Lsn>,
    /// Where the last valid record ends, and the next may begin.
    pub valid_to: Option<Lsn>,
    /// Since where there are zeros only. If no WAL follows, then this is where it ended.
    pub zeros_from: Option<Lsn>,
    /// Since where nothing could be told.
    pub unchecked_from: Option<Lsn>,
}

/// Checks WAL as it comes, in pieces of any size.
///
/// It needs less than 500 bytes of memory however long records are, never fails, and says the same
/// however its input is cut.
///
/// ```
/// use pgwire_stream::wal::{Finding, Start, WalOptions, WalValidator};
/// use pgwire_stream::{Lsn, SegmentSize};
///
/// let options = WalOptions::new(SegmentSize::DEFAULT);
/// let mut validator = WalValidator::new(options, Start::Anywhere("0/3000000".parse()?));
/// let mut damaged = Vec::new();
/// validator.feed(&[0xAB; 8192], |finding| {
///     if let Finding::Damage { lsn, what } = finding {
///         damaged.push(format!("{lsn}: {what}"));
///     }
/// });
/// assert_eq!(damaged, ["0/3000000: the page says that it belongs at ABABABAB/ABABABAB"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct WalValidator {
    pages: PageRules,
    /// The byte that comes next.
    at: Lsn,
    state: State,
    page_header: PartialPageHeader,
    record: PartialRecord,
    /// Where a record begins, as the caller says.
    promised: Option<Lsn>,
    /// The beginning of the last record, if the next has to name it.
    previous: Option<Lsn>,
    /// A page said that a record was given up before it: which one, if that is known.
    overwritten: Option<Option<Lsn>>,
    doubt: Option<Doubt>,
    last_record: Option<Lsn>,
    valid_to: Option<Lsn>,
    /// One bit for each resource manager that was warned of.
    warned_of: [u64; 4],
}

/// What is expected in the rest of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing that could be judged, up to a page whose header is right.
    Lost,
    /// The rest of a record that cannot be judged.
    Skipping { left: u32 },
    /// A record, behind the alignment of the one before.
    Between,
    /// The rest of a record that came in pieces.
    Gathering,
    /// Nothing, up to the end of the segment: it was switched.
    Switched {
        /// Whether something was found nevertheless.
        told: bool,
    },
    /// Nothing: WAL ended here, unless something else follows.
    Zeros { from: Lsn },
    /// Numbers that begin with the other end.
    BigEndian,
}

/// WAL that cannot be vouched for, up to the next record that is right.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    from: Lsn,
    /// Whether it is because of damage: further damage tells nothing then.
    damaged: bool,
}

fn align(lsn: Lsn) -> Lsn {
    lsn.saturating_add(lsn.as_u64().wrapping_neg() % ALIGNMENT)
}

/// Where the first byte is that is not zero. Mostly there is none, so all are looked at together
/// before each is.
fn first_not_zero(bytes: &[u8]) -> Option<usize> {
    let any = bytes.iter().fold(0, |any, byte| any | byte);
    if any == 0 { None } else { bytes.iter().position(|byte| *byte != 0) }
}

fn length_is_possible(total_len: u32) -> bool {
    (RecordHeader::LEN as u32..=MAX_RECORD_LEN).contains(&total_len)
}

impl WalValidator {
    /// A validator of the WAL that begins at `start`.
    pub fn new(options: WalOptions, start: Start) -> Self {
        let WalOptions { version, segment_size, page_size, system_id, timeline } = options;
        let pages = PageRules::new(version, segment_size, page_size, system_id, timeline);
        let (at, is_record) = match start {
            Start::Anywhere(at) => (at, false),
            Start::Record(at) => (at, true),
        };
        let offset = pages.page_size().offset_in_page(at);
        // No record begins within the header of a page.
        let is_record = is_record && offset as usize >= PageHeader::SHORT_LEN;
        let state = if is_record { State::Between } else { State::Lost };
        let in_page = offset != 0 && !is_record;
        Self {
            pages,
            at,
            state,
            page_header: PartialPageHeader::EMPTY,
            record: PartialRecord::EMPTY,
            promised: is_record.then(|| align(at)),
            previous: None,
            overwritten: None,
            doubt: in_page.then_some(Doubt { from: at, damaged: false }),
            last_record: None,
            valid_to: None,
            warned_of: [0; 4],
        }
    }

    /// How far it is.
    pub fn position(&self) -> WalPosition {
        let zeros_from = match self.state {
            State::Zeros { from } => Some(from),
            _ => None,
        };
        WalPosition {
            next: self.at,
            last_record: self.last_record,
            valid_to: self.valid_to,
            zeros_from,
            unchecked_from: self.doubt.map(|doubt| doubt.from),
        }
    }

    /// Takes the WAL that follows what was fed before, and tells what it finds.
    pub fn feed(&mut self, mut wal: &[u8], mut found: impl FnMut(Finding)) {
        while !wal.is_empty() {
            let offset = self.pages.page_size().offset_in_page(self.at);
            if offset == 0 || self.page_header.len > 0 {
                self.take_page_header(&mut wal, &mut found);
                continue;
            }
            let left = (self.pages.page_size().bytes() - offset) as usize;
            let (mut body, rest) = wal.split_at(left.min(wal.len()));
            while !body.is_empty() {
                self.take_body(&mut body, &mut found);
            }
            wal = rest;
        }
    }

    /// Consumes up to `len` bytes.
    fn take<'a>(&mut self, wal: &mut &'a [u8], len: usize) -> &'a [u8] {
        let (piece, rest) = wal.split_at(len.min(wal.len()));
        *wal = rest;
        self.at = self.at.saturating_add(piece.len() as u64);
        piece
    }

    fn take_page_header(&mut self, wal: &mut &[u8], found: &mut impl FnMut(Finding)) {
        let have = self.page_header.len;
        let lsn = Lsn::from_u64(self.at.as_u64().saturating_sub(have as u64));
        let wanted = self.pages.header_len(lsn);
        let piece = self.take(wal, wanted - have);
        append(&mut self.page_header.bytes, &mut self.page_header.len, piece);
        if self.page_header.len == wanted {
            self.page_header.len = 0;
            let bytes = self.page_header.bytes;
            let bytes = bytes.get(..wanted).unwrap_or(&bytes);
            self.begin_page(lsn, bytes, found);
        }
    }

    fn begin_page(&mut self, lsn: Lsn, bytes: &[u8], found: &mut impl FnMut(Finding)) {
        // A long header is announced where there are bytes for a short one only.
        let parsed = PageHeader::parse(bytes);
        if let State::Switched { told } = self.state {
            if !self.pages.is_segment_start(lsn) {
                // Up to 10 the pages have headers, from 11 on they have not.
                let empty = bytes.iter().all(|byte| *byte == 0);
                let header = parsed.is_some_and(|header| header.address == lsn);
                if !told && !empty && !header {
                    self.warn_not_empty(lsn, found);
                }
                return;
            }
            self.state = State::Between;
        }
        if self.state == State::BigEndian {
            return;
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return self.end_with_zeros(lsn);
        }
        self.end_of_zeros(lsn, found);

        let Some(header) = parsed else {
            return self.lose(lsn, WalDamage::LongHeader { found: true }, found);
        };
        if self.pages.is_big_endian(lsn, &header) {
            self.state = State::BigEndian;
            self.pass_over(lsn);
            return found(Finding::Warning { lsn, what: WalWarning::ByteOrder });
        }
        let warn = |what| found(Finding::Warning { lsn, what });
        match self.pages.check(lsn, &header, warn) {
            Err(what) => self.lose(lsn, what, found),
            Ok(page) => self.continue_on(lsn, page, found),
        }
    }

    /// Fits what a good page says about the record before it to what is known of that.
    fn continue_on(&mut self, lsn: Lsn, page: GoodPage, found: &mut impl FnMut(Finding)) {
        if page.overwrites {
            let given_up = (self.state == State::Gathering).then_some(self.record.start);
            if let Some(start) = given_up {
                self.pass_over(start);
            }
            self.overwritten = Some(given_up);
            self.state = State::Between;
            return;
        }
        let expected = match self.state {
            State::Gathering => self.record.left(),
            State::Skipping { left } => left,
            State::Lost => {
                if page.remaining > 0 {
                    self.pass_over(lsn);
                }
                page.remaining
            }
            _ => 0,
        };
        if page.remaining != expected {
            let what = WalDamage::Remaining { expected, found: page.remaining };
            self.lose(lsn, what, found);
        }
        // A page that is good in itself is believed more than a record's length.
        self.state = match (self.state, page.remaining) {
            (State::Gathering, _) => State::Gathering,
            (_, 0) => State::Between,
            (_, left) => State::Skipping { left },
        };
    }

    fn take_body(&mut self, body: &mut &[u8], found: &mut impl FnMut(Finding)) {
        match self.state {
            State::Between => self.begin_record(body, found),
            State::Gathering => self.gather_record(body, found),
            State::Skipping { left } => {
                let piece = self.take(body, left as usize);
                let left = left.saturating_sub(piece.len() as u32);
                self.state = if left == 0 { State::Between } else { State::Skipping { left } };
            }
            State::Switched { told: false } => {
                match first_not_zero(body) {
                    None => self.take(body, usize::MAX),
                    Some(at) => {
                        self.take(body, at);
                        self.warn_not_empty(self.at, found);
                        &[]
                    }
                };
            }
            State::Zeros { .. } => match first_not_zero(body) {
                None => {
                    self.take(body, usize::MAX);
                }
                Some(at) => {
                    self.take(body, at);
                    self.end_of_zeros(self.at, found);
                }
            },
            State::Lost | State::Switched { told: true } | State::BigEndian => {
                self.take(body, usize::MAX);
            }
        }
    }

    fn begin_record(&mut self, body: &mut &[u8], found: &mut impl FnMut(Finding)) {
        let alignment = self.at.as_u64().wrapping_neg() % ALIGNMENT;
        self.take(body, alignment as usize);
        if body.is_empty() {
            return;
        }
        let start = self.at;
        // Most records lie within a page, and are there as a whole.
        if let Some(bytes) = body.first_chunk() {
            let header = RecordHeader::parse(bytes);
            let payload = body.get(RecordHeader::LEN..header.total_len as usize);
            if let Some(payload) = payload.filter(|_| length_is_possible(header.total_len)) {
                if let Err(what) = self.check_chain(start, &header) {
                    return self.lose(start, what, found);
                }
                let crc = crc_with_header(crc_of_body(0, payload), bytes);
                self.take(body, header.total_len as usize);
                let mut prepared = PreparedEnd::new(&header, self.pages.format());
                prepared.feed(payload);
                let captured = payload.get(..CAPTURE).unwrap_or(payload);
                return self.end_record(start, header, crc, captured, prepared.xid(), found);
            }
        }
        self.record.begin(start);
        self.state = State::Gathering;
    }

    /// Takes a piece of a record that is not there as a whole.
    fn gather_record(&mut self, body: &mut &[u8], found: &mut impl FnMut(Finding)) {
        let mut taken = self.record.taken as usize;
        if taken >= RecordHeader::LEN {
            let piece = self.take(body, self.record.left() as usize);
            self.record.extend(piece);
        } else {
            // The length comes first, and never lies on two pages.
            let wanted = if taken < 4 { 4 } else { RecordHeader::LEN };
            let piece = self.take(body, wanted - taken);
            append(&mut self.record.header, &mut taken, piece);
            self.record.taken = taken as u32;
            let start = self.record.start;
            let header = RecordHeader::parse(&self.record.header);
            if taken == 4 && header.total_len == 0 {
                self.state = State::Zeros { from: start };
                return;
            }
            if taken == 4 && !length_is_possible(header.total_len) {
                return self.lose(
                    start,
                    WalDamage::RecordLength { found: header.total_len },
                    found,
                );
            }
            if taken == RecordHeader::LEN
                && let Err(what) = self.check_chain(start, &header)
            {
                return self.lose(start, what, found);
            }
            if taken == RecordHeader::LEN {
                self.record.prepared = PreparedEnd::new(&header, self.pages.format());
            }
        }
        if self.record.taken as usize >= RecordHeader::LEN && self.record.left() == 0 {
            let header = RecordHeader::parse(&self.record.header);
            let crc = crc_with_header(self.record.crc, &self.record.header);
            let capture = self.record.capture;
            let captured = capture.get(..self.record.captured).unwrap_or(&capture);
            let prepared = self.record.prepared.xid();
            self.end_record(self.record.start, header, crc, captured, prepared, found);
        }
    }

    fn check_chain(&self, start: Lsn, header: &RecordHeader) -> Result<(), WalDamage> {
        let follows = match self.previous {
            Some(previous) => header.prev == previous,
            None => header.prev < start,
        };
        if follows {
            Ok(())
        } else {
            Err(WalDamage::Chain { expected: self.previous, found: header.prev })
        }
    }

    /// All bytes of a record have been taken.
    fn end_record(
        &mut self,
        start: Lsn,
        header: RecordHeader,
        crc: u32,
        captured: &[u8],
        prepared: Option<u32>,
        found: &mut impl FnMut(Finding),
    ) {
        self.state = State::Between;
        self.previous = Some(start);
        let overwritten = self.overwritten.take();
        if header.crc != crc {
            let what = WalDamage::RecordCrc { expected: crc, found: header.crc };
            return self.doubt(start, start, what, found);
        }
        let format = self.pages.format();
        let content = if Content::is_read(&header) {
            format.and_then(|format| Content::read(&header, captured, prepared, &format))
        } else {
            None
        };
        if let Some(expected) = overwritten {
            let names = match content {
                Some(Content::OverwriteContrecord { lsn }) => Some(lsn),
                _ => None,
            };
            if names.is_none() || expected.is_some_and(|expected| names != Some(expected)) {
                return self.doubt(start, start, WalDamage::Overwrite { expected }, found);
            }
        }
        if let Some(Doubt { from, .. }) = self.doubt.take() {
            found(Finding::Unchecked { from, to: start });
        }
        let number = header.resource_manager.number();
        if format.is_some_and(|format| !format.has_resource_manager(number)) {
            self.warn_of_resource_manager(start, number, found);
        }
        let end = if header.is_switch() {
            self.state = State::Switched { told: false };
            let segment_size = self.pages.segment_size();
            // Its header may lie on two pages, and so in two segments.
            segment_size.end_of(segment_size.last_byte_segment_of(self.at))
        } else {
            align(self.at)
        };
        self.last_record = Some(start);
        self.valid_to = Some(end);
        found(Finding::Record(Record { start, end, header, content }));
    }

    /// Passes over WAL from here on, which need not be damaged.
    fn pass_over(&mut self, from: Lsn) {
        self.doubt.get_or_insert(Doubt { from, damaged: false });
    }

    /// Tells damage at `lsn`, unless there was damage before that nothing has followed but doubt.
    fn doubt(&mut self, from: Lsn, lsn: Lsn, what: WalDamage, found: &mut impl FnMut(Finding)) {
        let doubt = self.doubt.get_or_insert(Doubt { from, damaged: false });
        if !doubt.damaged {
            doubt.damaged = true;
            found(Finding::Damage { lsn, what });
        }
    }

    /// Tells damage, and gives up to the next page.
    fn lose(&mut self, lsn: Lsn, what: WalDamage, found: &mut impl FnMut(Finding)) {
        let from = if self.state == State::Gathering { self.record.start } else { lsn };
        self.doubt(from, lsn, what, found);
        self.state = State::Lost;
        self.previous = None;
        self.overwritten = None;
    }

    /// A page is empty, and WAL may have ended.
    fn end_with_zeros(&mut self, lsn: Lsn) {
        let from = match self.state {
            State::Zeros { .. } => return,
            State::Lost if self.doubt.is_some() => return,
            State::Gathering => self.record.start,
            _ => lsn,
        };
        self.state = State::Zeros { from };
    }

    /// Something follows zeros, if there were any: WAL had not ended.
    fn end_of_zeros(&mut self, resumes: Lsn, found: &mut impl FnMut(Finding)) {
        if let State::Zeros { from } = self.state {
            if self.may_follow_switch(from, resumes) {
                self.pass_over(from);
                self.state = State::Lost;
            } else {
                self.lose(from, WalDamage::Hole { resumes }, found);
            }
        }
    }

    /// Whether zeros may be what a switch left empty, of which nothing is known because it lies
    /// before the WAL that was fed: all the rest of a segment, or up to 10 of a page.
    fn may_follow_switch(&self, from: Lsn, resumes: Lsn) -> bool {
        let is_known = self.previous.is_some() || self.promised == Some(from);
        if is_known || self.pages.is_segment_start(from) {
            return false;
        }
        let (segments, pages) = (self.pages.segment_size(), self.pages.page_size());
        let has_headers = self.pages.format().is_some_and(|format| format.major <= 10);
        let ends_page =
            pages.offset_in_page(resumes) == 0 && resumes.bytes_since(from) < pages.bytes().into();
        resumes == segments.end_of(segments.segment_of(from)) || (has_headers && ends_page)
    }

    fn warn_not_empty(&mut self, lsn: Lsn, found: &mut impl FnMut(Finding)) {
        self.state = State::Switched { told: true };
        found(Finding::Warning { lsn, what: WalWarning::NotEmpty });
    }

    fn warn_of_resource_manager(&mut self, lsn: Lsn, number: u8, found: &mut impl FnMut(Finding)) {
        let bit = 1 << (number % 64);
        if let Some(word) = self.warned_of.get_mut(usize::from(number / 64))
            && *word & bit == 0
        {
            *word |= bit;
            found(Finding::Warning { lsn, what: WalWarning::ResourceManager { number } });
        }
    }
}
