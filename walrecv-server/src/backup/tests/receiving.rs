//! From a stream to the thread that stores: what comes, what does not, and what ends it.

use super::*;
use tokio::sync::watch;

fn beginning(
    directory: &BackupDir,
) -> impl FnOnce() -> Result<ContentsWriter, BackupError> + Send + 'static {
    let options = ArchiveOptions {
        packing: Packing::new(Method::new(Codec::None, 0), &[]),
        checksums: Some(CRC),
        pages_before: None,
    };
    let directory = directory.clone();
    move || ContentsWriter::new(directory, SYSTEM, options)
}

#[tokio::test]
async fn everything_arrives() {
    let home = tempfile::tempdir().unwrap();
    let directory = directory(home.path());
    let events = Cluster::new(true).events(20_000, true);
    let (_raise, mut interrupted) = watch::channel(false);
    let begin = beginning(&directory);
    let contents = receive::receive(stream::iter(events).map(Ok), begin, &mut interrupted, &Silent)
        .await
        .unwrap();
    assert!(matches!(contents.finish().unwrap().manifest, ReceivedManifest::Verified { .. }));
}

#[tokio::test]
async fn an_interruption_stops_a_server_that_says_nothing() {
    let home = tempfile::tempdir().unwrap();
    let directory = directory(home.path());
    let events = Cluster::new(true).events(20_000, true);
    let silent = stream::iter(events.into_iter().take(3)).map(Ok).chain(stream::pending());
    let (raise, mut interrupted) = watch::channel(false);
    let begin = beginning(&directory);
    let receiving = tokio::spawn(async move {
        receive::receive(silent, begin, &mut interrupted, &Silent).await.map(|_| ())
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    raise.send(true).unwrap();
    let error = receiving.await.unwrap().unwrap_err();
    assert!(matches!(error, BackupError::Interrupted), "{error:?}");
    // Nothing of the archive that was begun is left.
    assert_eq!(names(&directory), [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_stored_ends_it_at_once() {
    let home = tempfile::tempdir().unwrap();
    let directory = directory(home.path());
    let mut events = Cluster::new(true).events(20_000, true);
    events.insert(2, BackupEvent::ManifestStart);
    // The server goes on for ever: it is left as soon as the error is seen.
    let endless = stream::iter(events).chain(stream::repeat(BackupEvent::Progress(1))).map(Ok);
    let (_raise, mut interrupted) = watch::channel(false);
    let begin = beginning(&directory);
    let result = receive::receive(endless, begin, &mut interrupted, &Silent).await;
    assert!(matches!(result.map(|_| ()), Err(BackupError::Disorder { .. })));
}

#[tokio::test]
async fn what_cannot_be_begun_ends_it_whatever_the_server_says() {
    let (_raise, mut interrupted) = watch::channel(false);
    let begin = || Err(BackupError::Disorder { what: "a full disk" });
    let silent = stream::pending();
    let received = receive::receive(silent, begin, &mut interrupted, &Silent);
    let result = tokio::time::timeout(Duration::from_secs(20), received).await.unwrap();
    assert!(matches!(result.map(|_| ()), Err(BackupError::Disorder { what: "a full disk" })));
}

#[tokio::test]
async fn a_lost_connection_is_the_reason() {
    let home = tempfile::tempdir().unwrap();
    let directory = directory(home.path());
    let events = Cluster::new(true).events(20_000, true).into_iter().take(3).map(Ok);
    let lost =
        events.chain([Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into())]);
    let (_raise, mut interrupted) = watch::channel(false);
    let begin = beginning(&directory);
    let result = receive::receive(stream::iter(lost), begin, &mut interrupted, &Silent).await;
    assert!(matches!(result.map(|_| ()), Err(BackupError::Server(_))));
    assert_eq!(names(&directory), [""; 0]);
}
