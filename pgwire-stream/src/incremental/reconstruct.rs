//! Where the blocks of a whole file lie in a chain of backups.

use super::{BlockMap, ReconstructionError};

/// What an earlier backup of a chain has of a file.
#[derive(Clone, Copy, Debug)]
pub enum PriorFile<'a> {
    /// An incremental file.
    Incremental(&'a BlockMap),
    /// The file itself, of so many bytes.
    Full {
        /// Its size in bytes. What is not a whole block at its end is not used.
        size: u64,
    },
}

/// Where a block of a whole file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockSource {
    /// In the file of this backup, at this offset in bytes. Backup 0 is the newest, 1 the one
    /// before it, and so on.
    At {
        /// Which backup.
        backup: usize,
        /// Where in its file, in bytes.
        offset: u64,
    },
    /// Nowhere: the server made the file longer and never wrote the block.
    Zeros,
}

/// Blocks of a whole file that follow each other where they lie, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRun {
    /// The first block.
    pub block: u32,
    /// How many there are; at least one.
    pub count: u32,
    /// Where the first one lies.
    pub source: BlockSource,
}

/// How a file of an incremental backup becomes whole again.
///
/// Holds no more than what it is made of, so that memory does not grow with the file.
///
/// Follows `reconstruct_from_incremental_file` in `src/bin/pg_combinebackup/reconstruct.c`, but for
/// one case: that takes blocks from backups before the file was cut, if it was longer again when
/// the newest backup was taken. A server makes files longer without logging it, so deleted rows
/// would be back. Here, such blocks are zeros, as they are on the server.
#[derive(Clone, Copy, Debug)]
pub struct Reconstruction<'a> {
    newest: &'a BlockMap,
    prior: &'a [PriorFile<'a>],
    full_size: u64,
}

impl<'a> Reconstruction<'a> {
    /// The file of the newest backup, and what the backups before it have, the next newest first.
    /// What lies behind the first full file does not matter.
    ///
    /// # Errors
    /// If there is no full file, or the backups are not of one cluster.
    pub fn new(
        newest: &'a BlockMap,
        prior: &'a [PriorFile<'a>],
    ) -> Result<Self, ReconstructionError> {
        for (index, file) in prior.iter().enumerate() {
            match file {
                PriorFile::Incremental(map) if map.files() != newest.files() => {
                    return Err(ReconstructionError::OtherSizes { backup: index + 1 });
                }
                PriorFile::Incremental(_) => {}
                &PriorFile::Full { size } => {
                    let prior = prior.get(..index).unwrap_or_default();
                    return Ok(Self { newest, prior, full_size: size });
                }
            }
        }
        Err(ReconstructionError::NoFullFile { backups: prior.len() })
    }

    /// The number of blocks of the whole file.
    pub fn length(&self) -> u32 {
        self.newest.whole_length()
    }

    /// The size of the whole file in bytes.
    pub fn size(&self) -> u64 {
        u64::from(self.length()) * self.block_size()
    }

    /// Where a block of the whole file lies: in the newest backup that has it.
    pub fn source_of(&self, block: u32) -> BlockSource {
        let prior = self.prior.iter().filter_map(|file| match file {
            PriorFile::Incremental(map) => Some(*map),
            PriorFile::Full { .. } => None,
        });
        for (backup, map) in [self.newest].into_iter().chain(prior).enumerate() {
            if let Some(offset) = map.offset_of(block) {
                return BlockSource::At { backup, offset };
            }
            // Earlier backups have nothing to say about what was cut off since.
            if block >= map.truncation_block_length() {
                return BlockSource::Zeros;
            }
        }
        let offset = u64::from(block) * self.block_size();
        if offset + self.block_size() <= self.full_size {
            BlockSource::At { backup: self.prior.len() + 1, offset }
        } else {
            BlockSource::Zeros
        }
    }

    /// The whole file from its beginning to its end, in as few pieces as it can be copied in.
    pub fn runs(&self) -> impl Iterator<Item = BlockRun> {
        let mut block = 0;
        std::iter::from_fn(move || {
            let first = block;
            let source = (first < self.length()).then(|| self.source_of(first))?;
            block += 1;
            while block < self.length()
                && self.source_of(block) == self.continued(source, block - first)
            {
                block += 1;
            }
            Some(BlockRun { block: first, count: block - first, source })
        })
    }

    /// Where a block lies that is `blocks` behind one that lies at `source`, in the same run.
    fn continued(&self, source: BlockSource, blocks: u32) -> BlockSource {
        match source {
            BlockSource::At { backup, offset } => {
                BlockSource::At { backup, offset: offset + u64::from(blocks) * self.block_size() }
            }
            BlockSource::Zeros => BlockSource::Zeros,
        }
    }

    fn block_size(&self) -> u64 {
        self.newest.files().block_size().into()
    }
}
