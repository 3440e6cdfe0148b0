//! Which cluster a server runs, and what its slots are called.

use std::fmt;
use std::str::FromStr;

/// The identifier that `initdb` gave a cluster and all its physical copies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemId(u64);

impl SystemId {
    /// The cluster with this identifier.
    pub const fn from_u64(id: u64) -> Self {
        Self(id)
    }

    /// The identifier as a number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a system identifier: a decimal number of 64 bits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a system identifier, a number of 64 bits")]
pub struct SystemIdParseError {
    text: String,
}

impl FromStr for SystemId {
    type Err = SystemIdParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits
            .then(|| text.parse().ok().map(Self))
            .flatten()
            .ok_or_else(|| SystemIdParseError { text: text.chars().take(40).collect() })
    }
}

// Text, because JSON readers that know only floating-point numbers would round it.
#[cfg(feature = "serde")]
crate::serde_text::serde_as_text!(SystemId);

/// The name of a replication slot: 1 to 63 characters of `a-z`, `0-9` and `_`.
///
/// Follows `ReplicationSlotValidateName` in `src/backend/replication/slot.c`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName(String);

/// The text cannot name a replication slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot name a replication slot: 1 to 63 characters of a-z, 0-9 and _")]
pub struct SlotNameError {
    text: String,
}

impl SlotName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SlotName {
    type Err = SlotNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = (1..=63).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(SlotNameError { text: text.chars().take(80).collect() })
        }
    }
}

#[cfg(feature = "serde")]
crate::serde_text::serde_as_text!(SlotName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_names_are_what_the_server_accepts() {
        for good in ["a", "walrecv", "slot_1", &"x".repeat(63)] {
            assert_eq!(good.parse::<SlotName>().unwrap().as_str(), good);
        }
        for bad in ["", "Walrecv", "a-b", "a\"b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<SlotName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn system_identifiers_are_plain_numbers() {
        assert_eq!("7357089276153".parse(), Ok(SystemId::from_u64(7_357_089_276_153)));
        for bad in ["", "+1", "-1", "1 ", "18446744073709551616"] {
            assert!(bad.parse::<SystemId>().is_err(), "{bad:?}");
        }
    }
}
