//! Mistakes in what the operator asked for.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::failure::{Class, Failure};

use super::{ServerName, ServerNameError};

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a line of a configuration file.
    File {
        /// The file.
        path: Arc<Path>,
        /// The line, from 1.
        line: usize,
    },
    /// In this environment variable.
    Environment(String),
    /// By this option on the command line.
    Argument(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) | Self::Argument(name) => f.write_str(name),
        }
    }
}

/// One mistake, and where it was made. Never quotes a value that may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it was made.
    pub origin: Origin,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.problem)
    }
}

/// Why there are no usable settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A configuration file that cannot be read.
    #[error("cannot read the configuration {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// All mistakes that were found.
    #[error("{}", listed(.0))]
    Mistakes(Vec<Mistake>),
    /// A server that is neither configured nor described on the command line.
    #[error("server `{name}` is not configured")]
    UnknownServer {
        /// The name that was asked for.
        name: ServerName,
        /// Those that are configured.
        configured: Vec<ServerName>,
    },
    /// No server at all.
    #[error("no server is configured")]
    NoServers,
    /// A text that cannot name a server.
    #[error(transparent)]
    Name(#[from] ServerNameError),
}

fn listed(mistakes: &[Mistake]) -> String {
    match mistakes {
        [only] => only.to_string(),
        several => {
            let mut text = format!("the configuration has {} mistakes", several.len());
            for mistake in several {
                text.push_str(&format!("\n  {mistake}"));
                if let Some(hint) = &mistake.hint {
                    text.push_str(&format!(" ({hint})"));
                }
            }
            text
        }
    }
}

impl Failure for SettingsError {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("`walrecv-server init` writes a commented one".into())
            }
            Self::Unreadable { .. } => {
                Some("run as the user that owns it, or name another with --config".into())
            }
            Self::Mistakes(mistakes) => {
                let own = match mistakes.as_slice() {
                    [only] => only.hint.clone(),
                    _ => None,
                };
                Some(own.unwrap_or_else(|| {
                    "`walrecv-server config reference` explains every key".into()
                }))
            }
            Self::UnknownServer { name, configured } => {
                Some(match nearest(name.as_str(), configured.iter().map(ServerName::as_str)) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None if configured.is_empty() => describe_it(),
                    None => format!(
                        "configured: {}",
                        configured.iter().map(ServerName::as_str).collect::<Vec<_>>().join(", ")
                    ),
                })
            }
            Self::NoServers => Some(describe_it()),
            Self::Name(_) => Some("`walrecv-server list-backups all` shows the servers".into()),
        }
    }
}

fn describe_it() -> String {
    "give --conninfo, or write a configuration: `walrecv-server init` starts one".into()
}

/// The known word that this one was probably meant to be.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = word.len().div_ceil(4).clamp(1, 3);
    known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_word_finds_the_meant_one() {
        let known = ["slot_name", "compression", "home"];
        assert_eq!(nearest("slotname", known.into_iter()), Some("slot_name"));
        assert_eq!(nearest("compresion", known.into_iter()), Some("compression"));
        assert_eq!(nearest("retention", known.into_iter()), None);
    }

    #[test]
    fn an_unknown_server_gets_the_nearest_or_the_list() {
        let unknown = |name: &str, configured: &[&str]| SettingsError::UnknownServer {
            name: name.parse().unwrap(),
            configured: configured.iter().map(|name| name.parse().unwrap()).collect(),
        };
        assert_eq!(unknown("mian", &["main"]).hint().unwrap(), "did you mean `main`?");
        assert_eq!(unknown("x1", &["main", "web"]).hint().unwrap(), "configured: main, web");
        assert!(unknown("main", &[]).hint().unwrap().contains("--conninfo"));
    }
}
