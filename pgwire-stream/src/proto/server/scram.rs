//! The server's side of SCRAM-SHA-256, with and without channel binding.
//!
//! Follows RFC 5802 and 7677 as `src/backend/libpq/auth-scram.c` in PostgreSQL does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use postgres_protocol::authentication::sasl::{SCRAM_SHA_256, SCRAM_SHA_256_PLUS};
use sha2::{Digest as _, Sha256};

use super::verifier::{KEY, ScramVerifier, hmac};
use super::{fatal, same};
use crate::Error;

/// One exchange.
#[derive(Debug)]
pub(super) struct Scram {
    verifier: ScramVerifier,
    /// The hash of our certificate, on a connection with TLS.
    channel_binding: Option<Bytes>,
    /// Our part of the nonce: printable, no commas.
    nonce: String,
}

/// What was said so far, which the proofs are about.
#[derive(Debug)]
pub(super) struct Challenge {
    /// The client's first message without its channel binding.
    client_first_bare: String,
    /// The challenge.
    pub(super) server_first: String,
    nonce: String,
    /// What the client's last message has to repeat of the first, and, with channel binding, to
    /// know of our certificate.
    binding: Vec<u8>,
    /// Whether the certificate is part of it.
    bound: bool,
}

impl Scram {
    pub(super) fn new(
        verifier: ScramVerifier,
        channel_binding: Option<Bytes>,
        nonce: [u8; 18],
    ) -> Self {
        Self { verifier, channel_binding, nonce: STANDARD.encode(nonce) }
    }

    /// What is offered, the best first.
    pub(super) fn mechanisms(&self) -> Vec<String> {
        let plus = self.channel_binding.as_ref().map(|_| SCRAM_SHA_256_PLUS.to_owned());
        plus.into_iter().chain([SCRAM_SHA_256.to_owned()]).collect()
    }

    /// Whether this mechanism was offered.
    pub(super) fn offers(&self, mechanism: &str) -> bool {
        self.mechanisms().iter().any(|offered| offered == mechanism)
    }

    /// Hears the client's first message.
    ///
    /// # Errors
    /// If it is malformed, or asks for what was not offered.
    pub(super) fn challenge(&self, mechanism: &str, message: &[u8]) -> Result<Challenge, Error> {
        let message = str::from_utf8(message).map_err(|_| malformed())?;
        let (flag, rest) = message.split_once(',').ok_or_else(malformed)?;
        let (identity, bare) = rest.split_once(',').ok_or_else(malformed)?;
        let plus = mechanism == SCRAM_SHA_256_PLUS;
        let bound = match (flag, &self.channel_binding) {
            ("n" | "y", _) if plus => {
                return Err(protocol("the SCRAM message does not include channel binding data"));
            }
            // The client believes that we cannot, so somebody has removed our offer.
            ("y", Some(_)) => {
                return Err(fatal("28000", "SCRAM channel binding negotiation error"));
            }
            ("n" | "y", _) => false,
            ("p=tls-server-end-point", Some(_)) if plus => true,
            (flag, _) if flag.starts_with("p=") && plus => {
                return Err(protocol("unsupported SCRAM channel-binding type"));
            }
            (flag, _) if flag.starts_with("p=") => {
                return Err(protocol("the SCRAM message includes channel binding data"));
            }
            _ => return Err(malformed()),
        };
        if !identity.is_empty() {
            let problem = "client uses authorization identity, but it is not supported";
            return Err(fatal("0A000", problem));
        }
        if bare.starts_with('m') {
            return Err(fatal("0A000", "client requires an unsupported SCRAM extension"));
        }
        let mut attributes = bare.split(',');
        // The user is the startup packet's.
        attributes.next().and_then(|name| name.strip_prefix("n=")).ok_or_else(malformed)?;
        let nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r="));
        let nonce = nonce
            .filter(|nonce| !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic()))
            .ok_or_else(malformed)?;
        let nonce = format!("{nonce}{}", self.nonce);
        let salt = STANDARD.encode(&self.verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", self.verifier.iterations);
        let mut binding = format!("{flag},,").into_bytes();
        if let (true, Some(hash)) = (bound, &self.channel_binding) {
            binding.extend_from_slice(hash);
        }
        let client_first_bare = bare.to_owned();
        Ok(Challenge { client_first_bare, server_first, nonce, binding, bound })
    }

    /// Hears the client's last message, and gives ours; `None` if the proof is wrong.
    ///
    /// # Errors
    /// If the message is malformed or about another exchange.
    pub(super) fn verify(
        &self,
        challenge: &Challenge,
        message: &[u8],
    ) -> Result<Option<String>, Error> {
        let message = str::from_utf8(message).map_err(|_| malformed())?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or_else(malformed)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|binding| binding.strip_prefix("c="));
        let binding = STANDARD.decode(binding.ok_or_else(malformed)?).map_err(|_| malformed())?;
        let nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r="));
        if nonce != Some(&challenge.nonce) {
            return Err(protocol("the nonce does not match"));
        }
        if !same(&binding, &challenge.binding) {
            return Err(if challenge.bound {
                fatal("28000", "SCRAM channel binding check failed")
            } else {
                protocol("unexpected SCRAM channel-binding attribute in client-final-message")
            });
        }
        let proof: [u8; KEY] = STANDARD
            .decode(proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or_else(malformed)?;
        let Challenge { client_first_bare, server_first, .. } = challenge;
        let said = format!("{client_first_bare},{server_first},{without_proof}");
        let mut client_key = hmac(&self.verifier.stored_key, said.as_bytes());
        for (byte, proof) in client_key.iter_mut().zip(proof) {
            *byte ^= proof;
        }
        if !same(&Sha256::digest(client_key), &self.verifier.stored_key) {
            return Ok(None);
        }
        let signature = hmac(&self.verifier.server_key, said.as_bytes());
        Ok(Some(format!("v={}", STANDARD.encode(signature))))
    }
}

fn malformed() -> Error {
    protocol("malformed SCRAM message")
}

fn protocol(problem: &str) -> Error {
    fatal("08P01", problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
        $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";

    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn scram(channel_binding: Option<&'static [u8]>) -> Scram {
        let verifier = ScramVerifier::parse(STORED).unwrap();
        let channel_binding = channel_binding.map(Bytes::from_static);
        let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned();
        Scram { verifier, channel_binding, nonce }
    }

    fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
        result.unwrap_err().sql_state().unwrap().to_string()
    }

    /// The example of RFC 7677.
    #[test]
    fn the_exchange_is_that_of_the_standard() {
        let scram = scram(None);
        let challenge = scram.challenge(SCRAM_SHA_256, FIRST.as_bytes()).unwrap();
        assert_eq!(
            challenge.server_first,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = scram.verify(&challenge, LAST.as_bytes()).unwrap();
        assert_eq!(last.as_deref(), Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));

        let forged = LAST.replace("dHzb", "dHzc");
        assert_eq!(scram.verify(&challenge, forged.as_bytes()).unwrap(), None);
    }

    #[test]
    fn first_messages_must_fit_what_was_offered() {
        let (plain, plus) = (SCRAM_SHA_256, SCRAM_SHA_256_PLUS);
        let bind = "p=tls-server-end-point,,n=,r=x";
        for (binding, mechanism, first, expected) in [
            (None, plain, "n,,n=,r=", "08P01"),
            (None, plain, "n,,n=,r=a b", "08P01"),
            (None, plain, "n,,r=x", "08P01"),
            (None, plain, "x,,n=,r=x", "08P01"),
            (None, plain, "", "08P01"),
            (None, plain, "n,a=admin,n=,r=x", "0A000"),
            (None, plain, "n,,m=x,n=,r=x", "0A000"),
            (None, plain, bind, "08P01"),
            (Some(b"hash".as_slice()), plain, bind, "08P01"),
            (Some(b"hash"), plain, "y,,n=,r=x", "28000"),
            (Some(b"hash"), plus, "n,,n=,r=x", "08P01"),
            (Some(b"hash"), plus, "p=tls-unique,,n=,r=x", "08P01"),
        ] {
            let refused = scram(binding).challenge(mechanism, first.as_bytes());
            assert_eq!(code(refused), expected, "{first}");
        }
        assert!(scram(Some(b"hash")).challenge(plus, bind.as_bytes()).unwrap().bound);
        assert!(scram(None).challenge(plain, b"y,,n=,r=x").is_ok());
    }

    #[test]
    fn last_messages_must_be_about_this_exchange() {
        let scram = scram(None);
        let challenge = scram.challenge(SCRAM_SHA_256, FIRST.as_bytes()).unwrap();
        for (from, to) in [
            ("rOpr", "rOps"),
            ("c=biws", "c=eSws"),
            ("c=biws", "c=%"),
            ("p=dHzb", "p=dHz"),
            (",p=", ",q="),
        ] {
            let last = LAST.replace(from, to);
            assert_eq!(code(scram.verify(&challenge, last.as_bytes())), "08P01", "{last}");
        }
    }
}
