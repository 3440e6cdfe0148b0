//! CRC-32C of bytes on their way: enough to tell whether they are what they were, where nobody
//! means to deceive.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A CRC-32C; printed and stored as eight hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Crc32c(u32);

/// The text is not a CRC-32C.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a CRC-32C of 8 hexadecimal digits")]
pub struct Crc32cError {
    text: String,
}

impl Crc32c {
    /// The checksum of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::default().with(bytes)
    }

    /// The checksum with these bytes added behind those it is of.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        Self(crc32c::crc32c_append(self.0, bytes))
    }
}

impl fmt::Display for Crc32c {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Crc32c {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Crc32c {
    type Err = Crc32cError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = if digits { u32::from_str_radix(text, 16).ok() } else { None };
        number.map(Self).ok_or_else(|| Crc32cError { text: text.chars().take(40).collect() })
    }
}

impl Serialize for Crc32c {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Crc32c {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What a file holds, decompressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plain {
    /// How many bytes.
    pub size: u64,
    /// Their checksum.
    pub crc32c: Crc32c,
}

impl Plain {
    /// What these bytes are.
    pub fn of(bytes: &[u8]) -> Self {
        let mut plain = Self::default();
        plain.add(bytes);
        plain
    }

    /// Everything that is left to read.
    ///
    /// # Errors
    /// If reading fails.
    pub fn of_reader(mut reader: impl Read) -> io::Result<Self> {
        let mut writer = Crc32cWriter::new(io::sink());
        io::copy(&mut reader, &mut writer)?;
        Ok(writer.finish().1)
    }

    /// Adds the bytes that follow.
    pub fn add(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.crc32c = self.crc32c.with(bytes);
    }
}

/// Passes bytes on to `W`, counting and checking those that it took.
#[derive(Debug)]
pub struct Crc32cWriter<W> {
    sink: W,
    plain: Plain,
}

impl<W> Crc32cWriter<W> {
    /// Writes into `sink` from now on.
    pub fn new(sink: W) -> Self {
        Self { sink, plain: Plain::default() }
    }

    /// What went into the sink so far.
    pub fn so_far(&self) -> Plain {
        self.plain
    }

    /// The sink, and what went into it.
    pub fn finish(self) -> (W, Plain) {
        (self.sink, self.plain)
    }
}

impl<W: Write> Write for Crc32cWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.sink.write(bytes)?;
        self.plain.add(bytes.get(..taken).unwrap_or(bytes));
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
    fn counts_and_checks_what_was_taken() {
        let mut writer = Crc32cWriter::new(Vec::new());
        writer.write_all(b"1234").unwrap();
        writer.write_all(b"56789").unwrap();
        let (sink, plain) = writer.finish();
        assert_eq!(sink, b"123456789");
        assert_eq!(plain, Plain::of(b"123456789"));
        // The check value of CRC-32C.
        assert_eq!((plain.size, plain.crc32c.to_string().as_str()), (9, "e3069283"));
        assert_eq!("e3069283".parse(), Ok(plain.crc32c));
        assert_eq!(Plain::of_reader(&b"123456789"[..]).unwrap(), plain);
    }

    #[test]
    fn refuses_what_is_no_checksum() {
        for bad in ["", "e306928", "e30692833", "+3069283", "é30692"] {
            assert!(bad.parse::<Crc32c>().is_err(), "{bad:?}");
        }
    }
}
