//! What can go wrong, whose fault it is, and what to do next.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::proto::ProtocolVersion;
use crate::{AuthMethod, HistoryError, Lsn, Unsupported};

/// Any failure of the library. The variants say whose fault it is; [`Error::advice`] says what to
/// do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection options contradict each other, or a file they name cannot be used.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// No server could be reached; one cause per address that was tried.
    #[error("cannot connect to {}", attempts(.0))]
    Connect(Vec<ConnectAttempt>),
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The login failed before the server decided, or the server does not deserve trust.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The server reported an error.
    #[error("{0}")]
    Server(Box<ServerError>),
    /// The server's bytes are not PostgreSQL's protocol.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The server's message is well formed, but not allowed now.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The server is too old for what was asked of it; nothing was sent.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The server does not speak a version of the protocol that is recent enough for
    /// `min_protocol_version`.
    #[error("the server speaks protocol {offered}, and at least {wanted} is asked for")]
    ProtocolVersion {
        /// What the server speaks.
        offered: ProtocolVersion,
        /// What is needed.
        wanted: ProtocolVersion,
    },
    /// The server is not what `target_session_attrs` asks for.
    #[error("the server is not {wanted}")]
    Unsuitable {
        /// What was asked for.
        wanted: &'static str,
    },
    /// Something took longer than allowed.
    #[error("{what} took longer than {} s", .limit.as_secs_f32())]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long was allowed.
        limit: Duration,
    },
    /// The server closed the connection.
    #[error("the server closed the connection unexpectedly while {during}")]
    Closed {
        /// What was going on.
        during: &'static str,
    },
    /// The network failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The manifest that was to be uploaded gave an error; the server has been told.
    #[error("the manifest to upload cannot be read")]
    ManifestSource(#[source] io::Error),
    /// A timeline history file cannot be believed.
    #[error("the server's timeline history cannot be used")]
    History(#[from] HistoryError),
    /// The caller asked for something that cannot be; never caused by input from outside.
    #[error(transparent)]
    Misuse(#[from] Misuse),
}

fn attempts(attempts: &[ConnectAttempt]) -> String {
    attempts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// One address that was tried, and what came of it.
#[derive(Debug)]
pub struct ConnectAttempt {
    /// The host and port as configured.
    pub host: String,
    /// What went wrong there.
    pub cause: Box<Error>,
}

impl fmt::Display for ConnectAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.host)?;
        match &*self.cause {
            // The reason, not the category, is what tells the hosts apart.
            Error::Io(cause) => cause.fmt(f),
            cause => cause.fmt(f),
        }
    }
}

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The server has no TLS, and the configuration insists on it.
    #[error("the server does not support TLS, but sslmode={mode} requires it")]
    Refused {
        /// The configured `sslmode`.
        mode: &'static str,
    },
    /// The server's certificate is not trusted, or names another host.
    #[error("the server's certificate is not acceptable: {reason}")]
    Certificate {
        /// Why.
        reason: String,
    },
    /// The handshake failed for another reason.
    #[error("the TLS handshake failed: {reason}")]
    Handshake {
        /// Why.
        reason: String,
    },
    /// A certificate or key file cannot be used.
    #[error("cannot use the {what} {path}: {reason}")]
    File {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// `sslcertmode=require` cannot be met.
    #[error("sslcertmode=require demands the client's certificate to be used, but {reason}")]
    CertificateNotUsed {
        /// Why it was not.
        reason: &'static str,
    },
    /// Unencrypted bytes came before the handshake: somebody tampers with the connection.
    #[error("received unencrypted data after the TLS request")]
    UnencryptedData,
}

/// Why a login failed on our side.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The server asks for a password, and there is none.
    #[error("the server asks for a password, and none was given")]
    PasswordMissing,
    /// The server asks for a method that is not supported.
    #[error("the server asks for {method} authentication, which is not supported")]
    MethodUnsupported {
        /// The method.
        method: String,
    },
    /// `require_auth` does not allow what the server does.
    #[error("{}, which require_auth={required} does not allow", deed(.method))]
    MethodNotAllowed {
        /// The method that the server wants.
        method: AuthMethod,
        /// What `require_auth` is.
        required: String,
    },
    /// The server on a Unix socket runs as another account than `requirepeer` says.
    #[error("the server runs as {actual}, and not as `{required}` as requirepeer demands")]
    WrongPeer {
        /// The account that was demanded.
        required: String,
        /// The server's account, or its number where it has no name.
        actual: String,
    },
    /// `channel_binding=require` cannot be met.
    #[error("channel binding is required, but {reason}")]
    ChannelBindingUnavailable {
        /// Why it cannot be met.
        reason: &'static str,
    },
    /// The SCRAM exchange failed: the server could not prove that it knows the password, or sent
    /// something that cannot be right.
    #[error("SCRAM authentication failed: {reason}")]
    Scram {
        /// Why.
        reason: String,
    },
}

fn deed(method: &AuthMethod) -> String {
    match method {
        AuthMethod::None => "the server lets us in without authentication".to_owned(),
        method => format!("the server asks for {} authentication", method.as_str()),
    }
}

/// Bytes that are not PostgreSQL's protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {message}: {problem}")]
pub struct DecodeError {
    /// The message that was read.
    pub message: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// A well-formed message that is not allowed now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A message that does not belong to the conversation's state.
    #[error("received {message} while {state}")]
    Unexpected {
        /// The message.
        message: String,
        /// What was going on.
        state: &'static str,
    },
    /// A message longer than anything that may come in this state.
    #[error("received a message of {length} bytes, over the limit of {limit}")]
    TooLong {
        /// The length it announced.
        length: u64,
        /// The limit in this state.
        limit: u64,
    },
    /// A result set without a column that it must have, or with an impossible value in it.
    #[error("the answer to {command} has no usable `{column}`")]
    Column {
        /// The command.
        command: &'static str,
        /// The column.
        column: &'static str,
    },
    /// WAL that does not follow what came before.
    #[error("WAL at {got} was sent where {expected} was due")]
    WalPosition {
        /// The position that was due.
        expected: Lsn,
        /// The position that came.
        got: Lsn,
    },
    /// A next timeline that cannot follow.
    #[error("the server announced an impossible next timeline")]
    NextTimeline,
    /// An archive name or order in a base backup that cannot be.
    #[error("the server's base backup is out of order: {0}")]
    Backup(&'static str),
}

/// A call that cannot be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// A flush position beyond what was received.
    #[error("{reported} was reported as flushed, but only {received} was received")]
    FlushedBeyondReceived {
        /// The reported position.
        reported: Lsn,
        /// The last position that may be reported.
        received: Lsn,
    },
    /// Another call after one that failed for good.
    #[error("the connection or stream has failed before")]
    Failed,
    /// `finish` before the end of the stream.
    #[error("the stream has not ended")]
    NotFinished,
    /// A command's argument that cannot be sent.
    #[error("{0}")]
    Argument(&'static str),
}

/// A five-character SQLSTATE code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// The code in this text; `None` unless it is five ASCII letters or digits.
    pub fn new(code: &str) -> Option<Self> {
        let bytes: [u8; 5] = code.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_alphanumeric).then_some(Self(bytes))
    }

    /// The code.
    pub fn as_str(&self) -> &str {
        // Checked to be ASCII when it was made.
        str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The first two characters, the class.
    pub fn class(&self) -> &str {
        self.as_str().get(..2).unwrap_or_default()
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error or notice as the server words it.
///
/// Texts may be in any language (`lc_messages`): decide by [`ServerError::code`] alone.
///
/// Follows "Error and Notice Message Fields" in PostgreSQL's protocol documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `WARNING`, …; not translated where the server is 9.6 or newer.
    pub severity: String,
    /// The SQLSTATE code, unless the server sent none or a malformed one.
    pub code: Option<SqlState>,
    /// What happened.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where it happened.
    pub context: Option<String>,
}

impl ServerError {
    /// Whether the server closes the connection behind it.
    pub fn is_fatal(&self) -> bool {
        matches!(&*self.severity, "FATAL" | "PANIC")
    }

    /// A report of this severity (`ERROR`, `FATAL`, …), SQLSTATE code and message.
    pub fn new(severity: &str, code: &str, message: impl Into<String>) -> Self {
        Self {
            severity: severity.to_owned(),
            code: SqlState::new(code),
            message: message.into(),
            ..Self::default()
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server says: {}: {}", self.severity, self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        if let Some(code) = self.code {
            write!(f, " [{code}]")?;
        }
        Ok(())
    }
}

impl std::error::Error for ServerError {}

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Try again, with growing pauses: it may pass by itself.
    Retry,
    /// Trying again is harmless, but somebody has to change something first.
    RetryAfterOperator,
    /// Trying again cannot help.
    Fatal,
}

impl Error {
    /// What to do about it.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Timeout { .. } | Self::Closed { .. } | Self::Io(_) | Self::Unsuitable { .. } => {
                Advice::Retry
            }
            Self::Connect(attempts) => attempts
                .iter()
                .map(|attempt| attempt.cause.advice())
                .min_by_key(|advice| match advice {
                    Advice::Retry => 0,
                    Advice::RetryAfterOperator => 1,
                    Advice::Fatal => 2,
                })
                .unwrap_or(Advice::Retry),
            Self::Server(error) => match error.code {
                Some(code) => server_advice(code),
                None => Advice::Retry,
            },
            Self::Config(_)
            | Self::Tls(_)
            | Self::Auth(_)
            | Self::Unsupported(_)
            | Self::ProtocolVersion { .. } => Advice::RetryAfterOperator,
            // A broken byte on the way is possible; the next connection will tell.
            Self::Decode(_) | Self::Violation(_) => Advice::Retry,
            Self::History(_) | Self::ManifestSource(_) => Advice::RetryAfterOperator,
            Self::Misuse(_) => Advice::Fatal,
        }
    }

    /// The error that the server reported; for several addresses, the last one's.
    pub fn server_error(&self) -> Option<&ServerError> {
        match self {
            Self::Server(error) => Some(error),
            Self::Connect(attempts) => {
                attempts.iter().rev().find_map(|attempt| attempt.cause.server_error())
            }
            _ => None,
        }
    }

    /// The SQLSTATE code, if the server reported the error.
    pub fn sql_state(&self) -> Option<SqlState> {
        self.server_error().and_then(|error| error.code)
    }

    fn has_state(&self, code: &str) -> bool {
        self.sql_state().is_some_and(|state| state.as_str() == code)
    }

    /// Another connection uses the slot (55006).
    pub fn is_slot_in_use(&self) -> bool {
        self.has_state("55006")
    }

    /// The slot does not exist (42704).
    pub fn is_slot_missing(&self) -> bool {
        self.has_state("42704")
    }

    /// The slot exists already (42710).
    pub fn is_slot_present(&self) -> bool {
        self.has_state("42710")
    }

    /// The WAL that was asked for, or the history file, is no longer there (58P01).
    pub fn is_wal_removed(&self) -> bool {
        self.has_state("58P01")
    }
}

fn server_advice(code: SqlState) -> Advice {
    match (code.class(), code.as_str()) {
        (_, "55006") | ("08" | "53" | "57" | "40", _) => Advice::Retry,
        ("28" | "42" | "58" | "3D" | "55", _) => Advice::RetryAfterOperator,
        ("0A" | "22" | "25", _) => Advice::Fatal,
        _ => Advice::RetryAfterOperator,
    }
}

impl From<ServerError> for Error {
    fn from(error: ServerError) -> Self {
        Self::Server(Box::new(error))
    }
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: &str) -> Error {
        ServerError { code: SqlState::new(code), ..ServerError::default() }.into()
    }

    #[test]
    fn advice_follows_the_sqlstate() {
        for (code, advice) in [
            ("55006", Advice::Retry),
            ("57P01", Advice::Retry),
            ("53300", Advice::Retry),
            ("28P01", Advice::RetryAfterOperator),
            ("42704", Advice::RetryAfterOperator),
            ("58P01", Advice::RetryAfterOperator),
            ("0A000", Advice::Fatal),
        ] {
            assert_eq!(server(code).advice(), advice, "{code}");
        }
    }

    #[test]
    fn several_addresses_are_judged_by_the_most_hopeful() {
        let attempt = |cause| ConnectAttempt { host: "db:5432".into(), cause: Box::new(cause) };
        let refused = Error::Io(io::ErrorKind::ConnectionRefused.into());
        let error = Error::Connect(vec![attempt(server("28P01")), attempt(refused)]);
        assert_eq!(error.advice(), Advice::Retry);
        assert_eq!(error.sql_state(), SqlState::new("28P01"));
    }

    #[test]
    fn the_four_states_of_a_slot_are_recognised() {
        assert!(server("55006").is_slot_in_use());
        assert!(server("42704").is_slot_missing());
        assert!(server("42710").is_slot_present());
        assert!(server("58P01").is_wal_removed());
    }
}
