//! LZ4 frames.

use std::io::{self, BufRead, BufReader, Read};

use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size,
};
use lz4_flex::frame::FrameDecoder;
use twox_hash::XxHash32;

use super::frames::FrameCodec;
use super::invalid;

const MAGIC: u32 = 0x184d_2204;

/// Version 1, blocks that know nothing of each other, and a frame that says how much is in it.
const INDEPENDENT_WITH_SIZE: u8 = 0x68;

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

        let flags = INDEPENDENT_WITH_SIZE | checksum;
        frame.clear();
        frame.extend_from_slice(&header(flags, self.block_code, plain.len()));
        plain.chunks(self.block_size).try_for_each(|block| self.put_block(block, frame))?;
        frame.extend_from_slice(&0_u32.to_le_bytes());
        if self.checksums {
            frame.extend_from_slice(&XxHash32::oneshot(0, plain).to_le_bytes());
        }
        Ok(())
    }
}

/// The beginning of a frame that says its size.
fn header(flags: u8, block_code: u8, size: usize) -> Vec<u8> {
    let mut descriptor = [0; 10];
    let [own_flags, own_code, own_size @ ..] = &mut descriptor;
    (*own_flags, *own_code, *own_size) = (flags, block_code, (size as u64).to_le_bytes());
    let [_, check, ..] = XxHash32::oneshot(0, &descriptor).to_le_bytes();
    [&MAGIC.to_le_bytes()[..], &descriptor, &[check]].concat()
}

/// Decompresses a frame that [`Lz4Frames`] has made of so much, into an empty buffer: each block to
/// where it belongs, where the library's reader copies all of it once more. Whether it is such a
/// frame; if it is another, nothing was done.
pub(super) fn decompress_frame(
    frame: &[u8],
    length: usize,
    plain: &mut Vec<u8>,
) -> io::Result<bool> {
    let Some(&[flags, code]) = frame.get(4..).and_then(<[u8]>::first_chunk) else {
        return Ok(false);
    };
    let Some((block_size, _)) = BLOCK_SIZES.into_iter().find(|(_, known)| *known == code) else {
        return Ok(false);
    };
    let begins = frame.strip_prefix(&*header(flags, code, length));
    let (INDEPENDENT_WITH_SIZE, Some(mut rest)) = (flags & !WITH_CHECKSUM, begins) else {
        return Ok(false);
    };
    plain.resize(length, 0);
    let mut room = plain.as_mut_slice();
    loop {
        let head = take_number(&mut rest)?;
        if head == 0 {
            break;
        }
        let (block, behind) = rest.split_at_checked((head & !KEPT) as usize).ok_or_else(cut)?;
        rest = behind;
        let fitting = room.len().min(block_size);
        let target = room.get_mut(..fitting).unwrap_or_default();
        let written = if head & KEPT == 0 {
            decompress_into(block, target).map_err(invalid)?
        } else {
            let target = target.get_mut(..block.len());
            target.ok_or_else(|| invalid("a block is too large"))?.copy_from_slice(block);
            block.len()
        };
        room = room.split_at_mut_checked(written).map(|(_, room)| room).unwrap_or_default();
    }
    if !room.is_empty() {
        return Err(invalid("a frame holds less than it says"));
    }
    if flags & WITH_CHECKSUM != 0 && take_number(&mut rest)? != XxHash32::oneshot(0, plain) {
        return Err(invalid("a frame does not match its checksum"));
    }
    if rest.is_empty() { Ok(true) } else { Err(invalid("there is more behind a frame")) }
}

fn take_number(rest: &mut &[u8]) -> io::Result<u32> {
    let (number, behind) = rest.split_first_chunk().ok_or_else(cut)?;
    *rest = behind;
    Ok(u32::from_le_bytes(*number))
}

fn cut() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
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
