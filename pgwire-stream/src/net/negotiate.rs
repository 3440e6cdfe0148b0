//! Asking the server for TLS, before anything else is said.
//!
//! Follows "SSL Session Encryption" in PostgreSQL's protocol documentation.

use std::future::poll_fn;
use std::task::Poll;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::proto::FrontendMessage;
use crate::{DecodeError, Error, Result, TlsError};

/// What the server says to the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The handshake may start.
    Tls,
    /// Only without TLS.
    Plain,
}

/// Asks for TLS and reads the answer, of exactly one byte.
///
/// Whatever else is in the socket then was sent by somebody who did not wait for our handshake.
/// Nothing of it can pass for the server's words: there is no buffer that it could stay in, the TLS
/// library is the next to read the socket, and takes nothing that is not sealed. So
/// [`TlsError::UnencryptedData`] only gives the attempt its right name, where it came early enough
/// to be seen.
pub(crate) async fn request_tls(tcp: &mut TcpStream) -> Result<Answer> {
    let mut request = BytesMut::with_capacity(8);
    FrontendMessage::SslRequest.encode(&mut request)?;
    tcp.write_all(&request).await?;
    let mut answer = [0];
    if tcp.read(&mut answer).await? == 0 {
        return Err(Error::Closed { during: "TLS was negotiated" });
    }
    match answer {
        [b'S'] if has_more(tcp).await => Err(TlsError::UnencryptedData.into()),
        [b'S'] => Ok(Answer::Tls),
        [b'N'] => Ok(Answer::Plain),
        // The text is not shown: nobody knows yet who is talking.
        [b'E'] => Err(TlsError::Handshake {
            reason: "the server answered the request for TLS with an error".into(),
        }
        .into()),
        _ => Err(DecodeError {
            message: "answer to the request for TLS",
            problem: "it is neither S nor N",
        }
        .into()),
    }
}

async fn has_more(tcp: &TcpStream) -> bool {
    let mut byte = [0];
    poll_fn(|cx| {
        let mut byte = ReadBuf::new(&mut byte);
        Poll::Ready(matches!(tcp.poll_peek(cx, &mut byte), Poll::Ready(Ok(1..))))
    })
    .await
}
