//! Base backups of both generations become the same list of events.

use super::*;
use crate::proto::{
    Archive, BackupDecoder, BackupEvent, BackupTablespace, BackupTarget, BaseBackupOptions,
    CompressionMethod, ServerCompression,
};
use crate::{Lsn, ServerVersion, TimelineId};

fn position(lsn: &str) -> Vec<Vec<u8>> {
    vec![columns(&["recptr", "tli"]), row(&[Some(lsn), Some("1")]), complete("SELECT")]
}

fn headers() -> Vec<Vec<u8>> {
    let mut messages = position("0/2000028");
    messages.extend([
        columns(&["spcoid", "spclocation", "size"]),
        row(&[Some("16386"), Some("/srv/ts"), Some("10")]),
        row(&[None, None, Some("4000")]),
        complete("SELECT"),
    ]);
    messages
}

fn legacy() -> Vec<Vec<u8>> {
    let mut messages = headers();
    for data in [&b"tablespace"[..], b"data directory", b"{manifest}"] {
        messages.push(copy_response(b'H'));
        messages.push(copy_data(b""));
        messages.push(copy_data(data));
        messages.push(copy_done());
    }
    messages.extend(position("0/2000100"));
    messages.extend([complete("SELECT"), ready()]);
    messages
}

fn typed(kind: u8, body: &[u8]) -> Vec<u8> {
    copy_data(&[&[kind], body].concat())
}

fn modern() -> Vec<Vec<u8>> {
    let mut messages = headers();
    messages.extend([
        copy_response(b'H'),
        typed(b'n', b"16386.tar\0/srv/ts\0"),
        typed(b'd', b"table"),
        typed(b'd', b"space"),
        typed(b'n', b"base.tar\0\0"),
        typed(b'd', b"data directory"),
        typed(b'p', &24u64.to_be_bytes()),
        typed(b'm', b""),
        typed(b'd', b"{manifest}"),
        copy_done(),
    ]);
    messages.extend(position("0/2000100"));
    messages.extend([complete("BASE_BACKUP"), ready()]);
    messages
}

const OLD: ServerVersion = ServerVersion::from_num(140_000);
const NEW: ServerVersion = ServerVersion::from_num(150_000);

/// A backup with a manifest, from a server of this version.
fn decode(version: ServerVersion, messages: &[Vec<u8>]) -> Result<BackupDecoder, Error> {
    decode_with(&BaseBackupOptions::default(), version, messages)
}

fn decode_with(
    options: &BaseBackupOptions,
    version: ServerVersion,
    messages: &[Vec<u8>],
) -> Result<BackupDecoder, Error> {
    let mut decoder = BackupDecoder::new(options, version);
    for event in Peer::executing("BASE_BACKUP").hear(messages)? {
        decoder.handle(event)?;
    }
    Ok(decoder)
}

#[test]
fn both_generations_give_the_same_events() {
    let archive = |terminated| {
        [
            Archive {
                name: "16386.tar".into(),
                tablespace: Some(16386),
                location: Some("/srv/ts".into()),
                compression: None,
                terminated,
            },
            Archive {
                name: "base.tar".into(),
                tablespace: None,
                location: None,
                compression: None,
                terminated,
            },
        ]
    };
    let data = |bytes: &'static [u8]| BackupEvent::ArchiveData(Bytes::from_static(bytes));
    for (version, messages, terminated) in [(OLD, legacy(), false), (NEW, modern(), true)] {
        let mut decoder = decode(version, &messages).unwrap();
        let mut events = Vec::new();
        while let Some(event) = decoder.next_event() {
            // What a server cuts where, and its progress, is its own affair.
            match (events.last_mut(), event) {
                (_, BackupEvent::Progress(done)) => assert_eq!(done, 24),
                (Some(BackupEvent::ArchiveData(last)), BackupEvent::ArchiveData(next)) => {
                    *last = [&last[..], &next[..]].concat().into();
                }
                (_, event) => events.push(event),
            }
        }
        let [tablespace, base] = archive(terminated);
        assert_eq!(
            events,
            [
                BackupEvent::ArchiveStart(tablespace),
                data(b"tablespace"),
                BackupEvent::ArchiveEnd,
                BackupEvent::ArchiveStart(base),
                data(b"data directory"),
                BackupEvent::ArchiveEnd,
                BackupEvent::ManifestStart,
                BackupEvent::ManifestData(Bytes::from_static(b"{manifest}")),
            ]
        );
        assert!(decoder.is_finished());
        assert_eq!(decoder.start().unwrap().lsn, Lsn::from_u64(0x0200_0028));
        let end = decoder.end().unwrap();
        assert_eq!((end.lsn, end.timeline), (Lsn::from_u64(0x0200_0100), TimelineId::FIRST));
        let expected = BackupTablespace {
            oid: Some(16386),
            location: Some("/srv/ts".into()),
            size_kb: Some(10),
        };
        assert_eq!(decoder.tablespaces()[0], expected);
        assert_eq!(decoder.tablespaces()[1].oid, None);
    }
}

#[test]
fn a_late_checksum_error_is_a_failure() {
    let mut messages = modern();
    messages.truncate(messages.len() - 2);
    messages.insert(8, report(b'N', "WARNING", "01000", "checksum verification failed"));
    messages.extend([report(b'E', "ERROR", "XX001", "checksum verification failure"), ready()]);
    let mut decoder = decode(NEW, &messages).unwrap();
    while decoder.next_event().is_some() {}
    assert!(decoder.is_finished());
    assert_eq!(decoder.warnings().len(), 1);
    assert_eq!(decoder.end().unwrap_err().sql_state().unwrap().as_str(), "XX001");
}

#[test]
fn an_end_without_its_position_is_a_failure() {
    let mut messages = headers();
    messages.push(ready());
    let decoder = decode(NEW, &messages).unwrap();
    assert!(decoder.end().is_err());
}

#[test]
fn names_from_the_network_never_become_paths_unchecked() {
    for name in ["../base.tar", "/base.tar", ".tar", "base.tar.gz", "16387.tar", "-1.tar", ""] {
        let mut messages = headers();
        let announced = format!("{name}\0\0");
        messages.extend([copy_response(b'H'), typed(b'n', announced.as_bytes())]);
        assert!(decode(NEW, &messages).is_err(), "{name:?}");
    }
}

#[test]
fn typed_messages_out_of_order_are_violations() {
    for wrong in [
        vec![typed(b'd', b"data before a name")],
        vec![typed(b'm', b""), typed(b'n', b"base.tar\0\0")],
        vec![typed(b'm', b""), typed(b'm', b"")],
        vec![typed(b'x', b"")],
        vec![typed(b'n', b"base.tar")],
        vec![typed(b'n', b"base.tar\0\0more")],
        vec![typed(b'p', b"short")],
        vec![copy_data(b"")],
    ] {
        let mut messages = headers();
        messages.push(copy_response(b'H'));
        messages.extend(wrong.clone());
        assert!(decode(NEW, &messages).is_err(), "{wrong:?}");
    }
}

#[test]
fn more_copies_than_tablespaces_are_refused() {
    let mut messages = headers();
    for _ in 0..3 {
        messages.extend([copy_response(b'H'), copy_done()]);
    }
    let without = BaseBackupOptions { manifest: None, ..BaseBackupOptions::default() };
    assert!(decode_with(&without, OLD, &messages).is_err());
    assert!(decode(OLD, &messages).is_ok());
    messages.extend([copy_response(b'H'), copy_done()]);
    assert!(decode(OLD, &messages).is_err(), "a second manifest");
}

#[test]
fn every_archive_comes_once() {
    let base = || typed(b'n', b"base.tar\0\0");
    let tablespace = || typed(b'n', b"16386.tar\0/srv/ts\0");
    let begun = |archives: &[Vec<u8>]| {
        let mut messages = headers();
        messages.push(copy_response(b'H'));
        messages.extend_from_slice(archives);
        messages
    };
    assert!(decode(NEW, &begun(&[base(), tablespace()])).is_ok());
    assert!(decode(NEW, &begun(&[base(), base()])).is_err());
    let mut lacking = begun(&[base()]);
    lacking.push(copy_done());
    lacking.extend(position("0/2000100"));
    assert!(decode(NEW, &lacking).is_err());
    let mut more = begun(&[base(), tablespace(), copy_done()]);
    more.push(copy_response(b'H'));
    assert!(decode(NEW, &more).is_err());
}

#[test]
fn the_manifest_comes_if_and_only_if_it_was_asked_for() {
    let without = BaseBackupOptions { manifest: None, ..BaseBackupOptions::default() };
    for (version, messages) in [(OLD, legacy()), (NEW, modern())] {
        assert!(decode(version, &messages).is_ok());
        assert!(decode_with(&without, version, &messages).is_err());
    }
    let manifest = modern().iter().position(|message| *message == typed(b'm', b"")).unwrap();
    let mut messages = modern();
    messages.drain(manifest..manifest + 2);
    assert!(decode_with(&without, NEW, &messages).is_ok());
    assert!(decode(NEW, &messages).is_err());
}

#[test]
fn compressed_archives_have_their_suffix() {
    for (method, suffix) in [
        (CompressionMethod::Gzip, ".gz"),
        (CompressionMethod::Lz4, ".lz4"),
        (CompressionMethod::Zstd, ".zst"),
    ] {
        let compression = Some(ServerCompression::new(method));
        let options = BaseBackupOptions { compression, ..BaseBackupOptions::default() };
        let announced = |name: &str| {
            let mut messages = headers();
            let name = format!("{name}\0\0");
            messages.extend([copy_response(b'H'), typed(b'n', name.as_bytes())]);
            decode_with(&options, NEW, &messages)
        };
        let name = format!("base.tar{suffix}");
        match announced(&name).unwrap().next_event().unwrap() {
            BackupEvent::ArchiveStart(archive) => {
                assert_eq!((archive.name, archive.compression), (name, Some(method)));
            }
            other => panic!("{other:?}"),
        }
        for wrong in ["base.tar", "base.tar.bz2", "base.tar.gz.zst", &format!("base{suffix}")] {
            assert!(announced(wrong).is_err(), "{wrong}");
        }
    }
}

#[test]
fn of_a_backup_that_goes_elsewhere_only_the_progress_comes() {
    let target = BackupTarget::Blackhole;
    let options = BaseBackupOptions { target, ..BaseBackupOptions::default() };
    let data: Vec<_> = [(b'd', &b"table"[..]), (b'd', b"space"), (b'd', b"data directory")]
        .map(|(kind, body)| typed(kind, body))
        .into();
    let manifest = typed(b'd', b"{manifest}");
    let mut messages = modern();
    messages.retain(|message| !data.contains(message) && *message != manifest);
    let mut decoder = decode_with(&options, NEW, &messages).unwrap();
    assert_eq!(decoder.next_event(), Some(BackupEvent::Progress(24)));
    assert_eq!(decoder.next_event(), None);
    assert!(decoder.end().is_ok());
    assert!(decode_with(&options, NEW, &modern()).is_err(), "data that were to go elsewhere");
}

#[test]
fn two_tablespaces_are_never_the_same() {
    let mut messages = position("0/2000028");
    messages.push(columns(&["spcoid", "spclocation", "size"]));
    messages.extend([row(&[None, None, None]), row(&[None, None, None]), complete("SELECT")]);
    assert!(decode(OLD, &messages).is_err());
}

#[test]
fn the_first_error_is_the_one_that_counts() {
    let mut messages = headers();
    messages.extend([
        report(b'E', "ERROR", "XX001", "cause"),
        report(b'E', "FATAL", "57P01", "shutting down"),
    ]);
    let decoder = decode(NEW, &messages).unwrap();
    assert_eq!(decoder.failure().unwrap().message, "cause");
}

#[test]
fn warnings_are_kept_in_bounds() {
    let mut messages = headers();
    let long = "x".repeat(200_000);
    messages.extend((0..100).map(|_| report(b'N', "WARNING", "01000", &long)));
    messages.extend((0..2000).map(|_| report(b'N', "WARNING", "01000", "")));
    let decoder = decode(NEW, &messages).unwrap();
    assert_eq!(decoder.warnings().len(), 1000);
    let text: usize = decoder.warnings().iter().map(|warning| warning.message.len()).sum();
    assert!(text <= 1 << 20, "{text}");
}
