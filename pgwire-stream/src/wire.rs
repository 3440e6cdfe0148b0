//! A byte stream and the buffers at our end of it.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::{Error, Result};

/// What both ends of a conversation drive.
///
/// Every async method is cancel-safe: what was received or is still to be sent stays in the
/// buffers.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: S,
    /// What was received and not yet understood.
    pub(crate) input: BytesMut,
    /// What is still to be sent.
    pub(crate) output: BytesMut,
    /// Whether the stream may hold back bytes that it has accepted.
    unflushed: bool,
    /// Why nothing can be sent any more. It is told when all that was received has been read: a
    /// peer that closes the connection has often said why, which is worth more than "broken pipe",
    /// and may be noticed a moment later.
    broken: Option<Error>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        let input = BytesMut::with_capacity(8 << 10);
        let output = BytesMut::with_capacity(1 << 10);
        Self { stream, input, output, unflushed: false, broken: None }
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream, when both buffers are empty.
    #[cfg(feature = "server")]
    pub(crate) fn into_stream(self) -> S {
        self.stream
    }

    /// How many bytes are still to be sent.
    pub(crate) fn queued(&self) -> usize {
        self.output.len()
    }

    /// Whether something is still to be sent, or held back by the stream.
    pub(crate) fn has_output(&self) -> bool {
        self.unflushed || !self.output.is_empty()
    }

    /// Waits until more has been received, and sends what is queued meanwhile, so that neither
    /// side waits for the other. The number of bytes received; 0 at the end of the stream.
    ///
    /// # Errors
    /// If the connection fails.
    pub(crate) async fn receive(&mut self) -> Result<usize> {
        poll_fn(|cx| self.poll_exchange(cx)).await
    }

    /// Sends all that is queued, or learns that nothing can be sent any more, which the next
    /// [`receive`](Self::receive) tells.
    pub(crate) async fn send(&mut self) {
        poll_fn(|cx| self.poll_send(cx)).await;
    }

    /// Sends what the stream takes without waiting.
    pub(crate) async fn try_send(&mut self) {
        let send = poll_fn(|cx| {
            let _ = self.poll_send(cx);
            Poll::Ready(())
        });
        // Nobody comes back for what a used-up budget leaves behind.
        tokio::task::unconstrained(send).await;
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// If nothing can be sent any more.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        self.send().await;
        self.broken.take().map_or(Ok(()), Err)
    }

    /// Sends what is queued and closes the stream.
    ///
    /// # Errors
    /// If the connection fails before that.
    pub(crate) async fn close(mut self) -> Result<()> {
        self.flush().await?;
        poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await?;
        Ok(())
    }

    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        let _ = self.poll_send(cx);
        // The session has made room when it asked for more.
        let received = pin!(self.stream.read_buf(&mut self.input)).poll(cx);
        match ready!(received) {
            Ok(count) if count > 0 => Poll::Ready(Ok(count)),
            ended => Poll::Ready(match self.broken.take() {
                Some(error) => Err(error),
                None => ended.map_err(Error::from),
            }),
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
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::ReadBuf;

    /// A peer that has closed the connection, after a last word that is noticed late.
    struct Closed {
        reads: usize,
    }

    impl AsyncRead for Closed {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.reads += 1;
            match self.reads {
                1 => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                2 => buffer.put_slice(b"last word"),
                _ => {}
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Closed {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_last_word_is_waited_for_when_nothing_can_be_sent() {
        let mut wire = Wire::new(Closed { reads: 0 });
        wire.output.extend_from_slice(b"a report");
        assert_eq!(wire.receive().await.unwrap(), 9);
        assert_eq!(wire.input, &b"last word"[..]);
        let error = wire.receive().await.unwrap_err();
        assert!(
            matches!(&error, Error::Io(cause) if cause.kind() == io::ErrorKind::BrokenPipe),
            "{error}"
        );
    }
}
