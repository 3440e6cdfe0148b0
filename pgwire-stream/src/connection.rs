//! The session over a byte stream: one thin loop, and no thought of its own.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::proto::{Credentials, Event, ProtocolRange, Session};
use crate::wire::Wire;
use crate::{Error, Misuse, Result};

/// A [`Session`] and the stream that carries it.
///
/// Every async method is cancel-safe: what was received or is still to be sent stays in the
/// buffers.
pub struct Connection<S> {
    wire: Wire<S>,
    session: Session,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Logs in over a stream that is connected and, if so wanted, encrypted.
    ///
    /// # Errors
    /// If the server refuses, or does not speak PostgreSQL's protocol.
    pub async fn login<'a>(
        stream: S,
        credentials: Credentials,
        protocols: ProtocolRange,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self> {
        let mut wire = Wire::new(stream);
        let session = Session::new(credentials, protocols, parameters, &mut wire.output)?;
        let mut connection = Self { wire, session };
        loop {
            match connection.next_event().await? {
                Event::Ready => return Ok(connection),
                Event::Notice(notice) => {
                    tracing::debug!(severity = notice.severity, "notice while logging in");
                }
                // No other event can come before the session is idle.
                _ => {}
            }
        }
    }

    /// The conversation's state.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The stream that carries it.
    pub fn stream(&self) -> &S {
        self.wire.stream()
    }

    /// How many bytes are queued that the server has not been sent yet.
    pub fn queued(&self) -> usize {
        self.wire.queued()
    }

    /// Whether something is queued or held back that the server has not been sent yet.
    pub fn has_output(&self) -> bool {
        self.wire.has_output()
    }

    /// How large new receive buffers become, as [`Session::set_receive_buffer`].
    pub fn set_receive_buffer(&mut self, bytes: usize) {
        self.session.set_receive_buffer(bytes);
    }

    /// Queues a command; it is sent by the next [`next_event`](Self::next_event).
    ///
    /// # Errors
    /// If another command is going on, or the text contains a zero byte.
    pub fn query(&mut self, sql: &str) -> Result<(), Misuse> {
        self.session.query(sql, &mut self.wire.output)
    }

    /// Queues copy data.
    ///
    /// # Errors
    /// If the server is not listening to any, or they are too long for one message.
    pub fn copy_data(&mut self, data: &[u8]) -> Result<(), Misuse> {
        self.session.copy_data(data, &mut self.wire.output)
    }

    /// Queues the news that our side of a copy-in comes to no end.
    ///
    /// # Errors
    /// If there is no such copy, or the reason contains a zero byte.
    pub fn copy_fail(&mut self, reason: &str) -> Result<(), Misuse> {
        self.session.copy_fail(reason, &mut self.wire.output)
    }

    /// Queues the end of our side of a copy.
    ///
    /// # Errors
    /// If there is no such copy.
    pub fn copy_done(&mut self) -> Result<(), Misuse> {
        self.session.copy_done(&mut self.wire.output)
    }

    /// The next event that needs no waiting.
    ///
    /// # Errors
    /// If the server does not keep to the protocol.
    pub fn buffered_event(&mut self) -> Result<Option<Event>> {
        self.session.handle(&mut self.wire.input, &mut self.wire.output)
    }

    /// The next event. Sends what is queued, and receives.
    ///
    /// # Errors
    /// If the connection fails or ends, or the server does not keep to the protocol.
    pub async fn next_event(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.buffered_event()? {
                return Ok(event);
            }
            self.receive().await?;
        }
    }

    /// Waits until more has been received, and sends what is queued meanwhile, so that neither
    /// side waits for the other. To be called when
    /// [`buffered_event`](Self::buffered_event) has given `None`.
    ///
    /// # Errors
    /// If the connection fails or ends.
    pub async fn receive(&mut self) -> Result<()> {
        match self.wire.receive().await? {
            0 => Err(Error::Closed { during: self.session.activity() }),
            _ => Ok(()),
        }
    }

    /// Sends all that is queued, or learns that nothing can be sent any more, which the next
    /// [`next_event`](Self::next_event) tells.
    pub async fn send(&mut self) {
        self.wire.send().await;
    }

    /// Sends what the stream takes without waiting.
    pub async fn try_send(&mut self) {
        self.wire.try_send().await;
    }

    /// Says goodbye and closes the stream.
    ///
    /// # Errors
    /// If the connection fails before the goodbye is sent.
    pub async fn close(mut self) -> Result<()> {
        self.session.terminate(&mut self.wire.output);
        self.wire.close().await
    }
}
