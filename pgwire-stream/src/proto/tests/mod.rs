//! The peer is scripted bytes.

mod backup;
mod layers;
mod login;
mod messages;
mod require_auth;
pub(crate) mod said;
#[cfg(feature = "server")]
mod server;
mod session;

use bytes::{Bytes, BytesMut};

use super::{Credentials, Event, ProtocolRange, Session, TlsBinding};
use crate::{ChannelBinding, Error, Password};
use said::*;

fn credentials() -> Credentials {
    Credentials::new("walrecv", Some(Password::new("secret")))
}

/// A conversation with a scripted server.
struct Peer {
    session: Session,
    input: BytesMut,
    output: BytesMut,
}

impl Peer {
    fn new(credentials: Credentials) -> Self {
        Self::with_protocols(credentials, ProtocolRange::default())
    }

    fn with_protocols(credentials: Credentials, protocols: ProtocolRange) -> Self {
        let parameters = [("user", "walrecv"), ("replication", "true")];
        let mut output = BytesMut::new();
        let session = Session::new(credentials, protocols, parameters, &mut output).unwrap();
        Self { session, input: BytesMut::new(), output }
    }

    fn logged_in() -> Self {
        let mut peer = Self::new(credentials());
        let events = peer.hear(&[
            authentication(0, b""),
            parameter("server_version", "15.20"),
            message(b'K', &[0; 8]),
            ready(),
        ]);
        assert!(matches!(events.unwrap()[..], [Event::Ready]));
        peer.output.clear();
        peer
    }

    /// Logged in, and with a command sent.
    fn executing(command: &str) -> Self {
        let mut peer = Self::logged_in();
        peer.session.query(command, &mut peer.output).unwrap();
        peer.output.clear();
        peer
    }

    fn hear(&mut self, messages: &[Vec<u8>]) -> Result<Vec<Event>, Error> {
        self.input.extend(messages.concat());
        self.drain()
    }

    fn drain(&mut self) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        while let Some(event) = self.session.handle(&mut self.input, &mut self.output)? {
            events.push(event);
        }
        Ok(events)
    }

    /// What was sent since the last time.
    fn said(&mut self) -> Bytes {
        self.output.split().freeze()
    }
}
