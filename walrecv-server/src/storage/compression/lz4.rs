//! LZ4 frames.

use std::io::{self, BufRead, BufReader, Read, Write};

use lz4_flex::frame::{BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::frames::FrameCodec;

/// Compresses frames that say their size and carry a checksum.
pub(super) struct Lz4Frames;

impl FrameCodec for Lz4Frames {
    fn compress(&mut self, plain: &[u8], frame: &mut Vec<u8>) -> io::Result<()> {
        frame.clear();
        let info = FrameInfo::new()
            .content_size(Some(plain.len() as u64))
            .content_checksum(true)
            .block_size(BlockSize::Max4MB);
        let mut encoder = FrameEncoder::with_frame_info(info, frame);
        encoder.write_all(plain)?;
        encoder.finish().map_err(io::Error::other)?;
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
