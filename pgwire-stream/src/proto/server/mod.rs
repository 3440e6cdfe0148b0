//! The server's end of the conversation: its state machine, and what it knows about logins.

mod login;
mod scram;
mod session;
mod startup;
mod verifier;

use hmac::digest::CtOutput;
use sha2::{Digest as _, Sha256};

pub use login::Authentication;
pub use session::{ServerEvent, ServerSession};
pub use startup::{Replication, Startup};
pub use verifier::ScramVerifier;

use crate::{Error, ServerError};

/// Whether two secrets are the same, in a time that does not tell where they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    let hashed = |secret| CtOutput::<Sha256>::new(Sha256::digest(secret));
    hashed(one) == hashed(other)
}

/// A client is refused for this reason; it is told, and the session is over.
fn fatal(code: &str, message: impl Into<String>) -> Error {
    ServerError::new("FATAL", code, message).into()
}

/// Bytes that nobody can guess.
///
/// # Errors
/// If the operating system has none.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(bytes)
}
