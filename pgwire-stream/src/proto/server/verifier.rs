//! What a server stores instead of a password.
//!
//! Follows `src/backend/libpq/auth-scram.c` in PostgreSQL.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::Password;

/// The length of a SHA-256 hash.
pub(super) const KEY: usize = 32;

/// How often PostgreSQL hashes a password unless `scram_iterations` says otherwise.
const ITERATIONS: u32 = 4096;

/// A password in the form in which `pg_authid` keeps it for SCRAM-SHA-256. Not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: [u8; KEY],
    pub(super) server_key: [u8; KEY],
}

impl ScramVerifier {
    /// The verifier in `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`; `None` if the
    /// text is no such thing.
    pub fn parse(text: &str) -> Option<Self> {
        let (parameters, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let iterations = iterations.parse().ok().filter(|count| *count > 0)?;
        Some(Self {
            iterations,
            salt: STANDARD.decode(salt).ok()?,
            stored_key: STANDARD.decode(stored_key).ok()?.try_into().ok()?,
            server_key: STANDARD.decode(server_key).ok()?.try_into().ok()?,
        })
    }

    /// A verifier for this password, with a new salt. Takes some milliseconds of computation.
    pub fn from_password(password: &Password) -> Self {
        let text = postgres_protocol::password::scram_sha_256(password.as_bytes());
        // The library writes what the parser reads; a test sees to that.
        Self::parse(&text).unwrap_or_else(|| Self::mock(password.as_bytes(), ""))
    }

    /// A verifier that no password satisfies, for a user who does not exist: strangers see the same
    /// exchange as for one who does, with the same salt each time. `secret` is the server's own,
    /// like PostgreSQL's `mock_authentication_nonce`, and must stay the same as long as the set of
    /// users does.
    pub fn mock(secret: &[u8], user: &str) -> Self {
        let derived = |purpose: &[u8]| {
            let parts = [purpose, b"\0", user.as_bytes()].concat();
            hmac(&Sha256::digest(secret), &parts)
        };
        let mut salt = derived(b"salt").to_vec();
        // As long as real ones.
        salt.truncate(16);
        let (stored_key, server_key) = (derived(b"stored key"), derived(b"server key"));
        Self { iterations: ITERATIONS, salt, stored_key, server_key }
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramVerifier")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

/// HMAC-SHA-256.
pub(super) fn hmac(key: &[u8], data: &[u8]) -> [u8; KEY] {
    // Keys of any length are good, so there is no error.
    Hmac::<Sha256>::new_from_slice(key)
        .map(|hmac| hmac.chain_update(data).finalize().into_bytes().into())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `pencil`, as in RFC 7677.
    const STORED: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
        $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn stored_verifiers_are_read() {
        let verifier = ScramVerifier::parse(STORED).unwrap();
        assert_eq!((verifier.iterations, verifier.salt.len()), (4096, 16));
        for text in [
            "",
            "md5a3556571e93b0d20722ba62be61e8c2d",
            &STORED.replace("4096", "0"),
            &STORED.replace("4096", "many"),
            &STORED.replace("WG5d", ""),
            &STORED.replace("==", "!!"),
        ] {
            assert_eq!(ScramVerifier::parse(text), None, "{text}");
        }
        assert!(!format!("{verifier:?}").contains("WG5d"));
    }

    #[test]
    fn passwords_get_a_new_salt_each() {
        let made = || ScramVerifier::from_password(&Password::new("pencil"));
        assert_eq!(made().iterations, 4096);
        assert_ne!(made().salt, made().salt);
    }

    #[test]
    fn strangers_see_the_same_salt_each_time() {
        let salt = |user| ScramVerifier::mock(b"secret", user).salt;
        assert_eq!(salt("nobody"), salt("nobody"));
        assert_ne!(salt("nobody"), salt("somebody"));
        assert_eq!(salt("nobody").len(), 16);
    }
}
