//! No compression: what is written is stored as it is.

use std::io::{self, Write};

use super::frames::{FRAME_SIZE, Frame};

/// Passes bytes on, and reports frames all the same: any part can be read alone.
pub(super) struct PlainWriter<W> {
    sink: W,
    written: u64,
    frames: Vec<Frame>,
}

impl<W: Write> PlainWriter<W> {
    pub(super) fn new(sink: W) -> Self {
        Self { sink, written: 0, frames: Vec::new() }
    }

    pub(super) fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        let size = FRAME_SIZE as u64;
        let room = usize::try_from(size - self.written % size).unwrap_or(FRAME_SIZE);
        let taken = self.sink.write(plain.get(..room).unwrap_or(plain))?;
        self.written += taken as u64;
        if taken > 0 && self.written.is_multiple_of(size) {
            self.frames.push(frame(self.written - size, size));
        }
        Ok(taken)
    }

    pub(super) fn take_frames(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.frames)
    }

    pub(super) fn finish(mut self) -> (W, Vec<Frame>) {
        let rest = self.written % FRAME_SIZE as u64;
        if rest > 0 {
            self.frames.push(frame(self.written - rest, rest));
        }
        (self.sink, self.frames)
    }

    pub(super) fn sink_mut(&mut self) -> &mut W {
        &mut self.sink
    }
}

fn frame(offset: u64, length: u64) -> Frame {
    Frame {
        plain_offset: offset,
        plain_length: length,
        stored_offset: offset,
        stored_length: length,
    }
}
