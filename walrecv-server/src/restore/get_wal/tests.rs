//! Which files are delivered, and what is said of the others.

use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;

use pgwire_stream::{
    HistoryFile, Lsn, SegmentName, SegmentSize, ServerVersion, SystemId, TimelineId,
};

use super::*;
use crate::catalog::{
    Absence, HistoryStore, Identity, WalFindings, WalIndexRecord, WalIndexWriters, journal,
};
use crate::failure::Failure;
use crate::storage::{
    Access, ArchivedWal, Codec, Crc32c, Home, KeyFile, LockKind, ServerDir, ServerLock, Sha256Sum,
    durable,
};

const MIB: usize = 1 << 20;

fn store() -> (tempfile::TempDir, ServerDir) {
    let dir = tempfile::tempdir().unwrap();
    let server =
        Home::new(dir.path().join("home"), Access::Private).server(&"main".parse().unwrap());
    let identity = Identity {
        system_id: SystemId::from_u64(7),
        segment_size: SegmentSize::new(MIB as u64).unwrap(),
        server_version: ServerVersion::from_num(150_020),
        data_checksums: None,
    };
    identity.establish(&server).unwrap();
    (dir, server)
}

fn name(timeline: u32, number: u32) -> SegmentName {
    format!("{timeline:08X}00000000{number:08X}").parse().unwrap()
}

fn wal(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| seed ^ (at % 251) as u8).collect()
}

fn archive(server: &ServerDir, segment: SegmentName, codec: Codec, content: &[u8]) {
    let path = server.archived(segment, codec);
    durable::create_dir(path.parent().unwrap(), Access::Private).unwrap();
    let content = match codec {
        Codec::Zstd => zstd::encode_all(content, 1).unwrap(),
        _ => content.to_vec(),
    };
    fs::write(path, content).unwrap();
}

/// The delivered bytes; `None` at the end of the archive.
fn get(
    server: &ServerDir,
    name: impl ToString,
    partial: bool,
) -> Result<Option<Vec<u8>>, GetWalError> {
    get_with(server, name, Beginnings::of(partial, None))
}

fn get_with(
    server: &ServerDir,
    name: impl ToString,
    beginnings: Beginnings,
) -> Result<Option<Vec<u8>>, GetWalError> {
    let name = name.to_string();
    let dir = tempfile::tempdir().unwrap();
    let destination = dir.path().join("RECOVERYXLOG");
    let delivered = match locate(server, &name, beginnings, None)? {
        Lookup::EndOfArchive => return Ok(None),
        Lookup::Found(mut file) => {
            let length = file.length();
            deliver(&name, &mut file, length, &destination)
        }
    };
    if delivered.is_err() {
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    delivered.map(|()| Some(fs::read(&destination).unwrap()))
}

#[test]
fn segments_come_from_wherever_they_are() {
    let (_dir, server) = store();
    archive(&server, name(1, 1), Codec::Zstd, &wal(1, MIB));
    archive(&server, name(1, 2), Codec::None, &wal(2, MIB));
    fs::write(server.streaming_segment(name(1, 3)), wal(3, MIB)).unwrap();
    fs::write(server.streaming_partial(name(1, 4)), wal(4, 1000)).unwrap();
    for number in 1..=3 {
        let whole = wal(u8::try_from(number).unwrap(), MIB);
        assert_eq!(get(&server, name(1, number), false).unwrap(), Some(whole));
    }
    assert_eq!(get(&server, name(1, 4), false).unwrap(), None);
    let mut padded = wal(4, 1000);
    padded.resize(MIB, 0);
    assert_eq!(get(&server, name(1, 4), true).unwrap(), Some(padded));
    assert_eq!(get(&server, name(1, 5), true).unwrap(), None);
    // Another timeline, of which nothing is held.
    assert_eq!(get(&server, name(2, 1), true).unwrap(), None);
}

#[test]
fn a_hole_is_an_error_and_not_the_end() {
    let (_dir, server) = store();
    archive(&server, name(1, 1), Codec::None, &wal(1, MIB));
    archive(&server, name(1, 3), Codec::None, &wal(3, MIB));
    fs::write(server.streaming_partial(name(2, 2)), wal(4, 1000)).unwrap();
    let error = get(&server, name(1, 2), true).unwrap_err();
    assert!(matches!(error, GetWalError::Gap { .. }), "{error}");
    assert_eq!(error.exit_code(), 203);
    // A beginning is not the end either, when there is more behind it.
    fs::write(server.streaming_partial(name(1, 2)), wal(2, 1000)).unwrap();
    assert!(matches!(get(&server, name(1, 2), true), Err(GetWalError::Gap { held: 1000, .. })));
    // Whoever has planned for it gets it, and nothing where there is nothing.
    let planned = |number| get_with(&server, name(1, number), Beginnings::BeforeGaps);
    let mut padded = wal(2, 1000);
    padded.resize(MIB, 0);
    assert!(planned(2).unwrap() == Some(padded));
    assert!(matches!(planned(0), Err(GetWalError::Gap { .. })));
    // Before the first that is held is a hole as well.
    assert!(matches!(get(&server, name(1, 0), true), Err(GetWalError::Gap { .. })));
}

#[test]
fn what_is_known_to_be_gone_is_not_the_end() {
    let (_dir, server) = store();
    let lock = ServerLock::try_acquire(&server, LockKind::Archive).unwrap();
    let at = |mib: u64| Lsn::from_u64(mib * MIB as u64);
    let absence = |number| match get(&server, name(1, number), true) {
        Err(GetWalError::Gap { absence, .. }) => Some(absence),
        Ok(found) => {
            assert_eq!(found, None);
            None
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(absence(1), None);
    journal::record_retired(&server, TimelineId::FIRST, at(1), at(3), &lock).unwrap();
    journal::record_gap(&server, TimelineId::FIRST, at(4), at(5)).unwrap();
    let (retired, left_out) = (Some(Absence::Retired), Some(Absence::LeftOut));
    assert_eq!([1, 2, 3, 4, 5].map(absence), [retired, retired, None, left_out, None]);
    archive(&server, name(1, 6), Codec::None, &wal(6, MIB));
    let missing = Some(Absence::Missing);
    assert_eq!([1, 2, 3, 4, 5].map(absence), [retired, retired, missing, left_out, missing]);
    assert_eq!(get(&server, name(1, 1), true).unwrap_err().exit_code(), 203);
}

#[test]
fn a_part_of_the_store_that_is_gone_is_not_the_end() {
    for gone in [ServerDir::wals, ServerDir::streaming] {
        let (dir, server) = store();
        // As after moving it to a disk that is not mounted now.
        fs::remove_dir(gone(&server)).unwrap();
        std::os::unix::fs::symlink(dir.path().join("mnt/wals"), gone(&server)).unwrap();
        for wanted in [name(1, 1).to_string(), "00000002.history".to_owned()] {
            assert_eq!(get(&server, wanted, true).unwrap_err().exit_code(), exit_code::IO);
        }
    }
}

#[test]
fn a_cut_tail_in_the_archive_is_the_end_of_its_timeline() {
    let (_dir, server) = store();
    archive(&server, name(1, 1), Codec::Zstd, &wal(1, MIB));
    let cut = ArchivedWal { segment: name(1, 2), partial: true, form: Codec::Zstd.into() };
    fs::write(server.archived_file(cut), zstd::encode_all(&wal(2, 500)[..], 1).unwrap()).unwrap();
    archive(&server, name(2, 2), Codec::Zstd, &wal(3, MIB));
    let mut padded = wal(2, 500);
    padded.resize(MIB, 0);
    assert_eq!(get(&server, name(1, 2), true).unwrap(), Some(padded));
    assert_eq!(get(&server, name(1, 2), false).unwrap(), None);
}

#[test]
fn a_timeline_of_which_too_little_came_begins_with_its_parents_wal() {
    let (_dir, server) = store();
    let put = |timeline, text: &'static str| {
        let timeline = TimelineId::new(timeline).unwrap();
        let content = text.as_bytes().into();
        HistoryStore::new(&server).put(&HistoryFile { timeline, content }).unwrap();
    };
    archive(&server, name(1, 1), Codec::Zstd, &wal(1, MIB));
    archive(&server, name(1, 2), Codec::Zstd, &wal(2, MIB));
    archive(&server, name(1, 3), Codec::Zstd, &wal(3, MIB));
    // Left half-way through the second segment, and nothing came of the new one.
    put(2, "1\t0/280000\tr\n");
    let mut parents = wal(2, MIB / 2);
    parents.resize(MIB, 0);
    assert_eq!(get(&server, name(2, 2), true).unwrap(), Some(parents.clone()));
    assert_eq!(get(&server, name(2, 2), false).unwrap(), None);
    // The old timeline goes on behind the fork, the new one does not.
    assert_eq!(get(&server, name(2, 3), true).unwrap(), None);
    // Less than up to the fork.
    fs::write(server.streaming_partial(name(2, 2)), wal(2, 1000)).unwrap();
    assert_eq!(get(&server, name(2, 2), true).unwrap(), Some(parents.clone()));
    // Left again in the same segment.
    put(3, "1\t0/280000\tr\n2\t0/290000\tr\n");
    assert_eq!(get(&server, name(3, 2), true).unwrap(), Some(parents));
    // More than up to the fork is the new timeline's own.
    let mut own = wal(9, MIB / 2 + 10);
    fs::write(server.streaming_partial(name(2, 2)), &own).unwrap();
    own.resize(MIB, 0);
    assert_eq!(get(&server, name(2, 2), true).unwrap(), Some(own));
}

#[test]
fn histories_are_delivered_or_end_the_search() {
    let (_dir, server) = store();
    let content = &b"1\t0/200000\tno recovery target specified\n"[..];
    let history = HistoryFile { timeline: TimelineId::new(2).unwrap(), content: content.into() };
    HistoryStore::new(&server).put(&history).unwrap();
    assert_eq!(get(&server, "00000002.history", false).unwrap(), Some(content.to_vec()));
    assert_eq!(get(&server, "00000003.history", false).unwrap(), None);
}

#[test]
fn what_is_damaged_is_not_delivered() {
    let (_dir, server) = store();
    archive(&server, name(1, 1), Codec::Zstd, &wal(1, MIB - 1));
    archive(&server, name(1, 2), Codec::None, &wal(1, MIB + 1));
    archive(&server, name(1, 3), Codec::Zstd, &wal(1, MIB));
    let torn = server.archived(name(1, 3), Codec::Zstd);
    let whole = fs::read(&torn).unwrap();
    fs::write(&torn, &whole[..whole.len() - 3]).unwrap();
    for number in 1..=3 {
        let error = get(&server, name(1, number), true).unwrap_err();
        assert_eq!(error.exit_code(), 202, "{number}: {error}");
    }
}

#[test]
fn what_is_encrypted_needs_a_key_and_is_never_the_end() {
    use age::secrecy::ExposeSecret;
    use std::os::unix::fs::PermissionsExt;

    use crate::storage::{ArchivedWriter, Method, Packing};

    let (dir, server) = store();
    let identity_file = |name: &str, secret: &age::x25519::Identity| {
        let path = dir.path().join(name);
        fs::write(&path, secret.to_string().expose_secret()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        KeyFile::new(path)
    };
    let secret = age::x25519::Identity::generate();
    let packing = Packing::new(Method::new(Codec::Zstd, 1), &[secret.to_public().into()]);
    for (number, partial, length) in [(1, false, MIB), (2, true, 700)] {
        let file = ArchivedWal { segment: name(1, number), partial, form: packing.form() };
        durable::create_dir(&server.wal_dir(file.segment), Access::Private).unwrap();
        let path = server.archived_file(file);
        let mut writer =
            ArchivedWriter::create(&path, Access::Private, &packing, |file| file).unwrap();
        writer.write_all(&wal(3, length)).unwrap();
        writer.finish().unwrap().2.commit().unwrap();
    }
    let locate =
        |number, keys| locate(&server, &name(1, number).to_string(), Beginnings::AtTheEnd, keys);
    let right = identity_file("right", &secret);
    for (number, length) in [(1, MIB), (2, 700)] {
        let Lookup::Found(mut file) = locate(number, Some(&right)).unwrap() else { panic!() };
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        let mut expected = wal(3, length);
        expected.resize(MIB, 0);
        assert!(content == expected);
    }
    assert!(matches!(locate(3, Some(&right)).unwrap(), Lookup::EndOfArchive));
    // The keys are not needed to tell the end.
    assert!(matches!(locate(3, None).unwrap(), Lookup::EndOfArchive));

    let wrong = identity_file("wrong", &age::x25519::Identity::generate());
    let absent = KeyFile::new(dir.path().join("absent"));
    for keys in [None, Some(&wrong), Some(&absent)] {
        for number in [1, 2] {
            let error = locate(number, keys).err().unwrap();
            assert_eq!(error.exit_code(), exit_code::ENCRYPTED, "{error}");
            assert_eq!(error.is_without_keys(), keys.is_none());
            assert!(error.hint().is_some());
        }
    }
}

#[test]
fn what_differs_from_the_index_is_not_delivered() {
    let (_dir, server) = store();
    archive(&server, name(1, 1), Codec::None, &wal(1, MIB));
    let lock = ServerLock::try_acquire(&server, LockKind::Archive).unwrap();
    let segment_size = SegmentSize::new(MIB as u64).unwrap();
    let mut indexes = WalIndexWriters::new(&server, segment_size, Arc::new(lock));
    let mut record = WalIndexRecord {
        file: ArchivedWal { segment: name(1, 1), partial: false, form: Codec::None.into() },
        plain_size: MIB as u64,
        plain_crc32c: Crc32c::of(&wal(1, MIB)),
        stored_size: MIB as u64,
        stored_sha256: Some(Sha256Sum::of(&wal(1, MIB))),
        findings: WalFindings::default(),
    };
    indexes.append(&[record.clone()]).unwrap();
    assert!(get(&server, name(1, 1), false).unwrap().is_some());
    record.plain_crc32c = Crc32c::of(b"other");
    indexes.append(&[record]).unwrap();
    assert_eq!(get(&server, name(1, 1), false).unwrap_err().exit_code(), 202);
}

#[test]
fn wrong_questions_are_not_the_end_of_the_archive() {
    let (dir, server) = store();
    for name in ["", "../../etc/passwd", "000000010000000000000001.backup", "x.history"] {
        assert_eq!(get(&server, name, true).unwrap_err().exit_code(), 200, "{name}");
    }
    let name_1 = name(1, 1);
    let error = get(&server, format!("{name_1}.partial"), true).unwrap_err();
    assert!(matches!(error, GetWalError::PartialName { .. }));
    // No segment of 1 MB has this number.
    assert_eq!(get(&server, name(1, 0x1000), true).unwrap_err().exit_code(), 200);
    let other =
        Home::new(dir.path().join("home"), Access::Private).server(&"other".parse().unwrap());
    assert_eq!(get(&other, name_1, true).unwrap_err().exit_code(), 200);
    fs::write(server.identity(), b"{").unwrap();
    assert_eq!(get(&server, name_1, true).unwrap_err().exit_code(), 202);
}

#[test]
fn a_short_delivery_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let destination = dir.path().join("RECOVERYXLOG");
    fs::write(&destination, b"before").unwrap();
    for length in [2, 4] {
        let error = deliver("x", &mut &b"abc"[..], length, &destination).unwrap_err();
        assert_eq!(error.exit_code(), 202);
        assert_eq!(fs::read(&destination).unwrap(), b"before");
    }
    deliver("x", &mut &b"abc"[..], 3, &destination).unwrap();
    assert_eq!(fs::read(&destination).unwrap(), b"abc");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let error = deliver("x", &mut &b"abc"[..], 3, &dir.path().join("a/b")).unwrap_err();
    assert_eq!(error.exit_code(), 204);
    // A link, such as that to what is printed to, stays one.
    let link = dir.path().join("stdout");
    std::os::unix::fs::symlink(&destination, &link).unwrap();
    deliver("x", &mut &b"def"[..], 3, &link).unwrap();
    assert!(link.is_symlink());
    assert_eq!(fs::read(&destination).unwrap(), b"abcdef");
    assert!(deliver("x", &mut &b"abc"[..], 3, dir.path()).is_err());
}

#[test]
fn a_moving_segment_is_found() {
    let (_dir, server) = store();
    let segment = name(1, 1);
    let whole = wal(1, MIB);
    let partial = server.streaming_partial(segment);
    fs::write(&partial, &whole).unwrap();
    let archived = server.archived(segment, Codec::None);
    durable::create_dir(archived.parent().unwrap(), Access::Private).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let raw = server.streaming_segment(segment);
            fs::rename(&partial, &raw).unwrap();
            durable::write_file(&archived, &whole, Access::Private).unwrap();
            fs::remove_file(&raw).unwrap();
        });
        for _ in 0..200 {
            assert_eq!(get(&server, segment, true).unwrap().unwrap(), whole);
        }
    });
}
