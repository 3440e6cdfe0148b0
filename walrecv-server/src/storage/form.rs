//! In what form the bytes of a stored file are, and how its name tells.

use std::fmt;

use super::Codec;

/// What the name of an encrypted file ends with.
const ENCRYPTED: &str = ".age";

/// How the bytes of a file are stored: compressed first, then encrypted. The suffixes of its name
/// say so in that order, so that a person takes them off from the right: `age -d`, `zstd -d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Form {
    /// How they are compressed.
    pub codec: Codec,
    /// Whether they are encrypted.
    pub encrypted: bool,
}

impl Form {
    /// Every form; the order in which a file is looked for: those first that are found first.
    pub const ALL: [Self; 8] = [
        Self::plain(Codec::Zstd),
        Self::plain(Codec::Zstd).encrypted(),
        Self::plain(Codec::None),
        Self::plain(Codec::None).encrypted(),
        Self::plain(Codec::Lz4),
        Self::plain(Codec::Lz4).encrypted(),
        Self::plain(Codec::Gzip),
        Self::plain(Codec::Gzip).encrypted(),
    ];

    /// Compressed so, and not encrypted.
    pub const fn plain(codec: Codec) -> Self {
        Self { codec, encrypted: false }
    }

    /// Compressed in the same way, and encrypted.
    #[must_use]
    pub const fn encrypted(self) -> Self {
        Self { encrypted: true, ..self }
    }

    /// The form whose suffixes a file name has, and the name without them.
    pub fn split_suffix(file_name: &str) -> (&str, Self) {
        let (rest, encrypted) = match file_name.strip_suffix(ENCRYPTED) {
            Some(rest) => (rest, true),
            None => (file_name, false),
        };
        let (rest, codec) = Codec::split_suffix(rest);
        (rest, Self { codec, encrypted })
    }
}

impl From<Codec> for Form {
    fn from(codec: Codec) -> Self {
        Self::plain(codec)
    }
}

/// What the name of such a file ends with.
impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.codec.suffix())?;
        f.write_str(if self.encrypted { ENCRYPTED } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_come_back_as_they_were() {
        for form in Form::ALL {
            assert_eq!(Form::split_suffix(&format!("x{form}")), ("x", form));
        }
        assert_eq!(Form::plain(Codec::Zstd).encrypted().to_string(), ".zst.age");
        assert_eq!(Form::split_suffix("x.age.zst"), ("x.age", Form::plain(Codec::Zstd)));
    }
}
