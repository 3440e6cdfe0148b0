//! The limit on a command's silence.

use tokio::time::Instant;

use super::*;
use crate::BaseBackupOptions;

const LIMIT: Duration = Duration::from_secs(7);

fn names(error: &Error, command: &str) -> bool {
    matches!(error, Error::Timeout { what, limit } if *what == command && *limit == LIMIT)
}

#[tokio::test(start_paused = true)]
async fn a_silent_command_times_out_by_name_and_is_read_to_its_end_later() {
    let (mut client, mut server) = logged_in("15.20").await;
    client.set_command_timeout(Some(LIMIT));
    let began = Instant::now();
    let error = client.identify_system().await.unwrap_err();
    assert!(names(&error, "IDENTIFY_SYSTEM"), "{error}");
    assert_eq!(began.elapsed().as_secs(), LIMIT.as_secs());

    // The next one waits for it as long again.
    let error = client.show("wal_level").await.unwrap_err();
    assert!(names(&error, "IDENTIFY_SYSTEM"), "{error}");
    server.says(&identification("3")).await;
    server.says(&rows(&["wal_level"], &[&[Some("replica")]])).await;
    assert_eq!(client.show("wal_level").await.unwrap(), "replica");
}

#[tokio::test(start_paused = true)]
async fn only_silence_counts() {
    let (mut client, mut server) = logged_in("15.20").await;
    client.set_command_timeout(Some(LIMIT));
    let slowly = async {
        for message in identification("3") {
            tokio::time::sleep(LIMIT * 9 / 10).await;
            server.says(&[message]).await;
        }
    };
    let (identified, ()) = tokio::join!(client.identify_system(), slowly);
    identified.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_a_command_waits() {
    for limit in [None, Some(Duration::ZERO), Some(Duration::MAX)] {
        let (mut client, mut server) = logged_in("15.20").await;
        client.set_command_timeout(limit);
        let late = async {
            tokio::time::sleep(Duration::from_secs(100_000)).await;
            server.says(&identification("3")).await;
        };
        let (identified, ()) = tokio::join!(client.identify_system(), late);
        identified.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_begin_times_out_too() {
    let (mut client, mut server) = logged_in("15.20").await;
    client.set_command_timeout(Some(LIMIT));
    server.says(&identification("3")).await;
    let error = client.start_replication(start()).await.err().unwrap();
    assert!(names(&error, "START_REPLICATION"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_base_backup_times_out_at_its_beginning_and_in_the_middle() {
    let (mut client, server) = logged_in("15.20").await;
    client.set_command_timeout(Some(LIMIT));
    let error = client.base_backup(&BaseBackupOptions::default()).await.err().unwrap();
    assert!(names(&error, "BASE_BACKUP"), "{error}");
    drop(server);

    let (mut client, mut server) = logged_in("15.20").await;
    client.set_command_timeout(Some(LIMIT));
    server.says(&[columns(&["recptr", "tli"]), row(&[Some("0/2000028"), Some("1")])]).await;
    server.says(&[complete("SELECT"), columns(&["spcoid", "spclocation", "size"])]).await;
    server.says(&[row(&[None, None, Some("40")]), complete("SELECT"), copy_response(b'H')]).await;
    server.says(&[copy_data(b"nbase.tar\0\0")]).await;
    let mut backup = client.base_backup(&BaseBackupOptions::default()).await.unwrap();
    let error = loop {
        match backup.next().await {
            Ok(event) => assert!(event.is_some()),
            Err(error) => break error,
        }
    };
    assert!(names(&error, "BASE_BACKUP"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_the_server_said_before_it_fell_silent_is_told() {
    let (mut stream, mut server) = streaming(start()).await;
    server.says(&[error("ERROR", "58P01")]).await;
    assert_eq!(code(&stream.next().await.unwrap_err()), "58P01");
    drop(server);

    let (mut client, mut server) = logged_in("15.20").await;
    client.set_command_timeout(Some(LIMIT));
    server.says(&[error("ERROR", "42704")]).await;
    assert_eq!(code(&client.show("x").await.unwrap_err()), "42704");
    server.says(&[ready()]).await;
    server.says(&identification("3")).await;
    client.identify_system().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_last_word_while_an_abandoned_command_is_waited_for_is_told() {
    let (mut client, mut server) = logged_in("15.20").await;
    client.set_command_timeout(Some(LIMIT));
    client.identify_system().await.unwrap_err();
    server.says(&[error("FATAL", "57P01")]).await;
    drop(server);
    assert_eq!(code(&client.identify_system().await.unwrap_err()), "57P01");
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_that_nobody_takes_times_out() {
    let (mut client, mut server) = logged_in("17.1").await;
    client.set_command_timeout(Some(LIMIT));
    server.says(&[copy_response(b'G')]).await;
    let endless = futures::stream::repeat_with(|| Ok(Bytes::from_static(&[b'x'; 1 << 16])));
    client.upload_manifest(endless).await.unwrap_err();
    let closed = tokio::time::timeout(2 * LIMIT, client.close()).await.expect("it hangs");
    let error = closed.unwrap_err();
    assert!(names(&error, "closing the connection"), "{error}");
}
