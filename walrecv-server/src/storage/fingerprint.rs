//! What a stored file is recognised by: SHA-256, except for archives of backups whose files have checksums of
//! their own. Those have CRC-32C, which costs next to nothing, unless nobody can look into them without a key.

use std::io::{self, Read, Write};

use super::{Crc32c, Crc32cWriter, Form, HashingWriter, Plain, Sha256Sum, Stored};

/// Size and checksum of a stored file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fingerprint {
    /// SHA-256.
    Sha256(Stored),
    /// CRC-32C.
    Crc32c(Plain),
}

impl Fingerprint {
    /// How many bytes it is of.
    pub fn size(&self) -> u64 {
        match self {
            Self::Sha256(stored) => stored.size,
            Self::Crc32c(plain) => plain.size,
        }
    }

    /// Its SHA-256, if that is what it is.
    pub fn sha256(&self) -> Option<Sha256Sum> {
        match self {
            Self::Sha256(stored) => Some(stored.sha256),
            Self::Crc32c(_) => None,
        }
    }

    /// Its CRC-32C, if that is what it is.
    pub fn crc32c(&self) -> Option<Crc32c> {
        match self {
            Self::Sha256(_) => None,
            Self::Crc32c(plain) => Some(plain.crc32c),
        }
    }

    /// The fingerprint, of this kind, of everything that is left to read.
    ///
    /// # Errors
    /// If reading fails.
    pub fn again(&self, mut reader: impl Read) -> io::Result<Self> {
        let mut writer = FingerprintWriter::like(self, io::sink());
        io::copy(&mut reader, &mut writer)?;
        Ok(writer.finish().1)
    }
}

impl From<Stored> for Fingerprint {
    fn from(stored: Stored) -> Self {
        Self::Sha256(stored)
    }
}

/// Passes bytes on to `W`, and takes the fingerprint of those that it took.
#[derive(Debug)]
pub enum FingerprintWriter<W> {
    /// SHA-256.
    Sha256(HashingWriter<W>),
    /// CRC-32C.
    Crc32c(Crc32cWriter<W>),
}

impl<W> FingerprintWriter<W> {
    /// Takes SHA-256 of what goes into `sink` from now on.
    pub fn sha256(sink: W) -> Self {
        Self::Sha256(HashingWriter::new(sink))
    }

    /// Writes an archive of a backup in this form into `sink` from now on. Whether the files in it have
    /// checksums of their own decides what its own is worth.
    pub fn of_archive(sink: W, form: Form, has_checksums: bool) -> Self {
        match has_checksums && !form.encrypted {
            true => Self::Crc32c(Crc32cWriter::new(sink)),
            false => Self::sha256(sink),
        }
    }

    /// Takes one to compare with another.
    pub fn like(other: &Fingerprint, sink: W) -> Self {
        match other {
            Fingerprint::Sha256(_) => Self::sha256(sink),
            Fingerprint::Crc32c(_) => Self::Crc32c(Crc32cWriter::new(sink)),
        }
    }

    /// What went into the sink so far.
    pub fn so_far(&self) -> Fingerprint {
        match self {
            Self::Sha256(writer) => Fingerprint::Sha256(writer.so_far()),
            Self::Crc32c(writer) => Fingerprint::Crc32c(writer.so_far()),
        }
    }

    /// How many bytes the sink took so far.
    pub fn size(&self) -> u64 {
        match self {
            Self::Sha256(writer) => writer.size(),
            Self::Crc32c(writer) => writer.so_far().size,
        }
    }

    /// The sink, and what went into it.
    pub fn finish(self) -> (W, Fingerprint) {
        match self {
            Self::Sha256(writer) => {
                let (sink, stored) = writer.finish();
                (sink, Fingerprint::Sha256(stored))
            }
            Self::Crc32c(writer) => {
                let (sink, plain) = writer.finish();
                (sink, Fingerprint::Crc32c(plain))
            }
        }
    }
}

impl<W: Write> Write for FingerprintWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Sha256(writer) => writer.write(bytes),
            Self::Crc32c(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Sha256(writer) => writer.flush(),
            Self::Crc32c(writer) => writer.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Codec;

    #[test]
    fn only_what_can_be_looked_into_has_the_cheap_one() {
        let sealed = Form { codec: Codec::None, encrypted: true };
        for (form, has_checksums, cheap) in [
            (Form::from(Codec::None), true, true),
            (Form::from(Codec::None), false, false),
            (Codec::Zstd.into(), true, true),
            (Codec::Zstd.into(), false, false),
            (sealed, true, false),
        ] {
            let mut writer = FingerprintWriter::of_archive(Vec::new(), form, has_checksums);
            writer.write_all(b"1234").unwrap();
            writer.write_all(b"56789").unwrap();
            let (sink, taken) = writer.finish();
            assert_eq!((sink.as_slice(), taken.size()), (&b"123456789"[..], 9));
            assert_eq!(taken.crc32c(), cheap.then(|| Crc32c::of(b"123456789")), "{form:?}");
            assert_eq!(taken.sha256(), (!cheap).then(|| Sha256Sum::of(b"123456789")), "{form:?}");
            assert_eq!(taken.again(&b"123456789"[..]).unwrap(), taken);
            assert_ne!(taken.again(&b"123456788"[..]).unwrap(), taken);
        }
    }
}
