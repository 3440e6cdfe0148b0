//! Which ways of authentication are good enough.

use std::fmt;

use super::ConfigError;
use super::value::Value;

/// A way in which a server has its clients prove who they are, as `require_auth` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthMethod {
    /// The password itself.
    Password,
    /// A hash of the password with a salt.
    Md5,
    /// Kerberos by GSSAPI, which this library cannot do.
    Gss,
    /// Kerberos by SSPI, which this library cannot do.
    Sspi,
    /// SCRAM-SHA-256, with channel binding or without.
    ScramSha256,
    /// An OAuth bearer token, which this library cannot do.
    Oauth,
    /// Nothing is asked: `trust`, `peer` and `cert` in `pg_hba.conf`.
    None,
}

impl AuthMethod {
    /// Every method.
    const ALL: [Self; 7] = [
        Self::Password,
        Self::Md5,
        Self::Gss,
        Self::Sspi,
        Self::ScramSha256,
        Self::Oauth,
        Self::None,
    ];

    /// The spelling in connection strings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::Gss => "gss",
            Self::Sspi => "sspi",
            Self::ScramSha256 => "scram-sha-256",
            Self::Oauth => "oauth",
            Self::None => "none",
        }
    }
}

/// How the server must have authenticated us: libpq's `require_auth`.
///
/// It keeps a server that is not what it pretends to be from asking for the password itself, or
/// for nothing at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequireAuth {
    /// As the server wants.
    #[default]
    Any,
    /// By one of these. Unless [`AuthMethod::None`] is among them, the exchange must have come to
    /// its end before the server lets us in.
    OneOf(Vec<AuthMethod>),
    /// By anything but these.
    NoneOf(Vec<AuthMethod>),
}

impl RequireAuth {
    /// Whether the method is good enough.
    pub fn allows(&self, method: AuthMethod) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(methods) => methods.contains(&method),
            Self::NoneOf(methods) => !methods.contains(&method),
        }
    }

    /// Reads a list such as `scram-sha-256,md5` or `!password,!none`.
    pub(super) fn read(value: &Value<'_>) -> Result<Self, ConfigError> {
        if value.text.is_empty() {
            return Ok(Self::Any);
        }
        let negated = value.text.starts_with('!');
        let mut methods = Vec::new();
        for entry in value.text.split(',') {
            let name = match (negated, entry.strip_prefix('!')) {
                (true, Some(name)) => name,
                (false, None) => entry,
                _ => {
                    return Err(value.invalid("either all of its methods begin with `!`, or none"));
                }
            };
            let Some(method) = AuthMethod::ALL.into_iter().find(|known| known.as_str() == name)
            else {
                let known = AuthMethod::ALL.map(AuthMethod::as_str).join("`, `");
                return Err(value.invalid(format!("it must be a list of `{known}`")));
            };
            if methods.contains(&method) {
                return Err(value.invalid(format!("`{}` is in it twice", method.as_str())));
            }
            methods.push(method);
        }
        Ok(if negated { Self::NoneOf(methods) } else { Self::OneOf(methods) })
    }
}

/// The value in connection strings.
impl fmt::Display for RequireAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, methods) = match self {
            Self::Any => return Ok(()),
            Self::OneOf(methods) => ("", methods),
            Self::NoneOf(methods) => ("!", methods),
        };
        for (index, method) in methods.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{mark}{}", method.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RequireAuth, ConfigError> {
        RequireAuth::read(&Value { name: "require_auth", text })
    }

    #[test]
    fn lists_are_read_and_written() {
        for text in [
            "",
            "password",
            "none",
            "scram-sha-256,md5",
            "!none",
            "!password,!md5,!gss,!sspi,!scram-sha-256,!oauth,!none",
        ] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_libpq_refuses_is_refused_and_not_quoted() {
        for text in [
            "hunter2",
            "md5,",
            ",md5",
            " md5",
            "MD5",
            "md5,!password",
            "!md5,password",
            "md5,md5",
            "!none,!none",
            "!",
            "!!md5",
        ] {
            let error = read(text).unwrap_err();
            assert!(
                matches!(error, ConfigError::InvalidValue { key: "require_auth", .. }),
                "{text}"
            );
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_list_allows_what_it_names_or_what_it_does_not() {
        let allowed = |text: &str| -> Vec<_> {
            let list = read(text).unwrap();
            AuthMethod::ALL.into_iter().filter(|method| list.allows(*method)).collect()
        };
        assert_eq!(allowed(""), AuthMethod::ALL);
        assert_eq!(allowed("md5,none"), [AuthMethod::Md5, AuthMethod::None]);
        assert_eq!(
            allowed("!password,!md5,!gss,!sspi,!oauth"),
            [AuthMethod::ScramSha256, AuthMethod::None]
        );
    }
}
