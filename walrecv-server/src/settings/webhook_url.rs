//! Where failures are told: an address that may hold a secret, and is never shown whole.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

/// The address of a webhook. Neither its `Debug` nor its `Display` shows more than whose it is.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    uri: Uri,
    host: String,
    port: u16,
    secure: bool,
}

/// The text is not such an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookUrlError {
    /// It is none at all, or of another kind.
    #[error("must be an address such as \"https://alerts.example.com/hooks/…\"")]
    NoUrl,
    /// It has a user in it.
    #[error("must not have a user or password in it: put a token into its path")]
    User,
}

impl WebhookUrl {
    /// The host, as it is looked up.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the way there is to be encrypted.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host, as it is called in a request.
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// What is asked for there, with any secret in it.
    pub fn path_and_query(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }
}

impl FromStr for WebhookUrl {
    type Err = WebhookUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.trim().parse().map_err(|_| WebhookUrlError::NoUrl)?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(WebhookUrlError::NoUrl),
        };
        let authority = uri.authority().ok_or(WebhookUrlError::NoUrl)?;
        if authority.as_str().contains('@') {
            return Err(WebhookUrlError::User);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        if host.is_empty() {
            return Err(WebhookUrlError::NoUrl);
        }
        Ok(Self { uri, host, port, secure })
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/***", if self.secure { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_what_may_be_secret_in_it() {
        let url: WebhookUrl =
            "https://hooks.example.com/services/T0/geheim?k=geheim".parse().unwrap();
        assert_eq!((url.host(), url.port(), url.is_secure()), ("hooks.example.com", 443, true));
        assert_eq!(url.path_and_query(), "/services/T0/geheim?k=geheim");
        assert_eq!(url.to_string(), "https://hooks.example.com/***");
        assert_eq!(format!("{url:?}"), "https://hooks.example.com/***");
        let url: WebhookUrl = "http://[::1]:8080".parse().unwrap();
        assert_eq!((url.host(), url.port(), url.path_and_query()), ("::1", 8080, "/"));
    }

    #[test]
    fn what_is_no_such_address_is_refused() {
        for text in
            ["", "hooks.example.com", "ftp://x/", "https://", "/x", "http:///x", "https://:1"]
        {
            assert_eq!(text.parse::<WebhookUrl>(), Err(WebhookUrlError::NoUrl), "{text}");
        }
        assert_eq!("https://u:p@x/".parse::<WebhookUrl>(), Err(WebhookUrlError::User));
    }
}
