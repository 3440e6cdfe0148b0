//! What can be wrong with incremental files, and with chains of them.

/// The bytes are not an incremental file, or not a whole one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IncrementalError {
    /// The file begins with another number.
    #[error("an incremental file begins with 0xd3ae1f0d, and not with 0x{found:08x}")]
    Magic {
        /// What it begins with.
        found: u32,
    },
    /// More blocks are announced than a relation file can have.
    #[error("the incremental file announces {count} blocks, and a file has at most {limit}")]
    BlockCount {
        /// The number announced.
        count: u32,
        /// How many blocks a file can have.
        limit: u32,
    },
    /// A block number is not higher than the one before it, or too high for any file.
    #[error("block number {block} at byte {at} of the incremental file is out of order")]
    BlockNumber {
        /// The offset of the number in the file.
        at: u64,
        /// The number.
        block: u32,
    },
    /// There is something between the block numbers and the blocks.
    #[error("byte {at} of the incremental file is not zero, and has no meaning")]
    Padding {
        /// The offset of the byte in the file.
        at: u64,
    },
    /// The file goes on behind its last block.
    #[error("the incremental file is longer than {expected} bytes")]
    TooLong {
        /// How long it has to be.
        expected: u64,
    },
    /// The file ends too early.
    #[error("the incremental file ends at byte {length} of {expected}")]
    TooShort {
        /// How long it is.
        length: u64,
        /// How long it has to be, as far as is known.
        expected: u64,
    },
}

/// The files of a chain of backups do not make a whole one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReconstructionError {
    /// No backup of the chain has the file in full.
    #[error("none of the {backups} earlier backups has the file in full")]
    NoFullFile {
        /// How many earlier backups there are.
        backups: usize,
    },
    /// A backup was taken from a server with other sizes of blocks or files.
    #[error("backup {backup} back in the chain has blocks or files of another size")]
    OtherSizes {
        /// Which one: 1 is the one before the newest.
        backup: usize,
    },
}
