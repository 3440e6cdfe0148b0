use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

use super::*;
use crate::settings::ConnInfo;
use crate::storage::Access;

/// What a server says that lets nobody in.
const REFUSAL: &[u8] = b"E\0\0\0\x17SFATAL\0C28P01\0Mno\0\0";

/// A server that answers each login with a refusal once it may, and says when somebody comes.
async fn server(
    name: &str,
    came: mpsc::UnboundedSender<String>,
    may_answer: Option<Arc<Notify>>,
) -> ServerSettings {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let own = name.to_owned();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let _ = came.send(own.clone());
            let may_answer = may_answer.clone();
            tokio::spawn(async move {
                let _ = tcp.read(&mut [0; 1000]).await;
                if let Some(may_answer) = may_answer {
                    may_answer.notified().await;
                }
                let _ = tcp.write_all(REFUSAL).await;
            });
        }
    });
    let conninfo = format!("host=127.0.0.1 port={port} user=x password=x sslmode=disable");
    let (name, slot) = (name.parse().unwrap(), "walrecv".parse().unwrap());
    ServerSettings::new(name, ConnInfo::new(conninfo), slot)
}

fn home() -> (tempfile::TempDir, Home) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path().join("home"), Access::Private);
    (directory, home)
}

#[tokio::test]
async fn a_server_that_hangs_keeps_no_other_waiting() {
    let (_directory, home) = home();
    let (came, mut coming) = mpsc::unbounded_channel();
    let release = Arc::new(Notify::new());
    // The first in the list.
    let mut servers = vec![server("a0", came.clone(), Some(release.clone())).await];
    for number in 0..20 {
        servers.push(server(&format!("b{number}"), came.clone(), None).await);
    }
    for server in &mut servers {
        server.check_timeout = Duration::from_secs(86_400);
    }
    let servers: Vec<_> = servers.iter().collect();
    // All the others are asked, and have answered, before the first one answers anything.
    let all_others = async {
        let mut others = std::collections::BTreeMap::new();
        while others.len() < 20 || others.values().any(|visits| *visits < 2) {
            let name = coming.recv().await.unwrap();
            if name != "a0" {
                *others.entry(name).or_insert(0) += 1;
            }
        }
        for _ in 0..2 {
            release.notify_one();
        }
    };
    let checked = async { tokio::join!(check_all(&servers, &home, &[]), all_others).0 };
    // Not how long it takes: whether it comes to an end at all.
    let outcomes = tokio::time::timeout(Duration::from_secs(60), checked).await;
    let outcomes = outcomes.expect("one waits for another");
    assert_eq!(outcomes.len(), 21);
    for outcome in outcomes {
        let row = outcome.rows.iter().find(|row| row.name == "PostgreSQL streaming").unwrap();
        assert!(row.remark.as_ref().unwrap().contains("28P01"), "{row:?}");
    }
}

#[tokio::test]
async fn a_look_ends_with_its_time() {
    let (_directory, home) = home();
    let (came, _coming) = mpsc::unbounded_channel();
    let mut hanging = server("a", came, Some(Arc::new(Notify::new()))).await;
    hanging.check_timeout = Duration::from_millis(50);
    let outcome = check(&hanging, &home.server(&hanging.name), None).await;
    let row = outcome.rows.iter().find(|row| row.name == TIMEOUT).unwrap();
    assert_eq!(row.state, State::Failed);
    // What is stored was looked at all the same.
    assert!(outcome.rows.iter().any(|row| row.name == "directories"));
    assert!(outcome.rows.iter().any(|row| row.name == "disk space"));
}

#[tokio::test]
async fn a_server_that_is_not_backed_up_is_not_asked() {
    let (_directory, home) = home();
    let asked = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let counter = asked.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let conninfo = ConnInfo::new(format!("host=127.0.0.1 port={port} user=x"));
    let settings = ServerSettings::new("a".parse().unwrap(), conninfo, "walrecv".parse().unwrap());
    let settings = ServerSettings { active: false, ..settings };
    let outcome = check(&settings, &home.server(&settings.name), None).await;
    assert!(outcome.is_ok() && !outcome.active, "{outcome:?}");
    assert!(outcome.rows.iter().all(|row| row.name != running::RECEIVER));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}
