use proptest::prelude::*;

use super::*;

/// A file with the given numbers at these offsets, and a right checksum.
fn file(version: u32, layout: &Layout, numbers: &[(usize, u64)]) -> Vec<u8> {
    let mut content = vec![0; 8192];
    let mut put = |at: usize, bytes: &[u8]| content[at..at + bytes.len()].copy_from_slice(bytes);
    put(layout.max_align, &8_u32.to_le_bytes());
    put(layout.block_size - 8, &1_234_567.0_f64.to_le_bytes());
    for (at, size) in [
        (8, version),
        (16, 6),
        (layout.checkpoint + 8, 1),
        (layout.block_size, 8192),
        (layout.block_size + 4, 131_072),
        (layout.wal_block_size, 8192),
        (layout.wal_block_size + 4, 16 << 20),
    ] {
        put(at, &size.to_le_bytes());
    }
    for (at, number) in numbers {
        put(*at, &number.to_le_bytes());
    }
    let crc = crc32c::crc32c(&content[..layout.crc]);
    content[layout.crc..layout.crc + 4].copy_from_slice(&crc.to_le_bytes());
    content
}

#[test]
fn fields_are_read_from_every_known_version() {
    for (version, layout) in layout::all() {
        let senders = if layout.max_wal_senders { 4 } else { 0 };
        let limits = layout.max_connections;
        let content = file(
            version,
            layout,
            &[
                (0, 7_357_089_276_153_000_001),
                (24, 1_763_636_619),
                (32, 0x1_0000_0060),
                (layout.checkpoint, 0x1_0000_0028),
                (layout.min_recovery_point, 0x2_0000_0000),
                (layout.min_recovery_point + 8, 3),
                (layout.min_recovery_point + 16, 5),
                (layout.min_recovery_point + 24, 6),
                (layout.min_recovery_point + 32, 1),
                (limits, 100 | 8 << 32),
                (limits + 8, 10),
                (limits + 8 + senders, 2 | 64 << 32),
                (layout.data_checksums, 1),
            ],
        );
        let control = ControlFile::parse(&content).unwrap();
        assert_eq!(control.system_id.as_u64(), 7_357_089_276_153_000_001);
        assert_eq!((control.control_version, control.state), (version, ClusterState::InProduction));
        assert_eq!(control.modified, 1_763_636_619);
        assert_eq!(
            (control.checkpoint.as_u64(), control.redo.as_u64()),
            (1 << 32 | 0x60, 1 << 32 | 0x28)
        );
        assert_eq!(control.min_recovery_timeline, TimelineId::new(3));
        assert_eq!((control.backup_start.as_u64(), control.backup_end.as_u64()), (5, 6));
        assert!(control.backup_end_required);
        assert_eq!(
            control.limits,
            StandbyLimits {
                max_connections: 100,
                max_worker_processes: 8,
                max_wal_senders: layout.max_wal_senders.then_some(10),
                max_prepared_transactions: 2,
                max_locks_per_transaction: 64,
            }
        );
        assert_eq!(control.relations, RelationFiles::DEFAULT);
        assert_eq!(control.wal_segment_size, SegmentSize::DEFAULT);
        assert_eq!(control.data_checksums, DataChecksums::On);
        // Only what has a meaning is needed.
        let needed = layout.crc + 4;
        assert_eq!(ControlFile::parse(&content[..needed]), Ok(control));
        assert!(ControlFile::parse(&content[..needed - 1]).is_err());
    }
}

#[test]
fn what_cannot_be_is_refused_by_its_name() {
    let layout = Layout::of(1300).unwrap();
    let refused =
        |at, number| ControlFile::parse(&file(1300, layout, &[(at, number)])).unwrap_err();
    let field = |at, number| match refused(at, number) {
        ControlFileError::Field { field, .. } => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(16, 7), "state");
    assert_eq!(field(layout.checkpoint + 8, 0), "ThisTimeLineID");
    assert_eq!(field(layout.max_align, 4), "maxAlign");
    assert_eq!(field(layout.block_size - 8, 1), "floatFormat");
    assert_eq!(field(layout.block_size, 8191), "blcksz");
    assert_eq!(field(layout.wal_block_size, 1), "xlog_blcksz");
    assert_eq!(field(layout.wal_block_size + 4, 15 << 20), "xlog_seg_size");

    let version = |number: u32| refused(8, number.into());
    assert_eq!(version(1750), ControlFileError::UnknownVersion { version: 1750 });
    assert!(version(1750).to_string().contains("1750"));
    assert_eq!(version(1300_u32.swap_bytes()), ControlFileError::ByteOrder);
    assert_eq!(ControlFile::parse(&[]), Err(ControlFileError::TooShort { length: 0, needed: 12 }));
}

proptest! {
    #[test]
    fn a_flipped_bit_is_found(bit in 0..8 * 292_usize, choice: prop::sample::Index) {
        let known: Vec<_> = layout::all().collect();
        let (version, layout) = known[choice.index(known.len())];
        let mut content = file(version, layout, &[]);
        let whole = ControlFile::parse(&content);
        content[bit / 8] ^= 1 << (bit % 8);
        let covered = bit / 8 < layout.crc + 4;
        prop_assert_eq!(ControlFile::parse(&content) == whole, !covered);
    }

    #[test]
    fn nothing_makes_it_panic(
        content in prop::collection::vec(any::<u8>(), 0..400),
        choice: prop::sample::Index,
    ) {
        let _ = ControlFile::parse(&content);
        let known: Vec<_> = layout::all().collect();
        let (version, layout) = known[choice.index(known.len())];
        let mut signed = content;
        signed.resize(layout.crc + 4, 0);
        signed[8..12].copy_from_slice(&version.to_le_bytes());
        let crc = crc32c::crc32c(&signed[..layout.crc]);
        signed[layout.crc..].copy_from_slice(&crc.to_le_bytes());
        let _ = ControlFile::parse(&signed);
    }
}
