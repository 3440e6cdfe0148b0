//! Asking the daemon, for commands that may not read the store themselves or want to know how the
//! receivers are.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use pgwire_stream::WalFileName;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

use super::address;
use crate::catalog::LeaseId;
use crate::failure::Failure;
use crate::receiver::Status;
use crate::restore::get_wal::exit_code;
use crate::settings::ServerName;

/// The most that an answer other than a WAL file may have.
const MAX_ANSWER: usize = 16 << 20;

/// The header of a whole segment of the archive.
pub(super) const SETTLED: &str = "walrecv-settled";

/// A conversation with the daemon of a store.
pub struct ControlClient {
    sender: SendRequest<Empty<Bytes>>,
}

/// Why the daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No daemon serves this store.
    #[error("no daemon is running for the store in `{}`", home.display())]
    NotRunning {
        /// The store.
        home: PathBuf,
    },
    /// Somebody else listens under the daemon's name.
    #[error(
        "the control socket of `{}` belongs to user {uid}, who does not own the store",
        home.display()
    )]
    Impostor {
        /// The store.
        home: PathBuf,
        /// The number of the user who listens.
        uid: u32,
    },
    /// The conversation failed.
    #[error("cannot talk to the daemon of `{}`", home.display())]
    Io {
        /// The store.
        home: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("the conversation with the daemon broke off")]
    Http(#[from] hyper::Error),
    /// The answer is not what a daemon of this version answers.
    #[error("the daemon's answer is not understood: {0}")]
    Answer(String),
    /// The daemon says no.
    #[error("{answer}")]
    Denied {
        /// The HTTP status.
        status: u16,
        /// What it says.
        answer: DaemonError,
    },
}

impl ControlError {
    /// The exit code of a `get-wal` that ends with this; never one that PostgreSQL takes for the
    /// end of the archive.
    pub fn get_wal_exit_code(&self) -> u8 {
        match self {
            Self::NotRunning { .. } | Self::Impostor { .. } => exit_code::NOT_PERMITTED,
            Self::Denied { status, .. } => match StatusCode::from_u16(*status) {
                Ok(StatusCode::BAD_REQUEST) => exit_code::USAGE,
                Ok(StatusCode::FORBIDDEN) => exit_code::NOT_PERMITTED,
                Ok(StatusCode::CONFLICT) => exit_code::GAP,
                Ok(StatusCode::UNPROCESSABLE_ENTITY) => exit_code::CORRUPT,
                Ok(StatusCode::LOCKED) => exit_code::ENCRYPTED,
                _ => exit_code::IO,
            },
            Self::Io { .. } | Self::Http(_) | Self::Answer(_) => exit_code::IO,
        }
    }
}

impl Failure for ControlError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotRunning { .. } => Some("start it with `walrecv-server run`".to_owned()),
            Self::Impostor { .. } => Some(
                "the process that listens there pretends to be the daemon: find and stop it"
                    .to_owned(),
            ),
            Self::Denied { answer, .. } => answer.hint.clone(),
            Self::Io { .. } | Self::Http(_) => None,
            Self::Answer(_) => {
                Some("daemon and command are different versions: restart the daemon".to_owned())
            }
        }
    }
}

/// An error as the daemon tells it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, Deserialize)]
pub struct DaemonError {
    /// What happened, and why.
    pub error: String,
    /// What can be done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

/// Whether the daemon would hand WAL to a user.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, Deserialize)]
pub struct ReaderAnswer {
    /// The user's number; absent if there is no such user.
    pub uid: Option<u32>,
    /// Whether the user would be served.
    pub served: bool,
    /// Whether what is encrypted can be decrypted for the user.
    pub decrypts: bool,
}

/// A WAL file that is asked for.
#[derive(Clone, Debug)]
pub struct WantedWal {
    /// Its name.
    pub file: WalFileName,
    /// Whether the received part of a segment will do.
    pub partial: bool,
    /// The lease that is renewed with it.
    pub lease: Option<LeaseId>,
}

/// What the daemon answers when asked for a WAL file.
pub enum WalAnswer {
    /// The file.
    File(WalBody),
    /// The archive was read completely and ends before this file.
    EndOfArchive,
}

/// A file that is not there. Said in so many words, because PostgreSQL ends its recovery on it: an
/// HTTP status alone could come from a daemon that did not understand the question.
#[derive(serde::Serialize, Deserialize)]
pub(super) struct EndOfArchive {
    pub(super) end_of_archive: bool,
}

/// The bytes of a WAL file on their way.
pub struct WalBody {
    length: u64,
    settled: bool,
    body: Incoming,
}

impl WalBody {
    /// How many bytes the file has.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether it is a whole segment of the archive, which stays what it is.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// The next bytes; `None` at the file's end, which was told and did not just happen.
    ///
    /// # Errors
    /// If the daemon could not read on, or the conversation broke off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ControlError> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// A conversation for code that blocks. It goes on only while it is waited for, so that it needs
/// no other thread.
pub struct BlockingClient {
    runtime: Runtime,
    client: ControlClient,
}

/// What the daemon answers to code that blocks.
pub enum BlockingAnswer<'r> {
    /// The file.
    File(WalBodyReader<'r>),
    /// The archive was read completely and ends before this file.
    EndOfArchive,
}

impl BlockingClient {
    /// Connects to the daemon of the store at `home`.
    ///
    /// # Errors
    /// As [`ControlClient::connect`].
    pub fn connect(home: &Path) -> Result<Self, ControlError> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(|source| ControlError::Io { home: home.to_owned(), source })?;
        let client = runtime.block_on(ControlClient::connect(home))?;
        Ok(Self { runtime, client })
    }

    /// Asks for a WAL file.
    ///
    /// # Errors
    /// As [`ControlClient::wal`].
    pub fn wal(
        &mut self,
        server: &ServerName,
        wanted: &WantedWal,
    ) -> Result<BlockingAnswer<'_>, ControlError> {
        let runtime = &self.runtime;
        Ok(match runtime.block_on(self.client.wal(server, wanted))? {
            WalAnswer::EndOfArchive => BlockingAnswer::EndOfArchive,
            WalAnswer::File(body) => {
                BlockingAnswer::File(WalBodyReader { body, runtime, chunk: Bytes::new() })
            }
        })
    }
}

/// A [`WalBody`] for code that blocks.
pub struct WalBodyReader<'r> {
    body: WalBody,
    runtime: &'r Runtime,
    chunk: Bytes,
}

impl WalBodyReader<'_> {
    /// What is read.
    pub fn body(&self) -> &WalBody {
        &self.body
    }
}

impl Read for WalBodyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // It is no fault of what is stored.
        let broke_off = |error| io::Error::new(io::ErrorKind::ConnectionAborted, error);
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.body.next()).map_err(broke_off)? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        (&mut self.chunk).reader().read(buffer)
    }
}

impl ControlClient {
    /// Connects to the daemon of the store at `home`, and makes sure that it is run by the store's
    /// owner or by root.
    ///
    /// # Errors
    /// [`ControlError::NotRunning`] if there is none, and if it cannot be trusted or talked to.
    pub async fn connect(home: &Path) -> Result<Self, ControlError> {
        let fail = |source| ControlError::Io { home: home.to_owned(), source };
        let address = address::of(home).map_err(fail)?;
        let owner = std::fs::metadata(home).map_err(fail)?.uid();
        let connected = std::os::unix::net::UnixStream::connect_addr(&address).and_then(|stream| {
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        });
        let stream = match connected {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(ControlError::NotRunning { home: home.to_owned() });
            }
            Err(error) => return Err(fail(error)),
        };
        let uid = stream.peer_cred().map_err(fail)?.uid();
        if uid != 0 && uid != owner {
            return Err(ControlError::Impostor { home: home.to_owned(), uid });
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "the conversation with the daemon ended");
            }
        });
        Ok(Self { sender })
    }

    /// Whether somebody answers.
    ///
    /// # Errors
    /// If nobody does.
    pub async fn ping(&mut self) -> Result<(), ControlError> {
        self.json("/v1/ping").await.map(|_: serde::de::IgnoredAny| ())
    }

    /// How the receivers are.
    ///
    /// # Errors
    /// If the daemon does not tell.
    pub async fn servers(&mut self) -> Result<Vec<Status>, ControlError> {
        self.json("/v1/servers").await
    }

    /// Whether the daemon would hand WAL of this server to this user, named or numbered.
    ///
    /// # Errors
    /// If the daemon does not tell.
    pub async fn reader(
        &mut self,
        server: &ServerName,
        user: &str,
    ) -> Result<ReaderAnswer, ControlError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let user: String = user
            .bytes()
            .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect();
        self.json(&format!("/v1/servers/{server}/readers/{user}")).await
    }

    /// Asks for a WAL file.
    ///
    /// # Errors
    /// If the daemon does not serve us, or fails.
    pub async fn wal(
        &mut self,
        server: &ServerName,
        wanted: &WantedWal,
    ) -> Result<WalAnswer, ControlError> {
        let WantedWal { file, partial, lease } = wanted;
        let mut path = format!("/v1/servers/{server}/wal/{file}?partial={partial}");
        if let Some(lease) = lease {
            path.push_str(&format!("&lease={lease}"));
        }
        let response = self.send(&path).await?;
        match response.status() {
            StatusCode::OK => {
                let length = response.body().size_hint().exact().ok_or_else(|| {
                    ControlError::Answer("it does not say how long the file is".to_owned())
                })?;
                let settled = response.headers().contains_key(SETTLED);
                Ok(WalAnswer::File(WalBody { length, settled, body: response.into_body() }))
            }
            StatusCode::NOT_FOUND => match parse(response).await? {
                EndOfArchive { end_of_archive: true } => Ok(WalAnswer::EndOfArchive),
                EndOfArchive { end_of_archive: false } => {
                    Err(ControlError::Answer("the file is neither there nor not".to_owned()))
                }
            },
            _ => Err(denied(response).await),
        }
    }

    async fn json<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ControlError> {
        let response = self.send(path).await?;
        match response.status() {
            StatusCode::OK => parse(response).await,
            _ => Err(denied(response).await),
        }
    }

    async fn send(&mut self, path: &str) -> Result<Response<Incoming>, ControlError> {
        let request = Request::get(path)
            .header("host", "walrecv-server")
            .body(Empty::new())
            .map_err(|error| ControlError::Answer(error.to_string()))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}

async fn denied(response: Response<Incoming>) -> ControlError {
    let status = response.status().as_u16();
    match parse(response).await {
        Ok(answer) => ControlError::Denied { status, answer },
        Err(error) => error,
    }
}

async fn parse<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ControlError> {
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| ControlError::Answer(error.to_string()))?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|error| ControlError::Answer(error.to_string()))
}
