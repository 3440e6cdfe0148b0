//! Every bit of WAL, changed one by one.

use super::*;

/// Which bits nothing covers, by the offset in the sample's bytes.
fn is_covered(start: u64, wal: &WalBuilder, offset: usize, bit: u32) -> bool {
    let address = start + offset as u64;
    let in_page = address % 1024;
    let header = if (address - in_page).is_multiple_of(MEGABYTE.into()) { 40 } else { 24 };
    if in_page < header {
        let padding = (20..24).contains(&in_page);
        let removable = in_page == 2 && bit == 2;
        return !padding && !removable;
    }
    // Alignment: how much of the record lies before this byte tells whether it is behind it.
    let &(record, end) =
        wal.records().iter().find(|(_, end)| *end > address).expect("records fill the sample");
    let first = (record - start) as usize;
    let len = u32::from_le_bytes(wal.bytes()[first..first + 4].try_into().unwrap());
    let alignment = u64::from(len).next_multiple_of(8) - u64::from(len);
    address < end - alignment
}

#[test]
fn every_changed_bit_is_found_and_padding_is_not() {
    let (options, start, wal) = sample();
    let right = judge(&options, start, [wal.bytes()]);
    assert!(others(&right).is_empty());
    let mut bytes = wal.bytes().to_vec();
    let (mut covered, mut free) = (0, 0);
    // A length in the last pages may go beyond what there is.
    for offset in 0..bytes.len() - 2048 {
        for bit in 0..8 {
            bytes[offset] ^= 1 << bit;
            let findings = judge(&options, start, [&bytes[..]]);
            if is_covered(start, &wal, offset, bit) {
                let told = others(&findings);
                let tells = |finding: &&Finding| {
                    matches!(finding, Finding::Damage { .. } | Finding::Warning { .. })
                };
                assert_eq!(told.iter().filter(|f| tells(f)).count(), 1, "{offset} {bit}: {told:?}");
                covered += 1;
            } else {
                assert_eq!(findings, right, "{offset} {bit}");
                free += 1;
            }
            bytes[offset] ^= 1 << bit;
        }
    }
    assert!(covered > 40_000 && free > 300, "{covered} {free}");
}
