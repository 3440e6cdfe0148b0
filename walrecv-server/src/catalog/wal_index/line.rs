//! The lines of an index.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::WalIndexRecord;
use super::totals::{Tally, WalTotals};
use crate::storage::ArchivedWal;

/// What is in an index, and how much of the file it is.
pub(super) struct Content {
    pub(super) records: Vec<WalIndexRecord>,
    /// Whether there are lines of a later version.
    pub(super) foreign: bool,
    /// How many whole lines there are, those of a later version included.
    pub(super) lines: usize,
    /// The length of the whole lines; what follows was never acknowledged.
    pub(super) whole: usize,
}

/// What a line of an index is.
pub(super) enum Line {
    Known(Box<WalIndexRecord>, Option<WalTotals>),
    /// Whole, and written by a later version.
    Foreign,
    Damaged,
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    record: &'a WalIndexRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<WalTotals>,
}

#[derive(Deserialize)]
struct Read {
    #[serde(flatten)]
    record: WalIndexRecord,
    #[serde(default)]
    directory: Option<WalTotals>,
}

/// What little of a line tells how much room its file takes: reading all of it takes ten times as
/// long, which is felt where there are many indexes.
#[derive(Deserialize)]
struct Size {
    file: ArchivedWal,
    stored_size: u64,
}

/// The line of a record, which is added to those in the tally.
pub(super) fn encode(record: &WalIndexRecord, tally: &mut Tally) -> io::Result<Vec<u8>> {
    tally.add(record);
    let json = serde_json::to_string(&Written { record, directory: tally.totals() })?;
    Ok(format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes())).into_bytes())
}

pub(super) fn encode_all(records: &[WalIndexRecord]) -> io::Result<Vec<u8>> {
    let mut tally = Tally::default();
    let lines: io::Result<Vec<_>> =
        records.iter().map(|record| encode(record, &mut tally)).collect();
    Ok(lines?.concat())
}

pub(super) fn decode(line: &[u8]) -> Line {
    let Some(json) = whole(line) else { return Line::Damaged };
    match serde_json::from_slice(json) {
        Ok(Read { record, directory }) => Line::Known(Box::new(record), directory),
        Err(_) => Line::Foreign,
    }
}

/// What a line that is whole says.
fn whole(line: &[u8]) -> Option<&[u8]> {
    let (crc, rest) = line.split_at_checked(8)?;
    let json = rest.strip_prefix(b" ")?;
    (crc == format!("{:08x}", crc32c::crc32c(json)).as_bytes()).then_some(json)
}

/// The stored size of the files in the lines that are whole, and nothing else of them.
pub(super) fn stored_sizes(text: &[u8]) -> BTreeMap<ArchivedWal, u64> {
    let size = |line| {
        let Size { file, stored_size } = serde_json::from_slice(whole(line)?).ok()?;
        Some((file, stored_size))
    };
    text.split(|&b| b == b'\n').filter_map(size).collect()
}

/// The records of an index, or the number of a line that is damaged though others follow it.
pub(super) fn parse(text: &[u8]) -> Result<Content, usize> {
    let mut content = Content { records: Vec::new(), foreign: false, lines: 0, whole: 0 };
    let mut lines = text.split_inclusive(|&b| b == b'\n').enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        match line.strip_suffix(b"\n").map_or(Line::Damaged, decode) {
            Line::Known(record, _) => content.records.push(*record),
            Line::Foreign => content.foreign = true,
            // A crash may have left any part of the last line, in any order of its blocks.
            Line::Damaged if lines.peek().is_none() => break,
            Line::Damaged => return Err(index + 1),
        }
        content.lines += 1;
        content.whole += line.len();
    }
    Ok(content)
}

/// The records of the lines that are whole, whatever is between them.
pub(super) fn parse_leniently(text: &[u8]) -> Vec<WalIndexRecord> {
    let known = |line| match decode(line) {
        Line::Known(record, _) => Some(*record),
        Line::Foreign | Line::Damaged => None,
    };
    text.split(|&b| b == b'\n').filter_map(known).collect()
}
