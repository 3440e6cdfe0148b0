//! What is read, piece by piece, into memory that is used again: new memory costs a visit to the
//! kernel for each page, which for a large archive is a quarter of the work.

use std::io;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// What was read, in order; an error is the last.
pub struct Pieces<'a>(Box<dyn Iterator<Item = io::Result<Piece>> + 'a>);

impl<'a> Pieces<'a> {
    /// The pieces that these are.
    pub(super) fn new(pieces: impl Iterator<Item = io::Result<Piece>> + 'a) -> Self {
        Self(Box::new(pieces))
    }
}

impl Iterator for Pieces<'_> {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// Some bytes, whose memory takes others when this is dropped.
pub struct Piece {
    bytes: Vec<u8>,
    home: Buffers,
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.home.put(std::mem::take(&mut self.bytes));
    }
}

/// Memory that nobody needs just now. As many buffers as were ever in use at a time: whoever takes
/// them bounds that.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// An empty buffer with room for so much, and hardly more.
    pub(super) fn take(&self, length: usize) -> Vec<u8> {
        // Nothing can go wrong while it is held, so poison means nothing.
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = spare.unwrap_or_default();
        buffer.reserve_exact(length);
        buffer
    }

    /// Takes a buffer back.
    pub(super) fn put(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }

    /// Bytes whose memory comes back here.
    pub(super) fn piece(&self, bytes: Vec<u8>) -> Piece {
        Piece { bytes, home: self.clone() }
    }
}
