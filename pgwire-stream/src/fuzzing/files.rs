//! The files of a cluster and of its backups.

use std::num::NonZeroU32;

use crate::backup_label::{BackupHistory, BackupLabel, without_incremental_lines};
use crate::control_file::{ControlFile, ControlFileError};
use crate::incremental::{BlockMap, IncrementalReader, PriorFile, Reconstruction};
use crate::manifest::{ManifestItem, ManifestReader, rewritten};
use crate::tablespace_map::TablespaceMap;
use crate::{RelationFiles, SegmentSize, ServerVersion, TimelineHistory, TimelineId};

/// Servers that write files differently.
const VERSIONS: [ServerVersion; 5] = [
    ServerVersion::from_num(100_000),
    ServerVersion::from_num(110_000),
    ServerVersion::from_num(140_000),
    ServerVersion::from_num(170_000),
    ServerVersion::from_num(190_000),
];

/// A timeline history file: what is believed leads to its timeline, step by step.
pub fn history(data: &[u8]) {
    let Some((&number, content)) = data.split_first() else { return };
    let Some(timeline) = TimelineId::new(u32::from(number)) else { return };
    let Ok(history) = TimelineHistory::parse(timeline, content) else { return };
    assert!(history.contains(timeline));
    for pair in history.switches().windows(2) {
        assert!(pair[0].timeline < pair[1].timeline);
    }
    for switch in history.switches() {
        assert!(switch.timeline < timeline);
        let fork = history.fork_from(switch.timeline).unwrap();
        assert!(fork <= switch.switch_point);
        assert_ne!(history.timeline_at(fork), switch.timeline);
    }
}

/// A manifest: any cut gives the same items, and what is read can be written and read again.
pub fn manifest(data: &[u8]) {
    let Some((&step, content)) = data.split_first() else { return };
    let whole = read_manifest(&[content]);
    let pieces: Vec<_> = content.chunks(usize::from(step) + 1).collect();
    let cut = read_manifest(&pieces);
    match (whole, cut) {
        (Some(whole), Some(cut)) => {
            assert_eq!(whole, cut);
            assert_eq!(read_manifest(&[&rewritten(&whole).unwrap()]), Some(whole));
        }
        (whole, cut) => assert_eq!(whole.is_some(), cut.is_some()),
    }
}

fn read_manifest(pieces: &[&[u8]]) -> Option<Vec<ManifestItem>> {
    let mut reader = ManifestReader::new();
    let mut items = Vec::new();
    for piece in pieces {
        items.extend(reader.feed(piece).ok()?);
    }
    reader.finish().ok()?;
    Some(items)
}

/// A backup label, or the history file of a backup: what is read can be written for every server
/// and read again.
pub fn backup_label(data: &[u8]) {
    if let Ok(label) = BackupLabel::parse(data) {
        for version in VERSIONS {
            assert_eq!(BackupLabel::parse(&label.write(version)).as_ref(), Ok(&label));
        }
        let full = BackupLabel { incremental_from: None, ..label };
        assert_eq!(BackupLabel::parse(&without_incremental_lines(data)), Ok(full));
    }
    if let Ok(history) = BackupHistory::parse(data) {
        for version in VERSIONS {
            assert_eq!(BackupHistory::parse(&history.write(version)).as_ref(), Ok(&history));
        }
        assert!(history.file_name(SegmentSize::DEFAULT).ends_with(".backup"));
    }
}

/// A map of tablespaces: what is read as that of a server is written and read again as it.
pub fn tablespace_map(data: &[u8]) {
    for version in VERSIONS {
        let Ok(map) = TablespaceMap::parse(data, version) else { continue };
        if let Ok(written) = map.write(version) {
            assert_eq!(TablespaceMap::parse(&written, version), Ok(map));
        }
    }
}

/// A control file; a wrong checksum is mended, or nobody would see what lies behind.
pub fn control_file(data: &[u8]) {
    let mut content = data.to_vec();
    content.resize(8192, 0);
    let Err(ControlFileError::Checksum { stated, computed }) = ControlFile::parse(&content) else {
        return;
    };
    // Where it stands is not known here, and a beginning of the file may have the same one.
    for at in (0..512).step_by(4) {
        let (before, behind) = content.split_at(at);
        if behind.starts_with(&stated.to_le_bytes()) && crc32c::crc32c(before) == computed {
            let mut mended = content.clone();
            mended[at..at + 4].copy_from_slice(&computed.to_le_bytes());
            if !matches!(ControlFile::parse(&mended), Err(ControlFileError::Checksum { .. })) {
                return;
            }
        }
    }
    panic!("the checksum stands nowhere");
}

/// An incremental file, behind a byte that says how it is cut, and one with the sizes of relations.
///
/// Asserted: any cut gives the same map, which is written as it was read, and a file that is made
/// whole with it has each block once.
pub fn incremental_file(data: &[u8]) {
    let [cut, sizes, content @ ..] = data else { return };
    let blocks = NonZeroU32::new(u32::from(sizes >> 2)).map_or(131_072, NonZeroU32::get);
    let files = RelationFiles::new(1024 << (sizes & 3), blocks).unwrap();
    let whole = read_incremental(content, content.len(), files);
    assert_eq!(whole, read_incremental(content, usize::from(*cut) + 1, files));
    let Some(map) = whole else { return };
    assert_eq!(map.file_size(), content.len() as u64);
    let written = map.write();
    assert_eq!(written.len() as u64, map.header_length());
    assert_eq!(written[..8], content[..8]);
    assert_eq!(written[12..], content[12..written.len()]);
    assert_eq!(read_incremental(&written, written.len(), files).is_some(), map.blocks().is_empty());
    if map.whole_length() <= 256 {
        reconstruct(&map);
    }
}

fn read_incremental(content: &[u8], cut: usize, files: RelationFiles) -> Option<BlockMap> {
    let mut reader = IncrementalReader::new(files);
    for piece in content.chunks(cut.max(1)) {
        reader.feed(piece).ok()?;
    }
    reader.finish().ok()
}

/// As if the backup before had every second block of it, and the one before that a few whole ones.
fn reconstruct(map: &BlockMap) {
    let files = map.files();
    let every_second = (0..map.whole_length()).step_by(2).collect();
    let second = BlockMap::new(files, map.whole_length(), every_second).unwrap();
    let size = 3 * u64::from(files.block_size()) + 1;
    let prior = [PriorFile::Incremental(&second), PriorFile::Full { size }];
    let reconstruction = Reconstruction::new(map, &prior).unwrap();
    let mut next = 0;
    for run in reconstruction.runs() {
        assert_eq!(run.block, next);
        assert_eq!(run.source, reconstruction.source_of(run.block));
        next += run.count;
    }
    assert_eq!(next, reconstruction.length());
}
