//! How a cluster cuts its relations into blocks and files.

/// The sizes of a cluster's relation files, chosen when its server was built: `block_size` and
/// `segment_size` of `SHOW`, `BLCKSZ` and `RELSEG_SIZE` in the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelationFiles {
    block_size: u32,
    blocks_per_file: u32,
}

/// No server is built with these sizes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no server has relations of blocks of {block_size} bytes, {blocks_per_file} to a file: a power \
     of two from 1 kB to 32 kB, and at least one"
)]
pub struct RelationFilesError {
    block_size: u32,
    blocks_per_file: u32,
}

impl RelationFiles {
    /// Blocks of 8 kB and files of 1 GB: what every packaged server has.
    pub const DEFAULT: Self = Self { block_size: 8192, blocks_per_file: 131_072 };

    /// Blocks of so many bytes, and so many of them to a file.
    ///
    /// # Errors
    /// If the block size is not a power of two from 1 kB to 32 kB, or there are no blocks.
    pub fn new(block_size: u32, blocks_per_file: u32) -> Result<Self, RelationFilesError> {
        let possible = block_size.is_power_of_two()
            && (1024..=32 * 1024).contains(&block_size)
            && (1..=i32::MAX.unsigned_abs()).contains(&blocks_per_file);
        if possible {
            Ok(Self { block_size, blocks_per_file })
        } else {
            Err(RelationFilesError { block_size, blocks_per_file })
        }
    }

    /// The size of a block in bytes.
    pub const fn block_size(self) -> u32 {
        self.block_size
    }

    /// How many blocks a full file has.
    pub const fn blocks_per_file(self) -> u32 {
        self.blocks_per_file
    }
}

impl Default for RelationFiles {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sizes_that_servers_can_have() {
        assert_eq!(RelationFiles::new(8192, 131_072), Ok(RelationFiles::DEFAULT));
        for good in [(1024, 1), (32768, 32768), (8192, i32::MAX as u32)] {
            assert!(RelationFiles::new(good.0, good.1).is_ok(), "{good:?}");
        }
        for bad in [(0, 1), (512, 1), (8191, 1), (65536, 1), (8192, 0), (8192, u32::MAX)] {
            assert!(RelationFiles::new(bad.0, bad.1).is_err(), "{bad:?}");
        }
    }
}
