//! The status page: files that know nothing; what they show they ask the API for.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;

const HTML: &str = include_str!("page/page.html");
const CSS: &str = include_str!("page/page.css");
const SCRIPTS: [(&str, &str); 4] = [
    ("page.js", include_str!("page/page.js")),
    ("card.js", include_str!("page/card.js")),
    ("picture.js", include_str!("page/picture.js")),
    ("words.js", include_str!("page/words.js")),
];

/// What a browser may do with what is served here: nothing but the page's own files, from here.
pub(super) fn security() -> [(HeaderName, HeaderValue); 4] {
    [
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            ),
        ),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]
}

pub(super) async fn html() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], HTML)
}

pub(super) async fn css() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], CSS)
}

/// The scripts, by their paths.
pub(super) fn scripts<S: Clone + Send + Sync + 'static>() -> Router<S> {
    SCRIPTS.into_iter().fold(Router::new(), |router, (name, text)| {
        let script = move || async move {
            ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], text)
        };
        router.route(&format!("/{name}"), get(script))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_from_elsewhere_and_no_text_becomes_markup() {
        for text in SCRIPTS.map(|(_, text)| text).into_iter().chain([HTML, CSS]) {
            let outside = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!outside.contains("http://") && !outside.contains("https://"));
        }
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(SCRIPTS.iter().all(|(_, text)| !text.contains(way)), "{way}");
        }
        // The policy refuses both.
        for way in ["style=", "<style", "onclick", "onload", "onerror", "<script>"] {
            assert!(!HTML.contains(way), "{way}");
        }
    }
}
