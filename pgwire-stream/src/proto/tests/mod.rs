//! The peer is scripted bytes.

mod backup;
mod layers;
mod login;
mod session;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Credentials, Event, Session, TlsBinding};
use crate::{ChannelBinding, Error, Password};

/// A message of the server.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.put_u32(body.len() as u32 + 4);
    bytes.extend(body);
    bytes
}

fn authentication(code: u32, payload: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), payload].concat())
}

fn parameter(name: &str, value: &str) -> Vec<u8> {
    message(b'S', format!("{name}\0{value}\0").as_bytes())
}

fn columns(names: &[&str]) -> Vec<u8> {
    let mut body = (names.len() as u16).to_be_bytes().to_vec();
    for name in names {
        body.extend(name.as_bytes());
        body.extend([0; 19]);
    }
    message(b'T', &body)
}

fn row(values: &[Option<&str>]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        match value {
            Some(value) => {
                body.put_u32(value.len() as u32);
                body.extend(value.as_bytes());
            }
            None => body.put_i32(-1),
        }
    }
    message(b'D', &body)
}

fn complete(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}

fn report(tag: u8, severity: &str, code: &str, text: &str) -> Vec<u8> {
    message(tag, format!("S{severity}\0V{severity}\0C{code}\0M{text}\0\0").as_bytes())
}

fn copy_response(tag: u8) -> Vec<u8> {
    message(tag, &[0, 0, 0])
}

fn copy_data(payload: &[u8]) -> Vec<u8> {
    message(b'd', payload)
}

fn copy_done() -> Vec<u8> {
    message(b'c', b"")
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn credentials() -> Credentials {
    Credentials {
        user: "walrecv".into(),
        password: Some(Password::new("secret")),
        channel_binding: ChannelBinding::Prefer,
        tls: TlsBinding::NoTls,
    }
}

/// A conversation with a scripted server.
struct Peer {
    session: Session,
    input: BytesMut,
    output: BytesMut,
}

impl Peer {
    fn new(credentials: Credentials) -> Self {
        let mut output = BytesMut::new();
        let session =
            Session::new(credentials, [("user", "walrecv"), ("replication", "true")], &mut output)
                .unwrap();
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
