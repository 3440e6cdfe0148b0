//! Cancelling a command from elsewhere, over a connection of its own.
//!
//! Follows "Canceling Requests in Progress" in PostgreSQL's protocol documentation, and
//! `fe-cancel.c` of libpq 17 and newer.

use std::fmt;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::ReplicationClient;
use crate::net::{Route, Stream};
use crate::proto::{CancelKey, FrontendMessage};
use crate::{Result, Violation};

/// Cancels what a connection's server executes, whoever has the connection.
///
/// Taken from the client before it is consumed by a stream or a backup. Worth nothing any more
/// when the connection is closed.
///
/// ```no_run
/// # use pgwire_stream::{BaseBackupOptions, ReplicationClient};
/// # async fn back_up(client: ReplicationClient) -> pgwire_stream::Result<()> {
/// let cancel = client.cancel_token();
/// let mut backup = client.base_backup(&BaseBackupOptions::default()).await?;
/// tokio::spawn(async move {
///     tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
///     if let Some(cancel) = cancel {
///         let _ = cancel.cancel().await;
///     }
/// });
/// while let Some(_event) = backup.next().await? {} // fails with SQLSTATE 57014 when cancelled
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CancelToken {
    route: Route,
    encrypted: bool,
    key: CancelKey,
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("key", &self.key).finish_non_exhaustive()
    }
}

impl CancelToken {
    /// Asks the server to cancel what it executes for the connection, if anything. The command
    /// then fails with SQLSTATE 57014, a stream too, and the connection can be used for another.
    ///
    /// The request goes to the address that the connection goes to, over TLS if the connection has
    /// it, with the server verified in the same way. `connect_timeout` limits how long that takes.
    ///
    /// Returns when the server has taken the request. That it had no effect, because the command
    /// was over, is never told; nor is a key refused that is not valid any more. A command that was
    /// begun meanwhile can be hit in place of the one that was meant.
    ///
    /// Cancel-safe: dropping the future closes the new connection, and the request may have been
    /// made or not.
    ///
    /// # Errors
    /// If the server cannot be reached, or not with TLS any more, or is not the same.
    pub async fn cancel(&self) -> Result<()> {
        self.route.travel(self.encrypted, |stream| request(stream, &self.key)).await
    }
}

/// Makes the request, and waits until the server has closed the connection, which it does when it
/// has passed the request on.
async fn request(mut stream: Stream, key: &CancelKey) -> Result<()> {
    let mut packet = BytesMut::new();
    FrontendMessage::Cancel(key.clone()).encode(&mut packet)?;
    stream.write_all(&packet).await?;
    stream.flush().await?;
    match stream.read(&mut [0]).await? {
        0 => Ok(()),
        _ => Err(Violation::Unexpected {
            message: "an answer".to_owned(),
            state: "taking a request to cancel",
        }
        .into()),
    }
}

impl ReplicationClient {
    /// What cancels this connection's commands, streams and backups from elsewhere; `None` where
    /// the server (a pooler) has given no key for that.
    pub fn cancel_token(&self) -> Option<CancelToken> {
        let stream = self.connection.stream();
        Some(CancelToken {
            route: stream.route().clone(),
            encrypted: stream.is_tls(),
            key: self.cancel_key()?.clone(),
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationClient<S> {
    /// What a [`FrontendMessage::Cancel`] for this connection has to name, for those who make their
    /// connections themselves.
    pub fn cancel_key(&self) -> Option<&CancelKey> {
        self.connection.session().cancel_key()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::net::{connect_any, test_config::config};
    use crate::{Config, Error, SslMode};

    /// A token for the server at this listener, whose first connection is taken for the session.
    async fn token(listener: &TcpListener, connect_timeout: Duration) -> CancelToken {
        fn is_shared<T: Clone + Send + Sync + 'static>(value: T) -> T {
            value
        }
        let config = Config {
            connect_timeout: Some(connect_timeout),
            ..config(SslMode::Disable, &[listener.local_addr().unwrap().port()])
        };
        let session = connect_any(&config, None, async |stream, _| Ok(stream)).await.unwrap();
        listener.accept().await.unwrap();
        let key = CancelKey::new(7, b"key!".as_slice()).unwrap();
        is_shared(CancelToken { route: session.route().clone(), encrypted: false, key })
    }

    /// What the server hears in a request to cancel.
    async fn heard(tcp: &mut TcpStream) -> [u8; 16] {
        let mut packet = [0; 16];
        tcp.read_exact(&mut packet).await.unwrap();
        packet
    }

    #[tokio::test]
    async fn the_request_is_made_and_the_end_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let token = token(&listener, Duration::from_secs(5)).await;
        let asked = tokio::spawn(async move { token.cancel().await });
        let (mut tcp, _) = listener.accept().await.unwrap();
        // Length, 80877102, process and secret, as PostgreSQL's documentation has them.
        assert_eq!(&heard(&mut tcp).await, b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07key!");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!asked.is_finished());
        drop(tcp);
        asked.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_answer_and_a_silence_are_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let token = token(&listener, Duration::from_millis(300)).await;
        let answer = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tcp.write_all(b"N").await.unwrap();
            heard(&mut tcp).await
        };
        let (outcome, _) = tokio::join!(token.cancel(), answer);
        assert!(matches!(outcome, Err(Error::Violation(_))));
        assert!(matches!(token.cancel().await, Err(Error::Timeout { .. })));
    }

    #[tokio::test]
    async fn the_secret_is_not_printed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let printed = format!("{:?}", token(&listener, Duration::from_secs(5)).await);
        assert_eq!(printed, "CancelToken { key: CancelKey { process: 7, .. }, .. }");
    }
}
