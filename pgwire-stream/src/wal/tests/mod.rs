//! The validator on WAL of the builder's making; what real servers make is a matter of the
//! whole-system tests.

mod builder;
mod damage;
mod flips;
mod layers;
mod properties;
mod valid;

use crate::{Lsn, SegmentSize, ServerVersion, SystemId, TimelineId};

use super::{Finding, PageSize, Record, Start, WalDamage, WalOptions, WalValidator};
use builder::WalBuilder;

const MEGABYTE: u32 = 1 << 20;

/// Everything that the builder's WAL is, known beforehand.
fn options(segment_size: u32, page_size: u32) -> WalOptions {
    let mut options = WalOptions::new(SegmentSize::new(segment_size.into()).unwrap());
    options.version = Some(ServerVersion::from_num(18_00_00));
    options.page_size = PageSize::new(page_size);
    options.system_id = Some(SystemId::from_u64(0x1122_3344_5566_7788));
    options.timeline = Some(TimelineId::FIRST);
    options
}

fn lsn(address: u64) -> Lsn {
    Lsn::from_u64(address)
}

/// What is found in these pieces.
fn judge<'a>(
    options: &WalOptions,
    start: u64,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<Finding> {
    let mut validator = WalValidator::new(options.clone(), Start::Anywhere(lsn(start)));
    let mut findings = Vec::new();
    for piece in pieces {
        validator.feed(piece, |finding| findings.push(finding));
    }
    findings
}

fn records(findings: &[Finding]) -> Vec<&Record> {
    findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::Record(record) => Some(record),
            _ => None,
        })
        .collect()
}

fn others(findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|finding| !matches!(finding, Finding::Record(_))).collect()
}

fn damage(findings: &[Finding]) -> Vec<(Lsn, &WalDamage)> {
    findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::Damage { lsn, what } => Some((*lsn, what)),
            _ => None,
        })
        .collect()
}

/// Small and large records over a few small pages and the beginning of a second segment.
fn sample() -> (WalOptions, u64, WalBuilder) {
    let start = u64::from(MEGABYTE) * 5 - 4 * 1024;
    let mut wal = WalBuilder::new(start, MEGABYTE, 1024);
    for len in [0, 1, 7, 8, 20, 300, 1500, 3, 60, 500, 2100, 9, 40, 41, 42, 800, 5, 700, 900] {
        wal.record(10, 0, &vec![0xA5; len]);
    }
    (options(MEGABYTE, 1024), start, wal)
}
