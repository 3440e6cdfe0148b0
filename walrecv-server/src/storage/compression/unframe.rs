//! Independent frames, decompressed by several threads and handed on in order.

use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::{Codec, Frame, invalid, lz4};
use crate::storage::pieces::{Buffers, Piece, Pieces};

/// Larger than any frame that is written, plain or stored. An index can say anything.
const MAX_FRAME: u64 = 9 << 20;

type Outcome = io::Result<Piece>;

/// The compressed bytes of a frame, on the way to whichever thread is free.
struct Job {
    compressed: Vec<u8>,
    length: usize,
    done: SyncSender<Outcome>,
}

/// Decompresses a file of zstd or lz4 frames on `workers` threads, while `work` takes what is there
/// already, frame by frame. Nothing is read any more when that returns.
///
/// `frames` says where the frames lie, all of them and in order; an error is handed on. No more
/// than twice as many frames as threads are under way, which bounds the memory.
pub fn read_frames<T>(
    compressed: impl Read + Send,
    codec: Codec,
    frames: impl Iterator<Item = io::Result<Frame>> + Send,
    workers: NonZeroUsize,
    work: impl FnOnce(Pieces<'_>) -> T,
) -> T {
    let (ordered, arriving) = sync_channel(workers.get() * 2);
    let (jobs, queue) = channel();
    let queue = Mutex::new(queue);
    let stored = Buffers::default();
    let plain = Buffers::default();
    thread::scope(|scope| {
        for _ in 0..workers.get() {
            scope.spawn(|| decompress_all(codec, &queue, &stored, &plain));
        }
        let stored = &stored;
        scope.spawn(move || feed(compressed, frames, stored, &ordered, &jobs));
        let outcomes = arriving.into_iter();
        work(Pieces::new(outcomes.map(|outcome: Receiver<Outcome>| {
            outcome.recv().unwrap_or_else(|_| Err(io::Error::other("a thread stopped")))
        })))
    })
}

/// Hands out frame after frame, to the workers and, as a promise, to whoever waits for them.
fn feed(
    mut compressed: impl Read,
    frames: impl Iterator<Item = io::Result<Frame>>,
    buffers: &Buffers,
    ordered: &SyncSender<Receiver<Outcome>>,
    jobs: &Sender<Job>,
) {
    let mut behind = Frame::default();
    for frame in frames {
        let (done, outcome) = sync_channel(1);
        let read = frame.and_then(|frame| read_frame(&mut compressed, frame, &mut behind, buffers));
        // Nobody listens after an error on the other side.
        if ordered.send(outcome).is_err() {
            return;
        }
        let sent = match read {
            Ok((compressed, length)) => jobs.send(Job { compressed, length, done }).is_ok(),
            Err(error) => {
                let _ = done.send(Err(error));
                false
            }
        };
        if !sent {
            return;
        }
    }
    // Up to the very end, which authenticates an encrypted file and completes a sum of it.
    let (done, outcome) = sync_channel(1);
    let more = compressed.read(&mut [0]).and_then(|more| match more {
        0 => Ok(()),
        _ => Err(invalid("there is more behind the last frame of its index")),
    });
    if let Err(error) = more
        && done.send(Err(error)).is_ok()
    {
        let _ = ordered.send(outcome);
    }
}

fn read_frame(
    compressed: &mut impl Read,
    frame: Frame,
    behind: &mut Frame,
    buffers: &Buffers,
) -> io::Result<(Vec<u8>, usize)> {
    let follows = frame.plain_offset == behind.plain_offset
        && frame.stored_offset == behind.stored_offset
        && frame.plain_length <= MAX_FRAME
        && frame.stored_length <= MAX_FRAME;
    if !follows {
        return Err(invalid("its index does not tell frames that follow each other"));
    }
    behind.plain_offset += frame.plain_length;
    behind.stored_offset += frame.stored_length;
    let mut bytes = buffers.take(usize::try_from(frame.stored_length).unwrap_or(0));
    compressed.take(frame.stored_length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != frame.stored_length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((bytes, usize::try_from(frame.plain_length).unwrap_or(0)))
}

fn decompress_all(codec: Codec, queue: &Mutex<Receiver<Job>>, stored: &Buffers, buffers: &Buffers) {
    let mut zstd = None;
    loop {
        // Nothing can go wrong while it is held, so poison means nothing.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { compressed, length, done }) = next else { return };
        let mut plain = buffers.take(length);
        let outcome = decompress(codec, &mut zstd, &compressed, length, &mut plain);
        stored.put(compressed);
        // Nobody waits for it if the work was given up.
        let _ = done.send(outcome.map(|()| buffers.piece(plain)));
    }
}

fn decompress(
    codec: Codec,
    zstd: &mut Option<zstd::bulk::Decompressor<'static>>,
    compressed: &[u8],
    length: usize,
    plain: &mut Vec<u8>,
) -> io::Result<()> {
    match (codec, zstd) {
        (Codec::Zstd, Some(zstd)) => {
            zstd.decompress_to_buffer(compressed, plain)?;
        }
        (Codec::Zstd, none) => {
            let zstd = none.insert(zstd::bulk::Decompressor::new()?);
            zstd.decompress_to_buffer(compressed, plain)?;
        }
        (Codec::Lz4, _) if lz4::decompress_frame(compressed, length, plain)? => {}
        _ => {
            // One more than there should be tells whether there is.
            let limit = length as u64 + 1;
            super::reader(compressed, codec)?.take(limit).read_to_end(plain)?;
        }
    }
    if plain.len() == length {
        Ok(())
    } else {
        Err(invalid("a frame is not as long as its index says"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::{CompressedWriter, Method};
    use super::*;

    const WORKERS: NonZeroUsize = NonZeroUsize::new(3).unwrap();

    fn compressed(codec: Codec, plain: &[u8]) -> (Vec<u8>, Vec<Frame>) {
        let method = Method::new(codec, 1).with_frame_size(1000);
        let mut writer = CompressedWriter::new(Vec::new(), method).unwrap();
        writer.write_all(plain).unwrap();
        writer.finish().unwrap()
    }

    fn read(codec: Codec, stored: &[u8], frames: &[Frame]) -> io::Result<Vec<u8>> {
        let frames = frames.iter().map(|frame| Ok(*frame));
        read_frames(stored, codec, frames, WORKERS, |pieces| {
            let pieces: io::Result<Vec<Piece>> = pieces.collect();
            Ok(pieces?.iter().flat_map(|piece| piece.to_vec()).collect())
        })
    }

    fn plain() -> Vec<u8> {
        (0..30_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
    }

    #[test]
    fn frames_come_out_in_order() {
        for codec in [Codec::Zstd, Codec::Lz4] {
            let (stored, frames) = compressed(codec, &plain());
            assert!(frames.len() > 100);
            assert!(read(codec, &stored, &frames).unwrap() == plain(), "{codec:?}");
        }
    }

    #[test]
    fn what_does_not_fit_its_index_is_an_error() {
        for codec in [Codec::Zstd, Codec::Lz4] {
            let (stored, frames) = compressed(codec, &plain());
            let kind = |stored: &[u8], frames: &[Frame]| read(codec, stored, frames).is_err();
            assert!(kind(&stored[..stored.len() - 1], &frames));
            assert!(kind(&stored, &frames[..frames.len() - 1]));
            assert!(kind(&stored, &frames[1..]));
            let mut other = frames.clone();
            other[7].plain_length -= 1;
            assert!(kind(&stored, &other));
            other[7].plain_length = u64::MAX;
            assert!(kind(&stored, &other));
            for at in (0..stored.len()).step_by(stored.len() / 20) {
                let mut flipped = stored.clone();
                flipped[at] ^= 4;
                assert!(
                    read(codec, &flipped, &frames).map_or(true, |read| read == plain()),
                    "{codec:?} {at}"
                );
            }
        }
    }

    #[test]
    fn nothing_hangs_when_the_work_is_given_up() {
        let (stored, frames) = compressed(Codec::Zstd, &plain());
        let frames = frames.iter().map(|frame| Ok(*frame));
        let first =
            read_frames(&stored[..], Codec::Zstd, frames, WORKERS, |mut pieces| pieces.next());
        assert_eq!(first.unwrap().unwrap()[..], plain()[..1000]);
    }
}
