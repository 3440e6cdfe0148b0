//! The server's end: arbitrary bytes of the client in arbitrary cuts, and arbitrary messages of
//! ours.

use bytes::{Buf, BytesMut};

use super::login;
use super::messages::ServerMessages;
use super::session::SPARE;
use super::steps::{Step, steps};
use crate::proto::{BackendMessage, MAX_COPY_DATA, ProtocolVersion, ServerEvent, ServerSession};

/// A transcript, see `Step`. The first byte chooses how the client is authenticated.
///
/// Asserted: no panic, buffers stay within the limits, what is over stays so, and everything that
/// is sent parses.
pub fn server_session(data: &[u8]) {
    let _ = server_accepts(data);
}

/// Whether the server's end takes a transcript to its end, and else the first thing that it
/// refuses.
pub fn server_accepts(data: &[u8]) -> Result<(), String> {
    let Some((&options, data)) = data.split_first() else { return Ok(()) };
    let mut server = Server {
        session: ServerSession::new(match options & 8 {
            0 => ProtocolVersion::V3_2,
            _ => ProtocolVersion::V3_0,
        }),
        options,
        input: BytesMut::new(),
        output: BytesMut::new(),
        sent: BytesMut::new(),
        script: ServerMessages::default(),
        over: false,
        refused: None,
    };
    for step in steps(data) {
        match step {
            Step::Client(bytes) => server.listen(bytes),
            Step::Server(bytes) => server.speak(bytes),
            _ => {}
        }
    }
    assert_parses(server.sent);
    server.refused.map_or(Ok(()), Err)
}

/// The server's end.
struct Server {
    session: ServerSession,
    options: u8,
    input: BytesMut,
    output: BytesMut,
    sent: BytesMut,
    /// What the server is to say.
    script: ServerMessages,
    over: bool,
    /// The first that was refused of either side.
    refused: Option<String>,
}

impl Server {
    /// Takes what the client says, and answers what only the session can.
    fn listen(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        loop {
            let heard = self.session.handle(&mut self.input, &mut self.output);
            assert!(!self.over || matches!(heard, Ok(None)), "it came back from its end");
            self.over = self.session.is_over();
            let answered = match heard {
                Ok(Some(ServerEvent::TlsRequest)) => {
                    self.session.answer_tls(false, &self.input, &mut self.output)
                }
                Ok(Some(ServerEvent::Startup(_))) => {
                    let method = login::authentication(self.options);
                    self.session.authenticate(method, &mut self.output).map(drop)
                }
                Ok(Some(_)) => Ok(()),
                Ok(None) => break,
                Err(error) => Err(error),
            };
            if let Err(error) = answered {
                self.refused.get_or_insert(error.to_string());
            }
        }
        assert!(self.input.capacity() <= MAX_COPY_DATA + SPARE, "{}", self.input.capacity());
        self.sent.extend_from_slice(&self.output.split());
    }

    /// Says what a server says here.
    fn speak(&mut self, bytes: &[u8]) {
        self.script.extend(bytes);
        while let Ok(Some(message)) = self.script.next() {
            // The login is the session's own business.
            if let BackendMessage::Authentication(_) = message {
                continue;
            }
            let said = self.session.say(&message, &mut self.output);
            assert!(!self.over || said.is_err(), "it came back from its end");
            self.over = self.session.is_over();
            match said {
                // PostgreSQL 10 says something behind the end of a logical stream.
                Err(misuse) if !matches!(message, BackendMessage::CopyData(_)) => {
                    self.refused.get_or_insert(format!("{}: {misuse}", message.name()));
                }
                _ => {}
            }
        }
        // Now it may be the client's turn.
        self.listen(b"");
    }
}

/// Asserts that these are refusals of encryption and then whole messages of a server.
fn assert_parses(mut sent: BytesMut) {
    while sent.starts_with(b"N") {
        sent.advance(1);
    }
    let mut messages = ServerMessages::default();
    messages.extend(&sent);
    while let Some(_message) = messages.next().expect("what was sent does not parse") {}
    assert!(messages.is_empty(), "what was sent is not whole");
}
