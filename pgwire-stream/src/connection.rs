//! The session over a byte stream: one thin loop, and no thought of its own.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::proto::{Credentials, Event, ProtocolRange, Session};
use crate::{Error, Misuse, Result};

/// A [`Session`] and the stream that carries it.
///
/// Every async method is cancel-safe: what was received or is still to be sent stays in the
/// buffers.
pub struct Connection<S> {
    stream: S,
    session: Session,
    input: BytesMut,
    output: BytesMut,
    /// Whether the stream may hold back bytes that it has accepted.
    unflushed: bool,
    /// Why nothing can be sent any more. It is told when all that was received has been read: a
    /// server that closes the connection has often said why, which is worth more than "broken
    /// pipe".
    broken: Option<Error>,
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
        let mut output = BytesMut::with_capacity(1024);
        let session = Session::new(credentials, protocols, parameters, &mut output)?;
        let input = BytesMut::with_capacity(8 << 10);
        let mut connection =
            Self { stream, session, input, output, unflushed: false, broken: None };
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
        &self.stream
    }

    /// How many bytes are queued that the server has not been sent yet.
    pub fn queued(&self) -> usize {
        self.output.len()
    }

    /// Whether something is queued or held back that the server has not been sent yet.
    pub fn has_output(&self) -> bool {
        self.unflushed || !self.output.is_empty()
    }

    /// Queues a command; it is sent by the next [`next_event`](Self::next_event).
    ///
    /// # Errors
    /// If another command is going on, or the text contains a zero byte.
    pub fn query(&mut self, sql: &str) -> Result<(), Misuse> {
        self.session.query(sql, &mut self.output)
    }

    /// Queues copy data.
    ///
    /// # Errors
    /// If the server is not listening to any, or they are too long for one message.
    pub fn copy_data(&mut self, data: &[u8]) -> Result<(), Misuse> {
        self.session.copy_data(data, &mut self.output)
    }

    /// Queues the news that our side of a copy-in comes to no end.
    ///
    /// # Errors
    /// If there is no such copy, or the reason contains a zero byte.
    pub fn copy_fail(&mut self, reason: &str) -> Result<(), Misuse> {
        self.session.copy_fail(reason, &mut self.output)
    }

    /// Queues the end of our side of a copy.
    ///
    /// # Errors
    /// If there is no such copy.
    pub fn copy_done(&mut self) -> Result<(), Misuse> {
        self.session.copy_done(&mut self.output)
    }

    /// The next event that needs no waiting.
    ///
    /// # Errors
    /// If the server does not keep to the protocol.
    pub fn buffered_event(&mut self) -> Result<Option<Event>> {
        self.session.handle(&mut self.input, &mut self.output)
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
        match poll_fn(|cx| self.poll_exchange(cx)).await? {
            0 => Err(Error::Closed { during: self.session.activity() }),
            _ => Ok(()),
        }
    }

    /// Sends all that is queued, or learns that nothing can be sent any more, which the next
    /// [`next_event`](Self::next_event) tells.
    pub async fn send(&mut self) {
        poll_fn(|cx| self.poll_send(cx)).await;
    }

    /// Sends what the stream takes without waiting.
    pub async fn try_send(&mut self) {
        let send = poll_fn(|cx| {
            let _ = self.poll_send(cx);
            Poll::Ready(())
        });
        // Nobody comes back for what a used-up budget leaves behind.
        tokio::task::unconstrained(send).await;
    }

    /// Says goodbye and closes the stream.
    ///
    /// # Errors
    /// If the connection fails before the goodbye is sent.
    pub async fn close(mut self) -> Result<()> {
        self.session.terminate(&mut self.output);
        self.send().await;
        if let Some(error) = self.broken {
            return Err(error);
        }
        poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await?;
        Ok(())
    }

    /// Sends what the stream takes, and receives what has come. The number of bytes received; 0 at
    /// the end of the stream.
    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        let _ = self.poll_send(cx);
        // The session has made room when it asked for more.
        let received = pin!(self.stream.read_buf(&mut self.input)).poll(cx);
        match (received, self.broken.take()) {
            (Poll::Ready(Ok(count)), broken) if count > 0 => {
                self.broken = broken;
                Poll::Ready(Ok(count))
            }
            (_, Some(error)) => Poll::Ready(Err(error)),
            (received, None) => received.map_err(Error::from),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let result = ready!(self.poll_write_all(cx));
        if let Err(error) = result {
            self.output.clear();
            self.unflushed = false;
            self.broken = Some(error);
        }
        Poll::Ready(())
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.output.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output))?;
            if count == 0 {
                return Poll::Ready(Err(Error::Closed { during: self.session.activity() }));
            }
            self.output.advance(count);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
