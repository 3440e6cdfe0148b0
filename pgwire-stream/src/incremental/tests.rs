use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::RelationFiles;

/// Files of eight blocks, so that tests reach their end.
fn small() -> RelationFiles {
    RelationFiles::new(1024, 8).unwrap()
}

fn read(pieces: &[&[u8]]) -> Result<BlockMap, IncrementalError> {
    let mut reader = IncrementalReader::new(small());
    for piece in pieces {
        reader.feed(piece)?;
    }
    reader.finish()
}

/// A file with these numbers in its header, and blocks behind them.
fn file(numbers: &[u32], blocks: usize) -> Vec<u8> {
    let mut content: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    if blocks > 0 {
        content.resize(content.len().next_multiple_of(1024) + blocks * 1024, 0);
    }
    content
}

#[test]
fn a_file_is_read_as_the_server_meant_it() {
    let content = file(&[MAGIC, 2, 7, 3, 5], 2);
    let map = read(&[&content]).unwrap();
    assert_eq!((map.blocks(), map.truncation_block_length()), (&[3, 5][..], 7));
    assert_eq!((map.header_length(), map.file_size(), map.whole_length()), (1024, 3072, 7));
    assert_eq!((map.offset_of(5), map.offset_of(4)), (Some(2048), None));
    assert_eq!(map.write(), content[..1024]);

    // Nothing changed: nothing but the fixed part.
    let unchanged = read(&[&file(&[MAGIC, 0, 4], 0)]).unwrap();
    assert_eq!((unchanged.file_size(), unchanged.whole_length()), (12, 4));
    assert_eq!(unchanged.write().len(), 12);
    // A header that just fills a block, at the usual sizes.
    let blocks: Vec<u32> = (0..2045).collect();
    let full = BlockMap::new(RelationFiles::DEFAULT, 1, blocks).unwrap();
    assert_eq!((full.header_length(), full.whole_length()), (8192, 2045));
}

#[test]
fn an_excessive_truncation_length_is_cut() {
    assert_eq!(read(&[&file(&[MAGIC, 0, 9], 0)]).unwrap().truncation_block_length(), 8);
    assert_eq!(read(&[&file(&[MAGIC, 0, u32::MAX], 0)]).unwrap().whole_length(), 8);
}

#[test]
fn a_broken_file_is_refused_by_its_offset() {
    use IncrementalError::*;
    let refused = |content: &[u8]| read(&[content]).unwrap_err();
    assert_eq!(refused(&file(&[MAGIC + 1, 0, 0], 0)), Magic { found: MAGIC + 1 });
    assert_eq!(refused(&file(&[MAGIC, 9], 0)), BlockCount { count: 9, limit: 8 });
    for (second, at) in [(3, 16), (2, 16), (8, 16)] {
        let content = file(&[MAGIC, 2, 8, 3, second], 2);
        assert_eq!(refused(&content), BlockNumber { at, block: second });
        assert!(BlockMap::new(small(), 8, vec![3, second]).is_err());
    }
    let mut padded = file(&[MAGIC, 1, 8, 3], 1);
    padded[1023] = 1;
    assert_eq!(refused(&padded), Padding { at: 1023 });
    let whole = file(&[MAGIC, 1, 8, 3], 1);
    assert_eq!(refused(&[&whole[..], b"x"].concat()), TooLong { expected: 2048 });
    assert_eq!(refused(&whole[..2047]), TooShort { length: 2047, expected: 2048 });
    assert_eq!(refused(&whole[..15]), TooShort { length: 15, expected: 16 });
    assert_eq!(refused(b""), TooShort { length: 0, expected: 12 });
}

#[test]
fn names_are_told_apart() {
    assert_eq!(relation_file_name(b"INCREMENTAL.16384.1"), Some(&b"16384.1"[..]));
    for other in [&b"16384"[..], b"INCREMENTAL.", b"incremental.1"] {
        assert_eq!(relation_file_name(other), None);
    }
}

#[test]
fn a_chain_without_a_full_file_is_refused() {
    let map = BlockMap::new(small(), 2, vec![]).unwrap();
    let other = BlockMap::new(RelationFiles::DEFAULT, 2, vec![]).unwrap();
    let refused = |prior: &[PriorFile<'_>]| Reconstruction::new(&map, prior).unwrap_err();
    assert_eq!(refused(&[]), ReconstructionError::NoFullFile { backups: 0 });
    let incremental = PriorFile::Incremental(&map);
    assert_eq!(refused(&[incremental]), ReconstructionError::NoFullFile { backups: 1 });
    let full = PriorFile::Full { size: 0 };
    assert_eq!(
        refused(&[incremental, PriorFile::Incremental(&other), full]),
        ReconstructionError::OtherSizes { backup: 2 }
    );
    // What is older than the full file is not asked.
    assert!(Reconstruction::new(&map, &[full, PriorFile::Incremental(&other)]).is_ok());
}

/// What happens to a relation file. A page is its version: 0 is one of zeros.
#[derive(Clone, Debug)]
enum Event {
    Write(u32),
    Truncate(u32),
    Backup,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0u32..8).prop_map(Event::Write),
        1 => (0u32..8).prop_map(Event::Truncate),
        2 => Just(Event::Backup),
    ]
}

/// An incremental backup, with the pages that it copied.
struct Taken {
    map: BlockMap,
    pages: Vec<u64>,
}

impl Taken {
    /// As `GetFileBackupMethod` decides it.
    fn of(file: &[u64], changed: &BTreeSet<u32>, limit: Option<u32>) -> Self {
        let length = file.len() as u32;
        let blocks: Vec<u32> = changed.range(..length).copied().collect();
        let pages = blocks.iter().map(|&block| file[block as usize]).collect();
        let truncation = length.max(limit.unwrap_or(0));
        Self { map: BlockMap::new(small(), truncation, blocks).unwrap(), pages }
    }
}

proptest! {
    /// A file lives, backups are taken of it, and the last of them is made whole.
    #[test]
    fn a_reconstructed_file_is_the_file(events in prop::collection::vec(any_event(), 0..40)) {
        let mut file: Vec<u64> = vec![1, 2, 3];
        let full = file.clone();
        let (mut changed, mut limit, mut version) = (BTreeSet::new(), None::<u32>, 10);
        let mut chain: Vec<Taken> = Vec::new();
        for event in events.into_iter().chain([Event::Backup]) {
            version += 1;
            match event {
                Event::Write(block) => {
                    // A server logs every block by which it makes a file longer.
                    for new in file.len() as u32..=block {
                        file.push(0);
                        changed.insert(new);
                    }
                    file[block as usize] = version;
                    changed.insert(block);
                }
                Event::Truncate(length) if (length as usize) < file.len() => {
                    file.truncate(length as usize);
                    changed.retain(|&block| block < length);
                    limit = Some(limit.map_or(length, |limit| limit.min(length)));
                }
                Event::Truncate(_) => {}
                Event::Backup => {
                    chain.push(Taken::of(&file, &changed, limit));
                    changed.clear();
                    limit = None;
                }
            }
        }
        chain.reverse();
        let (newest, earlier) = chain.split_first().unwrap();
        let mut prior: Vec<_> =
            earlier.iter().map(|taken| PriorFile::Incremental(&taken.map)).collect();
        prior.push(PriorFile::Full { size: full.len() as u64 * 1024 });
        let whole = Reconstruction::new(&newest.map, &prior).unwrap();

        let page = |source| match source {
            BlockSource::Zeros => 0,
            BlockSource::At { backup, offset } => match chain.get(backup) {
                Some(taken) => {
                    let index = (offset - taken.map.header_length()) / 1024;
                    taken.pages[index as usize]
                }
                None => full[(offset / 1024) as usize],
            },
        };
        let rebuilt: Vec<u64> = (0..whole.length()).map(|block| page(whole.source_of(block))).collect();
        prop_assert_eq!(&rebuilt, &file);

        // The runs say the same, and cannot be fewer.
        let mut next = 0;
        for run in whole.runs() {
            prop_assert_eq!(run.block, next);
            for index in 0..run.count {
                let source = match run.source {
                    BlockSource::Zeros => BlockSource::Zeros,
                    BlockSource::At { backup, offset } => {
                        BlockSource::At { backup, offset: offset + u64::from(index) * 1024 }
                    }
                };
                prop_assert_eq!(whole.source_of(run.block + index), source);
            }
            next += run.count;
        }
        prop_assert_eq!(next, whole.length());
    }

    /// An array of sources that is filled from the newest on, and nowhere behind a cut.
    #[test]
    fn sources_are_those_of_a_filled_array(
        maps in prop::collection::vec((0u32..=8, prop::collection::btree_set(0u32..8, 0..8)), 1..4),
        full in 0u64..10_000,
    ) {
        let maps: Vec<BlockMap> = maps
            .into_iter()
            .map(|(length, blocks)| {
                BlockMap::new(small(), length, blocks.into_iter().collect()).unwrap()
            })
            .collect();
        let mut prior: Vec<_> = maps[1..].iter().map(PriorFile::Incremental).collect();
        prior.push(PriorFile::Full { size: full });
        let whole = Reconstruction::new(&maps[0], &prior).unwrap();

        let length = maps[0].blocks().iter().map(|b| b + 1).max().unwrap_or(0);
        let length = length.max(maps[0].truncation_block_length());
        let mut sources = vec![BlockSource::Zeros; length as usize];
        let mut cut = u32::MAX;
        for (backup, map) in maps.iter().enumerate() {
            for (index, &block) in map.blocks().iter().enumerate() {
                if block < cut && sources[block as usize] == BlockSource::Zeros {
                    let offset = 1024 + index as u64 * 1024;
                    sources[block as usize] = BlockSource::At { backup, offset };
                }
            }
            cut = cut.min(map.truncation_block_length());
        }
        let needed = (cut as usize).min(full as usize / 1024);
        for (block, source) in sources.iter_mut().enumerate().take(needed) {
            if *source == BlockSource::Zeros {
                *source = BlockSource::At { backup: maps.len(), offset: block as u64 * 1024 };
            }
        }
        prop_assert_eq!(whole.length() as usize, sources.len());
        for (block, source) in sources.into_iter().enumerate() {
            prop_assert_eq!(whole.source_of(block as u32), source);
        }
    }

    #[test]
    fn what_is_written_is_read_back_in_any_cut(
        length in 0u32..=8,
        blocks in prop::collection::btree_set(0u32..8, 0..8),
        piece in 1usize..3000,
    ) {
        let map = BlockMap::new(small(), length, blocks.into_iter().collect()).unwrap();
        let mut content = map.write();
        content.resize(map.file_size() as usize, 7);
        let pieces: Vec<&[u8]> = content.chunks(piece).collect();
        prop_assert_eq!(read(&pieces), Ok(map));
    }

    #[test]
    fn nothing_makes_it_panic(numbers in prop::collection::vec(0u32..12, 0..12), more: Vec<u8>) {
        let header: Vec<u32> = [MAGIC].into_iter().chain(numbers).collect();
        let content = [file(&header, 0), more.clone()].concat();
        let _ = read(&[&content]);
        let _ = read(&[&more]);
    }
}
