//! Reading on another thread than the one that works with what is read.

use std::io::{self, Read};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

/// How much is handed over at a time.
const PIECE: usize = 256 << 10;

/// How many pieces may wait.
const PIECES: usize = 16;

/// What was read, in order; an error is the last.
pub struct Pieces<'a>(Box<dyn Iterator<Item = io::Result<Vec<u8>>> + 'a>);

impl<'a> Pieces<'a> {
    /// The pieces that these are.
    pub(super) fn new(pieces: impl Iterator<Item = io::Result<Vec<u8>>> + 'a) -> Self {
        Self(Box::new(pieces))
    }
}

impl Iterator for Pieces<'_> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// Reads `source` to its end on a thread of its own, which decompresses and decrypts if reading
/// does, while `work` takes what is there already. Nothing is read any more when that returns.
pub fn read_ahead<T>(source: impl Read + Send, work: impl FnOnce(Pieces<'_>) -> T) -> T {
    let (pieces, arriving) = sync_channel(PIECES);
    thread::scope(|scope| {
        scope.spawn(move || pump(source, &pieces));
        work(Pieces::new(arriving.into_iter()))
    })
}

fn pump(mut source: impl Read, pieces: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = source.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let last = !matches!(read, Ok(length) if length > 0);
        let send = match read {
            Ok(0) => return,
            Ok(_) => pieces.send(Ok(piece)),
            Err(error) => pieces.send(Err(error)),
        };
        // Nobody listens after an error on the other side.
        if last || send.is_err() {
            return;
        }
    }
}
