//! Archives made by hand, extracted.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pgwire_stream::TimelineId;
use pgwire_stream::incremental::BlockMap;
use pgwire_stream::manifest::{ChecksumAlgorithm, ManifestWriter};

use super::super::syncer::with_syncer;
use super::*;
use crate::progress::Silent;
use crate::storage::tar::TERMINATOR;

fn member(archive: &mut Vec<u8>, name: &str, kind: tar::EntryType, mode: u32, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_cksum();
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

fn file(archive: &mut Vec<u8>, name: &str, content: &[u8]) {
    member(archive, name, tar::EntryType::Regular, 0o640, content);
}

fn manifest(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ManifestWriter::version_1(Vec::new()).unwrap();
    for (path, content) in files {
        let mut hasher = ChecksumAlgorithm::Sha256.hasher();
        hasher.update(content);
        writer
            .file(&ManifestFile {
                path: path.as_bytes().to_vec(),
                size: content.len() as u64,
                modified: "2026-03-05 15:11:33 GMT".to_owned(),
                checksum: Some((ChecksumAlgorithm::Sha256, hasher.finish())),
            })
            .unwrap();
    }
    writer.finish(&[]).unwrap()
}

const NEWEST: &str = "20260305T151133";

/// One backup: what its manifest lists, and its archives with the prefixes of their paths.
struct Backup<'a> {
    manifest: Vec<u8>,
    archives: Vec<(&'a str, Vec<u8>)>,
    begin: &'a str,
}

/// Extracts `(prefix, archive)` into `to`.
fn extract(
    to: &Path,
    manifest: &[u8],
    archives: &[(&str, &[u8])],
) -> Result<Extracted, ExtractError> {
    let archives = archives.iter().map(|(prefix, bytes)| (*prefix, bytes.to_vec())).collect();
    extract_chain(to, &[Backup { manifest: manifest.to_vec(), archives, begin: "0/0" }])
}

/// Extracts a chain, its newest backup first, into `to`.
fn extract_chain(to: &Path, chain: &[Backup<'_>]) -> Result<Extracted, ExtractError> {
    let stored = tempfile::tempdir().unwrap();
    let layer = |age: usize| {
        let manifest = stored.path().join(age.to_string());
        fs::write(&manifest, &chain[age].manifest).unwrap();
        let newest: BackupId = NEWEST.parse().unwrap();
        let parent = chain.get(age + 1).map(|parent| {
            let (lsn, timeline) = (parent.begin.parse().unwrap(), TimelineId::FIRST);
            (newest, Some(Position { lsn, timeline }))
        });
        let expected = ManifestFiles::open(&manifest).unwrap();
        Layer { backup: newest, parent, expected, labelled: false }
    };
    with_syncer(|syncer| {
        let (_wish, interrupted) = watch::channel(false);
        let mut extractor = Extractor::new(layer(0), syncer, &Silent, &interrupted, true);
        let mut root = Root::open(to, None)?;
        for (age, backup) in chain.iter().enumerate() {
            if age > 0 {
                extractor.older(layer(age))?;
            }
            for (prefix, archive) in &backup.archives {
                let pieces = archive.chunks(5000).map(|piece| Ok(piece.to_vec()));
                extractor.archive("base.tar", prefix.as_bytes(), Some(&mut root), pieces)?;
            }
        }
        extractor.finish(&mut root)
    })
}

/// A backup of these files; directories end with a slash.
fn backup<'a>(begin: &'a str, files: &[(&str, &[u8])]) -> Backup<'a> {
    let mut archive = Vec::new();
    let mut listed = Vec::new();
    for &(name, content) in files {
        match name.ends_with('/') {
            true => member(&mut archive, name, tar::EntryType::Directory, 0o700, b""),
            false => {
                file(&mut archive, name, content);
                listed.push((name, content));
            }
        }
    }
    Backup { manifest: manifest(&listed), archives: vec![("", archive)], begin }
}

/// A `backup_label` of a backup that begins at `lsn` and builds on one that begins at `from`.
fn label(lsn: &str, from: &str) -> Vec<u8> {
    format!(
        "START WAL LOCATION: {lsn} (file 000000010000000000000002)\n\
         CHECKPOINT LOCATION: {lsn}\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
         START TIME: 2026-03-05 15:11:33 GMT\nLABEL: x\nSTART TIMELINE: 1\n\
         INCREMENTAL FROM LSN: {from}\nINCREMENTAL FROM TLI: 1\n"
    )
    .into_bytes()
}

/// Blocks, each filled with its byte.
fn blocks(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|&byte| [byte; 8192]).collect()
}

/// An incremental file of these blocks.
fn incremental(truncation: u32, content: &[(u32, u8)]) -> Vec<u8> {
    let numbers = content.iter().map(|(number, _)| *number).collect();
    let map = BlockMap::new(RelationFiles::DEFAULT, truncation, numbers).unwrap();
    let bytes: Vec<u8> = content.iter().map(|(_, byte)| *byte).collect();
    [map.write(), blocks(&bytes)].concat()
}

#[test]
fn a_chain_becomes_what_the_newest_backup_saw() {
    let (one, two) = (label("0/2000028", "0/1000028"), label("0/3000028", "0/2000028"));
    let full = backup(
        "0/1000028",
        &[
            ("base/1/10", &blocks(&[1, 1, 1, 1])),
            ("base/1/20", &blocks(&[1, 1, 1, 1, 1, 1])),
            ("base/1/30", &blocks(&[1; 300])),
            ("base/1/40", &blocks(&[1])),
            ("PG_VERSION", b"17\n"),
        ],
    );
    let middle = backup(
        "0/2000028",
        &[
            ("backup_label", &one),
            ("base/1/INCREMENTAL.10", &incremental(4, &[(0, 2), (3, 2)])),
            ("base/1/INCREMENTAL.20", &incremental(2, &[(1, 2)])),
            ("base/1/INCREMENTAL.30", &incremental(300, &[(7, 2), (8, 2), (299, 2)])),
            ("base/1/INCREMENTAL.40", &incremental(1, &[])),
            ("PG_VERSION", b"17\n"),
        ],
    );
    let newest = backup(
        "0/3000028",
        &[
            ("backup_label", &two),
            ("base/", b""),
            ("base/1/", b""),
            ("base/1/INCREMENTAL.10", &incremental(4, &[(3, 3)])),
            // Cut to two blocks, and grown to six since: three to five were never written.
            ("base/1/INCREMENTAL.20", &incremental(5, &[(2, 3), (5, 3)])),
            ("base/1/INCREMENTAL.30", &incremental(300, &[(8, 3), (100, 3)])),
            ("base/1/50", &blocks(&[3])),
            ("PG_VERSION", b"18\n"),
            ("global/", b""),
            ("global/pg_control", b"of a version that nobody knows"),
        ],
    );
    let dir = tempfile::tempdir().unwrap();
    let extracted = extract_chain(dir.path(), &[newest, middle, full]).unwrap();
    assert_eq!(extracted.files, 7);
    let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
    assert!(read("base/1/10") == blocks(&[2, 1, 1, 3]));
    assert!(read("base/1/20") == blocks(&[1, 2, 3, 0, 0, 3]));
    let mut large = vec![1; 300];
    (large[7], large[8], large[100], large[299]) = (2, 3, 3, 2);
    assert!(read("base/1/30") == blocks(&large));
    assert_eq!(read("PG_VERSION"), b"18\n");
    // A table that was dropped since, and the parts of others, are not there.
    let names: BTreeSet<_> =
        fs::read_dir(dir.path().join("base/1")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["10", "20", "30", "50"].map(Into::into).into());
}

#[test]
fn chains_that_do_not_fit_are_refused() {
    let table = blocks(&[1, 1]);
    let full = || backup("0/1000028", &[("base/1/10", &table)]);
    let newest = |label: &[u8], name: &str, content: &[u8]| {
        let files: &[(&str, &[u8])] =
            &[("backup_label", label), ("base/", b""), ("base/1/", b""), (name, content)];
        backup("0/2000028", files)
    };
    let refused = |newest, full| {
        let dir = tempfile::tempdir().unwrap();
        extract_chain(dir.path(), &[newest, full]).unwrap_err()
    };
    let (good, other) = (label("0/2000028", "0/1000028"), label("0/2000028", "0/1000030"));
    let part = incremental(2, &[(1, 2)]);
    let error = refused(newest(&other, "base/1/INCREMENTAL.10", &part), full());
    assert!(matches!(error, ExtractError::NotItsParent { .. }), "{error}");
    let error = refused(newest(b"nothing", "base/1/INCREMENTAL.10", &part), full());
    assert!(matches!(error, ExtractError::Label { .. }), "{error}");
    let error = refused(newest(&good, "base/1/INCREMENTAL.11", &part), full());
    assert!(matches!(error, ExtractError::NoFullFile { .. }), "{error}");
    for bad in [&part[..part.len() - 1], &part[..10], &[&part[..], b"x"].concat(), b""] {
        let error = refused(newest(&good, "base/1/INCREMENTAL.10", bad), full());
        assert!(matches!(error, ExtractError::Incremental { .. }), "{error}");
    }
    let mut altered = full();
    altered.manifest = manifest(&[("base/1/10", &blocks(&[1, 2]))]);
    let error = refused(newest(&good, "base/1/INCREMENTAL.10", &part), altered);
    assert!(matches!(error, ExtractError::Mismatch { what: "checksum", .. }), "{error}");
}

#[test]
fn files_come_out_as_they_went_in() {
    let large = vec![3; 700_000];
    let files: &[(&str, &[u8])] =
        &[("backup_label", b"START"), ("base/1/1259", &large), ("global/pg_control", b"control")];
    let mut base = Vec::new();
    file(&mut base, files[0].0, files[0].1);
    for directory in ["base/", "base/1/", "global/"] {
        member(&mut base, directory, tar::EntryType::Directory, 0o755, b"");
    }
    file(&mut base, files[1].0, files[1].1);
    file(&mut base, files[2].0, files[2].1);
    base.extend_from_slice(&TERMINATOR);
    let dir = tempfile::tempdir().unwrap();
    let extracted = extract(dir.path(), &manifest(files), &[("", &base)]).unwrap();
    assert_eq!(extracted, Extracted { files: 3, bytes: 700_012, group_access: true });
    assert_eq!(fs::read(dir.path().join("base/1/1259")).unwrap(), large);
    assert_eq!(fs::read(dir.path().join("global/pg_control.restoring")).unwrap(), b"control");
    assert!(!dir.path().join("global/pg_control").exists());
    let mode =
        |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("base/1"), mode("base/1/1259")), (0o750, 0o640));
}

#[test]
fn tablespaces_are_compared_below_their_oid() {
    let files: &[(&str, &[u8])] = &[("pg_tblspc/16386/PG_15_202209061/5/16387", b"row")];
    let mut archive = Vec::new();
    member(&mut archive, "PG_15_202209061/", tar::EntryType::Directory, 0o700, b"");
    member(&mut archive, "PG_15_202209061/5/", tar::EntryType::Directory, 0o700, b"");
    file(&mut archive, "PG_15_202209061/5/16387", b"row");
    let dir = tempfile::tempdir().unwrap();
    let archives = [("pg_tblspc/16386/", &archive[..])];
    extract(dir.path(), &manifest(files), &archives).unwrap();
    assert_eq!(fs::read(dir.path().join("PG_15_202209061/5/16387")).unwrap(), b"row");
}

#[test]
fn what_differs_from_the_manifest_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let extracted = |files: &[(&str, &[u8])], members: &[(&str, &[u8])]| {
        let mut archive = Vec::new();
        for (name, content) in members {
            file(&mut archive, name, content);
        }
        let to = tempfile::tempdir_in(&dir).unwrap();
        extract(to.path(), &manifest(files), &[("", &archive)]).unwrap_err().to_string()
    };
    assert_eq!(
        extracted(&[("a", b"one")], &[("a", b"two")]),
        "`a` in the stored backup `20260305T151133` does not match its checksum in the manifest"
    );
    assert_eq!(
        extracted(&[("a", b"one")], &[("a", b"three")]),
        "`a` in the stored backup `20260305T151133` does not match its size in the manifest"
    );
    assert_eq!(
        extracted(&[("a", b"one")], &[("a", b"one"), ("b", b"")]),
        "`b` is in the stored archive of backup `20260305T151133`, where the manifest has no more files"
    );
    assert_eq!(
        extracted(&[("a", b""), ("b", b"")], &[("b", b""), ("a", b"")]),
        "`b` is in the stored archive of backup `20260305T151133`, where the manifest has `a`"
    );
    assert_eq!(
        extracted(&[("a", b""), ("b", b"")], &[("a", b"")]),
        "`b` is in the manifest of backup `20260305T151133`, but in no stored archive"
    );
}

#[test]
fn an_altered_manifest_or_a_torn_archive_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut archive = Vec::new();
    file(&mut archive, "a", b"one");
    let good = manifest(&[("a", b"one")]);
    let altered = String::from_utf8(good.clone()).unwrap().replace("15:11:33", "15:11:34");
    let error = extract(dir.path(), altered.as_bytes(), &[("", &archive)]).unwrap_err();
    assert!(matches!(error, ExtractError::Manifest { .. }), "{error}");
    let other = tempfile::tempdir().unwrap();
    let error = extract(other.path(), &good, &[("", &archive[..700])]).unwrap_err();
    assert!(matches!(error, ExtractError::Tar { .. }), "{error}");
}

#[test]
fn hostile_members_write_nothing_outside() {
    let outside = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
    let kinds = [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Fifo];
    for (name, kind) in [
        ("../evil", tar::EntryType::Regular),
        ("/tmp/evil", tar::EntryType::Regular),
        ("link/evil", tar::EntryType::Regular),
        ("link", tar::EntryType::Regular),
        ("link/", tar::EntryType::Directory),
    ]
    .into_iter()
    .chain(kinds.map(|kind| ("evil", kind)))
    {
        let mut archive = Vec::new();
        member(&mut archive, name, kind, 0o777, b"");
        // Even when the manifest was made to agree.
        let listing = manifest(&[(name, b"")]);
        extract(dir.path(), &listing, &[("", &archive)]).unwrap_err();
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
