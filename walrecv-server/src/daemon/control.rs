//! The control socket: what commands may ask the daemon.
//!
//! | request | answer | for |
//! |---|---|---|
//! | `GET /v1/ping` | `{}` | root, owner |
//! | `GET /v1/servers` | how each receiver is | root, owner |
//! | `GET /v1/servers/{server}/readers/{user}` | whether this user would be given WAL | root, owner |
//! | `GET /v1/servers/{server}/wal/{file}?partial=true&lease=…` | the file; renews the lease | and `wal_readers` |
//!
//! A WAL file is answered with 200 and the file, 404 if the archive ends before it, 409 if it is
//! lost, 422 if it is damaged, 423 if it is encrypted and the daemon cannot decrypt it, 400 if there
//! can be no such file, 500 if reading fails. Who may not ask gets 403. Everything but a file is
//! JSON.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{FromRequestParts, Path as UrlPath, RawQuery, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::IncomingStream;
use axum::{Json, Router};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

use super::address;
use super::admission::{Admission, Right};
use super::board::Board;
use super::client::{DaemonError, EndOfArchive, ReaderAnswer, SETTLED};

use super::door::Door;
use crate::catalog::{Lease, LeaseId, previous};
use crate::failure::{Failure, in_one_line};
use crate::restore::Owner;
use crate::restore::get_wal::{Beginnings, GetWalError, Lookup, WalFile, locate};
use crate::settings::{ServerName, ServerNameError, Settings};
use crate::storage::{Home, KeyFile};

/// How much of a WAL file is read at a time, and how many such parts may wait to be sent.
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 4;

/// What the requests are answered from.
pub(super) struct Control {
    home: Home,
    /// Who owns the store.
    owner: u32,
    board: Board,
    /// The settings as they are at the time of a request.
    settings: watch::Receiver<Arc<Settings>>,
}

impl Control {
    pub(super) fn new(
        home: Home,
        settings: watch::Receiver<Arc<Settings>>,
        board: Board,
    ) -> io::Result<Self> {
        let owner = std::fs::metadata(home.path())?.uid();
        Ok(Self { home, owner, board, settings })
    }

    fn admits(&self, uid: u32, right: Right) -> bool {
        let readers = self.settings.borrow().wal_readers.clone();
        Admission { owner: self.owner, readers }.admits(uid, right)
    }

    /// The identity file of a server. It is read for each request, so that one can be put there for
    /// the time of a restore, and be taken away again.
    fn keys(&self, server: &ServerName) -> Option<KeyFile> {
        let settings = self.settings.borrow();
        let server = settings.servers.iter().find(|settings| settings.name == *server)?;
        server.encryption_identity.as_ref().map(KeyFile::new)
    }

    /// Answers until it is told to stop, and then what was asked before.
    pub(super) async fn serve(
        self,
        listener: UnixListener,
        mut stop: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let router = Router::new()
            .route("/v1/ping", get(ping))
            .route("/v1/servers", get(servers))
            .route("/v1/servers/{server}/readers/{user}", get(reader))
            .route("/v1/servers/{server}/wal/{file}", get(wal))
            .fallback(unknown)
            .with_state(Arc::new(self));
        axum::serve(Door::new(listener), router.into_make_service_with_connect_info::<Peer>())
            .with_graceful_shutdown(async move {
                // Also if nobody can say so any more.
                let _ = stop.wait_for(|stop| *stop).await;
            })
            .await
    }
}

/// Listens for the store at `home`.
pub(super) fn listen(home: &Path) -> io::Result<UnixListener> {
    let listener = net::UnixListener::bind_addr(&address::of(home)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Who asks, as the kernel says.
#[derive(Clone, Copy, Debug)]
struct Peer {
    uid: u32,
}

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self { uid: stream.io().uid() }
    }
}

/// Somebody who may ask for everything.
struct Operator;

/// Somebody who may ask for WAL.
struct WalReader;

impl FromRequestParts<Arc<Control>> for Operator {
    type Rejection = Denial;

    async fn from_request_parts(
        parts: &mut Parts,
        control: &Arc<Control>,
    ) -> Result<Self, Self::Rejection> {
        admit(parts, control, Right::Control).await.map(|()| Self)
    }
}

impl FromRequestParts<Arc<Control>> for WalReader {
    type Rejection = Denial;

    async fn from_request_parts(
        parts: &mut Parts,
        control: &Arc<Control>,
    ) -> Result<Self, Self::Rejection> {
        admit(parts, control, Right::ReadWal).await.map(|()| Self)
    }
}

async fn admit(parts: &Parts, control: &Arc<Control>, right: Right) -> Result<(), Denial> {
    let peer = parts.extensions.get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| peer.uid);
    let Some(uid) = peer else {
        return Err(Denial::new(StatusCode::FORBIDDEN, "the kernel does not say who is asking"));
    };
    let control = Arc::clone(control);
    // Looking up users may ask a directory service.
    let admitted = blocking(move || control.admits(uid, right)).await?;
    if admitted {
        return Ok(());
    }
    tracing::warn!(uid, ?right, "a user was not served");
    let hint = match right {
        Right::Control => "run the command as root, or as the user who owns the store",
        Right::ReadWal => "add the user to `wal_readers` in the daemon's configuration",
    };
    Err(Denial {
        hint: Some(hint.to_owned()),
        ..Denial::new(StatusCode::FORBIDDEN, format!("the daemon does not serve user {uid}"))
    })
}

/// An answer that is an error.
struct Denial {
    status: StatusCode,
    error: String,
    hint: Option<String>,
}

impl Denial {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), hint: None }
    }
}

impl IntoResponse for Denial {
    fn into_response(self) -> Response {
        let Self { status, error, hint } = self;
        (status, Json(DaemonError { error, hint })).into_response()
    }
}

impl From<GetWalError> for Denial {
    fn from(error: GetWalError) -> Self {
        let status = match &error {
            GetWalError::Name(_)
            | GetWalError::PartialName { .. }
            | GetWalError::UnknownServer { .. } => StatusCode::BAD_REQUEST,
            GetWalError::Gap { .. } => StatusCode::CONFLICT,
            GetWalError::Corrupt { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            GetWalError::Encrypted { .. } => StatusCode::LOCKED,
            // That the daemon itself may not read its store is no matter of the one who asks.
            GetWalError::NotPermitted(_)
            | GetWalError::Restless { .. }
            | GetWalError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let hint = match &error {
            // What helps here would not help the daemon.
            error if error.is_without_keys() => Some(
                "set `encryption_identity` in the daemon's configuration, or let those who have \
                 the key read the store"
                    .to_owned(),
            ),
            error => error.hint(),
        };
        Self { status, error: in_one_line(&error), hint }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Denial> {
    let lost = |error: tokio::task::JoinError| {
        Denial::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    };
    tokio::task::spawn_blocking(work).await.map_err(lost)
}

async fn unknown() -> Denial {
    // Not 404: that says that the archive ends.
    Denial::new(StatusCode::NOT_IMPLEMENTED, "the daemon does not know this request")
}

async fn ping(_: Operator) -> Json<serde_json::Value> {
    Json(serde_json::json!({}))
}

async fn servers(_: Operator, State(control): State<Arc<Control>>) -> Response {
    Json(control.board.statuses()).into_response()
}

async fn reader(
    _: Operator,
    State(control): State<Arc<Control>>,
    UrlPath((server, user)): UrlPath<(String, String)>,
) -> Result<Json<ReaderAnswer>, Denial> {
    let server = server_name(&server)?;
    let answer = blocking(move || {
        let named = Owner::by_name(&user).map(|user| user.uid);
        let uid = named.or_else(|| user.parse().ok());
        let served = uid.is_some_and(|uid| control.admits(uid, Right::ReadWal));
        let decrypts = control.keys(&server).is_some_and(|keys| keys.recipients().is_ok());
        ReaderAnswer { uid, served, decrypts }
    });
    Ok(Json(answer.await?))
}

fn server_name(text: &str) -> Result<ServerName, Denial> {
    let failed = |error: ServerNameError| Denial::new(StatusCode::BAD_REQUEST, in_one_line(&error));
    text.parse().map_err(failed)
}

async fn wal(
    _: WalReader,
    State(control): State<Arc<Control>>,
    UrlPath((server, file)): UrlPath<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, Denial> {
    let server = server_name(&server)?;
    let query = query.unwrap_or_default();
    let partial = query.split('&').any(|part| part == "partial=true");
    let lease: Option<LeaseId> =
        query.split('&').find_map(|part| part.strip_prefix("lease=")?.parse().ok());
    let (dir, keys) = (control.home.server(&server), control.keys(&server));
    let located = blocking(move || {
        let dir = previous::store_of(&dir, lease.as_ref());
        let beginnings = Beginnings::of(partial, lease.as_ref());
        let located = locate(&dir, &file, beginnings, keys.as_ref());
        if let Some(lease) = lease
            && let Err(error) = Lease::renew(&dir, &lease, Timestamp::now())
        {
            tracing::warn!(error = in_one_line(&error), "a lease could not be renewed");
        }
        located
    });
    match located.await?? {
        Lookup::EndOfArchive => {
            let answer = EndOfArchive { end_of_archive: true };
            Ok((StatusCode::NOT_FOUND, Json(answer)).into_response())
        }
        Lookup::Found(file) => {
            let length = [(header::CONTENT_LENGTH, file.length())];
            let settled = file.is_settled();
            let mut response = (length, body_of(file)).into_response();
            if settled {
                response.headers_mut().insert(SETTLED, HeaderValue::from_static("true"));
            }
            Ok(response)
        }
    }
}

/// Sends a file as it is read. If reading fails in the middle, the connection breaks off before
/// the length that was announced, and whoever reads it notices. So the last part is sent only when
/// the end was read behind it, which is where a checksum turns out to be wrong.
fn body_of(mut file: WalFile) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(CHUNKS);
    tokio::task::spawn_blocking(move || {
        let mut last = None;
        loop {
            let mut chunk = vec![0; CHUNK];
            let next = match file.read(&mut chunk) {
                Ok(0) => None,
                Ok(read) => {
                    chunk.truncate(read);
                    Some(Bytes::from(chunk))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(error = %error, "a WAL file could not be read");
                    // Whoever asked may have gone.
                    let _ = sender.blocking_send(Err(error));
                    return;
                }
            };
            let ended = next.is_none();
            if let Some(part) = std::mem::replace(&mut last, next)
                && sender.blocking_send(Ok(part)).is_err()
            {
                return;
            }
            if ended {
                return;
            }
        }
    });
    Body::from_stream(futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|part| (part, receiver))
    }))
}

#[cfg(test)]
mod tests;
