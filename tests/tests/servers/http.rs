//! What the daemon tells browsers and monitoring: health, metrics, the API and the status page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use walrecv_tests::port::free_port;
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::walrecv::write_private;
use walrecv_tests::{Context, Installation, Result, program, tools};

use crate::site::Site;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("http_metrics", &[10, 18], metrics)
        .per_major("http_guard", &[18], guard)
        .per_major("http_page", &[18], page)
}

/// An answer.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Asks over a connection, and reads to its end.
fn ask(mut stream: impl Read + Write, path: &str, headers: &str) -> Result<Answer> {
    let about = || format!("no answer to {path}");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")
        .context(about)?;
    let mut answer = Vec::new();
    // Some end TLS without saying so.
    if let Err(error) = stream.read_to_end(&mut answer)
        && answer.is_empty()
    {
        return Err(error).context(about);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").context(about)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context(about)?;
    Ok(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
}

fn connect(port: u16) -> Result<TcpStream> {
    let mut last = None;
    for _ in 0..200 {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => {
                let patience = Some(Duration::from_secs(30));
                stream.set_read_timeout(patience).context(|| "a socket".to_owned())?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(last.unwrap_or_else(|| std::io::Error::other("never tried")))
        .context(|| format!("nobody listens on port {port}"))
}

fn get(port: u16, path: &str) -> Result<Answer> {
    ask(connect(port)?, path, "")
}

/// Asks until the answer is as wanted.
fn wait_for(port: u16, path: &str, wanted: impl Fn(&Answer) -> bool) -> Result<Answer> {
    for _ in 0..300 {
        // With other settings, it may be cut off.
        if let Ok(answer) = get(port, path)
            && wanted(&answer)
        {
            return Ok(answer);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let Answer { status, body, .. } = get(port, path)?;
    Err(walrecv_tests::Failure::new(format!("{path} answers {status}: {body}")))
}

fn metrics(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let port = free_port()?;
    site.configure_http(&format!("listen = \"127.0.0.1:{port}\""), "")?;
    let daemon = site.run()?;
    let before =
        wait_for(port, "/metrics", |answer| answer.body.contains("state=\"streaming\"} 1"))?;
    assert!(!before.body.contains("walrecv_last_backup_size_bytes{"), "{}", before.body);
    site.backup()?;
    site.settle()?;
    let answer = wait_for(port, "/metrics", |answer| {
        answer.body.contains("walrecv_backups{server=\"main\",status=\"DONE\"} 1")
    })?;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: application/openmetrics-text; version=1.0.0"));
    let samples = open_metrics(&answer.body);
    let value = |name: &str| samples.get(name).copied().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(value("walrecv_receiver_state{server=\"main\",state=\"streaming\"}"), 1.0);
    assert_eq!(value("walrecv_wal_interruptions{server=\"main\",kind=\"missing\"}"), 0.0);
    assert!(value("walrecv_last_backup_size_bytes{server=\"main\",kind=\"full\"}") > 100_000.0);
    assert!(value("walrecv_recoverable_to_timestamp_seconds{server=\"main\"}") > 1.7e9);
    assert!(value("walrecv_disk_free_bytes{server=\"main\"}") > 0.0);
    assert!(value("walrecv_process_resident_memory_bytes") > 1e6);
    assert!(value("walrecv_process_open_fds") > 3.0);
    let flushed = value("walrecv_flushed_lsn_bytes{server=\"main\"}") as u64;
    assert!(flushed <= site.position()?.as_u64());

    let api: serde_json::Value = serde_json::from_str(&get(port, "/api/v1/servers/main")?.body)?;
    assert_eq!(api["receiver"]["state"], "streaming");
    assert_eq!(api["stored"]["window"]["recoverable"][0]["ends"], "end_of_wal");
    let summary = api["stored"]["window"]["summary"].as_str().unwrap_or_default().to_owned();
    assert!(summary.ends_with("without a gap"), "{summary}");
    assert_eq!(get(port, "/api/v1/servers/other")?.status, 404);
    assert_eq!(get(port, "/nothing")?.status, 404);

    assert_eq!(get(port, "/healthz")?.status, 200);
    assert_eq!(get(port, "/readyz")?.status, 200);
    let mut cluster = site.cluster;
    cluster.stop()?;
    let unready = wait_for(port, "/readyz", |answer| answer.status == 503)?;
    assert!(unready.body.starts_with("main: "), "{}", unready.body);
    assert_eq!(get(port, "/healthz")?.status, 200);
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// Reads OpenMetrics as its specification has it, and demands that it is so; the samples.
fn open_metrics(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").expect("the end is marked");
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut family = String::new();
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (kind, name) = (words.next().unwrap(), words.next().unwrap());
            let rest = words.next().unwrap();
            match kind {
                // HELP comes first in what this program writes.
                "HELP" => {
                    assert!(families.insert(name.to_owned()), "{name} comes twice");
                    name.clone_into(&mut family);
                }
                "TYPE" => assert_eq!((name, rest), (family.as_str(), "gauge")),
                "UNIT" => {
                    assert_eq!(name, family);
                    assert!(name.ends_with(&format!("_{rest}")), "{line}");
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert_eq!(name.split('{').next(), Some(family.as_str()), "{line}");
        if let Some((_, labels)) = name.split_once('{') {
            let labels = labels.strip_suffix('}').unwrap();
            for label in labels.split("\",") {
                let (key, value) = label.split_once("=\"").unwrap();
                assert!(key.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
                assert!(!value.contains('\n'), "{line}");
            }
        }
        let value = value.parse().unwrap();
        assert!(samples.insert(name.to_owned(), value).is_none(), "{line} comes twice");
    }
    samples
}

fn guard(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let port = free_port()?;
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let directory = site.walrecv.directory();
    fs::write(directory.join("http.pem"), certified.cert.pem())?;
    write_private(&directory.join("http.key"), &certified.signing_key.serialize_pem())?;
    write_private(&directory.join("token"), "open-sesame\n")?;
    let path = |name: &str| directory.join(name).display().to_string();
    let lines = format!(
        "listen = \"127.0.0.1:{port}\"\ntls_cert_file = \"{}\"\ntls_key_file = \"{}\"\n\
         token_file = \"{}\"",
        path("http.pem"),
        path("http.key"),
        path("token")
    );
    site.configure_http(&lines, "")?;
    let daemon = site.run()?;

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certified.cert.der().to_vec()))?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let get = |path: &str, headers: &str| -> Result<Answer> {
        let name = "localhost".try_into().context(|| "a name".to_owned())?;
        let session = ClientConnection::new(Arc::clone(&config), name)
            .context(|| "no TLS session".to_owned())?;
        ask(StreamOwned::new(session, connect(port)?), path, headers)
    };
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    assert_eq!(get("/healthz", "")?.status, 200);
    let page = get("/", "")?;
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    for path in ["/metrics", "/readyz", "/api/v1/servers", "/api/v1/servers/main", "/api/v1/live"] {
        let refused = get(path, "")?;
        assert_eq!(refused.status, 401, "{path}");
        assert!(!refused.body.contains("main"), "{}", refused.body);
        assert_eq!(get(path, &bearer("open-sesam"))?.status, 401, "{path}");
        assert_eq!(get(path, &bearer("open-sesame"))?.status, 200, "{path}");
    }
    // The token is another one from now on.
    fs::write(directory.join("token"), "another\n")?;
    assert_eq!(get("/metrics", &bearer("open-sesame"))?.status, 401);
    assert_eq!(get("/metrics", &bearer("another"))?.status, 200);
    // Nobody is answered without TLS.
    assert!(ask(connect(port)?, "/healthz", "").is_err());
    assert_eq!(daemon.stop()?, 0);

    // Under another host's name, a page from elsewhere learns nothing.
    site.configure_http(&format!("listen = \"127.0.0.1:{port}\""), "")?;
    let daemon = site.run()?;
    let mut stream = connect(port)?;
    write!(
        stream,
        "GET /api/v1/servers HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 421") && !answer.contains("main"), "{answer}");

    // Who is connected already is not served by rules that do not hold any more.
    let mut stream = connect(port)?;
    let request = "GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes())?;
    let mut first = [0];
    stream.read_exact(&mut first)?;
    let lines = format!("listen = \"127.0.0.1:{port}\"\ntoken_file = \"{}\"", path("token"));
    site.configure_http(&lines, "")?;
    daemon.signal(rustix::process::Signal::HUP)?;
    wait_for(port, "/api/v1/live", |answer| answer.status == 401)?;
    let mut answers = first.to_vec();
    // Either may find out that nobody is there any more.
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_end(&mut answers);
    let answers = String::from_utf8_lossy(&answers).into_owned();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 1, "{answers}");
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// A browser shows the server and its window, and what comes from outside stays text.
fn page(installation: &Installation) -> ScenarioResult {
    const PROBE: &str = "<img src=x onerror=document.title='pwned'>";
    let Some(browser) = program::find_on_path("chromium") else {
        tools::missing("chromium", "the status page");
        return Ok(());
    };
    let site = Site::new(installation)?;
    let port = free_port()?;
    let described = format!("description = \"{PROBE}\"\n");
    site.configure_http(&format!("listen = \"127.0.0.1:{port}\""), &described)?;
    let daemon = site.run()?;
    site.walrecv
        .run(&["backup", "main", "--name", "before-the-<b>-upgrade", "--wait"])?
        .success()?;
    site.settle()?;
    wait_for(port, "/metrics", |answer| answer.body.contains("status=\"DONE\"} 1"))?;

    let dump = || {
        let profile = site.walrecv.directory().join("browser");
        program::run(
            Command::new(&browser)
                .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
                .args(["--disable-dev-shm-usage", "--virtual-time-budget=6000", "--dump-dom"])
                .arg(format!("--user-data-dir={}", profile.display()))
                .arg(format!("http://127.0.0.1:{port}/")),
        )
    };
    let shown = dump()?;
    for told in [
        "Server main",
        "Recoverable to any moment from",
        "without a gap",
        "Streaming",
        "class=\"wal\"",
        "class=\"window\"",
        "class=\"backup full good\"",
        "caught up",
        "1 backup",
        "before-the-&lt;b&gt;-upgrade",
        "&lt;img src=x onerror=",
    ] {
        assert!(shown.contains(told), "no `{told}` in:\n{shown}");
    }
    assert!(!shown.contains("<img") && !shown.contains("-<b>-"), "{shown}");
    assert!(!shown.contains("pwned</title>"), "{shown}");
    assert!(shown.contains("id=\"trouble\" role=\"alert\" hidden"), "{shown}");
    assert_eq!(daemon.stop()?, 0);

    // A daemon that wants its token is asked for nothing else.
    let token = site.walrecv.directory().join("token");
    write_private(&token, "open-sesame")?;
    let lines = format!("listen = \"127.0.0.1:{port}\"\ntoken_file = \"{}\"", token.display());
    site.configure_http(&lines, &described)?;
    let daemon = site.run()?;
    wait_for(port, "/healthz", |answer| answer.status == 200)?;
    let shown = dump()?;
    assert!(shown.contains("<form id=\"login\">") && !shown.contains("Server main"), "{shown}");
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}
