//! What can be wrong with connection options.

use std::path::PathBuf;

/// A mistake in connection options. Never quotes a password.
///
/// Where a variant names the `key`, it is the keyword, or the environment variable if that is where
/// the value came from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The string is neither keyword/value pairs nor a URI.
    #[error("the connection string is malformed: {problem}")]
    Syntax {
        /// What is wrong, without quoting the string.
        problem: String,
    },
    /// A keyword that libpq does not know.
    #[error("`{key}` is not a connection option{}", .suggestion.map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    UnknownKey {
        /// The keyword.
        key: String,
        /// The known keyword that looks most like it.
        suggestion: Option<&'static str>,
    },
    /// A keyword that libpq knows and this library does not act upon.
    #[error("the connection option `{key}` is not supported{}", exceptions(.accepted))]
    UnsupportedKey {
        /// The keyword.
        key: &'static str,
        /// The values that are accepted all the same, because they ask for nothing.
        accepted: &'static [&'static str],
    },
    /// A keyword that a string from this source may not have.
    #[error("the connection option `{key}` is not allowed here")]
    ForbiddenKey {
        /// The keyword.
        key: &'static str,
    },
    /// A value that the option cannot have.
    #[error("`{key}` cannot be set to that: {problem}")]
    InvalidValue {
        /// The keyword.
        key: &'static str,
        /// What is wrong with the value.
        problem: String,
    },
    /// Options that cannot be used together.
    #[error("{0}")]
    Conflict(String),
    /// A file that cannot be read or believed.
    #[error("cannot use the {what} {path}: {problem}", path = .path.display())]
    File {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

fn exceptions(accepted: &[&str]) -> String {
    if accepted.is_empty() {
        return String::new();
    }
    format!(", other than with `{}`", accepted.join("` or `"))
}
