//! The server's side of the login.

use std::fmt;

use bytes::{Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;

use super::scram::{Challenge, Scram};
use super::verifier::ScramVerifier;
use super::{fatal, random, same};
use crate::proto::{AuthenticationRequest, BackendMessage, FrontendPhase, PasswordMessage};
use crate::{Error, Password};

/// How a client proves who it is, as a line of `pg_hba.conf` says, and what is known about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Authentication {
    /// Everybody is let in.
    Trust,
    /// The password as it is. `None` is nobody's, so that strangers learn nothing.
    Password(Option<Password>),
    /// The password's MD5 hash; `None` as before.
    Md5(Option<Password>),
    /// SCRAM-SHA-256.
    ScramSha256 {
        /// The user's, or [`ScramVerifier::mock`] for one who does not exist.
        verifier: ScramVerifier,
        /// On a connection with TLS, the hash of our certificate (`tls-server-end-point`): then
        /// SCRAM-SHA-256-PLUS is offered, too.
        channel_binding: Option<Bytes>,
    },
}

impl Authentication {
    /// SCRAM-SHA-256 with this password and without channel binding.
    pub fn scram_sha_256(password: &Password) -> Self {
        let verifier = ScramVerifier::from_password(password);
        Self::ScramSha256 { verifier, channel_binding: None }
    }
}

/// Where the login stands.
///
/// ```text
///  begin() ─▶ Password ──p──▶ (done)
///     │  └───▶ Md5 ──────p──▶ (done)
///     └─▶ Mechanism ──p──▶ Proof ──p──▶ (done)
/// ```
pub(super) struct Login {
    user: String,
    state: State,
}

enum State {
    /// A password is due.
    Password(Option<Password>),
    /// This hash of one is due.
    Md5(Option<String>),
    /// The choice of a mechanism is due.
    Mechanism(Box<Scram>),
    /// The first message is due, which could have come with the choice.
    First(Box<Scram>, String),
    /// The proof is due.
    Proof(Box<Scram>, Box<Challenge>),
    /// Nothing is.
    Over,
}

impl Login {
    /// Asks the client; `None` if there is nothing to ask.
    ///
    /// # Errors
    /// If there is no randomness.
    pub(super) fn begin(
        user: &str,
        authentication: Authentication,
        out: &mut BytesMut,
    ) -> Result<Option<Self>, Error> {
        let (request, state) = match authentication {
            Authentication::Trust => return Ok(None),
            Authentication::Password(password) => {
                (AuthenticationRequest::CleartextPassword, State::Password(password))
            }
            Authentication::Md5(password) => {
                let salt = random()?;
                let hash =
                    password.map(|password| md5_hash(user.as_bytes(), password.as_bytes(), salt));
                (AuthenticationRequest::Md5Password { salt }, State::Md5(hash))
            }
            Authentication::ScramSha256 { verifier, channel_binding } => {
                let scram = Scram::new(verifier, channel_binding, random()?);
                let mechanisms = scram.mechanisms();
                (AuthenticationRequest::Sasl { mechanisms }, State::Mechanism(Box::new(scram)))
            }
        };
        BackendMessage::Authentication(request).encode(out)?;
        Ok(Some(Self { user: user.to_owned(), state }))
    }

    /// How long the client's next message may be.
    pub(super) fn phase(&self) -> FrontendPhase {
        match self.state {
            State::Password(_) | State::Md5(_) => FrontendPhase::Password,
            _ => FrontendPhase::Sasl,
        }
    }

    /// Hears an answer. True if the client is who it says.
    ///
    /// # Errors
    /// If it is not, or the answer is malformed.
    pub(super) fn handle(
        &mut self,
        answer: &PasswordMessage,
        out: &mut BytesMut,
    ) -> Result<bool, Error> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Password(expected) => {
                let expected = expected.as_ref().map(Password::as_bytes);
                self.compare(answer, expected).map(|()| true)
            }
            State::Md5(expected) => {
                let expected = expected.as_ref().map(String::as_bytes);
                self.compare(answer, expected).map(|()| true)
            }
            State::Mechanism(scram) => {
                let (mechanism, first) = answer.to_sasl_initial_response()?;
                if !scram.offers(&mechanism) {
                    let problem = "client selected an invalid SASL authentication mechanism";
                    return Err(fatal("08P01", problem));
                }
                match first {
                    Some(first) => self.challenge(scram, &mechanism, &first, out)?,
                    None => {
                        say(AuthenticationRequest::SaslContinue(Bytes::new()), out)?;
                        self.state = State::First(scram, mechanism);
                    }
                }
                Ok(false)
            }
            State::First(scram, mechanism) => {
                self.challenge(scram, &mechanism, answer.as_bytes(), out)?;
                Ok(false)
            }
            State::Proof(scram, challenge) => {
                let Some(last) = scram.verify(&challenge, answer.as_bytes())? else {
                    return Err(self.refused());
                };
                say(AuthenticationRequest::SaslFinal(last.into()), out)?;
                Ok(true)
            }
            State::Over => Err(self.refused()),
        }
    }

    fn challenge(
        &mut self,
        scram: Box<Scram>,
        mechanism: &str,
        first: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        let challenge = scram.challenge(mechanism, first)?;
        say(AuthenticationRequest::SaslContinue(challenge.server_first.clone().into()), out)?;
        self.state = State::Proof(scram, Box::new(challenge));
        Ok(())
    }

    fn compare(&self, answer: &PasswordMessage, expected: Option<&[u8]>) -> Result<(), Error> {
        let given = answer.to_password()?;
        if given.is_empty() {
            let problem = "empty password returned by client";
            return Err(fatal("28P01", problem));
        }
        if expected.is_some_and(|expected| same(&given, expected)) {
            Ok(())
        } else {
            Err(self.refused())
        }
    }

    fn refused(&self) -> Error {
        let problem = format!("password authentication failed for user \"{}\"", self.user);
        fatal("28P01", problem)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

fn say(request: AuthenticationRequest, out: &mut BytesMut) -> Result<(), Error> {
    Ok(BackendMessage::Authentication(request).encode(out)?)
}
