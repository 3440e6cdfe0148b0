//! Write-ahead log.

use crate::wal::{Finding, Start, WalDamage, WalOptions, WalPosition, WalValidator};
use crate::{Lsn, SegmentSize};

/// WAL, behind a byte that says where it begins, and one that says how it is cut.
///
/// Asserted: any cut gives the same findings, in the order of their positions, and all of it is
/// taken. Wrong checksums of records are mended now and then, or nobody would see what lies behind.
pub fn wal(data: &[u8]) {
    let [options, cut, wal @ ..] = data else { return };
    let mut wal = wal.to_vec();
    let begin = match options & 3 {
        0 => 0x100_0000,
        1 => 0x100_2000,
        2 => 0x100_2028,
        _ => 0xFF_E000,
    };
    let begin = Lsn::from_u64(begin);
    for _ in 0..=(options >> 4) {
        let start = match options & 4 {
            0 => Start::Anywhere(begin),
            _ => Start::Record(begin),
        };
        let whole = findings(&wal, wal.len(), start);
        assert_eq!(whole, findings(&wal, usize::from(*cut) + 1, start));
        assert_ordered(&whole.0, begin);
        assert_eq!(whole.1.next, begin.saturating_add(wal.len() as u64));
        if !mend(&mut wal, &whole.0, begin) {
            break;
        }
    }
}

/// What a validator says about WAL that comes in pieces of this length.
fn findings(wal: &[u8], cut: usize, start: Start) -> (Vec<Finding>, WalPosition) {
    let mut validator =
        WalValidator::new(WalOptions::new(SegmentSize::new(1 << 20).unwrap()), start);
    let mut findings = Vec::new();
    for piece in wal.chunks(cut.max(1)) {
        validator.feed(piece, |finding| findings.push(finding));
    }
    (findings, validator.position())
}

fn assert_ordered(findings: &[Finding], begin: Lsn) {
    let mut record_end = begin;
    for finding in findings {
        match finding {
            Finding::Record(record) => {
                assert!(record.start >= record_end && record.end > record.start, "{finding:?}");
                record_end = record.end;
            }
            Finding::Unchecked { from, to } => assert!(begin <= *from && from < to, "{finding:?}"),
            Finding::Warning { lsn, .. } | Finding::Damage { lsn, .. } => assert!(*lsn >= begin),
        }
    }
}

/// Writes the checksum that it should have into a record. False if there is nothing to mend.
fn mend(wal: &mut [u8], findings: &[Finding], begin: Lsn) -> bool {
    findings.iter().any(|finding| {
        let Finding::Damage { lsn, what: WalDamage::RecordCrc { expected, found } } = finding
        else {
            return false;
        };
        // Unless the header is cut in two, it stands behind twenty other bytes.
        let at = usize::try_from(lsn.bytes_since(begin)).unwrap() + 20;
        match wal.get_mut(at..at + 4) {
            Some(crc) if crc == found.to_le_bytes() => {
                crc.copy_from_slice(&expected.to_le_bytes());
                true
            }
            _ => false,
        }
    })
}
