//! Reading on another thread than the one that works with what is read.

use std::io::{self, Read};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use super::pieces::{Buffers, Piece, Pieces};

/// How much is handed over at a time.
const PIECE: usize = 256 << 10;

/// How many pieces may wait.
const PIECES: usize = 16;

/// Reads `source` to its end on a thread of its own, which decompresses and decrypts if reading
/// does, while `work` takes what is there already. Nothing is read any more when that returns.
pub fn read_ahead<T>(source: impl Read + Send, work: impl FnOnce(Pieces<'_>) -> T) -> T {
    let (pieces, arriving) = sync_channel(PIECES);
    thread::scope(|scope| {
        scope.spawn(move || pump(source, &pieces));
        work(Pieces::new(arriving.into_iter()))
    })
}

fn pump(mut source: impl Read, pieces: &SyncSender<io::Result<Piece>>) {
    let buffers = Buffers::default();
    loop {
        let mut piece = buffers.take(PIECE);
        let read = source.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let last = !matches!(read, Ok(length) if length > 0);
        let send = match read {
            Ok(0) => return,
            Ok(_) => pieces.send(Ok(buffers.piece(piece))),
            Err(error) => pieces.send(Err(error)),
        };
        // Nobody listens after an error on the other side.
        if last || send.is_err() {
            return;
        }
    }
}
