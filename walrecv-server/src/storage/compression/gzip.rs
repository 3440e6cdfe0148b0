//! One gzip member, with points from which decompression can start anew.

use std::io::{self, Write};

use flate2::{Compress, Compression, FlushCompress, Status};

use super::frames::{FRAME_SIZE, Frame};

/// How much is compressed before it is written.
const BUFFER_SIZE: usize = 64 << 10;

/// Compresses into one member. After each [`FRAME_SIZE`] bytes everything is flushed and the
/// window forgotten, so that what follows is a deflate stream of its own. The first frame includes
/// the member's header; its trailer may follow the last.
pub(super) struct GzipWriter<W> {
    sink: W,
    deflate: Compress,
    buffer: Vec<u8>,
    /// The frame that is being written.
    frame: Frame,
    stored: u64,
    frames: Vec<Frame>,
}

impl<W: Write> GzipWriter<W> {
    pub(super) fn new(sink: W, level: i32) -> Self {
        let level = Compression::new(u32::try_from(level).unwrap_or(0).min(9));
        Self {
            sink,
            deflate: Compress::new_gzip(level, 15),
            buffer: Vec::with_capacity(BUFFER_SIZE),
            frame: Frame::default(),
            stored: 0,
            frames: Vec::new(),
        }
    }

    pub(super) fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(FRAME_SIZE as u64 - self.frame.plain_length)
            .unwrap_or(FRAME_SIZE)
            .min(plain.len());
        let plain = plain.get(..room).unwrap_or(plain);
        let taken = self.deflate_some(plain, FlushCompress::None)?;
        self.frame.plain_length += taken as u64;
        if self.frame.plain_length == FRAME_SIZE as u64 {
            self.end_frame(FlushCompress::Full)?;
        }
        Ok(taken)
    }

    pub(super) fn take_frames(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.frames)
    }

    pub(super) fn finish(mut self) -> io::Result<(W, Vec<Frame>)> {
        self.end_frame(FlushCompress::Finish)?;
        Ok((self.sink, self.frames))
    }

    fn end_frame(&mut self, flush: FlushCompress) -> io::Result<()> {
        // The buffer is drained before each call, so a call that does not fill it has flushed all.
        loop {
            let written = self.stored;
            let before = self.deflate.total_out();
            let status = self.deflate_call(&[], flush)?;
            let produced = self.deflate.total_out() - before;
            debug_assert_eq!(self.stored - written, produced);
            if status == Status::StreamEnd
                || (flush != FlushCompress::Finish && produced < BUFFER_SIZE as u64)
            {
                break;
            }
        }
        let frame = Frame { stored_length: self.stored - self.frame.stored_offset, ..self.frame };
        if frame.plain_length > 0 {
            self.frames.push(frame);
        }
        self.frame = Frame {
            plain_offset: frame.plain_offset + frame.plain_length,
            plain_length: 0,
            stored_offset: self.stored,
            stored_length: 0,
        };
        Ok(())
    }

    fn deflate_some(&mut self, plain: &[u8], flush: FlushCompress) -> io::Result<usize> {
        loop {
            let before = self.deflate.total_in();
            self.deflate_call(plain, flush)?;
            let taken = self.deflate.total_in() - before;
            if taken > 0 || plain.is_empty() {
                return Ok(usize::try_from(taken).unwrap_or(plain.len()));
            }
        }
    }

    /// One call of the compressor, whose output is written at once.
    fn deflate_call(&mut self, plain: &[u8], flush: FlushCompress) -> io::Result<Status> {
        self.buffer.clear();
        let status =
            self.deflate.compress_vec(plain, &mut self.buffer, flush).map_err(io::Error::other)?;
        self.sink.write_all(&self.buffer)?;
        self.stored += self.buffer.len() as u64;
        Ok(status)
    }

    pub(super) fn sink_mut(&mut self) -> &mut W {
        &mut self.sink
    }
}
