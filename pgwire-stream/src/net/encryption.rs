//! The ladder of `sslmode`: with TLS, without, and in which order.

use crate::{ConfigError, Error, SslMode};

/// One way of making a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// TLS is not asked for.
    Plain,
    /// TLS is asked for; without it on the same connection if the server has none.
    #[cfg(feature = "tls")]
    TlsIfOffered,
    /// TLS is asked for, and must be had.
    #[cfg(feature = "tls")]
    Tls,
}

impl Encryption {
    /// TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn encrypted() -> Result<Self, ConfigError> {
        Ok(Self::Tls)
    }

    /// TLS, which this build does not have.
    #[cfg(not(feature = "tls"))]
    pub(crate) fn encrypted() -> Result<Self, ConfigError> {
        Err(no_tls())
    }
}

/// What `sslmode` tries over TCP, in this order. Unix sockets are always [`Encryption::Plain`].
#[cfg(feature = "tls")]
pub(crate) fn attempts(mode: SslMode) -> Result<&'static [Encryption], ConfigError> {
    Ok(match mode {
        SslMode::Disable => &[Encryption::Plain],
        SslMode::Allow => &[Encryption::Plain, Encryption::Tls],
        SslMode::Prefer => &[Encryption::TlsIfOffered, Encryption::Plain],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Encryption::Tls],
    })
}

/// What `sslmode` tries over TCP: never TLS, which this build does not have.
#[cfg(not(feature = "tls"))]
pub(crate) fn attempts(mode: SslMode) -> Result<&'static [Encryption], ConfigError> {
    match mode {
        SslMode::Disable | SslMode::Allow | SslMode::Prefer => Ok(&[Encryption::Plain]),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Err(no_tls()),
    }
}

#[cfg(not(feature = "tls"))]
fn no_tls() -> ConfigError {
    ConfigError::Conflict("sslmode demands TLS, which this build does not have".into())
}

/// Whether a failure may come from how the connection was encrypted, so that the ladder's next step
/// is worth trying. `encrypted` tells how far it got: `None` before the login, else whether TLS was
/// in use.
pub(crate) fn may_be_at_fault(step: Encryption, encrypted: Option<bool>, error: &Error) -> bool {
    let code = error.sql_state();
    let is = |wanted: &str| code.as_ref().is_some_and(|code| code.as_str() == wanted);
    match step {
        // The server may have a rule for `hostssl` alone. A wrong password stays wrong.
        Encryption::Plain => {
            encrypted.is_some()
                && error.server_error().is_some_and(|error| error.severity == "FATAL")
                && !is("28P01")
        }
        #[cfg(feature = "tls")]
        Encryption::TlsIfOffered => match encrypted {
            None => matches!(
                error,
                Error::Tls(crate::TlsError::Handshake { .. } | crate::TlsError::Certificate { .. })
            ),
            // Or a rule for `hostnossl` alone.
            Some(true) => is("28000"),
            Some(false) => false,
        },
        #[cfg(feature = "tls")]
        Encryption::Tls => false,
    }
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use super::*;
    use crate::{ServerError, SqlState, TlsError};

    fn fatal(code: &str) -> Error {
        ServerError {
            severity: "FATAL".into(),
            code: SqlState::new(code),
            ..ServerError::default()
        }
        .into()
    }

    fn handshake() -> Error {
        TlsError::Handshake { reason: String::new() }.into()
    }

    #[test]
    fn each_mode_has_its_ladder() {
        use Encryption::{Plain, Tls, TlsIfOffered};
        for (mode, ladder) in [
            (SslMode::Disable, &[Plain][..]),
            (SslMode::Allow, &[Plain, Tls]),
            (SslMode::Prefer, &[TlsIfOffered, Plain]),
            (SslMode::Require, &[Tls]),
            (SslMode::VerifyCa, &[Tls]),
            (SslMode::VerifyFull, &[Tls]),
        ] {
            assert_eq!(attempts(mode), Ok(ladder), "{mode:?}");
        }
    }

    #[test]
    fn only_failures_of_the_encryption_lead_to_the_next_step() {
        for (step, encrypted, error, next) in [
            (Encryption::Plain, Some(false), fatal("28000"), true),
            (Encryption::Plain, Some(false), fatal("28P01"), false),
            (Encryption::Plain, None, handshake(), false),
            (Encryption::Plain, None, Error::Closed { during: "" }, false),
            (Encryption::TlsIfOffered, None, handshake(), true),
            (Encryption::TlsIfOffered, None, TlsError::UnencryptedData.into(), false),
            (Encryption::TlsIfOffered, Some(true), fatal("28000"), true),
            (Encryption::TlsIfOffered, Some(true), fatal("28P01"), false),
            (Encryption::TlsIfOffered, Some(false), fatal("28000"), false),
            (Encryption::Tls, None, handshake(), false),
            (Encryption::Tls, Some(true), fatal("28000"), false),
        ] {
            let given = may_be_at_fault(step, encrypted, &error);
            assert_eq!(given, next, "{step:?} {encrypted:?} {error}");
        }
    }
}
