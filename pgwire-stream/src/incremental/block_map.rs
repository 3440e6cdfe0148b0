//! Which blocks an incremental file has.

use super::{FIXED_LENGTH, IncrementalError, MAGIC};
use crate::RelationFiles;

/// The header of an incremental file: which blocks of the relation file it has, and how long the
/// whole one is without them.
///
/// Takes four bytes of memory for a block, 512 kB for a file of 1 GB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMap {
    files: RelationFiles,
    truncation_block_length: u32,
    blocks: Vec<u32>,
}

impl BlockMap {
    /// A map of these blocks.
    ///
    /// `truncation_block_length` is the least number of blocks of the whole file: those below it
    /// that are not in this file come from earlier backups, those from it on are only in this one.
    /// One that is too large is cut to what a file can have, because servers before the minor
    /// releases of January 2026 write such for relations of several files.
    ///
    /// # Errors
    /// If the block numbers do not ascend, or exceed what a file can have.
    pub fn new(
        files: RelationFiles,
        truncation_block_length: u32,
        blocks: Vec<u32>,
    ) -> Result<Self, IncrementalError> {
        let limit = files.blocks_per_file();
        let mut next = 0;
        for (at, &block) in (FIXED_LENGTH..).step_by(4).zip(&blocks) {
            if !(next..limit).contains(&block) {
                return Err(IncrementalError::BlockNumber { at, block });
            }
            next = block + 1;
        }
        let truncation_block_length = truncation_block_length.min(limit);
        Ok(Self { files, truncation_block_length, blocks })
    }

    /// The numbers of the blocks in the file, ascending.
    pub fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// The least number of blocks of the whole file.
    pub const fn truncation_block_length(&self) -> u32 {
        self.truncation_block_length
    }

    /// The sizes of blocks and files.
    pub const fn files(&self) -> RelationFiles {
        self.files
    }

    /// The number of blocks of the whole file.
    pub fn whole_length(&self) -> u32 {
        self.blocks
            .last()
            .map_or(self.truncation_block_length, |last| self.truncation_block_length.max(last + 1))
    }

    /// Where the first block lies in the incremental file, in bytes.
    pub fn header_length(&self) -> u64 {
        let length = FIXED_LENGTH + 4 * self.blocks.len() as u64;
        if self.blocks.is_empty() {
            length
        } else {
            length.next_multiple_of(self.files.block_size().into())
        }
    }

    /// The size of the incremental file in bytes.
    pub fn file_size(&self) -> u64 {
        self.header_length() + self.blocks.len() as u64 * u64::from(self.files.block_size())
    }

    /// Where a block lies in the incremental file, in bytes; `None` if it is not in it.
    pub fn offset_of(&self, block: u32) -> Option<u64> {
        let index = self.blocks.binary_search(&block).ok()? as u64;
        Some(self.header_length() + index * u64::from(self.files.block_size()))
    }

    /// The beginning of the incremental file, up to the first block.
    pub fn write(&self) -> Vec<u8> {
        // As many as a file can have blocks, which are counted in 32 bits.
        let count = self.blocks.len() as u32;
        let mut content: Vec<u8> = [MAGIC, count, self.truncation_block_length]
            .iter()
            .chain(&self.blocks)
            .flat_map(|number| number.to_le_bytes())
            .collect();
        content.resize(self.header_length() as usize, 0);
        content
    }
}
