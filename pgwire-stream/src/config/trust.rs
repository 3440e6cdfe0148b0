//! How far the server is trusted: TLS and channel binding.

use std::path::PathBuf;

/// Whether TLS is used, and how the server is verified: libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// Without TLS; with it if the server refuses that.
    Allow,
    /// With TLS; without it if the server cannot.
    #[default]
    Prefer,
    /// TLS; the chain is verified only if root certificates are at hand.
    Require,
    /// TLS, and the server's certificate must lead to a trusted root.
    VerifyCa,
    /// The same, and the certificate must name the host.
    VerifyFull,
}

impl SslMode {
    /// Every mode, weakest first.
    pub(super) const ALL: [Self; 6] =
        [Self::Disable, Self::Allow, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

    /// The spelling in connection strings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// Whether the login is bound to the TLS connection: libpq's `channel_binding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// If the server offers it.
    #[default]
    Prefer,
    /// Or the login fails.
    Require,
}

impl ChannelBinding {
    /// Every choice.
    pub(super) const ALL: [Self; 3] = [Self::Disable, Self::Prefer, Self::Require];

    /// The spelling in connection strings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
        }
    }
}

/// Which certificates a server's must lead to: libpq's `sslrootcert`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootCert {
    /// Those in this PEM file.
    File(PathBuf),
    /// Those that the operating system trusts.
    System,
}
