//! Manifests are uploaded whole, or the server is told that they are not.

use std::future::pending;
use std::io;

use futures::{FutureExt, StreamExt, stream};

use super::*;

type Piece = io::Result<Bytes>;

fn piece(bytes: &'static [u8]) -> Piece {
    Ok(Bytes::from_static(bytes))
}

/// After the upload, whatever came of it, the client has its next command answered.
async fn is_usable(client: &mut Client, server: &mut Server) {
    let answer = server.answers("IDENTIFY_SYSTEM", identification("1"));
    let (identified, ()) = tokio::join!(client.identify_system(), answer);
    identified.unwrap();
}

/// The copy data until something else comes, which is given, too.
async fn hears_upload(server: &mut Server) -> (Vec<u8>, u8) {
    let mut manifest = Vec::new();
    loop {
        match server.hears().await {
            (b'd', data) => manifest.extend(data),
            (tag, _) => return (manifest, tag),
        }
    }
}

#[tokio::test]
async fn a_manifest_arrives_as_it_is() {
    let (mut client, mut server) = logged_in("17.1").await;
    let big = Bytes::from(vec![b'x'; 3 * PIPE]);
    let manifest = stream::iter([piece(b"{"), piece(b""), Ok(big.clone()), piece(b"}\n")]);
    let script = async {
        server.answers("UPLOAD_MANIFEST", vec![copy_response(b'G')]).await;
        let heard = hears_upload(&mut server).await;
        server.says(&[complete("UPLOAD_MANIFEST"), ready()]).await;
        heard
    };
    let (result, (manifest, end)) = tokio::join!(client.upload_manifest(manifest), script);
    result.unwrap();
    assert_eq!(end, b'c');
    assert!(manifest == [b"{", &big[..], b"}\n"].concat());
    is_usable(&mut client, &mut server).await;
}

#[tokio::test]
async fn a_refusal_is_told_apart_from_a_broken_connection() {
    // Before it listens, while it listens to a manifest that has no end, and at the end.
    let listening = || vec![copy_response(b'G')];
    let refusal = || vec![report(b'N', "WARNING", "01000", "x"), error("ERROR", "55000"), ready()];
    for (answer, at_end) in
        [(refusal(), vec![]), ([listening(), refusal()].concat(), vec![]), (listening(), refusal())]
    {
        let (mut client, mut server) = logged_in("17.1").await;
        server.says(&answer).await;
        let rest = if at_end.is_empty() {
            stream::pending().right_stream()
        } else {
            stream::empty().left_stream()
        };
        let manifest = stream::iter([piece(b"{")]).chain(rest);
        server.says(&at_end).await;
        let refused = client.upload_manifest(manifest).await.unwrap_err();
        assert_eq!(code(&refused), "55000");
        while server.hears().await.0 != b'Q' {}
        server.says(&identification("1")).await;
        client.identify_system().await.unwrap();
    }

    for last_word in [vec![], vec![error("FATAL", "57P01")]] {
        let (mut client, mut server) = logged_in("17.1").await;
        server.says(&listening()).await;
        server.says(&last_word).await;
        drop(server);
        let manifest = stream::repeat_with(|| piece(b"{"));
        let broken = client.upload_manifest(manifest).await.unwrap_err();
        match last_word.is_empty() {
            true => assert!(matches!(broken, Error::Closed { .. } | Error::Io(_)), "{broken}"),
            false => assert_eq!(code(&broken), "57P01"),
        }
    }
}

#[tokio::test]
async fn a_failing_source_fails_the_copy_alone() {
    let (mut client, mut server) = logged_in("17.1").await;
    let manifest = stream::iter([piece(b"{"), Err(io::ErrorKind::NotFound.into())]);
    let script = async {
        server.answers("UPLOAD_MANIFEST", vec![copy_response(b'G')]).await;
        let heard = hears_upload(&mut server).await;
        server.says(&[error("ERROR", "57014"), ready()]).await;
        heard
    };
    let (result, heard) = tokio::join!(client.upload_manifest(manifest), script);
    assert_eq!(heard, (b"{".to_vec(), b'f'));
    match result.unwrap_err() {
        Error::ManifestSource(cause) => assert_eq!(cause.kind(), io::ErrorKind::NotFound),
        other => panic!("{other}"),
    }
    is_usable(&mut client, &mut server).await;
}

#[tokio::test]
async fn an_abandoned_upload_is_failed_by_the_next_command() {
    for listening in [true, false] {
        let (mut client, mut server) = logged_in("17.1").await;
        if listening {
            server.says(&[copy_response(b'G')]).await;
        }
        let manifest = stream::iter([piece(b"{")]).chain(stream::once(pending()));
        assert!(client.upload_manifest(manifest).now_or_never().is_none());
        let script = async {
            assert_eq!(server.hears_query().await, "UPLOAD_MANIFEST");
            if !listening {
                server.says(&[copy_response(b'G')]).await;
            }
            assert_eq!(hears_upload(&mut server).await.1, b'f');
            server.says(&[error("ERROR", "57014"), ready()]).await;
            server.answers("IDENTIFY_SYSTEM", identification("1")).await;
        };
        let (identified, ()) = tokio::join!(client.identify_system(), script);
        identified.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_does_not_listen_is_no_success() {
    for answer in [
        vec![complete("UPLOAD_MANIFEST"), ready()],
        vec![ready()],
        vec![copy_response(b'H'), copy_done(), complete("x"), ready()],
        vec![copy_response(b'G'), complete("UPLOAD_MANIFEST"), ready()],
    ] {
        let (mut client, mut server) = logged_in("17.1").await;
        server.says(&answer).await;
        let result = client.upload_manifest(stream::empty()).await;
        assert!(matches!(result, Err(Error::Violation(_))), "{result:?}");
    }
    let (mut client, mut server) = logged_in("16.4").await;
    let result = client.upload_manifest(stream::empty()).await;
    assert!(matches!(result, Err(Error::Unsupported(_))));
    assert!(server.hears_nothing().await);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_reading_is_given_up() {
    let (mut client, mut server) = logged_in("17.1").await;
    client.set_command_timeout(Some(Duration::from_secs(5)));
    server.says(&[copy_response(b'G')]).await;
    let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[b'x'; 1 << 16])));
    let result = client.upload_manifest(endless).await;
    assert!(matches!(result, Err(Error::Timeout { what: "UPLOAD_MANIFEST", .. })), "{result:?}");
}
