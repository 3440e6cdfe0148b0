//! LZ4 frames.

use std::io::{self, BufRead, BufReader, Read};

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use lz4_flex::frame::FrameDecoder;
use twox_hash::XxHash32;

use super::frames::FrameCodec;

const MAGIC: u32 = 0x184d_2204;

/// Version 1, and blocks that know nothing of each other.
const INDEPENDENT: u8 = 0x60;

/// The frame says how much is in it.
const WITH_SIZE: u8 = 0x08;

/// It ends with a checksum of that.
const WITH_CHECKSUM: u8 = 0x04;

/// Set in the length of a block that is kept as it is.
const KEPT: u32 = 1 << 31;

/// Sizes of blocks, and how a frame says that none of it is larger. The format has larger ones, which are no
/// smaller when they are stored, and take their memory for whoever reads them.
const BLOCK_SIZES: [(usize, u8); 3] = [(64 << 10, 0x40), (256 << 10, 0x50), (1 << 20, 0x60)];

/// Compresses frames that say their size.
///
/// They are put together here, of blocks that are compressed where they lie: the library's own writer copies
/// all that it is given twice, which takes half as long as to compress it. See the format's
/// [description](https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md).
pub(super) struct Lz4Frames {
    table: CompressTable,
    /// A block, compressed.
    block: Vec<u8>,
    block_size: usize,
    block_code: u8,
    checksums: bool,
}

impl Lz4Frames {
    /// For frames that hold no more than this.
    pub(super) fn new(size: usize, checksums: bool) -> Self {
        let [.., largest] = BLOCK_SIZES;
        let fitting = BLOCK_SIZES.into_iter().find(|(block, _)| size <= *block);
        // The same for all frames of a file: readers keep their buffers.
        let (block_size, block_code) = fitting.unwrap_or(largest);
        let (table, block) = (CompressTable::large(), Vec::new());
        Self { table, block, block_size, block_code, checksums }
    }

    fn put_block(&mut self, plain: &[u8], frame: &mut Vec<u8>) -> io::Result<()> {
        let most = get_maximum_output_size(plain.len());
        if self.block.len() < most {
            self.block.resize(most, 0);
        }
        let length = compress_into_with_table(plain, &mut self.block, &mut self.table);
        let length = length.map_err(io::Error::other)?;
        let (data, kept) = match self.block.get(..length) {
            Some(compressed) if length < plain.len() => (compressed, 0),
            _ => (plain, KEPT),
        };
        let length = u32::try_from(data.len()).map_err(io::Error::other)?;
        frame.extend_from_slice(&(length | kept).to_le_bytes());
        frame.extend_from_slice(data);
        Ok(())
    }
}

impl FrameCodec for Lz4Frames {
    fn compress(&mut self, plain: &[u8], frame: &mut Vec<u8>) -> io::Result<()> {
        let checksum = if self.checksums { WITH_CHECKSUM } else { 0 };

        let mut descriptor = [0; 10];
        let [flags, block_byte, size @ ..] = &mut descriptor;
        (*flags, *block_byte) = (INDEPENDENT | WITH_SIZE | checksum, self.block_code);
        *size = (plain.len() as u64).to_le_bytes();
        let [_, second, ..] = XxHash32::oneshot(0, &descriptor).to_le_bytes();

        frame.clear();
        frame.extend_from_slice(&MAGIC.to_le_bytes());
        frame.extend_from_slice(&descriptor);
        frame.push(second);
        plain.chunks(self.block_size).try_for_each(|block| self.put_block(block, frame))?;
        frame.extend_from_slice(&0_u32.to_le_bytes());
        if self.checksums {
            frame.extend_from_slice(&XxHash32::oneshot(0, plain).to_le_bytes());
        }
        Ok(())
    }
}

/// Reads frame after frame, where the decoder of a frame stops at its end.
///
/// That decoder reports the end of its input between two blocks as the end of the data; only
/// whether it ran into the end tells a truncated frame from a complete one.
pub(super) struct Lz4Reader<R: Read> {
    decoder: FrameDecoder<EndWatch<R>>,
    /// Whether all frames were read.
    ended: bool,
}

struct EndWatch<R: Read> {
    source: BufReader<R>,
    /// Whether somebody asked for more than there is.
    ran_out: bool,
}

impl<R: Read> Lz4Reader<R> {
    pub(super) fn new(source: R) -> Self {
        let source = BufReader::with_capacity(128 << 10, source);
        Self { decoder: FrameDecoder::new(EndWatch { source, ran_out: false }), ended: false }
    }
}

impl<R: Read> Read for EndWatch<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.ran_out |= read == 0 && !buffer.is_empty();
        Ok(read)
    }
}

impl<R: Read> Read for Lz4Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Whoever asks again is told the same: the decoder would look for another frame.
        if buffer.is_empty() || self.ended {
            return Ok(0);
        }
        loop {
            let read = self.decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            let source = self.decoder.get_mut();
            if source.ran_out {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // At the end of a frame, with nothing of the next one read yet.
            if source.source.fill_buf()?.is_empty() {
                self.ended = true;
                return Ok(0);
            }
        }
    }
}
