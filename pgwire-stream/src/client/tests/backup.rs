//! Base backups over the client; what their messages mean is tested with the decoder.

use super::*;
use crate::{BackupEvent, BaseBackupOptions, Misuse};

fn position(at: &str) -> Vec<Vec<u8>> {
    vec![columns(&["recptr", "tli"]), row(&[Some(at), Some("1")]), complete("SELECT")]
}

fn headers() -> Vec<Vec<u8>> {
    let mut messages = position("0/2000028");
    messages.extend([columns(&["spcoid", "spclocation", "size"]), row(&[None, None, Some("40")])]);
    messages.push(complete("SELECT"));
    messages
}

/// The body of a backup with one archive and a manifest.
fn body(version: &str) -> Vec<Vec<u8>> {
    let typed = |kind: &[u8], data: &[u8]| copy_data(&[kind, data].concat());
    if version.starts_with("14") {
        let copy = |data: &[u8]| [copy_response(b'H'), copy_data(data), copy_done()];
        [copy(b"archive"), copy(b"manifest")].concat()
    } else {
        vec![
            copy_response(b'H'),
            typed(b"n", b"base.tar\0\0"),
            typed(b"d", b"archive"),
            typed(b"m", b""),
            typed(b"d", b"manifest"),
            copy_done(),
        ]
    }
}

const VERSIONS: [&str; 2] = ["14.11", "15.20"];

#[tokio::test(start_paused = true)]
async fn both_generations_are_received() {
    for version in VERSIONS {
        let (client, mut server) = logged_in(version).await;
        let mut script = [headers(), body(version), position("0/2000100")].concat();
        script.extend([complete("BASE_BACKUP"), ready()]);
        server.says(&script).await;
        let mut backup = client.base_backup(&BaseBackupOptions::default()).await.unwrap();
        let asked = server.hears_query().await;
        assert_eq!(asked.starts_with("BASE_BACKUP ("), version == "15.20", "{asked}");
        assert_eq!(backup.start().lsn, lsn(0x200_0028));
        assert_eq!(backup.tablespaces().len(), 1);
        let (mut archive, mut manifest, mut ends) = (Vec::new(), Vec::new(), 0);
        while let Some(event) = backup.next().await.unwrap() {
            match event {
                BackupEvent::ArchiveData(data) => archive.extend(data),
                BackupEvent::ManifestData(data) => manifest.extend(data),
                BackupEvent::ArchiveEnd => ends += 1,
                _ => {}
            }
        }
        assert_eq!((&archive[..], &manifest[..], ends), (&b"archive"[..], &b"manifest"[..], 1));
        let (mut client, end) = backup.finish().unwrap();
        assert_eq!(end.lsn, lsn(0x200_0100));
        server.says(&identification("1")).await;
        client.identify_system().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_backup_does_not_begin() {
    let (client, mut server) = logged_in("15.20").await;
    server.says(&[error("ERROR", "42501"), ready()]).await;
    let Err(refused) = client.base_backup(&BaseBackupOptions::default()).await else {
        panic!("it began")
    };
    assert_eq!(code(&refused), "42501");
}

#[tokio::test(start_paused = true)]
async fn a_late_error_is_a_failure() {
    for version in VERSIONS {
        let (client, mut server) = logged_in(version).await;
        let mut script = [headers(), body(version), position("0/2000100")].concat();
        script.extend([
            report(b'N', "WARNING", "01000", "damaged"),
            error("ERROR", "XX001"),
            ready(),
        ]);
        server.says(&script).await;
        let mut backup = client.base_backup(&BaseBackupOptions::default()).await.unwrap();
        while backup.next().await.unwrap().is_some() {}
        assert_eq!(backup.warnings().len(), 1);
        let Err(failure) = backup.finish() else { panic!("it succeeded") };
        assert_eq!(code(&failure), "XX001");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_dies_in_the_middle_has_said_why() {
    for version in VERSIONS {
        for (last_word, expected) in [(Some(error("FATAL", "57P01")), "57P01"), (None, "")] {
            let (client, mut server) = logged_in(version).await;
            server.says(&headers()).await;
            server.says(&body(version)[..2]).await;
            server.says(&last_word.into_iter().collect::<Vec<_>>()).await;
            drop(server);
            let mut backup = match client.base_backup(&BaseBackupOptions::default()).await {
                Ok(backup) => backup,
                Err(error) => panic!("{error}"),
            };
            let failure = loop {
                if let Err(failure) = backup.next().await {
                    break failure;
                }
            };
            assert_eq!(code(&failure), expected, "{failure}");
            assert!(matches!(backup.finish(), Err(Error::Misuse(Misuse::NotFinished))));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_verifies_no_more_is_not_trusted_to() {
    let unverified = BaseBackupOptions { verify_checksums: false, ..BaseBackupOptions::default() };
    for (version, forgets) in [("14.11", false), ("15.20", true)] {
        let (mut client, mut server) = logged_in(version).await;
        for _ in 0..2 {
            let mut script = [headers(), body(version), position("0/2000100")].concat();
            script.extend([complete("BASE_BACKUP"), ready()]);
            server.says(&script).await;
            let mut backup = client.base_backup(&unverified).await.unwrap();
            while backup.next().await.unwrap().is_some() {}
            client = backup.finish().unwrap().0;
        }
        server.says(&headers()).await;
        let verified = client.base_backup(&BaseBackupOptions::default()).await;
        match verified.err() {
            None => assert!(forgets),
            Some(error) => assert!(matches!(error, Error::Misuse(_)) && !forgets, "{error}"),
        }
    }
}
