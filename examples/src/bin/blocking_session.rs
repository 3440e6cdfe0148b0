//! The protocol as a value, over a blocking socket: no runtime, no tasks, no timers. Bytes and the
//! time go in; bytes, events and deadlines come out, and this program decides when it waits.
//!
//! ```sh
//! cargo run -p pgwire-stream-examples --bin blocking_session -- \
//!     "host=localhost user=postgres password=secret" 0/1500000
//! ```

// Examples are for people at a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use pgwire_stream::proto::{
    Action, CopyBothMessage, Credentials, Event, Feedback, Intervals, ProtocolRange, Session,
    StandbyMessage, StandbyStatus,
};
use pgwire_stream::{Config, Lsn};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A session, its socket, and the buffers between them.
struct Conversation {
    socket: TcpStream,
    session: Session,
    input: BytesMut,
    output: BytesMut,
}

impl Conversation {
    /// The startup packet is written to the output; the login goes on in [`next`](Self::next).
    fn begin(config: &Config) -> Result<Self> {
        let user = config.user.as_deref().ok_or("no user")?;
        let parameters = [("user", user), ("replication", "true")];
        let credentials = Credentials::new(user, config.password.clone());
        let protocol = ProtocolRange::default();
        let mut output = BytesMut::new();
        let session = Session::new(credentials, protocol, parameters, &mut output)?;
        let socket = TcpStream::connect(config.hosts.first().ok_or("no host")?.to_string())?;
        Ok(Self { socket, session, input: BytesMut::new(), output })
    }

    /// The next event, sending what is queued; `None` if there is none for so long.
    fn next(&mut self, patience: Option<Duration>) -> Result<Option<Event>> {
        loop {
            let event = self.session.handle(&mut self.input, &mut self.output)?;
            // What the session has to answer: a password, the end of a copy.
            self.socket.write_all(&self.output)?;
            self.output.clear();
            match event {
                Some(Event::Error(error)) => return Err(error.into()),
                Some(event) => return Ok(Some(event)),
                None => self.socket.set_read_timeout(patience)?,
            }
            let mut bytes = [0; 16 << 10];
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err("the server has closed the connection".into()),
                Ok(count) => self.input.extend(bytes.iter().take(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let config: Config = arguments.next().unwrap_or_default().parse()?;
    let mut received: Lsn = arguments.next().ok_or("blocking_session CONNINFO LSN")?.parse()?;
    let mut server = Conversation::begin(&config)?;
    while !matches!(server.next(None)?, Some(Event::Ready)) {}
    let command = format!("START_REPLICATION PHYSICAL {received}");
    server.session.query(&command, &mut server.output)?;
    while !matches!(server.next(None)?, Some(Event::CopyBoth)) {}

    let mut feedback = Feedback::new(Intervals::default(), Instant::now());
    loop {
        let now = Instant::now();
        let patience = match feedback.poll(now) {
            Action::Wait(until) => until.map(|until| until.saturating_duration_since(now)),
            Action::TimedOut => return Err("the server has fallen silent".into()),
            Action::Report { ask_for_reply } => {
                // Nothing is stored, so nothing is ever flushed.
                let status = StandbyMessage::Status(StandbyStatus {
                    written: received,
                    flushed: Lsn::ZERO,
                    applied: Lsn::ZERO,
                    sent_at: SystemTime::now().into(),
                    reply_requested: ask_for_reply,
                });
                let mut message = BytesMut::new();
                status.encode(&mut message);
                server.session.copy_data(&message, &mut server.output)?;
                feedback.reported(now, ask_for_reply);
                continue;
            }
        };
        let Some(event) = server.next(patience)? else { continue };
        feedback.received(Instant::now());
        match event {
            Event::CopyData(payload) => match CopyBothMessage::decode(payload)? {
                CopyBothMessage::Data(wal) => {
                    println!("{} {} bytes", wal.start, wal.data.len());
                    received = wal.end();
                }
                CopyBothMessage::Keepalive(sign) if sign.reply_requested => feedback.want_report(),
                _ => {}
            },
            other => return Err(format!("the stream has ended: {other:?}").into()),
        }
    }
}
