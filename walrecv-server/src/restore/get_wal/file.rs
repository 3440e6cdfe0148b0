//! A file of WAL on its way, verified as it is read.

use std::io::{self, Read};

use crate::storage::Crc32c;

/// A file of WAL that can be delivered. Reading it to its end verifies it: an error of kind
/// [`io::ErrorKind::InvalidData`] means that what is stored is damaged.
pub struct WalFile {
    length: u64,
    padded_from: Option<u64>,
    settled: bool,
    reader: Box<dyn Read + Send>,
}

impl WalFile {
    /// Bytes that are all the file has.
    pub(super) fn new(length: u64, reader: impl Read + Send + 'static) -> Self {
        Self { length, padded_from: None, settled: false, reader: Box::new(reader) }
    }

    /// The first `held` bytes of a segment, filled up with zeros.
    pub(super) fn padded(length: u64, held: u64, reader: impl Read + Send + 'static) -> Self {
        let zeros = io::repeat(0).take(length.saturating_sub(held));
        Self { padded_from: Some(held), ..Self::new(length, reader.chain(zeros)) }
    }

    /// A whole segment of the archive, and its checksum if the index knows it.
    pub(super) fn archived(
        length: u64,
        expected: Option<Crc32c>,
        reader: impl Read + Send + 'static,
    ) -> Self {
        let file = match expected {
            Some(expected) => {
                Self::new(length, Verified { source: reader, found: Crc32c::default(), expected })
            }
            None => Self::new(length, reader),
        };
        Self { settled: true, ..file }
    }

    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// From where on it is nothing but padding; `None` if all of it is WAL.
    pub fn padded_from(&self) -> Option<u64> {
        self.padded_from
    }

    /// Whether it is a whole segment of the archive, which stays what it is. One that is being
    /// received grows, and one that is not archived yet may be put right.
    pub fn is_settled(&self) -> bool {
        self.settled
    }
}

impl Read for WalFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// Compares what is read with what was received, when the end is reached.
struct Verified<R> {
    source: R,
    found: Crc32c,
    expected: Crc32c,
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        if length == 0 && !buffer.is_empty() && self.found != self.expected {
            let message = "its checksum is not the one it was archived with";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.found = self.found.with(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}
