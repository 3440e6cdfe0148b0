//! Which blocks of which relation files are still to come from older backups of a chain.
//!
//! Backups are read from the newest to the oldest, and a block is taken from the first that has
//! it. A backup also says how far the file was cut before it was taken (its *truncation length*):
//! whatever older backups have from there on was cut off since, and is never taken from them, even
//! if a newer backup had cut the file less. What no backup has is zeros.

use std::collections::HashMap;

use pgwire_stream::RelationFiles;
use pgwire_stream::incremental::BlockMap;

/// Blocks that follow each other in the file of a backup and in the whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Where they lie in the file of the backup, in bytes.
    pub(super) from: u64,
    /// Where they lie in the whole file, in bytes.
    pub(super) to: u64,
    /// How long they are, in bytes.
    pub(super) length: u64,
}

/// The files of which blocks are to come. Takes some hundred bytes for each, changed or not, and up to
/// 16 kB for each gigabyte of them in which something changed.
#[derive(Debug)]
pub(super) struct Assembly {
    sizes: RelationFiles,
    wanted: HashMap<Box<[u8]>, Wanted>,
}

/// What is wanted of a file: every block below a limit that is not there yet.
#[derive(Debug)]
struct Wanted {
    below: u32,
    there: BlockSet,
}

impl Assembly {
    pub(super) fn new(sizes: RelationFiles) -> Self {
        Self { sizes, wanted: HashMap::new() }
    }

    /// The sizes of blocks and files.
    pub(super) fn sizes(&self) -> RelationFiles {
        self.sizes
    }

    /// Whether blocks of this file are still to come.
    pub(super) fn wants(&self, file: &[u8]) -> bool {
        self.wanted.contains_key(file)
    }

    /// Any file of which blocks are still to come.
    pub(super) fn any(&self) -> Option<&[u8]> {
        self.wanted.keys().next().map(|file| &**file)
    }

    /// Notes a file that the newest backup has an incremental file of.
    pub(super) fn begin(&mut self, file: &[u8]) {
        let wanted = Wanted { below: u32::MAX, there: BlockSet::default() };
        self.wanted.insert(file.into(), wanted);
    }

    /// The blocks that are taken from an incremental file. They count as there.
    pub(super) fn take_incremental(&mut self, file: &[u8], map: &BlockMap) -> Vec<Run> {
        let Some(wanted) = self.wanted.get_mut(file) else { return Vec::new() };
        let mut runs = Runs::new(self.sizes);
        for (&block, at) in map.blocks().iter().zip(0..) {
            if block < wanted.below && wanted.there.insert(block) {
                runs.add(block, map.header_length(), at);
            }
        }
        wanted.below = wanted.below.min(map.truncation_block_length());
        if wanted.there.has_all_below(wanted.below) {
            self.wanted.remove(file);
        }
        runs.done
    }

    /// The blocks that are taken from a whole file of so many bytes: all that are wanted. Nothing
    /// is to come of it any more.
    pub(super) fn take_whole(&mut self, file: &[u8], size: u64) -> Vec<Run> {
        let Some(Wanted { below, there }) = self.wanted.remove(file) else { return Vec::new() };
        let blocks = u32::try_from(size / u64::from(self.sizes.block_size())).unwrap_or(u32::MAX);
        let mut runs = Runs::new(self.sizes);
        for block in (0..blocks.min(below)).filter(|&block| !there.contains(block)) {
            runs.add(block, 0, block.into());
        }
        runs.done
    }
}

/// Puts blocks together that follow each other.
struct Runs {
    block_size: u64,
    done: Vec<Run>,
}

impl Runs {
    fn new(sizes: RelationFiles) -> Self {
        Self { block_size: sizes.block_size().into(), done: Vec::new() }
    }

    /// Adds a block of the whole file, the `at`th behind the header of the backup's file.
    fn add(&mut self, block: u32, header: u64, at: u64) {
        let length = self.block_size;
        let (from, to) = (header + at * length, u64::from(block) * length);
        match self.done.last_mut() {
            Some(last) if (last.from + last.length, last.to + last.length) == (from, to) => {
                last.length += length;
            }
            _ => self.done.push(Run { from, to, length }),
        }
    }
}

/// Block numbers: a bit for each up to the highest.
#[derive(Debug, Default)]
struct BlockSet(Vec<u64>);

impl BlockSet {
    /// Whether the block was not in it yet.
    fn insert(&mut self, block: u32) -> bool {
        let (word, bit) = place(block);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        match self.0.get_mut(word) {
            Some(bits) if *bits & bit == 0 => {
                *bits |= bit;
                true
            }
            _ => false,
        }
    }

    fn contains(&self, block: u32) -> bool {
        let (word, bit) = place(block);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }

    fn has_all_below(&self, limit: u32) -> bool {
        let (words, bit) = place(limit);
        let whole = self.0.get(..words).is_some_and(|words| words.iter().all(|w| *w == u64::MAX));
        let rest = bit - 1;
        whole && (rest == 0 || self.0.get(words).is_some_and(|bits| bits & rest == rest))
    }
}

fn place(block: u32) -> (usize, u64) {
    ((block / 64) as usize, 1 << (block % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZES: RelationFiles = RelationFiles::DEFAULT;
    const BLOCK: u64 = 8192;

    fn map(truncation: u32, blocks: &[u32]) -> BlockMap {
        BlockMap::new(SIZES, truncation, blocks.to_vec()).unwrap()
    }

    #[test]
    fn blocks_come_from_the_newest_that_has_them() {
        let mut assembly = Assembly::new(SIZES);
        assembly.begin(b"f");
        let newest = assembly.take_incremental(b"f", &map(5, &[1, 2]));
        assert_eq!(newest, [Run { from: BLOCK, to: BLOCK, length: 2 * BLOCK }]);
        let older = assembly.take_incremental(b"f", &map(6, &[2, 3, 5]));
        // 2 is there, and 5 was cut off.
        assert_eq!(older, [Run { from: 2 * BLOCK, to: 3 * BLOCK, length: BLOCK }]);
        assert!(assembly.wants(b"f"));
        let oldest = assembly.take_whole(b"f", 9 * BLOCK + 100);
        let run = |block| Run { from: block * BLOCK, to: block * BLOCK, length: BLOCK };
        assert_eq!(oldest, [run(0), run(4)]);
        assert!(!assembly.wants(b"f"));
    }

    #[test]
    fn what_was_cut_off_between_never_comes_back() {
        let mut assembly = Assembly::new(SIZES);
        assembly.begin(b"f");
        // Grown to 8 again, after it had been cut to 2.
        assert_eq!(assembly.take_incremental(b"f", &map(8, &[])), []);
        assert_eq!(assembly.take_incremental(b"f", &map(2, &[])), []);
        let oldest = assembly.take_whole(b"f", 8 * BLOCK);
        assert_eq!(oldest, [Run { from: 0, to: 0, length: 2 * BLOCK }]);
    }

    #[test]
    fn a_file_that_is_all_there_wants_nothing() {
        let mut assembly = Assembly::new(SIZES);
        let all: Vec<u32> = (0..130).collect();
        for (truncation, blocks, wants) in
            [(0, &[][..], false), (130, &all, false), (131, &all, true), (64, &all[..63], true)]
        {
            assembly.begin(b"f");
            assembly.take_incremental(b"f", &map(truncation, blocks));
            assert_eq!(assembly.wants(b"f"), wants, "{truncation}");
        }
    }

    proptest! {
        /// Against a model that puts the backups on top of each other, the oldest first: each cuts
        /// the file where it says, and writes its blocks.
        #[test]
        fn files_are_what_applying_one_after_the_other_gives(
            whole in 0u64..12,
            incrementals in prop::collection::vec(
                (0u32..12, prop::collection::btree_set(0u32..12, 0..6)), 1..5),
        ) {
            let mut model: Vec<Option<usize>> = vec![Some(0); whole as usize];
            let mut backups: Vec<BlockMap> = Vec::new();
            for (age, (truncation, blocks)) in incrementals.iter().enumerate() {
                let blocks: Vec<u32> = blocks.iter().copied().collect();
                let map = map(*truncation, &blocks);
                model.truncate(*truncation as usize);
                model.resize(map.whole_length() as usize, None);
                for &block in &blocks {
                    model[block as usize] = Some(age + 1);
                }
                backups.push(map);
            }
            let mut assembly = Assembly::new(SIZES);
            assembly.begin(b"f");
            let mut file: Vec<Option<usize>> = vec![None; model.len()];
            let mut apply = |age: usize, runs: Vec<Run>| {
                for run in runs {
                    for block in run.to / BLOCK..(run.to + run.length) / BLOCK {
                        assert_eq!(file[block as usize], None, "written once");
                        file[block as usize] = Some(age);
                    }
                }
            };
            for (age, map) in backups.iter().enumerate().rev() {
                apply(age + 1, assembly.take_incremental(b"f", map));
            }
            apply(0, assembly.take_whole(b"f", whole * BLOCK));
            prop_assert_eq!(file, model);
        }
    }
}
