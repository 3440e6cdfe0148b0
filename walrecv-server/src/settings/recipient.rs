//! A public key that stored bytes are encrypted to.

use std::fmt;
use std::str::FromStr;

/// What age calls a secret key; nobody else's business, least of all a message's.
const SECRET: &str = "age-secret-key-";

/// A public key of age (`age1…`): only the holder of its secret key, which age calls an identity,
/// reads what is encrypted to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient(age::x25519::Recipient);

/// The text is not a public key of age. Never repeats the text, which may be a secret one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// It is the other half of the pair.
    #[error("is a secret key of age, which this must never know")]
    Secret,
    /// It is a key that only other programs know.
    #[error("is not a key of the kind that `age-keygen` makes, and no other kind is supported")]
    OtherKind,
    /// It is misspelt, or something else.
    #[error("is not a public key of age, or is misspelt")]
    Malformed,
}

impl RecipientError {
    /// What to do about it.
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Secret => {
                "take the secret key off this machine, and make a new pair if others may have read \
                 it; `age-keygen -y FILE` prints the public key"
            }
            Self::OtherKind | Self::Malformed => {
                "`age-keygen -o FILE`, on another machine, makes a pair and prints the public key, \
                 age1…"
            }
        }
    }
}

impl Recipient {
    /// The key, for the library that encrypts.
    pub fn key(&self) -> &age::x25519::Recipient {
        &self.0
    }
}

impl From<age::x25519::Recipient> for Recipient {
    fn from(key: age::x25519::Recipient) -> Self {
        Self(key)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        // Those of SSH, of hardware, and those that are made for quantum computers.
        let others = ["ssh-", "age1pq1", "age1tag1", "age1tagpq1", "age1yubikey1"];
        match text.parse() {
            Ok(key) => Ok(Self(key)),
            Err(_) if lower.contains(SECRET) => Err(RecipientError::Secret),
            Err(_) if others.iter().any(|other| lower.starts_with(other)) => {
                Err(RecipientError::OtherKind)
            }
            Err(_) => Err(RecipientError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_keys_come_back_as_they_were() {
        let text = age::x25519::Identity::generate().to_public().to_string();
        assert_eq!(format!(" {text}\n").parse::<Recipient>().unwrap().to_string(), text);
    }

    #[test]
    fn anything_else_is_told_apart_and_not_repeated() {
        use age::secrecy::ExposeSecret;

        let pair = age::x25519::Identity::generate();
        let secret = pair.to_string();
        let secret = secret.expose_secret();
        let mut misspelt = pair.to_public().to_string();
        misspelt.replace_range(10..11, if misspelt.as_bytes()[10] == b'q' { "p" } else { "q" });
        for (text, expected) in [
            (secret, RecipientError::Secret),
            (&secret.to_lowercase(), RecipientError::Secret),
            (&misspelt, RecipientError::Malformed),
            ("ssh-ed25519 AAAA", RecipientError::OtherKind),
            ("age1tag1qqqq", RecipientError::OtherKind),
            ("", RecipientError::Malformed),
        ] {
            let error = text.parse::<Recipient>().unwrap_err();
            assert_eq!(error, expected);
            assert!(
                text.is_empty() || !format!("{error} {error:?} {}", error.hint()).contains(text)
            );
        }
    }
}
