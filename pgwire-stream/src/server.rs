//! The server's end of a connection: a PostgreSQL of one's own, for tests and proxies, and to serve
//! replication.
//!
//! What clients and servers say is in [`proto`](crate::proto).
//!
//! # A scripted PostgreSQL
//!
//! ```
//! use pgwire_stream::proto::{Authentication, Columns, Row, ServerEvent};
//! use pgwire_stream::server::{Accepted, ServerConnection, ServerOptions};
//! use pgwire_stream::{Config, Password, ReplicationClient};
//! use tokio::io::DuplexStream;
//!
//! async fn postgres(stream: DuplexStream) -> pgwire_stream::Result<()> {
//!     let mut options = ServerOptions::default();
//!     options.authentication = Authentication::scram_sha_256(&Password::new("secret"));
//!     let Accepted::Session(mut client) = ServerConnection::accept(stream, options).await? else {
//!         return Ok(());
//!     };
//!     while let ServerEvent::Query(command) = client.next_event().await? {
//!         assert_eq!(command, "IDENTIFY_SYSTEM");
//!         let columns = Columns::of_text(&["systemid", "timeline", "xlogpos", "dbname"]);
//!         let row = Row::of_text(&[Some("7357089276153"), Some("3"), Some("0/3000148"), None]);
//!         client.answer(columns, [row], &command)?;
//!     }
//!     client.close().await
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (ours, theirs) = tokio::io::duplex(1 << 16);
//! let server = tokio::spawn(postgres(theirs));
//! let config: Config = "user=walrecv password=secret".parse()?;
//! let mut client = ReplicationClient::from_stream(ours, &config).await?;
//! assert_eq!(client.identify_system().await?.timeline.get(), 3);
//! client.close().await?;
//! server.await??;
//! # Ok(())
//! # }
//! ```

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::proto::{
    Authentication, BackendMessage, CancelKey, Columns, ProtocolVersion, Row, ServerEvent,
    ServerSession, TransactionStatus,
};
use crate::wire::Wire;
use crate::{Error, Misuse, Result, ServerError};

/// How [`ServerConnection::accept`] lets clients in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// How the client has to prove who it is. Default: not at all.
    pub authentication: Authentication,
    /// The latest version of the protocol that is spoken. Default: 3.2.
    pub protocol: ProtocolVersion,
    /// The settings that are reported after the login. Default: `server_version` 18.0 and
    /// `client_encoding` UTF8.
    pub parameters: Vec<(String, String)>,
    /// The key with which the client can cancel. Default: one that fits the protocol, at random.
    pub cancel_key: Option<CancelKey>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        let parameters = [("server_version", "18.0"), ("client_encoding", "UTF8")];
        Self {
            authentication: Authentication::Trust,
            protocol: ProtocolVersion::LATEST,
            parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            cancel_key: None,
        }
    }
}

/// What a connection is for.
#[derive(Debug)]
pub enum Accepted<S> {
    /// A session: the client is logged in.
    Session(ServerConnection<S>),
    /// To cancel what another session executes. The stream is closed when this is dropped, which
    /// is how the client learns that the request was heard.
    Cancel(CancelKey, S),
}

/// A [`ServerSession`] and the stream that carries it: the mirror image of
/// [`Connection`](crate::Connection).
///
/// Every async method is cancel-safe, but for [`accept`](Self::accept), which closes the connection
/// when dropped: what was received or is still to be sent stays in the buffers.
#[derive(Debug)]
pub struct ServerConnection<S> {
    wire: Wire<S>,
    session: ServerSession,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ServerConnection<S> {
    /// Lets a client in, as the options say. TLS is declined; [`new`](Self::new) leaves it, and
    /// who is asked for what, to the caller. There is no limit of time: a server that strangers can
    /// reach needs one around this.
    ///
    /// # Errors
    /// If the client cannot prove who it is, leaves, or does not speak the protocol.
    pub async fn accept(stream: S, options: ServerOptions) -> Result<Accepted<S>> {
        let mut connection = Self::new(stream, options.protocol);
        loop {
            match connection.next_event().await? {
                ServerEvent::TlsRequest => connection.decline_tls()?,
                ServerEvent::Cancel(key) => {
                    connection.wire.flush().await?;
                    return Ok(Accepted::Cancel(key, connection.wire.into_stream()));
                }
                ServerEvent::Startup(_) => {
                    connection.authenticate(options.authentication.clone()).await?;
                    connection.begin(&options).await?;
                    return Ok(Accepted::Session(connection));
                }
                _ => return Err(connection.client_left()),
            }
        }
    }

    /// A conversation from the first packet on. [`next_event`](Self::next_event) gives
    /// [`ServerEvent::TlsRequest`], [`ServerEvent::Cancel`] or [`ServerEvent::Startup`].
    pub fn new(stream: S, latest: ProtocolVersion) -> Self {
        Self { wire: Wire::new(stream), session: ServerSession::new(latest) }
    }

    /// Continues over another stream, such as the encrypted one that
    /// [`grant_tls`](Self::grant_tls) leads to.
    pub fn resume(stream: S, session: ServerSession) -> Self {
        Self { wire: Wire::new(stream), session }
    }

    /// The conversation's state.
    pub fn session(&self) -> &ServerSession {
        &self.session
    }

    /// Answers [`ServerEvent::TlsRequest`]: not here.
    ///
    /// # Errors
    /// If that was not the last event.
    pub fn decline_tls(&mut self) -> Result<()> {
        self.session.answer_tls(false, &self.wire.input, &mut self.wire.output)
    }

    /// Answers [`ServerEvent::TlsRequest`]: the handshake is next, on the stream that this gives
    /// back. [`resume`](Self::resume) continues behind it.
    ///
    /// # Errors
    /// If that was not the last event, the client did not wait for the answer, or the connection
    /// fails.
    pub async fn grant_tls(mut self) -> Result<(S, ServerSession)> {
        let answered = self.session.answer_tls(true, &self.wire.input, &mut self.wire.output);
        self.wire.flush().await?;
        answered?;
        Ok((self.wire.into_stream(), self.session))
    }

    /// Answers [`ServerEvent::Startup`], and waits until the client has proved who it is.
    ///
    /// # Errors
    /// If it cannot, leaves, or does not keep to the protocol.
    pub async fn authenticate(&mut self, authentication: Authentication) -> Result<()> {
        let done = self.session.authenticate(authentication, &mut self.wire.output)?;
        match done {
            Some(_) => Ok(()),
            None => match self.next_event().await? {
                ServerEvent::Authenticated => Ok(()),
                _ => Err(self.client_left()),
            },
        }
    }

    /// Begins the session of a client that has proved who it is: parameters, the cancel key, and
    /// the word.
    ///
    /// # Errors
    /// If that is not due, or the connection fails.
    pub async fn begin(&mut self, options: &ServerOptions) -> Result<()> {
        for (name, value) in options.parameters.clone() {
            self.say(&BackendMessage::ParameterStatus { name, value })?;
        }
        let key = match &options.cancel_key {
            Some(key) => key.clone(),
            None => CancelKey::random(self.session.protocol_version())?,
        };
        self.say(&BackendMessage::BackendKeyData(Some(key)))?;
        self.say(&BackendMessage::ReadyForQuery(TransactionStatus::Idle))?;
        self.wire.flush().await
    }

    /// Queues a message; it is sent by the next [`next_event`](Self::next_event) or
    /// [`send`](Self::send).
    ///
    /// # Errors
    /// If it cannot be said now, or cannot be encoded.
    pub fn say(&mut self, message: &BackendMessage) -> Result<(), Misuse> {
        self.session.say(message, &mut self.wire.output)
    }

    /// Queues a whole answer of rows, up to ReadyForQuery. `tag` is how the command names its
    /// success, usually like itself.
    ///
    /// # Errors
    /// If no command is being executed, or the answer cannot be encoded.
    pub fn answer(
        &mut self,
        columns: Columns,
        rows: impl IntoIterator<Item = Row>,
        tag: &str,
    ) -> Result<(), Misuse> {
        self.say(&BackendMessage::RowDescription(columns))?;
        for row in rows {
            self.say(&BackendMessage::DataRow(row))?;
        }
        self.say(&BackendMessage::CommandComplete(tag.to_owned()))?;
        self.say(&BackendMessage::ReadyForQuery(TransactionStatus::Idle))
    }

    /// Queues a refusal of the command, up to ReadyForQuery, such as
    /// `ServerError::new("ERROR", "42704", "there is no such slot")`.
    ///
    /// # Errors
    /// If no command is being executed, or the error cannot be encoded.
    pub fn refuse(&mut self, error: ServerError) -> Result<(), Misuse> {
        self.say(&BackendMessage::ErrorResponse(error))?;
        self.say(&BackendMessage::ReadyForQuery(TransactionStatus::Idle))
    }

    /// Queues copy data. To be interleaved with [`send`](Self::send), which waits for a client that
    /// is slower.
    ///
    /// # Errors
    /// If there is no copy to the client, or they are too long for one message.
    pub fn copy_data(&mut self, data: &[u8]) -> Result<(), Misuse> {
        self.session.copy_data(data, &mut self.wire.output)
    }

    /// How many bytes are queued that the client has not been sent yet.
    pub fn queued(&self) -> usize {
        self.wire.queued()
    }

    /// Sends all that is queued.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn send(&mut self) -> Result<()> {
        self.wire.flush().await
    }

    /// The next event. Sends what is queued, and receives. A client that leaves between commands,
    /// with or without saying so, is [`ServerEvent::Terminate`].
    ///
    /// # Errors
    /// If the connection fails, or ends within a command; if the client does not keep to the
    /// protocol, of which it has been told then; [`Misuse`] if it is not the client's turn, or the
    /// session is over.
    pub async fn next_event(&mut self) -> Result<ServerEvent> {
        loop {
            let Wire { input, output, .. } = &mut self.wire;
            match self.session.handle(input, output) {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(error) => {
                    // Without waiting for a client that may not listen.
                    self.wire.try_send().await;
                    return Err(error);
                }
            }
            if self.session.is_over() {
                return Err(Misuse::Failed.into());
            }
            if !self.session.wants_input() {
                return Err(Misuse::Argument("it is the server's turn to speak").into());
            }
            if self.wire.receive().await? == 0 {
                return self.ended();
            }
        }
    }

    fn ended(&self) -> Result<ServerEvent> {
        if self.session.is_idle() && self.wire.input.is_empty() {
            return Ok(ServerEvent::Terminate);
        }
        Err(self.client_left())
    }

    fn client_left(&self) -> Error {
        let problem = format!("the client left while we were {}", self.session.activity());
        io::Error::new(io::ErrorKind::UnexpectedEof, problem).into()
    }

    /// Sends what is queued and closes the stream.
    ///
    /// # Errors
    /// If the connection fails before that.
    pub async fn close(self) -> Result<()> {
        self.wire.close().await
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::proto::{
        CopyBothMessage, FrontendMessage, StandbyMessage, StandbyStatus, StartReplication, WalData,
    };
    use crate::{Config, Lsn, PgTimestamp, ReplicationClient, StreamEnd, TimelineId, WalEvent};

    fn sent(message: &FrontendMessage) -> BytesMut {
        let mut out = BytesMut::new();
        message.encode(&mut out).unwrap();
        out
    }

    /// Both ends of a session.
    async fn session() -> (ReplicationClient<DuplexStream>, ServerConnection<DuplexStream>) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let config: Config = "user=walrecv".parse().unwrap();
        let accepted = ServerConnection::accept(theirs, ServerOptions::default());
        let (client, server) =
            tokio::join!(ReplicationClient::from_stream(ours, &config), accepted);
        let Accepted::Session(server) = server.unwrap() else { panic!("no session") };
        (client.unwrap(), server)
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_gone_with_or_without_a_word() {
        let (client, mut server) = session().await;
        client.close().await.unwrap();
        assert_eq!(server.next_event().await.unwrap(), ServerEvent::Terminate);

        let (client, mut server) = session().await;
        drop(client);
        assert_eq!(server.next_event().await.unwrap(), ServerEvent::Terminate);
    }

    #[tokio::test]
    async fn the_server_speaks_in_its_turn() {
        let (mut client, mut server) = session().await;
        let serve = async {
            let event = server.next_event().await.unwrap();
            assert!(matches!(event, ServerEvent::Query(_)), "{event:?}");
            assert!(matches!(server.next_event().await, Err(Error::Misuse(_))));
            let columns = Columns::of_text(&["server_version_num"]);
            server.answer(columns, [Row::of_text(&[Some("180000")])], "SHOW").unwrap();
            assert!(server.queued() > 0);
            server.send().await.unwrap();
        };
        let (shown, ()) = tokio::join!(client.show("server_version_num"), serve);
        assert_eq!(shown.unwrap(), "180000");
    }

    #[tokio::test]
    async fn a_refused_command_leaves_the_session() {
        let (mut client, mut server) = session().await;
        let serve = async {
            for _ in 0..2 {
                let event = server.next_event().await.unwrap();
                assert!(matches!(event, ServerEvent::Query(_)), "{event:?}");
                server.refuse(ServerError::new("ERROR", "42704", "no such setting")).unwrap();
            }
            assert_eq!(server.next_event().await.unwrap(), ServerEvent::Terminate);
        };
        let ask = async move {
            for _ in 0..2 {
                let error = client.show("colour").await.unwrap_err();
                assert_eq!(error.sql_state().unwrap().to_string(), "42704");
            }
        };
        tokio::join!(ask, serve);
    }

    /// A timeline with one piece of WAL, and the end of it, as a walsender serves it.
    async fn serve_wal(server: &mut ServerConnection<DuplexStream>) -> Result<StandbyStatus> {
        let identity = [Some("7357089276153"), Some("3"), Some("0/3000000"), None];
        let names = Columns::of_text(&["systemid", "timeline", "xlogpos", "dbname"]);
        assert!(matches!(server.next_event().await?, ServerEvent::Query(_)));
        server.answer(names, [Row::of_text(&identity)], "IDENTIFY_SYSTEM")?;
        let asked = server.next_event().await?;
        assert!(matches!(&asked, ServerEvent::Query(text) if text.starts_with("START_REPL")));
        server.say(&BackendMessage::CopyBothResponse)?;
        let start = Lsn::from_u64(0x300_0000);
        let sent_at = PgTimestamp::from_micros(0);
        let data = Bytes::from_static(b"some WAL");
        let data = WalData { start, server_end: start, sent_at, data };
        let mut payload = Vec::new();
        CopyBothMessage::Data(data.clone()).encode(&mut payload);
        server.copy_data(&payload)?;
        let status = loop {
            let ServerEvent::CopyData(payload) = server.next_event().await? else {
                panic!("no status")
            };
            match StandbyMessage::decode(payload)? {
                StandbyMessage::Status(status) if status.written == data.end() => break status,
                _ => {}
            }
        };
        server.say(&BackendMessage::CopyDone)?;
        while server.next_event().await? != ServerEvent::CopyDone {}
        let next = Columns::of_text(&["next_tli", "next_tli_startpos"]);
        server.answer(next, [Row::of_text(&[Some("4"), Some("0/3000008")])], "START_STREAMING")?;
        server.send().await?;
        Ok(status)
    }

    #[tokio::test]
    async fn replication_can_be_served() {
        let (client, mut server) = session().await;
        let start = Lsn::from_u64(0x300_0000);
        let receive = async {
            let mut stream = client.start_replication(StartReplication::new(start)).await.unwrap();
            let Ok(Some(WalEvent::Data(data))) = stream.next().await else { panic!("no WAL") };
            assert_eq!(data.data, b"some WAL"[..]);
            stream.progress().flushed(data.end()).unwrap();
            while stream.next().await.unwrap().is_some() {}
            stream.finish().unwrap().1
        };
        let (end, status) = tokio::join!(receive, serve_wal(&mut server));
        assert_eq!(status.unwrap().flushed, Lsn::from_u64(0x300_0008));
        let start = Lsn::from_u64(0x300_0008);
        assert_eq!(end, StreamEnd::NextTimeline { timeline: TimelineId::new(4).unwrap(), start });
    }

    #[tokio::test]
    async fn a_cancel_request_names_its_key_and_is_answered_by_closing() {
        let (mut ours, theirs) = tokio::io::duplex(1 << 10);
        let key = CancelKey::new(7, vec![9; 32]).unwrap();
        ours.write_all(&sent(&FrontendMessage::SslRequest)).await.unwrap();
        ours.write_all(&sent(&FrontendMessage::Cancel(key.clone()))).await.unwrap();
        let accepted = ServerConnection::accept(theirs, ServerOptions::default()).await.unwrap();
        let Accepted::Cancel(named, stream) = accepted else { panic!("no cancel request") };
        assert_eq!(named, key);
        drop(stream);
        let mut answer = Vec::new();
        ours.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"N", "TLS is declined, and nothing else is said");
    }

    #[tokio::test]
    async fn whoever_is_refused_gets_to_know_it() {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        let options = ServerOptions {
            authentication: Authentication::Password(None),
            ..ServerOptions::default()
        };
        let config: Config = "user=walrecv password=guess".parse().unwrap();
        let (client, server) = tokio::join!(
            ReplicationClient::from_stream(ours, &config),
            ServerConnection::accept(theirs, options),
        );
        assert_eq!(client.err().unwrap().sql_state().unwrap().as_str(), "28P01");
        assert!(matches!(server, Err(Error::Server(_))));
    }

    #[tokio::test]
    async fn a_client_that_breaks_the_rules_and_does_not_listen_is_left_at_once() {
        let (mut ours, theirs) = tokio::io::duplex(1 << 10);
        let parameters = vec![("user".to_owned(), "me".to_owned())];
        let startup = FrontendMessage::Startup { protocol: ProtocolVersion::V3_0, parameters };
        ours.write_all(&sent(&startup)).await.unwrap();
        let accepted = ServerConnection::accept(theirs, ServerOptions::default()).await.unwrap();
        let Accepted::Session(mut server) = accepted else { panic!("no session") };
        ours.write_all(&sent(&FrontendMessage::Query("x".into()))).await.unwrap();
        server.next_event().await.unwrap();
        server.say(&BackendMessage::CopyBothResponse).unwrap();
        server.copy_data(&[0; 1 << 16]).unwrap();
        ours.write_all(&sent(&FrontendMessage::CopyFail("no".into()))).await.unwrap();
        let left = tokio::time::timeout(std::time::Duration::from_secs(5), server.next_event());
        assert!(matches!(left.await.expect("it hangs"), Err(Error::Violation(_))));
    }

    #[tokio::test]
    async fn tls_is_granted_between_two_streams() {
        let (mut ours, theirs) = tokio::io::duplex(1 << 10);
        ours.write_all(&sent(&FrontendMessage::SslRequest)).await.unwrap();
        let mut server = ServerConnection::new(theirs, ProtocolVersion::LATEST);
        assert_eq!(server.next_event().await.unwrap(), ServerEvent::TlsRequest);
        let (_handshake, session) = server.grant_tls().await.unwrap();
        assert_eq!(ours.read_u8().await.unwrap(), b'S');

        let (mut ours, encrypted) = tokio::io::duplex(1 << 10);
        let parameters = vec![("user".to_owned(), "me".to_owned())];
        let startup = FrontendMessage::Startup { protocol: ProtocolVersion::V3_0, parameters };
        ours.write_all(&sent(&startup)).await.unwrap();
        let mut server = ServerConnection::resume(encrypted, session);
        assert!(matches!(server.next_event().await.unwrap(), ServerEvent::Startup(_)));
        server.authenticate(Authentication::Trust).await.unwrap();
        server.begin(&ServerOptions::default()).await.unwrap();
        assert!(server.session().is_idle());
    }
}
