//! The key to a server process, with which another connection can cancel what it executes.
//!
//! Follows "Canceling Requests in Progress" in PostgreSQL's documentation.

use std::fmt;
use std::ops::RangeInclusive;

use bytes::Bytes;

#[cfg(feature = "server")]
use super::{ProtocolVersion, server::random};
#[cfg(feature = "server")]
use crate::Error;

/// How long a cancel key's secret may be: 4 bytes in protocol 3.0; up to 256 in 3.2, where servers
/// send 32.
pub const CANCEL_SECRET: RangeInclusive<usize> = 4..=256;

/// What a CancelRequest has to name. The secret is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    process: i32,
    secret: Bytes,
}

impl CancelKey {
    /// The key of this process; `None` unless the secret has 4 to 256 bytes.
    pub fn new(process: i32, secret: impl Into<Bytes>) -> Option<Self> {
        let secret = secret.into();
        CANCEL_SECRET.contains(&secret.len()).then_some(Self { process, secret })
    }

    /// A key that nobody can guess, as long as the protocol allows servers of today to make it: 4
    /// bytes, and 32 from 3.2 on.
    ///
    /// # Errors
    /// If the operating system has no randomness.
    #[cfg(feature = "server")]
    pub fn random(protocol: ProtocolVersion) -> Result<Self, Error> {
        let length = if protocol < ProtocolVersion::V3_2 { 4 } else { 32 };
        // Not negative, as process numbers are not.
        let process = i32::from_be_bytes(random()?) & i32::MAX;
        let secret = Bytes::copy_from_slice(&random::<32>()?).slice(..length);
        Ok(Self { process, secret })
    }

    /// The server process, which `pg_stat_activity` names by this number. Poolers make numbers up;
    /// negative ones are legal.
    pub fn process(&self) -> i32 {
        self.process
    }

    /// What proves that the request comes from the session's client.
    pub fn secret(&self) -> &Bytes {
        &self.secret
    }
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelKey").field("process", &self.process).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_a_length_and_are_not_printed() {
        for (length, good) in [(0, false), (3, false), (4, true), (32, true), (256, true)] {
            assert_eq!(CancelKey::new(1, vec![7; length]).is_some(), good, "{length}");
        }
        assert_eq!(CancelKey::new(1, vec![7; 257]), None);
        let key = CancelKey::new(-1, b"secret".as_slice()).unwrap();
        assert_eq!(format!("{key:?}"), "CancelKey { process: -1, .. }");
    }
}
