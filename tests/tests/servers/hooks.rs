//! The operator's scripts around backups, archiving, removals and restores, and the webhook.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::walrecv::{Output, finish};
use walrecv_tests::{Cluster, Context, Failure, Installation, Result};

use crate::site::{Site, write_wal};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("hooks_are_told", &[10, 18], hooks_are_told)
        .per_major("hooks_refuse", &[15, 18], hooks_refuse)
        .per_major("hooks_hang", &[18], hooks_hang)
        .per_major("webhook_over_tls", &[18], webhook_over_tls)
}

/// Scripts that write down what they are told, each into a file with the name of its key.
struct Told(PathBuf);

impl Told {
    fn new(site: &Site) -> Result<Self> {
        let directory = site.walrecv.directory().join("told");
        fs::create_dir(&directory).context(|| "cannot make a directory".to_owned())?;
        Ok(Self(directory))
    }

    /// The lines of the configuration.
    fn lines(&self) -> String {
        let mut lines = String::new();
        for event in ["backup", "archive", "delete", "wal_delete", "recovery"] {
            for phase in ["pre", "post"] {
                for kind in ["script", "retry_script"] {
                    let key = format!("{phase}_{event}_{kind}");
                    let file = self.0.join(&key);
                    let file = file.display();
                    // Several segments are archived at a time.
                    lines
                        .push_str(&format!("{key} = \"env > {file}.$$ && mv {file}.$$ {file}\"\n"));
                }
            }
        }
        lines
    }

    /// What the script was told the last time.
    fn of(&self, key: &str) -> Result<BTreeMap<String, String>> {
        let text = fs::read_to_string(self.0.join(key)).context(|| format!("`{key}` never ran"))?;
        let variables = text.lines().filter_map(|line| line.split_once('='));
        Ok(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// What all four scripts were told alike: before, and after.
    fn around(&self, event: &str) -> Result<[BTreeMap<String, String>; 2]> {
        let mut both = Vec::new();
        for phase in ["pre", "post"] {
            let mut once = self.of(&format!("{phase}_{event}_script"))?;
            let mut again = self.of(&format!("{phase}_{event}_retry_script"))?;
            assert_eq!(once.remove("WALRECV_HOOK"), Some(format!("{event}_script")));
            assert_eq!(again.remove("WALRECV_HOOK"), Some(format!("{event}_retry_script")));
            assert_eq!(once.remove("WALRECV_RETRY").as_deref(), Some("0"));
            assert_eq!(again.remove("WALRECV_RETRY").as_deref(), Some("1"));
            assert_eq!(once["WALRECV_PHASE"], phase);
            assert_eq!(once["WALRECV_SERVER"], "main");
            assert_eq!(once["WALRECV_ERROR"], "");
            assert!(once.contains_key("WALRECV_VERSION"));
            if event != "archive" {
                assert_eq!(once, again);
            }
            both.push(once);
        }
        both.try_into().map_err(|_| Failure::new("not two"))
    }
}

fn hooks_are_told(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let told = Told::new(&site)?;
    site.configure(&told.lines())?;
    let daemon = site.run()?;
    let first = site.backup()?;

    // Neither what we are told nor PostgreSQL's password is told on.
    let mut command = site.walrecv.command(&["backup", "main", "--wait"])?;
    command.env("PGPASSWORD", "geheim").env("WALRECV_ANYTHING", "geheim");
    finish(&mut command)?.success()?;
    let second = site.last_backup()?;
    let [before, after] = told.around("backup")?;
    let base = site.walrecv.home().join("main/base").join(&second);
    for told in [&before, &after] {
        assert_eq!(told["WALRECV_BACKUP_ID"], second);
        assert_eq!(told["WALRECV_BACKUP_DIR"], base.display().to_string());
        assert_eq!(Path::new(&told["WALRECV_BACKUP_INFO_PATH"]), base.join("backup.json"));
        assert_eq!(told["WALRECV_PREVIOUS_ID"], first);
        assert_eq!(told["WALRECV_NEXT_ID"], "");
        assert_eq!(Path::new(&told["WALRECV_CONFIGURATION"]), site.walrecv.configuration());
        assert!(!told.values().any(|value| value.contains("geheim")), "{told:?}");
        assert!(told.contains_key("PATH"));
    }
    assert_eq!(before["WALRECV_STATUS"], "STARTED");
    let status = after["WALRECV_STATUS"].as_str();
    assert!(["DONE", "WAITING_FOR_WALS"].contains(&status), "{status}");

    site.cluster.execute("SELECT pg_switch_wal()")?;
    site.cluster.execute("CREATE TABLE after (n int)")?;
    site.settle()?;
    site.cluster.wait_for("an archived segment", |_| Ok(told.of("post_archive_script").is_ok()))?;
    assert_eq!(daemon.stop()?, 0);
    let [before, after] = told.around("archive")?;
    assert_eq!(before["WALRECV_COMPRESSION"], "none");
    assert_eq!(after["WALRECV_COMPRESSION"], "zstd");
    assert!(before["WALRECV_FILE"].contains("/main/streaming/"), "{before:?}");
    assert!(after["WALRECV_FILE"].contains("/main/wals/"), "{after:?}");
    let archived = fs::metadata(&after["WALRECV_FILE"])?;
    assert_eq!(after["WALRECV_SIZE"], archived.len().to_string());
    assert!(after["WALRECV_TIMESTAMP"].parse::<f64>()? > 1.7e9);
    assert_eq!(after["WALRECV_SEGMENT"].len(), 24);

    let (destination, output) = site.restore(
        "restored",
        &[&second, "--no-get-wal", "--target-immediate", "--target-action", "promote"],
    )?;
    output.success()?;
    for told in told.around("recovery")? {
        assert_eq!(told["WALRECV_BACKUP_ID"], second);
        assert_eq!(told["WALRECV_STATUS"], "DONE");
        assert_eq!(Path::new(&told["WALRECV_DESTINATION_DIRECTORY"]), destination);
        let options: serde_json::Value = serde_json::from_str(&told["WALRECV_RECOVER_OPTIONS"])?;
        assert_eq!(
            options,
            serde_json::json!({ "target_immediate": true, "target_action": "promote" })
        );
        assert_eq!(told["WALRECV_TABLESPACES"], "");
    }

    site.walrecv.run(&["delete", "main", &first])?.success()?;
    for told in told.around("delete")? {
        assert_eq!(told["WALRECV_BACKUP_ID"], first);
        assert_eq!(told["WALRECV_NEXT_ID"], second);
        assert_eq!(told["WALRECV_STATUS"], "DONE");
    }
    for told in told.around("wal_delete")? {
        assert_eq!(told["WALRECV_SEGMENT"].len(), 24);
        assert!(told["WALRECV_FILE"].contains("/main/wals/"), "{told:?}");
    }
    // What is only looked at is nobody's business.
    fs::remove_file(told.0.join("pre_delete_script"))?;
    site.walrecv.run(&["delete", "main", &second, "--dry-run"])?.success()?;
    assert!(told.of("pre_delete_script").is_err());
    Ok(())
}

/// Somebody who takes one piece of news.
fn listen() -> Result<(u16, thread::JoinHandle<String>)> {
    let about = || "cannot listen".to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").context(about)?;
    let port = listener.local_addr().context(about)?.port();
    let taken = thread::spawn(move || take(listener.accept().unwrap().0));
    Ok((port, taken))
}

/// The same with the certificate of the cluster's server.
fn listen_with_tls(cluster: &Cluster) -> Result<(u16, thread::JoinHandle<String>)> {
    let about = || "cannot listen with TLS".to_owned();
    let files = ["server.crt", "server.key"].map(|name| cluster.data_directory().join(name));
    let [certificate, key] = files;
    let certificate = CertificateDer::from_pem_file(certificate).context(about)?;
    let key = PrivateKeyDer::from_pem_file(key).context(about)?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .context(about)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .context(about)?;
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").context(about)?;
    let port = listener.local_addr().context(about)?.port();
    let taken = thread::spawn(move || {
        // Those that do not trust it end before they have said anything.
        loop {
            let (mut socket, _) = listener.accept().unwrap();
            let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            if tls.complete_io(&mut socket).is_ok() {
                return take(StreamOwned::new(tls, socket));
            }
        }
    });
    Ok((port, taken))
}

/// Takes a request, and is content.
fn take(mut socket: impl Read + Write) -> String {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    while !request.ends_with(b"}") {
        let length = socket.read(&mut chunk).unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&request));
        request.extend_from_slice(&chunk[..length]);
    }
    socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    String::from_utf8(request).unwrap()
}

/// Over TLS, only somebody is told whose certificate this machine trusts.
fn webhook_over_tls(installation: &Installation) -> ScenarioResult {
    if !installation.has_tls() {
        return Ok(());
    }
    let site = Site::new(installation)?;
    let (port, taken) = listen_with_tls(&site.cluster)?;
    site.configure(&format!(
        "pre_backup_retry_script = \"exit 63\"\n\
         failure_webhook = \"https://localhost:{port}/hooks/geheim\"\n"
    ))?;
    let backup = |trusted: &Path| -> Result<Output> {
        let mut command = site.walrecv.command(&["backup", "main"])?;
        finish(command.env("SSL_CERT_FILE", trusted))?.code(1)
    };
    let nobody = site.walrecv.directory().join("nobody.pem");
    fs::write(&nobody, "")?;
    let said = backup(&nobody)?.stderr;
    assert!(said.contains("the webhook could not be told"), "{said}");
    assert!(!taken.is_finished() && !said.contains("geheim"), "{said}");
    let said = backup(&site.cluster.ca_certificate())?.stderr;
    assert!(!said.contains("could not be told"), "{said}");
    let request = taken.join().map_err(|_| Failure::new("the webhook was not told"))?;
    assert!(request.starts_with("POST /hooks/geheim HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("backup_failed"), "{request}");
    Ok(())
}

fn hooks_refuse(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let id = site.backup()?;
    let refuse = |event: &str| format!("pre_{event}_retry_script = \"echo not today; exit 63\"\n");
    let (port, taken) = listen()?;
    let webhook = format!("failure_webhook = \"http://127.0.0.1:{port}/hooks/geheim\"\n");
    site.configure(&format!("{}{webhook}", refuse("backup")))?;
    let output = site.walrecv.run(&["backup", "main"])?.code(1)?;
    for words in [
        "the backup of server `main` failed",
        "`pre_backup_retry_script` of server `main` does not allow the backup: it ended with exit \
         code 63 after writing \"not today\"",
    ] {
        assert!(output.stderr.contains(words), "{}", output.stderr);
    }
    let listed = site.walrecv.run(&["list-backups", "main"])?.success()?.stdout;
    assert!(listed.lines().next().unwrap_or_default().contains("FAILED"), "{listed}");
    let request = taken.join().map_err(|_| Failure::new("the webhook was not told"))?;
    let (head, body) = request.split_once("\r\n\r\n").context(|| request.clone())?;
    assert!(head.starts_with("POST /hooks/geheim HTTP/1.1\r\n"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body)?;
    assert_eq!((&body["server"], &body["event"]), (&"main".into(), &"backup_failed".into()));
    assert!(body["error"].as_str().unwrap_or_default().contains("not today"), "{body}");
    // Where it is shown, its secret is not, and nor are passwords.
    let shown = site.walrecv.run(&["show-servers", "main"])?.success()?.stdout;
    assert!(shown.contains(&format!("http://127.0.0.1:{port}/***")), "{shown}");
    assert!(shown.contains("password=***") && !shown.contains(crate::site::PASSWORD), "{shown}");

    site.configure(&format!("{}{}", refuse("delete"), refuse("recovery")))?;
    let output = site.walrecv.run(&["delete", "main", &id])?.code(1)?;
    assert!(output.stderr.contains("does not allow the removal of the backup"));
    assert_eq!(site.shown(&id)?["results"][0]["status"], "DONE");
    let (destination, output) = site.restore("restored", &[&id, "--no-get-wal"])?;
    assert!(output.code(1)?.stderr.contains("does not allow the restore"));
    assert!(!destination.exists() || fs::read_dir(&destination)?.next().is_none());
    // One that fails without refusing is only told of.
    site.configure("pre_backup_script = \"exit 63\"\npost_backup_retry_script = \"exit 62\"\n")?;
    let output = site.walrecv.run(&["backup", "main"])?.success()?;
    assert!(output.stderr.contains("pre_backup_script"), "{}", output.stderr);
    Ok(())
}

/// Whether a process is alive, and no zombie.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

fn hooks_hang(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let pids = site.walrecv.directory().join("pids");
    let hang = format!("sleep 600 & echo $! >> {0}; echo $$ >> {0}; sleep 600", pids.display());
    site.configure(&format!("hook_timeout = \"1s\"\npre_backup_script = \"{hang}\"\n"))?;
    site.backup()?;
    let told = fs::read_to_string(&pids)?;
    assert_eq!(told.lines().count(), 2);
    for pid in told.lines() {
        site.cluster.wait_for("the end of the script", |_| Ok(!is_alive(pid)))?;
    }

    // What keeps the archiver keeps nobody else: WAL is received, and acknowledged.
    fs::remove_file(&pids)?;
    site.configure(&format!("pre_archive_retry_script = \"{hang}\"\n"))?;
    let daemon = site.run()?;
    write_wal(&site.cluster, 5)?;
    site.settle()?;
    site.cluster.wait_for("the script to run", |_| {
        Ok(fs::read_to_string(&pids).is_ok_and(|told| told.lines().count() >= 2))
    })?;
    let streaming = site.walrecv.home().join("main/streaming");
    let waiting = || -> Result<usize> {
        let entries = fs::read_dir(&streaming).context(|| "cannot list it".to_owned())?;
        let names = entries.flatten().map(|entry| entry.file_name());
        Ok(names.filter(|name| name.len() == 24).count())
    };
    assert!(waiting()? >= 4, "{}", waiting()?);
    let log = daemon.log();
    let mut daemon = daemon;
    daemon.signal(rustix::process::Signal::TERM)?;
    assert_eq!(daemon.wait(Duration::from_secs(30))?, 0, "{log}");
    for pid in fs::read_to_string(&pids)?.lines() {
        site.cluster.wait_for("the end of the script", |_| Ok(!is_alive(pid)))?;
    }
    // And nothing is lost by it: whoever archives what waits runs the scripts, one after the other.
    let archived = site.walrecv.directory().join("archived");
    let tell = format!("echo $WALRECV_SEGMENT >> {}", archived.display());
    site.configure(&format!("post_archive_script = \"{tell}\"\n"))?;
    let before = waiting()?;
    site.walrecv.run(&["archive-wal", "main"])?.success()?;
    assert_eq!(waiting()?, 0);
    assert_eq!(fs::read_to_string(&archived)?.lines().count(), before);

    // What is archived is told of, though the daemon is to stop.
    let began = site.walrecv.directory().join("began");
    let slow = format!("echo $WALRECV_SEGMENT >> {}; sleep 3; {tell}", began.display());
    site.configure(&format!("post_archive_retry_script = \"{slow}\"\n"))?;
    fs::remove_file(&archived)?;
    let daemon = site.run()?;
    write_wal(&site.cluster, 1)?;
    site.cluster.wait_for("the script to run", |_| Ok(began.exists()))?;
    assert_eq!(daemon.stop()?, 0);
    let sorted = |path: &Path| -> Result<Vec<String>> {
        let text = fs::read_to_string(path).context(|| format!("cannot read `{path:?}`"))?;
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    };
    assert_eq!(sorted(&began)?, sorted(&archived)?);
    Ok(())
}
