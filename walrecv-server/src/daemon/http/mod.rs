//! HTTP: the status page, metrics, health, and the API that the page lives on.
//!
//! | path | answer | token |
//! |---|---|---|
//! | `/` `/page.css` `/*.js` | the status page | no: there is nothing in it yet |
//! | `/healthz` | 200: the process lives | no |
//! | `/readyz` | 200 if all active servers are streamed from, 503 if not, and which | yes |
//! | `/metrics` | OpenMetrics | yes |
//! | `/api/v1/servers` | all that is known of each server | yes |
//! | `/api/v1/servers/{server}` | the same of one | yes |
//! | `/api/v1/live` | what of it changes all the time | yes |
//!
//! Nothing is gathered unless somebody asks, and WAL is received whatever happens here.

mod api;
mod guard;
mod metrics;
mod overview;
mod page;
mod reread;
mod store_views;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use self::guard::Guard;
use self::store_views::StoreViews;
use self::tls::Tls;
use super::board::Board;
use super::raised;
use crate::failure::in_one_line;
use crate::settings::{HttpSettings, Settings};
use crate::storage::Home;

/// How long is waited before the address is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// How many connections are served at a time.
const MOST_CONNECTIONS: usize = 64;

/// How long a client may take for its half of a TLS handshake, and for the head of a request; an
/// idle connection is closed after as long.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a connection lives at most, however slowly it reads.
const LIFE: Duration = Duration::from_secs(600);

/// How large the head of a request may be.
const HEAD: usize = 16 << 10;

/// How many header lines a request may have.
const MOST_HEADERS: usize = 64;

/// What the requests are answered from.
struct Site {
    board: Board,
    /// The settings as they are at the time of a request.
    settings: watch::Receiver<Arc<Settings>>,
    stored: StoreViews,
    guard: Guard,
}

/// Answers HTTP until it is told to stop; where, and whom, as the settings say at the time.
pub(super) async fn serve(
    settings: watch::Receiver<Arc<Settings>>,
    home: Home,
    board: Board,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let current = settings.borrow().http.clone();
        let mut news = settings.clone();
        let other = async {
            // Never, if nobody can change them any more.
            if news.wait_for(|settings| settings.http != current).await.is_err() {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = raised(&mut stop) => return,
            () = other => tracing::info!("answering HTTP anew, with other settings"),
            () = answer(&current, &settings, &home, &board) => {}
        }
    }
}

/// Never completes.
async fn answer(
    http: &HttpSettings,
    settings: &watch::Receiver<Arc<Settings>>,
    home: &Home,
    board: &Board,
) {
    let Some(address) = http.listen else { return std::future::pending().await };
    let files = http.tls_cert_file.clone().zip(http.tls_key_file.clone());
    let tls = files.map(|(certificate, key)| Arc::new(Tls::new(certificate, key)));
    let guard = Guard::new(http.token_file.clone());
    let stored = StoreViews::new(home.clone());
    let site = Site { board: board.clone(), settings: settings.clone(), stored, guard };
    listen(address, tls, Arc::new(site)).await;
}

async fn listen(address: SocketAddr, tls: Option<Arc<Tls>>, site: Arc<Site>) {
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => tracing::error!(
                %address, error = %error,
                hint = "another program may have it: set `listen` in `[http]`, or \"off\"",
                "no status page and no metrics; trying again in {} s", AGAIN.as_secs()
            ),
        }
        tokio::time::sleep(AGAIN).await;
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!("status page and metrics at {scheme}://{address}/");
    let router = api::router(site);
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    // They end with this: other settings hold for those, too, who are connected already.
    let mut visits = JoinSet::new();
    loop {
        while visits.try_join_next().is_some() {}
        // Who comes when the house is full waits at the door.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                visits.spawn(visit(stream, tls.clone(), router.clone(), permit));
            }
            Err(error) => {
                // Out of file descriptors, perhaps: others need them more.
                tracing::warn!(error = %error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Serves one connection to its end, whatever that is.
async fn visit(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    router: axum::Router,
    _permit: OwnedSemaphorePermit,
) {
    let served = async {
        match tls {
            None => converse(stream, router).await,
            Some(tls) => match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
                Ok(Ok(stream)) => converse(stream, router).await,
                Ok(Err(error)) => {
                    tracing::debug!(error = in_one_line(&error), "no TLS with a client");
                }
                Err(_) => {}
            },
        }
    };
    let _ = tokio::time::timeout(LIFE, served).await;
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    router: axum::Router,
) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(error = %error, "a connection ended");
    }
}
