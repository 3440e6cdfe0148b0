//! Failures told to a webhook: a queue and a task that nobody waits for.
//!
//! Each server has its own, so that one address that does not answer keeps no other's news, and
//! what is told arrives in the order in which it happened.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::pki_types::ServerName as TlsName;
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time;
use tokio_rustls::TlsConnector;

use crate::failure::{Failure, in_one_line};
use crate::settings::{ServerName, WebhookUrl};

/// How much news waits for its turn; more is dropped, and that is logged.
const QUEUE: usize = 64;

/// How often one piece of news is tried to be told.
const ATTEMPTS: u32 = 5;

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long is waited before the second attempt. The pauses double.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How long a process stays that has nothing else to do.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// How much of an answer is read: nobody wants to know more than that it was understood.
const ANSWER: usize = 64 << 10;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// A backup has failed.
    BackupFailed,
    /// What is stored is not what was stored, or was backed up.
    VerificationFailed,
    /// WAL is not received.
    ReceiverFailed,
    /// WAL was received that PostgreSQL could not replay.
    SuspectWal,
    /// The retention policy could not be enforced.
    RetentionFailed,
    /// `check` has begun to fail.
    CheckFailed,
    /// `check` is content again.
    CheckRecovered,
}

/// What happened to which server, as it is told.
#[derive(Clone, Debug, Serialize)]
pub struct Notice {
    server: ServerName,
    event: News,
    error: Option<String>,
    hint: Option<String>,
    time: Timestamp,
    hostname: String,
    version: &'static str,
}

impl Notice {
    /// Something that happened now.
    pub fn new(server: &ServerName, event: News) -> Self {
        Self {
            server: server.clone(),
            event,
            error: None,
            hint: None,
            time: Timestamp::now(),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// A failure, with its causes and what to do about it.
    pub fn of(server: &ServerName, event: News, failure: &dyn Failure) -> Self {
        let error = in_one_line(failure);
        Self {
            error: Some(error),
            hint: failure.hint_about(server.as_str()),
            ..Self::new(server, event)
        }
    }

    /// With these words for what is wrong.
    #[must_use]
    pub fn with_error(self, error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..self }
    }
}

/// The webhook of one server. Dropped, it still tells what it has been told.
#[derive(Debug)]
pub struct Webhook {
    /// `None` if none is configured.
    sending: Option<(mpsc::Sender<Notice>, JoinHandle<()>)>,
}

impl Webhook {
    /// Starts the task that tells; without an address there is none. To be called within a runtime.
    pub fn start(url: Option<&WebhookUrl>) -> Self {
        let sending = url.cloned().map(|url| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            (sender, tokio::spawn(tell_all(url, receiver, FIRST_PAUSE)))
        });
        Self { sending }
    }

    /// Tells it, some time soon. Returns at once: what finds no room is dropped.
    pub fn notify(&self, notice: Notice) {
        if let Some((sender, _)) = &self.sending
            && let Err(error) = sender.try_send(notice)
        {
            let notice = error.into_inner();
            tracing::warn!(
                server = %notice.server, event = ?notice.event,
                "the webhook is not told: too much is waiting for it already"
            );
        }
    }

    /// Tells one piece of news, for a process that ends with it: waits until it is told, but not for
    /// long.
    pub async fn tell_last(url: Option<&WebhookUrl>, notice: Notice) {
        let webhook = Self::start(url);
        webhook.notify(notice);
        if time::timeout(LAST_WORDS, webhook.finish()).await.is_err() {
            tracing::error!("the webhook could not be told in time");
        }
    }

    /// Waits until all is told, or was tried often enough.
    pub async fn finish(self) {
        if let Some((sender, task)) = self.sending {
            drop(sender);
            // A panic of it has been told by now.
            let _ = task.await;
        }
    }
}

async fn tell_all(url: WebhookUrl, mut notices: mpsc::Receiver<Notice>, first_pause: Duration) {
    while let Some(notice) = notices.recv().await {
        let (server, event) = (&notice.server, notice.event);
        match tell(&url, &notice, first_pause).await {
            Ok(()) => tracing::debug!(%server, ?event, %url, "the webhook was told"),
            Err(error) => {
                let error = in_one_line(&error);
                tracing::error!(%server, ?event, %url, error, "the webhook could not be told");
            }
        }
    }
}

/// Why a webhook does not know.
#[derive(Debug, thiserror::Error)]
enum WebhookError {
    #[error("cannot write down what happened")]
    Document(#[from] serde_json::Error),
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("no certificates of this machine can be used")]
    Tls(#[from] rustls::Error),
    #[error("the address has no name that a certificate could be for")]
    Name,
    #[error("cannot talk to it")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made")]
    Request(#[from] hyper::http::Error),
    #[error("it answered with status {0}")]
    Status(StatusCode),
    #[error("it did not answer within {0:?}")]
    Timeout(Duration),
}

impl WebhookError {
    /// Whether it would be the same the next time.
    fn is_final(&self) -> bool {
        match self {
            // What TLS says is about the other end and its certificate.
            Self::Connect(error) => error.kind() == io::ErrorKind::InvalidData,
            Self::Http(_) | Self::Timeout(_) => false,
            Self::Document(_) | Self::Tls(_) | Self::Name | Self::Request(_) => true,
            Self::Status(status) => {
                let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
                !status.is_server_error() && !again.contains(status)
            }
        }
    }
}

/// Tells one piece of news, however often that takes.
async fn tell(
    url: &WebhookUrl,
    notice: &Notice,
    first_pause: Duration,
) -> Result<(), WebhookError> {
    let body = Bytes::from(serde_json::to_vec(notice)?);
    let mut pause = first_pause;
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        let attempt = time::timeout(TIMEOUT, attempt(url, body.clone())).await;
        let error = match attempt.unwrap_or(Err(WebhookError::Timeout(TIMEOUT))) {
            Ok(()) => return Ok(()),
            Err(error) if left == 0 || error.is_final() => return Err(error),
            Err(error) => error,
        };
        let error = in_one_line(&error);
        tracing::info!(%url, error, "the webhook was not told; trying again in {pause:?}");
        time::sleep(pause).await;
        pause = pause.saturating_mul(2);
    }
}

async fn attempt(url: &WebhookUrl, body: Bytes) -> Result<(), WebhookError> {
    let connected = TcpStream::connect((url.host(), url.port())).await;
    let socket = connected.map_err(WebhookError::Connect)?;
    let answer = if url.is_secure() {
        let name = TlsName::try_from(url.host().to_owned()).map_err(|_| WebhookError::Name)?;
        let connector = TlsConnector::from(Arc::new(tls().await?));
        let socket = connector.connect(name, socket).await.map_err(WebhookError::Connect)?;
        post(url, body, socket).await?
    } else {
        post(url, body, socket).await?
    };
    let status = answer.status();
    // Politely read, so that nobody writes to a closed connection.
    let _ = Limited::new(answer.into_body(), ANSWER).collect().await;
    if status.is_success() { Ok(()) } else { Err(WebhookError::Status(status)) }
}

async fn post(
    url: &WebhookUrl,
    body: Bytes,
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Response<Incoming>, WebhookError> {
    let request = Request::post(url.path_and_query())
        .header(HOST, url.authority())
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("walrecv-server/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    // It ends with the request's sender and answer.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// TLS with the certificates that this machine trusts.
async fn tls() -> Result<ClientConfig, WebhookError> {
    let loaded = spawn_blocking(rustls_native_certs::load_native_certs).await;
    let mut roots = RootCertStore::empty();
    if let Ok(loaded) = loaded {
        roots.add_parsable_certificates(loaded.certs);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers so many requests with these statuses, and gives back what was asked.
    async fn listen(statuses: &'static [u16]) -> (WebhookUrl, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}/hooks/geheim").parse().unwrap();
        let served = tokio::spawn(async move {
            let mut asked = Vec::new();
            for status in statuses {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"}") {
                    let read = socket.read_buf(&mut request).await.unwrap();
                    assert!(read > 0);
                }
                asked.push(String::from_utf8(request).unwrap());
                let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (url, served)
    }

    fn notice() -> Notice {
        Notice::new(&"main".parse().unwrap(), News::BackupFailed).with_error("no luck")
    }

    #[tokio::test]
    async fn news_is_told_again_until_it_is_taken() {
        let (url, served) = listen(&[500, 429, 204]).await;
        tell(&url, &notice(), Duration::ZERO).await.unwrap();
        let asked = served.await.unwrap();
        assert_eq!(asked.len(), 3);
        let (head, body) = asked[2].split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /hooks/geheim HTTP/1.1\r\n"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["server"], "main");
        assert_eq!(body["event"], "backup_failed");
        assert_eq!(body["error"], "no luck");
        assert!(body["time"].as_str().unwrap().parse::<Timestamp>().is_ok());
        for key in ["hint", "hostname", "version"] {
            assert!(body.get(key).is_some(), "{key}");
        }
    }

    #[tokio::test]
    async fn what_is_refused_for_good_is_not_told_again() {
        let (url, served) = listen(&[404]).await;
        let error = tell(&url, &notice(), Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, WebhookError::Status(StatusCode::NOT_FOUND)), "{error}");
        assert_eq!(served.await.unwrap().len(), 1);
        // Nobody listens any more; that is tried a few times.
        let error = tell(&url, &notice(), Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, WebhookError::Connect(_)), "{error}");
        assert!(!in_one_line(&error).contains("geheim"));
    }

    #[tokio::test]
    async fn whoever_tells_does_not_wait_and_what_waits_is_bounded() {
        // Somebody who takes connections, and never answers.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url: WebhookUrl = format!("http://127.0.0.1:{port}/").parse().unwrap();
        let webhook = Webhook::start(Some(&url));
        webhook.notify(notice());
        let _silent = listener.accept().await.unwrap();
        for _ in 0..10 * QUEUE {
            webhook.notify(notice());
        }
        let (sender, task) = webhook.sending.unwrap();
        assert_eq!(sender.capacity(), 0);
        task.abort();
        Webhook::start(None).notify(notice());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_who_never_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port());
        let begin = time::Instant::now();
        let told = tell(&url.parse().unwrap(), &notice(), Duration::ZERO).await;
        assert!(matches!(told, Err(WebhookError::Timeout(_))), "{told:?}");
        assert_eq!(begin.elapsed().as_secs(), u64::from(ATTEMPTS) * TIMEOUT.as_secs());
    }

    #[tokio::test]
    async fn all_is_told_before_the_end() {
        let (url, served) = listen(&[200, 200]).await;
        let webhook = Webhook::start(Some(&url));
        webhook.notify(notice());
        webhook.notify(notice());
        webhook.finish().await;
        assert_eq!(served.await.unwrap().len(), 2);
    }
}
