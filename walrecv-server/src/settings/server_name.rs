//! The name of a configured server, which is also the name of its directory.

use std::fmt;
use std::str::FromStr;

/// The longest name, in bytes.
const MAX_LENGTH: usize = 63;

/// The name of a configured server: safe as a directory name and in a file name of the store.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct ServerName(String);

impl ServerName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServerName {
    type Err = ServerNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let problem = if text.is_empty() {
            "it is empty"
        } else if text.len() > MAX_LENGTH {
            "it is longer than 63 characters"
        } else if !text.chars().all(allowed) {
            "only letters, digits, `_`, `.` and `-` are allowed"
        } else if text.starts_with('.') {
            "it starts with a dot"
        } else if text.starts_with('-') {
            "it starts with a dash"
        } else if text == "all" {
            "`all` stands for every configured server"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(ServerNameError { name: text.to_owned(), problem })
    }
}

impl TryFrom<String> for ServerName {
    type Error = ServerNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ServerName> for String {
    fn from(name: ServerName) -> Self {
        name.0
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot name a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` cannot be a server's name: {problem}")]
pub struct ServerNameError {
    name: String,
    problem: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_paths() {
        for good in ["main", "db-1.example", "A_b"] {
            assert_eq!(good.parse::<ServerName>().unwrap().as_str(), good);
        }
        for bad in ["", "all", ".hidden", "..", "a/b", "-x", "ü", "a b", &"x".repeat(64)] {
            assert!(bad.parse::<ServerName>().is_err(), "{bad:?}");
        }
    }
}
