//! The client's side of the login: trust, password, MD5 and SCRAM-SHA-256 with channel binding.

use bytes::{Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding as ScramBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};

use super::authentication_request::AuthenticationRequest;
use super::frontend::{FrontendMessage, PasswordMessage};
use crate::{
    AuthError, AuthMethod, ChannelBinding, Error, Misuse, Password, RequireAuth, Violation,
};

/// What a login may use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Credentials {
    /// The role.
    pub user: String,
    /// Its password, if there is one.
    pub password: Option<Password>,
    /// How the server must authenticate us.
    pub require_auth: RequireAuth,
    /// Whether the login must be bound to the TLS connection.
    pub channel_binding: ChannelBinding,
    /// What the connection offers to bind to.
    pub tls: TlsBinding,
}

impl Credentials {
    /// The credentials of a role, for a connection without TLS.
    pub fn new(user: impl Into<String>, password: Option<Password>) -> Self {
        Self {
            user: user.into(),
            password,
            require_auth: RequireAuth::default(),
            channel_binding: ChannelBinding::default(),
            tls: TlsBinding::NoTls,
        }
    }
}

/// What a connection offers for channel binding.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsBinding {
    /// The connection is not encrypted.
    NoTls,
    /// It is, but its certificate's signature algorithm defines no hash (Ed25519, Ed448).
    Undefined,
    /// Whoever made the connection has not told whether it is encrypted.
    Unknown,
    /// `tls-server-end-point`: the hash of the server's certificate.
    ServerEndPoint(Bytes),
}

/// How a server has had us prove who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthenticatedBy {
    /// The method.
    pub method: AuthMethod,
    /// Whether the proof was bound to the TLS connection, so that nobody in between could pass it on.
    pub channel_binding: bool,
}

/// Where the login stands.
///
/// ```text
///  Waiting ──Cleartext/MD5──▶ Answered ──Ok──▶ (done)
///     │ └───────Ok (trust)───────────────────▶ (done)
///     └─SASL─▶ ScramFirst ─Continue─▶ ScramFinal ─Final─▶ Verified ──Ok──▶ (done)
/// ```
pub(super) struct Login {
    credentials: Credentials,
    state: State,
}

enum State {
    /// Nothing was asked yet.
    Waiting,
    /// A password was sent.
    Answered(AuthMethod),
    /// Our nonce was sent.
    ScramFirst { scram: Box<ScramSha256>, bound: bool },
    /// Our proof was sent; the server owes its own.
    ScramFinal { scram: Box<ScramSha256>, bound: bool },
    /// The server has proved that it knows the password too.
    Verified { bound: bool },
}

impl Login {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self { credentials, state: State::Waiting }
    }

    /// How we have proved who we are, once the login is complete.
    pub(super) fn authenticated_by(&self) -> AuthenticatedBy {
        let (method, channel_binding) = match self.state {
            State::Waiting => (AuthMethod::None, false),
            State::Answered(method) => (method, false),
            State::ScramFirst { bound, .. }
            | State::ScramFinal { bound, .. }
            | State::Verified { bound } => (AuthMethod::ScramSha256, bound),
        };
        AuthenticatedBy { method, channel_binding }
    }

    /// Answers one request. True if the login is complete.
    ///
    /// # Errors
    /// If the request cannot be met, comes out of order, or the server fails to prove itself.
    pub(super) fn handle(
        &mut self,
        request: AuthenticationRequest,
        out: &mut BytesMut,
    ) -> Result<bool, Error> {
        // Taken out, so that a failure leaves no half-done exchange behind.
        let state = std::mem::replace(&mut self.state, State::Answered(AuthMethod::None));
        self.state = match (request, state) {
            (AuthenticationRequest::Ok, state) => {
                self.accept(&state)?;
                self.state = state;
                return Ok(true);
            }
            (AuthenticationRequest::CleartextPassword, State::Waiting) => {
                self.refuse_unbound()?;
                self.refuse_unless_allowed(AuthMethod::Password)?;
                answer(PasswordMessage::password(self.password()?.as_bytes())?, out)?;
                State::Answered(AuthMethod::Password)
            }
            (AuthenticationRequest::Md5Password { salt }, State::Waiting) => {
                self.refuse_unbound()?;
                self.refuse_unless_allowed(AuthMethod::Md5)?;
                let password = self.password()?.as_bytes();
                let hash = md5_hash(self.credentials.user.as_bytes(), password, salt);
                answer(PasswordMessage::password(hash.as_bytes())?, out)?;
                State::Answered(AuthMethod::Md5)
            }
            (AuthenticationRequest::Sasl { mechanisms }, State::Waiting) => {
                self.begin_scram(&mechanisms, out)?
            }
            (AuthenticationRequest::SaslContinue(data), State::ScramFirst { mut scram, bound }) => {
                scram.update(&data).map_err(scram_error)?;
                answer(PasswordMessage::sasl_response(scram.message()), out)?;
                State::ScramFinal { scram, bound }
            }
            (AuthenticationRequest::SaslFinal(data), State::ScramFinal { mut scram, bound }) => {
                scram.finish(&data).map_err(scram_error)?;
                State::Verified { bound }
            }
            (
                request @ (AuthenticationRequest::Gss
                | AuthenticationRequest::GssContinue(_)
                | AuthenticationRequest::Sspi
                | AuthenticationRequest::KerberosV5
                | AuthenticationRequest::ScmCredential),
                _,
            ) => {
                let method = request.method().to_owned();
                return Err(AuthError::MethodUnsupported { method }.into());
            }
            _ => {
                let message = "an authentication request out of order".to_owned();
                return Err(Violation::Unexpected { message, state: "logging in" }.into());
            }
        };
        Ok(false)
    }

    /// Whether the server may say "Ok" now.
    fn accept(&self, state: &State) -> Result<(), Error> {
        if matches!(state, State::Waiting) {
            self.refuse_unless_allowed(AuthMethod::None)?;
        }
        match (state, self.credentials.channel_binding) {
            (State::ScramFirst { .. } | State::ScramFinal { .. }, _) => Err(AuthError::Scram {
                reason: "the server did not prove that it knows the password".into(),
            }
            .into()),
            (State::Verified { bound: true }, ChannelBinding::Require) => Ok(()),
            (_, ChannelBinding::Require) => Err(unbound("the server let us in without it")),
            _ => Ok(()),
        }
    }

    /// With `channel_binding=require`, a password must never leave in any other way.
    fn refuse_unbound(&self) -> Result<(), Error> {
        match self.credentials.channel_binding {
            ChannelBinding::Require => Err(unbound("the server asks for a plain password or MD5")),
            ChannelBinding::Disable | ChannelBinding::Prefer => Ok(()),
        }
    }

    /// With `require_auth`, a password must never leave in a weaker way, and some must be asked
    /// for.
    fn refuse_unless_allowed(&self, method: AuthMethod) -> Result<(), AuthError> {
        let required = &self.credentials.require_auth;
        if required.allows(method) {
            return Ok(());
        }
        Err(AuthError::MethodNotAllowed { method, required: required.to_string() })
    }

    fn password(&self) -> Result<&Password, AuthError> {
        self.credentials.password.as_ref().ok_or(AuthError::PasswordMissing)
    }

    fn begin_scram(&self, mechanisms: &[String], out: &mut BytesMut) -> Result<State, Error> {
        let offers = |name| mechanisms.iter().any(|mechanism| mechanism == name);
        let (plus, plain) = (offers(SCRAM_SHA_256_PLUS), offers(SCRAM_SHA_256));
        let Credentials { channel_binding, tls, .. } = &self.credentials;
        if plus && *tls == TlsBinding::NoTls {
            let reason = "the server offers channel binding on an unencrypted connection".into();
            return Err(AuthError::Scram { reason }.into());
        }
        let binding = match (channel_binding, tls) {
            (
                ChannelBinding::Prefer | ChannelBinding::Require,
                TlsBinding::ServerEndPoint(hash),
            ) if plus => Some(hash),
            (ChannelBinding::Require, TlsBinding::NoTls) => {
                return Err(unbound("the connection is not encrypted"));
            }
            (ChannelBinding::Require, TlsBinding::Undefined) => {
                return Err(unbound(
                    "the server's certificate has a signature that defines no hash",
                ));
            }
            (ChannelBinding::Require, TlsBinding::Unknown) => {
                return Err(unbound("it is not known what the connection could be bound to"));
            }
            (ChannelBinding::Require, TlsBinding::ServerEndPoint(_)) => {
                return Err(unbound("the server does not offer it"));
            }
            _ => None,
        };
        if binding.is_none() && !plain {
            let method = format!("SASL ({})", mechanisms.join(", "));
            return Err(AuthError::MethodUnsupported { method }.into());
        }
        let (mechanism, scram_binding) = match (binding, tls) {
            (Some(hash), _) => {
                (SCRAM_SHA_256_PLUS, ScramBinding::tls_server_end_point(hash.to_vec()))
            }
            // "I could bind, but you did not offer it": the server refuses this if it did, which
            // uncovers somebody in the middle who removed the offer.
            (None, TlsBinding::ServerEndPoint(_)) if *channel_binding == ChannelBinding::Prefer => {
                (SCRAM_SHA_256, ScramBinding::unrequested())
            }
            (None, _) => (SCRAM_SHA_256, ScramBinding::unsupported()),
        };
        self.refuse_unless_allowed(AuthMethod::ScramSha256)?;
        let scram = ScramSha256::new(self.password()?.as_bytes(), scram_binding);
        answer(PasswordMessage::sasl_initial_response(mechanism, scram.message())?, out)?;
        Ok(State::ScramFirst { scram: Box::new(scram), bound: binding.is_some() })
    }
}

fn answer(message: PasswordMessage, out: &mut BytesMut) -> Result<(), Misuse> {
    FrontendMessage::Password(message).encode(out)
}

fn unbound(reason: &'static str) -> Error {
    AuthError::ChannelBindingUnavailable { reason }.into()
}

fn scram_error(error: std::io::Error) -> Error {
    let mut reason = error.to_string();
    // A server that asks for more makes its clients work; honest ones ask for 4096.
    if reason.contains("iteration count exceeds") {
        reason = "the password is stored with more than 100000 iterations (scram_iterations), \
                  which is the most that is computed here"
            .to_owned();
    }
    AuthError::Scram { reason }.into()
}
