//! LZ4 frames.

use std::io::{self, BufRead, BufReader, Read, Write};

use lz4_flex::frame::{BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::frames::FrameCodec;

/// How much of a frame is compressed at a time. Larger blocks are no smaller when they are stored, and
/// take their memory twice for each thread.
const BLOCK_SIZE: BlockSize = BlockSize::Max1MB;

/// Compresses frames that say their size.
pub(super) struct Lz4Frames {
    /// That of the last frame: its buffers are used again.
    encoder: FrameEncoder<Vec<u8>>,
    /// The size that it says its frames have.
    size: usize,
    checksums: bool,
}

impl Lz4Frames {
    /// For frames that most often have this size. Only the first one may be empty.
    pub(super) fn new(size: usize, checksums: bool) -> Self {
        let info = FrameInfo::new()
            .content_size(Some(size as u64))
            .content_checksum(checksums)
            .block_size(BLOCK_SIZE);
        Self { encoder: FrameEncoder::with_frame_info(info, Vec::new()), size, checksums }
    }
}

impl FrameCodec for Lz4Frames {
    fn compress(&mut self, plain: &[u8], frame: &mut Vec<u8>) -> io::Result<()> {
        if plain.len() != self.size {
            *self = Self::new(plain.len(), self.checksums);
        }
        frame.clear();
        std::mem::swap(self.encoder.get_mut(), frame);
        self.encoder.write_all(plain)?;
        self.encoder.try_finish().map_err(io::Error::other)?;
        std::mem::swap(self.encoder.get_mut(), frame);
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
