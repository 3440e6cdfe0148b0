//! Compressed files that stock tools open.
//!
//! A codec is one file here, an arm in [`CompressedWriter`] and [`reader`], and its suffix in
//! [`Codec`]. All of this blocks; a writer may use threads of its own.

mod codec;
mod frames;
mod gzip;
mod lz4;
mod plain;
mod unframe;
mod zstd;

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::path::Path;

pub use codec::Codec;
pub use frames::{FRAME_SIZE, Frame, Workers};
pub use unframe::read_frames;

use self::frames::FramedWriter;
use self::gzip::GzipWriter;
use self::lz4::{Lz4Frames, Lz4Reader};
use self::plain::PlainWriter;
use self::zstd::ZstdFrames;
use super::StorageError;

/// How a file is to be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// The codec.
    pub codec: Codec,
    /// The effort; means nothing to LZ4 and none.
    pub level: i32,
    /// The threads that share the work; means nothing to gzip and none.
    pub workers: NonZeroUsize,
    /// How much plain data a frame holds at most; means nothing to gzip and none.
    pub frame_size: usize,
    /// Whether frames carry a checksum of what is in them; means nothing to gzip and none.
    pub checksums: bool,
}

impl Method {
    /// With one thread, the caller's.
    pub const fn new(codec: Codec, level: i32) -> Self {
        Self { codec, level, workers: NonZeroUsize::MIN, frame_size: FRAME_SIZE, checksums: true }
    }

    /// With so many threads.
    #[must_use]
    pub const fn with_workers(self, workers: NonZeroUsize) -> Self {
        Self { workers, ..self }
    }

    /// For what has checksums of its own, which whoever reads it compares.
    #[must_use]
    pub const fn without_checksums(self) -> Self {
        Self { checksums: false, ..self }
    }

    /// With frames of this size, which decides how much memory it takes.
    #[must_use]
    pub const fn with_frame_size(self, frame_size: usize) -> Self {
        Self { frame_size, ..self }
    }
}

/// Compresses what is written to it, into any sink.
///
/// Nothing is complete before [`finish`](Self::finish); dropped without it, the file is truncated.
pub struct CompressedWriter<W: Write> {
    inner: Inner<W>,
}

enum Inner<W: Write> {
    Framed(FramedWriter<W>),
    Gzip(Box<GzipWriter<W>>),
    Plain(PlainWriter<W>),
}

impl<W: Write> CompressedWriter<W> {
    /// Compresses into `sink` from now on.
    ///
    /// # Errors
    /// If the codec refuses its settings, or a thread cannot be started.
    pub fn new(sink: W, method: Method) -> io::Result<Self> {
        Self::with_workers(sink, method, &Workers::default())
    }

    /// The same with threads that it shares with others of the same method.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_workers(sink: W, method: Method, threads: &Workers) -> io::Result<Self> {
        let Method { codec, level, workers, frame_size, checksums } = method;
        let inner = match codec {
            Codec::None => Inner::Plain(PlainWriter::new(sink)),
            Codec::Zstd => {
                Inner::Framed(FramedWriter::new(sink, workers, threads, frame_size, || {
                    Ok(Box::new(ZstdFrames::new(level, checksums)?))
                })?)
            }
            Codec::Lz4 => {
                Inner::Framed(FramedWriter::new(sink, workers, threads, frame_size, || {
                    Ok(Box::new(Lz4Frames::new(frame_size, checksums)))
                })?)
            }
            Codec::Gzip => Inner::Gzip(Box::new(GzipWriter::new(sink, level))),
        };
        Ok(Self { inner })
    }

    /// The frames that were completed since the last call, in order.
    pub fn take_frames(&mut self) -> Vec<Frame> {
        match &mut self.inner {
            Inner::Framed(writer) => writer.take_frames(),
            Inner::Gzip(writer) => writer.take_frames(),
            Inner::Plain(writer) => writer.take_frames(),
        }
    }

    /// Completes the compressed file; gives back the sink, and the frames that were not taken yet.
    ///
    /// # Errors
    /// If compressing or writing what is left fails.
    pub fn finish(self) -> io::Result<(W, Vec<Frame>)> {
        match self.inner {
            Inner::Framed(writer) => writer.finish(),
            Inner::Gzip(writer) => writer.finish(),
            Inner::Plain(writer) => Ok(writer.finish()),
        }
    }
}

impl<W: Write> Write for CompressedWriter<W> {
    fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Framed(writer) => writer.write(plain),
            Inner::Gzip(writer) => writer.write(plain),
            Inner::Plain(writer) => writer.write(plain),
        }
    }

    /// Flushes the sink; the frame that is being filled stays as it is.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Inner::Framed(writer) => writer.sink_mut().flush(),
            Inner::Gzip(writer) => writer.sink_mut().flush(),
            Inner::Plain(writer) => writer.sink_mut().flush(),
        }
    }
}

/// The largest window that a frame may ask for, as a power of two: that of the highest level that
/// can be chosen, 8 MiB. A stranger's frame could ask for sixteen times as much memory.
const MAX_WINDOW_LOG: u32 = 23;

/// Reads what is compressed in `source`, all of it: a file that ends early is an error, unless it
/// ends just between two frames.
///
/// # Errors
/// If the codec cannot be set up.
pub fn reader<'a>(
    source: impl Read + Send + 'a,
    codec: Codec,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match codec {
        Codec::None => Box::new(source),
        Codec::Zstd => {
            let mut decoder = ::zstd::Decoder::new(source)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Codec::Lz4 => Box::new(Lz4Reader::new(source)),
        Codec::Gzip => {
            let source = BufReader::with_capacity(128 << 10, source);
            Box::new(flate2::bufread::MultiGzDecoder::new(source))
        }
    })
}

/// Reads what is compressed in a file.
///
/// # Errors
/// If it cannot be opened.
pub fn open(path: &Path, codec: Codec) -> Result<Box<dyn Read + Send>, StorageError> {
    File::open(path).and_then(|file| reader(file, codec)).map_err(StorageError::of("open", path))
}

/// What is stored is not what was written.
fn invalid(error: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
