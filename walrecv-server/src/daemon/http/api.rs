//! The paths, and what is behind them.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Serialize;

use super::overview::{Live, Overview, live, overview};
use super::{Site, metrics, page};
use crate::daemon::client::DaemonError;
use crate::receiver;
use crate::settings::{ServerSettings, Settings};

pub(super) fn router(site: Arc<Site>) -> Router {
    let guarded = Router::new()
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/api/v1/servers", get(servers))
        .route("/api/v1/servers/{server}", get(server))
        .route("/api/v1/live", get(live_servers))
        .layer(middleware::from_fn_with_state(Arc::clone(&site), guard));
    Router::new()
        .route("/", get(page::html))
        .route("/page.css", get(page::css))
        .merge(page::scripts())
        .route("/healthz", get(healthz))
        .merge(guarded)
        .fallback(unknown)
        .layer(middleware::map_response(secure))
        .with_state(site)
}

async fn guard(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    match site.guard.admits(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            let mut response = error(refusal.status(), refusal.message());
            if refusal.status() == StatusCode::UNAUTHORIZED {
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

async fn secure(mut response: Response) -> Response {
    for (name, value) in page::security() {
        response.headers_mut().insert(name, value);
    }
    response
}

fn error(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(DaemonError { error: error.into(), hint: None })).into_response()
}

async fn unknown() -> Response {
    error(StatusCode::NOT_FOUND, "there is nothing here")
}

async fn healthz() -> &'static str {
    "ok\n"
}

/// An answer about all servers.
#[derive(Serialize)]
struct Answer<T> {
    version: &'static str,
    now: Timestamp,
    servers: Vec<T>,
}

fn answer<T: Serialize>(now: Timestamp, servers: Vec<T>) -> Response {
    Json(Answer { version: env!("CARGO_PKG_VERSION"), now, servers }).into_response()
}

impl Site {
    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    fn live(&self, now: Timestamp) -> Vec<Live> {
        let news = self.board.news();
        let of = |server: &ServerSettings| {
            live(server, news.iter().find(|news| news.server == server.name), now)
        };
        self.settings().servers.iter().map(of).collect()
    }

    async fn overviews(&self, servers: &[ServerSettings]) -> Vec<Overview> {
        let stored = self.stored.of(servers).await;
        let now = Timestamp::now();
        let news = self.board.news();
        let of = |server: &ServerSettings| {
            let news = news.iter().find(|news| news.server == server.name);
            Some(overview(server, news, stored.get(&server.name)?, now))
        };
        servers.iter().filter_map(of).collect()
    }
}

async fn servers(State(site): State<Arc<Site>>) -> Response {
    let overviews = site.overviews(&site.settings().servers).await;
    answer(Timestamp::now(), overviews)
}

async fn server(State(site): State<Arc<Site>>, Path(name): Path<String>) -> Response {
    let configured = site.settings();
    let wanted: Vec<_> =
        configured.servers.iter().filter(|server| server.name.as_str() == name).cloned().collect();
    match site.overviews(&wanted).await.pop() {
        Some(overview) => Json(overview).into_response(),
        None if !wanted.is_empty() => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "what is stored for the server is still being looked at",
        ),
        None => error(StatusCode::NOT_FOUND, "there is no such server"),
    }
}

async fn live_servers(State(site): State<Arc<Site>>) -> Response {
    let now = Timestamp::now();
    answer(now, site.live(now))
}

async fn readyz(State(site): State<Arc<Site>>) -> Response {
    let streams = |live: &Live| {
        let streaming = |receiver: &super::overview::Receiving| {
            receiver.state == receiver::State::Streaming && !receiver.disk_full
        };
        !live.active || live.receiver.as_ref().is_some_and(streaming)
    };
    let idle: Vec<String> = site
        .live(Timestamp::now())
        .iter()
        .filter(|live| !streams(live))
        .map(|live| format!("{}: {}\n", live.server, live.words))
        .collect();
    if idle.is_empty() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, idle.concat()).into_response()
    }
}

async fn scrape(State(site): State<Arc<Site>>) -> Response {
    let overviews = site.overviews(&site.settings().servers).await;
    match metrics::text(overviews, site.board.refused().is_none()) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written"),
    }
}
