//! Positions in the write-ahead log.

use std::fmt;
use std::str::FromStr;

use crate::{Feature, ServerVersion};

/// A log sequence number: the address of a byte in the write-ahead log.
///
/// Positions that the protocol reports as written or flushed name the first byte that is *not*
/// included ("last byte + 1"). Printed as PostgreSQL up to 18 prints it; the zero-padded form of
/// 19 is read as well.
///
/// ```
/// use pgwire_stream::Lsn;
///
/// let lsn: Lsn = "0/16B3748".parse()?;
/// assert_eq!(lsn, "0/016B3748".parse()?);
/// assert_eq!(lsn.to_string(), "0/16B3748");
/// assert_eq!(lsn.as_u64(), 0x16B_3748);
/// # Ok::<(), pgwire_stream::LsnParseError>(())
/// ```
///
/// Follows `pg_lsn` in PostgreSQL's documentation.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// The invalid position, "unknown" in status updates.
    pub const ZERO: Self = Self(0);

    /// The position of the byte with this 64-bit address.
    pub const fn from_u64(address: u64) -> Self {
        Self(address)
    }

    /// The 64-bit address.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The position `bytes` further on, or `None` past the end of the address space.
    pub fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }

    /// The position `bytes` further on, or the last one there is.
    #[must_use]
    pub fn saturating_add(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// How many bytes lie between `earlier` and this position; 0 if `earlier` is not earlier.
    pub fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The text that a server of this version writes into its files: from 19 on, the second half
    /// has eight digits.
    pub fn as_written_by(self, version: ServerVersion) -> String {
        if version.supports(Feature::PaddedLsn) {
            format!("{:X}/{:08X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
        } else {
            self.to_string()
        }
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an LSN (`hex/hex`, at most eight digits on either side).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an LSN such as 0/16B3748")]
pub struct LsnParseError {
    text: String,
}

impl FromStr for Lsn {
    type Err = LsnParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |digits: &str| {
            let plain = !digits.is_empty()
                && digits.len() <= 8
                && digits.bytes().all(|b| b.is_ascii_hexdigit());
            if plain { u32::from_str_radix(digits, 16).ok() } else { None }
        };
        text.split_once('/')
            .and_then(|(high, low)| {
                Some(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
            })
            .ok_or_else(|| LsnParseError { text: text.chars().take(40).collect() })
    }
}

#[cfg(feature = "serde")]
crate::serde_text::serde_as_text!(Lsn);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rejects_what_is_not_an_lsn() {
        for text in ["", "/", "0/", "/0", "0", "0/+1", "0/ 1", "1/2/3", "123456789/0", "0/G"] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(address: u64) {
            let lsn = Lsn::from_u64(address);
            prop_assert_eq!(lsn.to_string().parse::<Lsn>(), Ok(lsn));
            let padded = lsn.as_written_by(ServerVersion::from_num(190_000));
            prop_assert_eq!(padded.split_once('/').unwrap().1.len(), 8);
            prop_assert_eq!(padded.parse::<Lsn>(), Ok(lsn));
            prop_assert_eq!(lsn.as_written_by(ServerVersion::from_num(180_004)), lsn.to_string());
        }

        #[test]
        fn distance_undoes_addition(address in 0..u64::MAX / 2, bytes in 0..u64::MAX / 2) {
            let lsn = Lsn::from_u64(address);
            let later = lsn.checked_add(bytes).unwrap();
            prop_assert_eq!(later.bytes_since(lsn), bytes);
            prop_assert_eq!(lsn.bytes_since(later), 0);
        }
    }
}
