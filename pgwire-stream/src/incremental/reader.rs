//! Reading an incremental file while it arrives.

use std::mem;

use super::{BlockMap, FIXED_LENGTH, IncrementalError, MAGIC};
use crate::RelationFiles;

/// A push parser for an incremental file. Keeps the header, and passes over the blocks.
///
/// Feed the bytes as they come, in pieces of any size. The [`map`](Self::map) is there as soon as
/// the header is; [`finish`](Self::finish) says that the file has neither less nor more.
#[derive(Debug)]
pub struct IncrementalReader {
    files: RelationFiles,
    position: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Header {
        /// The bytes of the number that is being collected.
        number: Vec<u8>,
        count: u32,
        truncation_block_length: u32,
        blocks: Vec<u32>,
    },
    Blocks(BlockMap),
}

impl IncrementalReader {
    /// A reader at the start of a file of a cluster with these sizes.
    pub const fn new(files: RelationFiles) -> Self {
        let state = State::Header {
            number: Vec::new(),
            count: 0,
            truncation_block_length: 0,
            blocks: Vec::new(),
        };
        Self { files, position: 0, state }
    }

    /// Takes the next bytes in.
    ///
    /// # Errors
    /// If they cannot follow in an incremental file. An error is final.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), IncrementalError> {
        let mut rest = bytes;
        while let State::Header { number, .. } = &mut self.state {
            let Some((&byte, behind)) = rest.split_first() else { return Ok(()) };
            rest = behind;
            self.position += 1;
            number.push(byte);
            if let Ok(bytes) = <[u8; 4]>::try_from(number.as_slice()) {
                number.clear();
                self.number(u32::from_le_bytes(bytes))?;
            }
        }
        self.pass_over(rest)
    }

    /// The header, once all of it has arrived.
    pub const fn map(&self) -> Option<&BlockMap> {
        match &self.state {
            State::Blocks(map) => Some(map),
            State::Header { .. } => None,
        }
    }

    /// Verifies that the file is complete.
    ///
    /// # Errors
    /// If it is shorter than its header says.
    pub fn finish(self) -> Result<BlockMap, IncrementalError> {
        let length = self.position;
        match self.state {
            State::Blocks(map) if map.file_size() == length => Ok(map),
            State::Blocks(map) => {
                Err(IncrementalError::TooShort { length, expected: map.file_size() })
            }
            State::Header { count, .. } => {
                let expected = FIXED_LENGTH + 4 * u64::from(count);
                Err(IncrementalError::TooShort { length, expected })
            }
        }
    }

    /// Takes one number of the header in.
    fn number(&mut self, value: u32) -> Result<(), IncrementalError> {
        let State::Header { count, truncation_block_length, blocks, .. } = &mut self.state else {
            return Ok(());
        };
        let limit = self.files.blocks_per_file();
        match self.position {
            4 if value != MAGIC => return Err(IncrementalError::Magic { found: value }),
            4 => return Ok(()),
            8 if value > limit => {
                return Err(IncrementalError::BlockCount { count: value, limit });
            }
            8 => {
                *count = value;
                return Ok(());
            }
            FIXED_LENGTH => *truncation_block_length = value,
            end => {
                // At once, because what is wrong here must not be collected to the end.
                if blocks.last().is_some_and(|&last| value <= last) || value >= limit {
                    return Err(IncrementalError::BlockNumber { at: end - 4, block: value });
                }
                blocks.push(value);
            }
        }
        if blocks.len() as u64 == u64::from(*count) {
            let blocks = mem::take(blocks);
            let map = BlockMap::new(self.files, *truncation_block_length, blocks)?;
            self.state = State::Blocks(map);
        }
        Ok(())
    }

    /// Takes the zeros and the blocks in.
    fn pass_over(&mut self, bytes: &[u8]) -> Result<(), IncrementalError> {
        let State::Blocks(map) = &self.state else { return Ok(()) };
        let padding = map.header_length().saturating_sub(self.position);
        let padding = bytes.iter().take(usize::try_from(padding).unwrap_or(usize::MAX));
        if let Some(at) = padding.copied().position(|byte| byte != 0) {
            return Err(IncrementalError::Padding { at: self.position + at as u64 });
        }
        self.position += bytes.len() as u64;
        if self.position > map.file_size() {
            return Err(IncrementalError::TooLong { expected: map.file_size() });
        }
        Ok(())
    }
}
