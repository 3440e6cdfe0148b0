//! How TLS is begun, with which versions, and whether the client shows a certificate.

use super::{ConfigError, SslMode};

/// How TLS is begun: libpq's `sslnegotiation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SslNegotiation {
    /// The server is asked for it first, as all servers understand.
    #[default]
    Postgres,
    /// With the first byte (servers from 17 on). Saves a round trip, and passes through proxies
    /// that know TLS but not PostgreSQL. There is no falling back to the other way.
    Direct,
}

impl SslNegotiation {
    /// Every choice.
    pub(super) const ALL: [Self; 2] = [Self::Postgres, Self::Direct];

    /// The spelling in connection strings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Direct => "direct",
        }
    }

    /// Whether this can be done with an `sslmode`: who begins with TLS must insist on it.
    pub(super) fn check(self, mode: SslMode) -> Result<(), ConfigError> {
        if self == Self::Direct && mode < SslMode::Require {
            return Err(ConfigError::Conflict(format!(
                "`sslnegotiation=direct` needs `sslmode=require` or stronger; `sslmode={}` is too \
                 weak for it",
                mode.as_str()
            )));
        }
        Ok(())
    }
}

/// Whether the client's certificate is sent: libpq's `sslcertmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SslCertMode {
    /// Never, even if there is one.
    Disable,
    /// If there is one and the server asks for it.
    #[default]
    Allow,
    /// The server must ask for it, and there must be one.
    Require,
}

impl SslCertMode {
    /// Every choice.
    pub(super) const ALL: [Self; 3] = [Self::Disable, Self::Allow, Self::Require];

    /// The spelling in connection strings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Require => "require",
        }
    }
}

/// A version of TLS. Older ones than these are not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

impl TlsVersion {
    /// The spelling in connection strings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1_2 => "TLSv1.2",
            Self::V1_3 => "TLSv1.3",
        }
    }
}
