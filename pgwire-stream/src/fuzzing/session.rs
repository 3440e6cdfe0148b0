//! A whole session: arbitrary bytes of the server in arbitrary cuts, arbitrary commands of ours, and
//! arbitrary steps of time.

use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::messages::ClientMessages;
use super::steps::{Step, steps};
use crate::Password;
use crate::proto::{
    Action, CopyBothMessage, Credentials, Event, Feedback, FrontendMessage, Intervals,
    MAX_COPY_DATA, ProtocolRange, Session,
};

/// The answer to a login without a password.
pub(super) const GREETING: &[u8] =
    b"R\0\0\0\x08\0\0\0\0S\0\0\0\x19server_version\x0015.20\0K\0\0\0\x0c\0\0\0\0\0\0\0\0Z\0\0\0\x05I";

/// What a buffer may have of room beyond the message that it waits for.
pub(super) const SPARE: usize = 1 << 20;

/// A transcript, see `Step`. The first byte chooses whether the login is behind us, and which
/// limits of time hold.
///
/// Asserted: no panic, buffers stay within the limits, a failure stays one, reports come to an end,
/// and everything that is sent parses.
pub fn session(data: &[u8]) {
    let _ = client_accepts(data);
}

/// Whether our end takes a transcript to its end, and else the first thing that it refuses.
pub fn client_accepts(data: &[u8]) -> Result<(), String> {
    let Some((&options, data)) = data.split_first() else { return Ok(()) };
    let mut client = Client::new(options);
    for step in steps(data) {
        match step {
            Step::Server(bytes) => client.listen(bytes),
            Step::Client(bytes) => client.speak(bytes),
            Step::Pause => client.feedback.pause(client.now),
            Step::Resume => client.feedback.resume(client.now),
            Step::Ask => client.feedback.want_report(),
            Step::Wait(time) => client.now += time,
        }
        client.report();
    }
    assert_parses(&client.sent);
    client.refused.map_or(Ok(()), Err)
}

/// Our end.
struct Client {
    session: Session,
    feedback: Feedback,
    now: Instant,
    input: BytesMut,
    output: BytesMut,
    sent: BytesMut,
    /// What we are to say, as far as it is no whole message yet.
    script: ClientMessages,
    failed: bool,
    /// The first that was refused of either side.
    refused: Option<String>,
}

impl Client {
    fn new(options: u8) -> Self {
        let mut output = BytesMut::new();
        let session = begin(&mut output);
        let now = Instant::now();
        let limit = |bit: u8, seconds| (options & bit != 0).then(|| Duration::from_secs(seconds));
        let intervals = Intervals { status: limit(2, 10), receive: limit(4, 60) };
        let logged_in = options & 1 == 1;
        let mut client = Self {
            session,
            feedback: Feedback::new(intervals, now),
            now,
            input: BytesMut::new(),
            output,
            sent: BytesMut::new(),
            script: match logged_in {
                true => ClientMessages::from_session(),
                false => ClientMessages::from_startup(),
            },
            failed: false,
            refused: None,
        };
        client.listen(if logged_in { GREETING } else { b"" });
        client
    }

    /// Takes what the server says.
    fn listen(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        loop {
            match self.session.handle(&mut self.input, &mut self.output) {
                Ok(Some(event)) => {
                    assert!(!self.failed, "it came back from a failure");
                    self.feedback.received(self.now);
                    if let Event::CopyData(payload) = event {
                        let _ = CopyBothMessage::decode(payload);
                    }
                }
                Ok(None) => {
                    assert!(!self.failed, "it came back from a failure");
                    break;
                }
                Err(error) => {
                    self.failed = true;
                    self.refused.get_or_insert(error.to_string());
                    self.input.clear();
                    break;
                }
            }
        }
        assert!(self.input.capacity() <= MAX_COPY_DATA + SPARE, "{}", self.input.capacity());
        self.sent.extend_from_slice(&self.output.split());
    }

    /// Does what made a client say this.
    fn speak(&mut self, bytes: &[u8]) {
        self.script.extend(bytes);
        while let Ok(Some(message)) = self.script.next() {
            let output = &mut self.output;
            let refused = match &message {
                FrontendMessage::Query(sql) => self.session.query(sql, output).err(),
                FrontendMessage::CopyFail(reason) => self.session.copy_fail(reason, output).err(),
                // A client may say these before it has heard that the copy is over.
                FrontendMessage::CopyData(data) => {
                    self.session.copy_data(data, output).ok();
                    None
                }
                FrontendMessage::CopyDone => {
                    self.session.copy_done(output).ok();
                    None
                }
                // Of the rest, the session says what is to be said by itself.
                _ => None,
            };
            if let Some(misuse) = refused {
                self.refused.get_or_insert(format!("{}: {misuse}", message.name()));
            }
            self.sent.extend_from_slice(&self.output.split());
        }
    }

    /// Reports until nothing is due: that comes to an end.
    fn report(&mut self) {
        for _ in 0..3 {
            match self.feedback.poll(self.now) {
                Action::Report { ask_for_reply } => {
                    self.feedback.reported(self.now, ask_for_reply);
                }
                Action::Wait(next) => {
                    assert!(next.is_none_or(|next| next > self.now), "it would spin");
                    return;
                }
                Action::TimedOut => return,
            }
        }
        panic!("reports have no end");
    }
}

pub(super) fn begin(output: &mut BytesMut) -> Session {
    let credentials = Credentials::new("walrecv", Some(Password::new("secret")));
    Session::new(credentials, ProtocolRange::default(), [("user", "walrecv")], output).unwrap()
}

/// Asserts that these are a startup packet and whole messages of a client.
fn assert_parses(sent: &[u8]) {
    let mut messages = ClientMessages::from_startup();
    messages.extend(sent);
    while let Some(_message) = messages.next().expect("what was sent does not parse") {}
    assert!(messages.is_empty(), "what was sent is not whole");
}
