//! What went wrong, in words, with what caused it.

use std::error::Error;
use std::fmt;

/// The result of everything in the harness and in `xtask`.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// What was being done when it failed, and why it failed. `Display` is the whole story.
#[derive(Debug)]
pub struct Failure {
    doing: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure that is its own reason.
    pub fn new(what: impl Into<String>) -> Self {
        Self { doing: what.into(), source: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

// No `source()`: `Display` has said it already, and a chain printer would say it twice.
impl Error for Failure {}

/// Adds what was being done to an error, or a reason to a missing value.
pub trait Context<T> {
    /// `doing` reads like "cannot read /etc/passwd".
    fn context(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Context<T> for Result<T, E> {
    fn context(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Failure { doing: doing(), source: Some(source.into()) })
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.ok_or_else(|| Failure::new(doing()))
    }
}
