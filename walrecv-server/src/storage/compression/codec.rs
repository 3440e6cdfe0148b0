//! The codecs, and how a file's name tells which one it was written with.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::settings::Compression;

/// How a stored file is compressed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Not at all.
    None,
    /// Zstandard: the default.
    #[default]
    Zstd,
    /// The LZ4 frame format.
    Lz4,
    /// Gzip.
    Gzip,
}

impl Codec {
    /// Every codec; the order in which a file is looked for.
    pub const ALL: [Self; 4] = [Self::Zstd, Self::None, Self::Lz4, Self::Gzip];

    /// What the name of a file compressed so ends with.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Zstd => ".zst",
            Self::Lz4 => ".lz4",
            Self::Gzip => ".gz",
        }
    }

    /// The name that settings and records use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Gzip => "gzip",
        }
    }

    /// The codec whose suffix a file name has, and the name without it.
    pub fn split_suffix(file_name: &str) -> (&str, Self) {
        [Self::Zstd, Self::Lz4, Self::Gzip]
            .into_iter()
            .find_map(|codec| Some((file_name.strip_suffix(codec.suffix())?, codec)))
            .unwrap_or((file_name, Self::None))
    }
}

impl From<Compression> for Codec {
    fn from(wanted: Compression) -> Self {
        match wanted {
            Compression::None => Self::None,
            Compression::Zstd => Self::Zstd,
            Compression::Lz4 => Self::Lz4,
            Compression::Gzip => Self::Gzip,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
