//! Backups from scripted events: what a server sends, and what becomes of it on disk.

mod receiving;
mod reclaiming;

use std::fs;
use std::path::Path;

use bytes::Bytes;
use futures::{StreamExt, stream};
use pgwire_stream::manifest::{
    ChecksumAlgorithm, ManifestFile, ManifestItem, ManifestReader, ManifestWriter, WalRange,
};
use pgwire_stream::{Archive, BackupEvent, Lsn, SystemId, TimelineId};
use proptest::prelude::*;

use super::archive::ArchiveOptions;
use super::contents::{Contents, ContentsWriter, ReceivedManifest};
use super::*;
use crate::catalog::archive_index::{self, IndexLine, IndexedKind, IndexedPath};
use crate::progress::Silent;
use crate::settings::Recipient;
use crate::storage::compression::{Frame, Method};
use crate::storage::durable::AtomicFile;
use crate::storage::{
    Access, Codec, Crc32c, Form, Home, KeyFile, Packing, Sha256Sum, durable, encryption,
};

const SYSTEM: SystemId = SystemId::from_u64(7_357_089_276_153);
const CRC: ChecksumAlgorithm = ChecksumAlgorithm::Crc32c;

/// A member of an archive; a directory ends with a slash.
type File = (String, Vec<u8>);

/// A cluster as its archives have it, and the manifest that goes with it.
#[derive(Clone)]
struct Cluster {
    /// By archive: the tablespace, and its files.
    archives: Vec<(Option<u32>, Vec<File>)>,
    /// Path in the manifest, and content.
    listed: Vec<File>,
    /// From 15 on.
    typed: bool,
}

impl Cluster {
    fn new(typed: bool) -> Self {
        let file = |name: &str, content: &[u8]| (name.to_owned(), content.to_vec());
        let noise: Vec<u8> =
            (0..70_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let table = vec![file("PG_17_202406281/", b""), file("PG_17_202406281/5/16390", &noise)];
        let base = vec![
            file("backup_label", b"START WAL LOCATION: 0/2000028\n"),
            file("tablespace_map", b""),
            file("./pg_wal/archive_status/", b""),
            file("base/1/1259", &noise[..16_384]),
            file("global/pg_control", &[7; 8192]),
        ];
        let listed = table
            .iter()
            .map(|(name, content)| (format!("pg_tblspc/16386/{name}"), content.clone()))
            .chain(base.clone())
            .filter(|(name, _)| !name.ends_with('/'))
            .collect();
        Self { archives: vec![(Some(16_386), table), (None, base)], listed, typed }
    }

    fn tar(&self, files: &[File]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_ustar();
            header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(match name.ends_with('/') {
                true => tar::EntryType::Directory,
                false => tar::EntryType::Regular,
            });
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(1_772_723_493);
            header.set_cksum();
            tar.append(&header, content.as_slice()).unwrap();
        }
        let mut bytes = tar.into_inner().unwrap();
        if !self.typed {
            bytes.truncate(bytes.len() - 1024);
        }
        bytes
    }

    fn manifest(&self) -> Vec<u8> {
        let mut writer = ManifestWriter::version_2(Vec::new(), SYSTEM).unwrap();
        for (path, content) in &self.listed {
            let mut hasher = CRC.hasher();
            hasher.update(content);
            writer
                .file(&ManifestFile {
                    path: path.clone().into_bytes(),
                    size: content.len() as u64,
                    modified: "2026-03-05 15:11:33 GMT".to_owned(),
                    checksum: Some((CRC, hasher.finish())),
                })
                .unwrap();
        }
        writer.finish(&[wal()]).unwrap()
    }

    /// The events with the bytes in pieces of this size.
    fn events(&self, piece: usize, manifest: bool) -> Vec<BackupEvent> {
        let mut events = Vec::new();
        for (tablespace, files) in &self.archives {
            events.push(BackupEvent::ArchiveStart(Archive {
                name: tablespace.map_or("base.tar".to_owned(), |oid| format!("{oid}.tar")),
                tablespace: *tablespace,
                location: tablespace.map(|_| "/srv/fast".to_owned()),
                compression: None,
                terminated: self.typed,
            }));
            for bytes in self.tar(files).chunks(piece) {
                events.push(BackupEvent::ArchiveData(Bytes::copy_from_slice(bytes)));
            }
            if self.typed {
                events.push(BackupEvent::Progress(1));
            }
            events.push(BackupEvent::ArchiveEnd);
        }
        if manifest {
            events.push(BackupEvent::ManifestStart);
            for bytes in self.manifest().chunks(piece) {
                events.push(BackupEvent::ManifestData(Bytes::copy_from_slice(bytes)));
            }
        }
        events
    }
}

fn wal() -> WalRange {
    WalRange {
        timeline: TimelineId::FIRST,
        start: Lsn::from_u64(0x200_0028),
        end: Lsn::from_u64(0x200_0100),
    }
}

fn directory(home: &Path) -> BackupDir {
    let server = Home::new(home, Access::Private).server(&"main".parse().unwrap());
    let directory = server.backup("20260305T151133".parse().unwrap());
    durable::create_dir(directory.path(), Access::Private).unwrap();
    directory
}

fn store(
    directory: &BackupDir,
    codec: Codec,
    events: Vec<BackupEvent>,
) -> Result<Contents, BackupError> {
    store_for(directory, codec, &[], events)
}

/// Encrypted to these recipients.
fn store_for(
    directory: &BackupDir,
    codec: Codec,
    recipients: &[Recipient],
    events: Vec<BackupEvent>,
) -> Result<Contents, BackupError> {
    let packing = Packing::new(Method::new(codec, 1), recipients);
    let options = ArchiveOptions { packing, checksums: Some(CRC), pages_before: None };
    let mut contents = ContentsWriter::new(directory.clone(), SYSTEM, options)?;
    for event in events {
        contents.take(event)?;
    }
    contents.finish()
}

fn plain(directory: &BackupDir, name: &str, codec: Codec) -> Vec<u8> {
    let stored = fs::read(directory.archive(name, codec)).unwrap();
    match codec {
        Codec::Zstd => zstd::decode_all(stored.as_slice()).unwrap(),
        _ => stored,
    }
}

fn names(directory: &BackupDir) -> Vec<String> {
    let mut names: Vec<String> = durable::list_dir(directory.path())
        .unwrap()
        .into_iter()
        .map(|name| name.into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_good_backup_is_stored_as_it_was_sent() {
    for typed in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let directory = directory(home.path());
        let cluster = Cluster::new(typed);
        let contents = store(&directory, Codec::Zstd, cluster.events(10_000, true)).unwrap();

        assert_eq!(
            names(&directory),
            ["16386.tar.idx", "16386.tar.zst", "backup_manifest", "base.tar.idx", "base.tar.zst"]
        );
        assert_eq!(fs::read(directory.manifest()).unwrap(), cluster.manifest());
        let ReceivedManifest::Verified { stored } = &contents.manifest else {
            panic!("{:?}", contents.manifest)
        };
        assert_eq!(stored.sha256, Sha256Sum::of(&cluster.manifest()));
        let terminated = Cluster { typed: true, ..cluster.clone() };
        let expected = [("16386.tar", Some(16_386), 1), ("base.tar", None, 4)];
        for (n, (name, tablespace, files)) in expected.into_iter().enumerate() {
            let tar = terminated.tar(&cluster.archives[n].1);
            assert!(plain(&directory, name, Codec::Zstd) == tar, "{name} differs");
            let archive = &contents.archives[n];
            assert_eq!((archive.name.as_str(), archive.tablespace), (name, tablespace));
            assert_eq!((archive.plain_size, archive.files), (tar.len() as u64, files));
            let bytes = fs::read(directory.archive(name, Codec::Zstd)).unwrap();
            assert_eq!(archive.stored_size, bytes.len() as u64);
            assert_eq!(archive.stored_sha256, None);
            assert_eq!(archive.stored_crc32c, Some(Crc32c::of(&bytes)));
        }
    }
}

#[test]
fn what_is_encrypted_is_what_would_be_stored_without() {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use age::secrecy::ExposeSecret;

    let home = tempfile::tempdir().unwrap();
    let directory = directory(home.path());
    let cluster = Cluster::new(true);
    let secret = age::x25519::Identity::generate();
    let recipients = [secret.to_public().into()];
    let events = cluster.events(10_000, true);
    let contents = store_for(&directory, Codec::Zstd, &recipients, events).unwrap();
    let key_file = home.path().join("identity");
    fs::write(&key_file, secret.to_string().expose_secret()).unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let keys = KeyFile::new(key_file);
    for (n, archive) in contents.archives.iter().enumerate() {
        assert!(archive.encrypted);
        let path = directory.archive(&archive.name, archive.form());
        assert!(path.to_str().unwrap().ends_with(".tar.zst.age"));
        let stored = fs::read(&path).unwrap();
        assert_eq!(archive.stored_size, stored.len() as u64);
        assert_eq!(archive.stored_sha256, Some(Sha256Sum::of(&stored)));
        let mut tar = Vec::new();
        let mut plain = encryption::open(&path, archive.form(), Some(&keys)).unwrap();
        plain.read_to_end(&mut tar).unwrap();
        assert!(tar == cluster.tar(&cluster.archives[n].1), "{} differs", archive.name);

        // The frames are those of the compressed archive.
        let compressed = Form { codec: Codec::None, ..archive.form() };
        let mut zstd = Vec::new();
        let mut decrypted = encryption::open(&path, compressed, Some(&keys)).unwrap();
        decrypted.read_to_end(&mut zstd).unwrap();
        let index = fs::read_to_string(directory.archive_index(&archive.name)).unwrap();
        let mut frames = 0;
        for line in index.lines() {
            if let IndexLine::Frame(frame) = serde_json::from_str(line).unwrap() {
                let range = frame.stored_offset as usize..;
                let part = zstd::decode_all(&zstd[range][..frame.stored_length as usize]).unwrap();
                assert!(part == tar[frame.plain_offset as usize..][..frame.plain_length as usize]);
                frames += 1;
            }
        }
        assert!(frames > 0);
    }
}

#[test]
fn the_index_leads_to_every_member() {
    let home = tempfile::tempdir().unwrap();
    let directory = directory(home.path());
    let cluster = Cluster::new(true);
    store(&directory, Codec::Zstd, cluster.events(1000, true)).unwrap();
    let index = fs::read_to_string(directory.archive_index("base.tar")).unwrap();
    let lines: Vec<IndexLine> =
        index.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], IndexLine::Format(archive_index::FORMAT));
    let tar = plain(&directory, "base.tar", Codec::Zstd);
    let frames: Vec<&Frame> = lines
        .iter()
        .filter_map(|line| match line {
            IndexLine::Frame(frame) => Some(frame),
            _ => None,
        })
        .collect();
    assert_eq!(frames.iter().map(|frame| frame.plain_length).sum::<u64>(), tar.len() as u64);
    let members: Vec<&archive_index::IndexedMember> = lines
        .iter()
        .filter_map(|line| match line {
            IndexLine::Member(member) => Some(member),
            _ => None,
        })
        .collect();
    assert_eq!(members.len(), cluster.archives[1].1.len());
    for (member, (name, content)) in members.into_iter().zip(&cluster.archives[1].1) {
        let plain_name = name.trim_start_matches("./").trim_end_matches('/');
        assert_eq!(member.path, IndexedPath::Path(plain_name.to_owned()));
        assert_eq!(member.kind == IndexedKind::Directory, name.ends_with('/'));
        let at = usize::try_from(member.at).unwrap();
        assert!(tar[at..].starts_with(name.as_bytes()));
        assert!(tar[at + 512..].starts_with(content));
    }
}

#[test]
fn without_a_manifest_there_is_a_list_to_make_one_of() {
    let home = tempfile::tempdir().unwrap();
    let directory = directory(home.path());
    let cluster = Cluster::new(false);
    let contents = store(&directory, Codec::None, cluster.events(4096, false)).unwrap();
    let ReceivedManifest::None { received } = contents.manifest else { panic!() };
    let file = AtomicFile::create(&directory.manifest(), Access::Private).unwrap();
    made_manifest::write(file, received, Some(CRC), &[wal()]).unwrap();

    let files = |manifest: &[u8]| {
        let mut reader = ManifestReader::new();
        let items = reader.feed(manifest).unwrap();
        reader.finish().unwrap();
        let file = |item| match item {
            ManifestItem::File(file) => Some(file),
            _ => None,
        };
        items.into_iter().filter_map(file).collect::<Vec<ManifestFile>>()
    };
    assert_eq!(files(&fs::read(directory.manifest()).unwrap()), files(&cluster.manifest()));
}

/// The message that a backup of `cluster` fails with, and that nothing looks complete then.
fn failure(cluster: &Cluster) -> String {
    let home = tempfile::tempdir().unwrap();
    let directory = directory(home.path());
    let error = store(&directory, Codec::Zstd, cluster.events(5000, true)).unwrap_err();
    assert!(!directory.manifest().exists());
    error.to_string()
}

#[test]
fn what_differs_from_the_manifest_is_named() {
    let good = Cluster::new(true);

    let mut flipped = good.clone();
    flipped.archives[0].1[1].1[100_000] ^= 1;
    let message = failure(&flipped);
    assert!(message.contains("`pg_tblspc/16386/PG_17_202406281/5/16390`"), "{message}");
    assert!(message.contains("CRC32C"), "{message}");

    let mut missing = good.clone();
    missing.archives[1].1.remove(3);
    let message = failure(&missing);
    assert!(message.contains("`base/1/1259`, which was not received"), "{message}");

    let mut extra = good.clone();
    extra.archives[1].1.insert(1, ("base/1/evil".to_owned(), vec![1]));
    let message = failure(&extra);
    assert!(message.contains("`base/1/evil`") && message.contains("not list"), "{message}");

    let mut longer = good.clone();
    longer.archives[1].1[4].1.push(7);
    let message = failure(&longer);
    assert!(message.contains("`global/pg_control`") && message.contains("8193"), "{message}");
}

#[test]
fn a_broken_off_archive_names_the_file() {
    let home = tempfile::tempdir().unwrap();
    let directory = directory(home.path());
    let mut events = Cluster::new(false).events(1000, true);
    // The start, and 200 pieces of the tablespace.
    events.drain(201..events.iter().position(|e| *e == BackupEvent::ArchiveEnd).unwrap());
    let message = store(&directory, Codec::Zstd, events).unwrap_err().to_string();
    assert!(message.contains("`16386.tar`"), "{message}");
    assert!(message.contains("`PG_17_202406281/5/16390`"), "{message}");
    assert_eq!(names(&directory), [""; 0]);
}

#[test]
fn a_file_that_does_not_get_its_name_is_no_part_of_a_backup() {
    // The archive of the data directory is the last.
    for (manifest, taken) in
        [(true, "base.tar.idx"), (false, "base.tar.idx"), (true, "16386.tar.zst")]
    {
        let home = tempfile::tempdir().unwrap();
        let directory = directory(home.path());
        let taken = directory.path().join(taken);
        fs::create_dir(&taken).unwrap();
        let events = Cluster::new(true).events(10_000, manifest);
        let error = store(&directory, Codec::Zstd, events).unwrap_err();
        let BackupError::Storage(error) = error else { panic!("{error}") };
        assert_eq!(error.path, taken);
    }
}

#[test]
fn an_archive_that_lost_its_end_mark_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let directory = directory(home.path());
    let mut events = Cluster::new(false).events(100_000, true);
    for event in &mut events {
        if let BackupEvent::ArchiveStart(archive) = event {
            archive.terminated = true;
        }
    }
    let message = store(&directory, Codec::Zstd, events).unwrap_err().to_string();
    assert!(message.contains("`16386.tar`"), "{message}");
}

#[test]
fn events_out_of_order_are_refused() {
    let good = Cluster::new(true).events(50_000, true);
    let end = good.iter().position(|event| *event == BackupEvent::ArchiveEnd).unwrap();
    let without = |n: usize| {
        let mut events = good.clone();
        events.remove(n);
        events
    };
    let twice = [&good[..=end], &good].concat();
    for events in [without(0), without(end), good[..2].to_vec(), Vec::new(), twice] {
        let home = tempfile::tempdir().unwrap();
        assert!(store(&directory(home.path()), Codec::None, events).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn cuts_do_not_matter(piece in 1usize..40_000, typed: bool) {
        let home = tempfile::tempdir().unwrap();
        let directory = directory(home.path());
        let cluster = Cluster::new(typed);
        let contents = store(&directory, Codec::None, cluster.events(piece, true)).unwrap();
        let terminated = Cluster { typed: true, ..cluster.clone() };
        for (archive, (_, files)) in contents.archives.iter().zip(&cluster.archives) {
            let stored = fs::read(directory.archive(&archive.name, Codec::None)).unwrap();
            prop_assert!(stored == terminated.tar(files));
        }
        prop_assert_eq!(fs::read(directory.manifest()).unwrap(), cluster.manifest());
    }
}

/// The events of a cluster whose server compresses, cut into pieces of this size.
fn compressed(events: Vec<BackupEvent>, codec: Codec, piece: usize) -> Vec<BackupEvent> {
    use crate::storage::CompressedWriter;
    use std::io::Write;

    let mut result = Vec::new();
    let mut writer = None;
    for event in events {
        match event {
            BackupEvent::ArchiveStart(mut archive) => {
                archive.compression = Some(match codec {
                    Codec::Gzip => pgwire_stream::CompressionMethod::Gzip,
                    Codec::Lz4 => pgwire_stream::CompressionMethod::Lz4,
                    _ => pgwire_stream::CompressionMethod::Zstd,
                });
                writer = Some(CompressedWriter::new(Vec::new(), Method::new(codec, 1)).unwrap());
                result.push(BackupEvent::ArchiveStart(archive));
            }
            BackupEvent::ArchiveData(bytes) => writer.as_mut().unwrap().write_all(&bytes).unwrap(),
            BackupEvent::ArchiveEnd => {
                let (stored, _) = writer.take().unwrap().finish().unwrap();
                let pieces = stored.chunks(piece).map(Bytes::copy_from_slice);
                result.extend(pieces.map(BackupEvent::ArchiveData));
                result.push(BackupEvent::ArchiveEnd);
            }
            event => result.push(event),
        }
    }
    result
}

#[test]
fn what_the_server_has_compressed_is_stored_as_it_came_and_verified() {
    let cluster = Cluster::new(true);
    for codec in [Codec::Zstd, Codec::Lz4, Codec::Gzip] {
        let home = tempfile::tempdir().unwrap();
        let directory = directory(home.path());
        let events = compressed(cluster.events(10_000, true), codec, 777);
        let sent: Vec<u8> = events
            .iter()
            .filter_map(|event| match event {
                BackupEvent::ArchiveData(bytes) => Some(bytes.to_vec()),
                _ => None,
            })
            .flatten()
            .collect();
        let contents = store(&directory, Codec::Zstd, events.clone()).unwrap();
        let stored: Vec<u8> = contents
            .archives
            .iter()
            .flat_map(|archive| fs::read(directory.archive(&archive.name, codec)).unwrap())
            .collect();
        assert!(stored == sent, "{codec}");
        for (archive, (_, files)) in contents.archives.iter().zip(&cluster.archives) {
            assert!(archive.by_server && archive.codec == codec, "{archive:?}");
            assert_eq!(archive.plain_size, cluster.tar(files).len() as u64);
        }

        // A byte that changes on the way, anywhere in the middle, is noticed.
        let mut altered = events;
        let at = altered.len() / 2;
        let BackupEvent::ArchiveData(bytes) = &altered[at] else { panic!("{:?}", altered[at]) };
        let mut bytes = bytes.to_vec();
        bytes[300] ^= 0x10;
        altered[at] = BackupEvent::ArchiveData(bytes.into());
        let error = store(&directory, Codec::Zstd, altered).unwrap_err();
        let noticed = matches!(
            error,
            BackupError::Unpack { .. }
                | BackupError::FileChecksum { .. }
                | BackupError::Archive { .. }
        );
        assert!(noticed, "{codec}: {error}");
    }
}
