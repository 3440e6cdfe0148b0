//! Who may ask: whoever shows the token; without one, whoever is on this machine.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use axum::http::{HeaderMap, StatusCode, header};

use super::reread::Reread;
use crate::storage::Sha256Sum;

/// A file with a token is as large as this at most.
const MOST: u64 = 4 << 10;

/// Lets in, or not.
pub(super) struct Guard {
    token: Option<(PathBuf, Reread<Sha256Sum>)>,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The token is missing or wrong.
    Token,
    /// The token cannot be read, so nobody is let in.
    NoToken,
    /// A page from elsewhere may have sent the browser here, under a name of its own.
    Host,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::NoToken => StatusCode::SERVICE_UNAVAILABLE,
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
        }
    }

    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Token => "show the token of `token_file` as `Authorization: Bearer …`",
            Self::NoToken => "`token_file` cannot be read; the daemon's log says why",
            Self::Host => {
                "without a token, this is served under its address or `localhost` only: set \
                 `token_file` in `[http]` to serve it under a name"
            }
        }
    }
}

impl Guard {
    pub(super) fn new(token_file: Option<PathBuf>) -> Self {
        let token = token_file.map(|path| (path.clone(), Reread::new(vec![path])));
        Self { token }
    }

    /// Whether a request with these headers is answered.
    pub(super) fn admits(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some((path, token)) = &self.token else {
            return if is_local(headers) { Ok(()) } else { Err(Refusal::Host) };
        };
        let expected = token.get(|| read(path)).map_err(|error| {
            tracing::error!(path = %path.display(), error = %error, "the token cannot be read");
            Refusal::NoToken
        })?;
        let shown = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        // How long it takes to compare checksums tells nothing of what they are of.
        match shown {
            Some(shown) if Sha256Sum::of(shown.as_bytes()) == *expected => Ok(()),
            _ => Err(Refusal::Token),
        }
    }
}

fn read(path: &PathBuf) -> io::Result<Sha256Sum> {
    if fs::metadata(path)?.len() > MOST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large for a token"));
    }
    let text = fs::read_to_string(path)?;
    match text.trim() {
        "" => Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty")),
        token => Ok(Sha256Sum::of(token.as_bytes())),
    }
}

/// Whether the request is for an address, or for this machine by its own name.
fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_the_token_lets_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let guard = Guard::new(Some(path.clone()));
        let shown = |value| guard.admits(&headers(&[(header::AUTHORIZATION, value)]));
        assert_eq!(shown("Bearer "), Err(Refusal::NoToken));
        fs::write(&path, "s3cret\n").unwrap();
        assert_eq!(shown("Bearer s3cret"), Ok(()));
        assert_eq!(shown("bearer s3cret"), Ok(()));
        for wrong in ["Bearer s3cre", "Bearer s3crett", "Bearer", "Basic s3cret", "s3cret", ""] {
            assert_eq!(shown(wrong), Err(Refusal::Token), "{wrong}");
        }
        assert_eq!(guard.admits(&HeaderMap::new()), Err(Refusal::Token));
    }

    #[test]
    fn an_empty_token_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "\n").unwrap();
        let guard = Guard::new(Some(path));
        let empty = headers(&[(header::AUTHORIZATION, "Bearer ")]);
        assert_eq!(guard.admits(&empty), Err(Refusal::NoToken));
    }

    #[test]
    fn without_a_token_a_page_from_elsewhere_gets_nothing() {
        let guard = Guard::new(None);
        let host = |name| guard.admits(&headers(&[(header::HOST, name)]));
        for own in ["127.0.0.1:8432", "localhost", "LOCALHOST:1", "[::1]:8432", "192.0.2.1"] {
            assert_eq!(host(own), Ok(()), "{own}");
        }
        for other in ["evil.example", "evil.example:8432", "localhost.evil.example", ""] {
            assert_eq!(host(other), Err(Refusal::Host), "{other}");
        }
        assert_eq!(guard.admits(&HeaderMap::new()), Err(Refusal::Host));
    }
}
