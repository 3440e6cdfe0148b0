//! The session over a byte stream: one thin loop, and no thought of its own.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::proto::{Credentials, Event, Session};
use crate::{Error, Misuse, Result};

/// How much is asked of the network at once: two WAL messages of the usual size.
const READ_AT_ONCE: usize = 256 << 10;

/// Below this much room the buffer is renewed; a shorter read would cost a system call too many.
const LEAST_ROOM: usize = 64 << 10;

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
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Logs in over a stream that is connected and, if so wanted, encrypted.
    ///
    /// # Errors
    /// If the server refuses, or does not speak PostgreSQL's protocol.
    pub async fn login<'a>(
        stream: S,
        credentials: Credentials,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self> {
        let mut output = BytesMut::with_capacity(1024);
        let session = Session::new(credentials, parameters, &mut output)?;
        let input = BytesMut::with_capacity(8 << 10);
        let mut connection = Self { stream, session, input, output, unflushed: false };
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

    /// The next event. Sends what is queued and receives at the same time, so that neither side
    /// waits for the other.
    ///
    /// # Errors
    /// If the connection fails or ends, or the server does not keep to the protocol.
    pub async fn next_event(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.buffered_event()? {
                return Ok(event);
            }
            if poll_fn(|cx| self.poll_exchange(cx)).await? == 0 {
                return Err(Error::Closed { during: self.session.activity() });
            }
        }
    }

    /// Sends all that is queued.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn send(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_send(cx)).await
    }

    /// Says goodbye and closes the stream.
    ///
    /// # Errors
    /// If the connection fails before the goodbye is sent.
    pub async fn close(mut self) -> Result<()> {
        self.session.terminate(&mut self.output);
        self.send().await?;
        poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await?;
        Ok(())
    }

    /// Sends what the stream takes, and receives what has come. The number of bytes received; 0 at
    /// the end of the stream.
    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return self.poll_last_words(cx, error);
        }
        self.poll_receive(cx)
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        if self.input.capacity() - self.input.len() < LEAST_ROOM {
            self.input.reserve(READ_AT_ONCE);
        }
        let count = ready!(pin!(self.stream.read_buf(&mut self.input)).poll(cx))?;
        Poll::Ready(Ok(count))
    }

    /// A server that closes the connection has often said why: that is worth more than "broken
    /// pipe".
    fn poll_last_words(&mut self, cx: &mut Context<'_>, error: Error) -> Poll<Result<usize>> {
        self.output.clear();
        match self.poll_receive(cx) {
            Poll::Ready(Ok(count)) if count > 0 => Poll::Ready(Ok(count)),
            _ => Poll::Ready(Err(error)),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
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
