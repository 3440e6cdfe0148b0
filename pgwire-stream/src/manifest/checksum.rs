//! The checksums of files in a manifest.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

/// How the checksum of a file in a manifest is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChecksumAlgorithm {
    /// CRC-32C: finds accidents, not malice.
    Crc32c,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl ChecksumAlgorithm {
    /// The name in a manifest and in `MANIFEST_CHECKSUMS`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32c => "CRC32C",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }

    /// The length of a digest in bytes.
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Begins the checksum of a file.
    pub fn hasher(self) -> FileHasher {
        FileHasher(match self {
            Self::Crc32c => State::Crc32c(0),
            Self::Sha224 => State::Sha224(Sha224::new()),
            Self::Sha256 => State::Sha256(Sha256::new()),
            Self::Sha384 => State::Sha384(Sha384::new()),
            Self::Sha512 => State::Sha512(Sha512::new()),
        })
    }
}

impl fmt::Display for ChecksumAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no checksum algorithm of manifests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a checksum algorithm: CRC32C, SHA224, SHA256, SHA384 or SHA512")]
pub struct UnknownChecksumAlgorithm {
    name: String,
}

impl FromStr for ChecksumAlgorithm {
    type Err = UnknownChecksumAlgorithm;

    /// As the server does: the case of the letters does not matter.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Crc32c, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512]
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownChecksumAlgorithm { name: name.chars().take(40).collect() })
    }
}

/// The checksum of a file under way.
#[derive(Clone, Debug)]
pub struct FileHasher(State);

#[derive(Clone, Debug)]
enum State {
    Crc32c(u32),
    Sha224(Sha224),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl FileHasher {
    /// Takes the next bytes of the file in.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Crc32c(crc) => *crc = crc32c::crc32c_append(*crc, bytes),
            State::Sha224(hash) => hash.update(bytes),
            State::Sha256(hash) => hash.update(bytes),
            State::Sha384(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest, as a manifest has it.
    pub fn finish(self) -> Vec<u8> {
        match self.0 {
            // The server writes the integer as it lies in its memory. Every platform that
            // PostgreSQL is commonly run on is little-endian, and nothing in the protocol tells.
            State::Crc32c(crc) => crc.to_le_bytes().to_vec(),
            State::Sha224(hash) => hash.finalize().to_vec(),
            State::Sha256(hash) => hash.finalize().to_vec(),
            State::Sha384(hash) => hash.finalize().to_vec(),
            State::Sha512(hash) => hash.finalize().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(algorithm: ChecksumAlgorithm, pieces: &[&[u8]]) -> Vec<u8> {
        let mut hasher = algorithm.hasher();
        for piece in pieces {
            hasher.update(piece);
        }
        hasher.finish()
    }

    #[test]
    fn crc32c_is_the_integer_in_little_endian() {
        // The check value of CRC-32C is 0xE3069283.
        let whole = digest(ChecksumAlgorithm::Crc32c, &[b"123456789"]);
        assert_eq!(whole, [0x83, 0x92, 0x06, 0xE3]);
        assert_eq!(digest(ChecksumAlgorithm::Crc32c, &[b"1234", b"", b"56789"]), whole);
        assert_eq!(digest(ChecksumAlgorithm::Crc32c, &[]), [0; 4]);
    }

    #[test]
    fn sha_digests_start_as_published() {
        // FIPS 180-4 examples for "abc".
        for (algorithm, start) in [
            (ChecksumAlgorithm::Sha224, [0x23, 0x09, 0x7D, 0x22]),
            (ChecksumAlgorithm::Sha256, [0xBA, 0x78, 0x16, 0xBF]),
            (ChecksumAlgorithm::Sha384, [0xCB, 0x00, 0x75, 0x3F]),
            (ChecksumAlgorithm::Sha512, [0xDD, 0xAF, 0x35, 0xA1]),
        ] {
            let digest = digest(algorithm, &[b"a", b"bc"]);
            assert_eq!(digest[..4], start, "{algorithm}");
            assert_eq!(digest.len(), algorithm.digest_len());
        }
    }

    #[test]
    fn names_are_read_in_any_case() {
        assert_eq!("sha256".parse(), Ok(ChecksumAlgorithm::Sha256));
        assert_eq!("CRC32C".parse(), Ok(ChecksumAlgorithm::Crc32c));
        assert!("NONE".parse::<ChecksumAlgorithm>().is_err());
    }
}
