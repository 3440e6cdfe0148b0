//! SHA-256 of what is stored, computed while it is written.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// A SHA-256 checksum; printed and stored as 64 hexadecimal digits, as `sha256sum` prints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256Sum([u8; 32]);

/// The text is not a SHA-256 checksum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a SHA-256 checksum of 64 hexadecimal digits")]
pub struct Sha256SumError {
    text: String,
}

impl Sha256Sum {
    /// The checksum of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Size and checksum of everything that is left to read.
    ///
    /// # Errors
    /// If reading fails.
    pub fn of_reader(mut reader: impl Read) -> io::Result<Stored> {
        let mut hashing = HashingWriter::new(io::sink());
        io::copy(&mut reader, &mut hashing)?;
        Ok(hashing.finish().1)
    }
}

impl fmt::Display for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256Sum {
    type Err = Sha256SumError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || Sha256SumError { text: text.chars().take(80).collect() };
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(error());
        }
        let mut sum = [0; 32];
        for (index, byte) in sum.iter_mut().enumerate() {
            let digits = text.get(index * 2..index * 2 + 2).ok_or_else(error)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| error())?;
        }
        Ok(Self(sum))
    }
}

impl Serialize for Sha256Sum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256Sum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What went through a [`HashingWriter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// How many bytes.
    pub size: u64,
    /// Their checksum.
    pub sha256: Sha256Sum,
}

/// Passes bytes on to `W`, counting and hashing those that it took.
#[derive(Debug)]
pub struct HashingWriter<W> {
    sink: W,
    hash: Sha256,
    size: u64,
}

impl<W> HashingWriter<W> {
    /// Writes into `sink` from now on.
    pub fn new(sink: W) -> Self {
        Self { sink, hash: Sha256::new(), size: 0 }
    }

    /// How many bytes the sink took so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What went into the sink so far.
    pub fn so_far(&self) -> Stored {
        Stored { size: self.size, sha256: Sha256Sum(self.hash.clone().finalize().into()) }
    }

    /// The sink, and what went into it.
    pub fn finish(self) -> (W, Stored) {
        let sha256 = Sha256Sum(self.hash.finalize().into());
        (self.sink, Stored { size: self.size, sha256 })
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.sink.write(bytes)?;
        self.hash.update(bytes.get(..taken).unwrap_or(bytes));
        self.size += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_hashes_what_was_taken() {
        let mut writer = HashingWriter::new(Vec::new());
        writer.write_all(b"ab").unwrap();
        writer.write_all(b"c").unwrap();
        let (sink, stored) = writer.finish();
        assert_eq!(sink, b"abc");
        assert_eq!(stored.size, 3);
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(stored.sha256.to_string(), text);
        assert_eq!(text.parse(), Ok(stored.sha256));
        assert_eq!(Sha256Sum::of_reader(&b"abc"[..]).unwrap(), stored);
    }

    #[test]
    fn refuses_what_is_no_checksum() {
        for bad in ["", "ba78", &"g".repeat(64), &"+1".repeat(32), &"é".repeat(32)] {
            assert!(bad.parse::<Sha256Sum>().is_err(), "{bad:?}");
        }
    }
}
