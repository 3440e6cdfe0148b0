//! Independent frames, compressed by several threads and written in order.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use serde::{Deserialize, Serialize};

use crate::storage::is_zero;

/// How much plain data a frame holds at most, where nothing else is wanted. Larger ones are hardly
/// smaller when they are stored, and take their memory several times for each thread.
pub const FRAME_SIZE: usize = 2 << 20;

/// A part of a stored file that can be decompressed alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Where its data begins in the plain file.
    pub plain_offset: u64,
    /// How much data it holds.
    pub plain_length: u64,
    /// Where it begins in the stored file.
    pub stored_offset: u64,
    /// Its size in the stored file.
    pub stored_length: u64,
}

/// Compresses one frame after another, none knowing of the others.
pub(super) trait FrameCodec: Send {
    /// Puts the frame with this data into `frame`, whatever was there.
    fn compress(&mut self, plain: &[u8], frame: &mut Vec<u8>) -> io::Result<()>;
}

/// A codec that compresses zeros once: of a segment of WAL that the server leaves early, they are
/// nearly all.
struct Compressor {
    codec: Box<dyn FrameCodec>,
    /// How many zeros were compressed last, and their frame.
    zeros: Option<(usize, Vec<u8>)>,
}

impl Compressor {
    fn new(codec: Box<dyn FrameCodec>) -> Self {
        Self { codec, zeros: None }
    }

    fn compress(&mut self, plain: &[u8], frame: &mut Vec<u8>) -> io::Result<()> {
        if !is_zero(plain) {
            return self.codec.compress(plain, frame);
        }
        match &self.zeros {
            Some((length, zeros)) if *length == plain.len() => frame.clone_from(zeros),
            _ => {
                self.codec.compress(plain, frame)?;
                self.zeros = Some((plain.len(), frame.clone()));
            }
        }
        Ok(())
    }
}

/// Cuts what is written into frames.
///
/// With one worker the caller's thread compresses. With more, as many threads do, and the caller's
/// thread collects and writes: it waits for the oldest frame when one frame more than there are threads is
/// under way, which bounds the memory.
pub(super) struct FramedWriter<W> {
    sink: W,
    frame_size: usize,
    /// The plain data of the frame that is being filled.
    plain: Vec<u8>,
    engine: Engine,
    position: Frame,
    frames: Vec<Frame>,
}

enum Engine {
    Here { codec: Compressor, frame: Vec<u8> },
    Threads(Pool),
}

/// Plain data and the buffer for its frame, on the way to a worker or back.
struct Job {
    plain: Vec<u8>,
    frame: Vec<u8>,
}

type Outcome = io::Result<Job>;

/// Threads that compress, if there are any just now. Files that are written by the same method, one beginning
/// before the other is complete, share them, and the memory of their codecs.
#[derive(Clone, Debug, Default)]
pub struct Workers(Arc<Mutex<Weak<Crew>>>);

/// The threads. They end when this is dropped, because nobody sends them jobs any more.
#[derive(Debug)]
struct Crew {
    jobs: Sender<(Job, SyncSender<Outcome>)>,
    size: usize,
}

struct Pool {
    crew: Arc<Crew>,
    /// The frames under way, in order.
    pending: VecDeque<Receiver<Outcome>>,
    /// Buffers that can be used again.
    spare: Vec<Job>,
    limit: usize,
}

impl<W: Write> FramedWriter<W> {
    pub(super) fn new(
        sink: W,
        count: NonZeroUsize,
        workers: &Workers,
        frame_size: usize,
        mut codec: impl FnMut() -> io::Result<Box<dyn FrameCodec>>,
    ) -> io::Result<Self> {
        let engine = match count.get() {
            1 => Engine::Here { codec: Compressor::new(codec()?), frame: Vec::new() },
            _ => Engine::Threads(Pool::new(workers.get(count, codec)?)),
        };
        Ok(Self {
            sink,
            frame_size,
            plain: Vec::new(),
            engine,
            position: Frame::default(),
            frames: Vec::new(),
        })
    }

    pub(super) fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        let room = self.frame_size - self.plain.len();
        let taken = plain.get(..room).unwrap_or(plain);
        // All of it at once: a vector that grows as it is filled may take twice as much.
        self.plain.reserve_exact(room);
        self.plain.extend_from_slice(taken);
        if self.plain.len() == self.frame_size {
            self.end_frame()?;
        }
        Ok(taken.len())
    }

    pub(super) fn take_frames(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.frames)
    }

    pub(super) fn finish(mut self) -> io::Result<(W, Vec<Frame>)> {
        // An empty file is an empty frame, so that stock tools accept it.
        if !self.plain.is_empty() || self.position.plain_offset == 0 {
            self.end_frame()?;
        }
        if let Engine::Threads(pool) = &mut self.engine {
            while let Some(job) = pool.oldest()? {
                write_frame(&mut self.sink, &job, &mut self.position, &mut self.frames)?;
            }
        }
        Ok((self.sink, self.frames))
    }

    pub(super) fn sink_mut(&mut self) -> &mut W {
        &mut self.sink
    }

    fn end_frame(&mut self) -> io::Result<()> {
        let plain = std::mem::take(&mut self.plain);
        match &mut self.engine {
            Engine::Here { codec, frame } => {
                let mut job = Job { plain, frame: std::mem::take(frame) };
                codec.compress(&job.plain, &mut job.frame)?;
                write_frame(&mut self.sink, &job, &mut self.position, &mut self.frames)?;
                *frame = job.frame;
                self.plain = job.plain;
                self.plain.clear();
            }
            Engine::Threads(pool) => {
                self.plain = pool.submit(plain)?;
                while pool.is_full() {
                    let Some(job) = pool.oldest()? else { break };
                    write_frame(&mut self.sink, &job, &mut self.position, &mut self.frames)?;
                    pool.spare.push(job);
                }
            }
        }
        Ok(())
    }
}

fn write_frame(
    sink: &mut impl Write,
    job: &Job,
    position: &mut Frame,
    frames: &mut Vec<Frame>,
) -> io::Result<()> {
    sink.write_all(&job.frame)?;
    let frame = Frame {
        plain_length: job.plain.len() as u64,
        stored_length: job.frame.len() as u64,
        ..*position
    };
    position.plain_offset += frame.plain_length;
    position.stored_offset += frame.stored_length;
    if frame.plain_length > 0 {
        frames.push(frame);
    }
    Ok(())
}

impl Workers {
    /// Those that there are, or new ones.
    fn get(
        &self,
        count: NonZeroUsize,
        codec: impl FnMut() -> io::Result<Box<dyn FrameCodec>>,
    ) -> io::Result<Arc<Crew>> {
        let mut crew = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(crew) = crew.upgrade() {
            return Ok(crew);
        }
        let codecs = std::iter::repeat_with(codec).map(|codec| codec.map(Compressor::new));
        let codecs = codecs.take(count.get()).collect::<io::Result<_>>()?;
        let new = Arc::new(Crew::start(codecs)?);
        *crew = Arc::downgrade(&new);
        Ok(new)
    }
}

impl Crew {
    fn start(codecs: Vec<Compressor>) -> io::Result<Self> {
        let size = codecs.len();
        let (jobs, queue) = channel::<(Job, SyncSender<Outcome>)>();
        let queue = Arc::new(Mutex::new(queue));
        for mut codec in codecs {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name("compress".to_owned()).spawn(move || {
                loop {
                    // Nothing can go wrong while it is held, so poison means nothing.
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((mut job, done)) = next else { return };
                    let outcome = codec.compress(&job.plain, &mut job.frame).map(|()| job);
                    // Nobody waits for it if the writer gave up.
                    let _ = done.send(outcome);
                }
            })?;
        }
        Ok(Self { jobs, size })
    }
}

impl Pool {
    fn new(crew: Arc<Crew>) -> Self {
        let limit = crew.size + 1;
        Self { crew, pending: VecDeque::new(), spare: Vec::new(), limit }
    }

    /// Hands out a frame's data, and returns a buffer for the next.
    fn submit(&mut self, plain: Vec<u8>) -> io::Result<Vec<u8>> {
        let (mut next, frame) = match self.spare.pop() {
            Some(job) => (job.plain, job.frame),
            None => (Vec::new(), Vec::new()),
        };
        next.clear();
        let (done, outcome) = sync_channel(1);
        self.crew.jobs.send((Job { plain, frame }, done)).map_err(|_| stopped())?;
        self.pending.push_back(outcome);
        Ok(next)
    }

    fn is_full(&self) -> bool {
        self.pending.len() >= self.limit
    }

    /// The oldest frame under way, waiting for it; `None` if there is none.
    fn oldest(&mut self) -> io::Result<Option<Job>> {
        let Some(outcome) = self.pending.pop_front() else { return Ok(None) };
        outcome.recv().map_err(|_| stopped())?.map(Some)
    }
}

fn stopped() -> io::Error {
    io::Error::other("a compression thread stopped")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Frames that are a letter and what is in them.
    struct Counted(Arc<AtomicUsize>);

    impl FrameCodec for Counted {
        fn compress(&mut self, plain: &[u8], frame: &mut Vec<u8>) -> io::Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            frame.clear();
            frame.push(b'F');
            frame.extend_from_slice(plain);
            Ok(())
        }
    }

    #[test]
    fn zeros_are_compressed_once() {
        let count = Arc::new(AtomicUsize::new(0));
        let codec =
            || -> io::Result<Box<dyn FrameCodec>> { Ok(Box::new(Counted(Arc::clone(&count)))) };
        let workers = Workers::default();
        let mut writer =
            FramedWriter::new(Vec::new(), NonZeroUsize::MIN, &workers, 4, codec).unwrap();
        let plain = b"\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0";
        let mut rest = &plain[..];
        while !rest.is_empty() {
            let taken = writer.write(rest).unwrap();
            rest = &rest[taken..];
        }
        let (stored, frames) = writer.finish().unwrap();
        assert_eq!(stored, b"F\0\0\0\0F\0\0\0\0F\0\0\0\x01F\0\0\0\0F\0\0");
        assert_eq!(frames.len(), 5);
        // Four zeros, what is not zero, and two zeros.
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }
}
