//! Plans and restores against a small store made by hand.

mod outside;
mod standby;
mod targets;

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::{Timestamp, ToSpan};
use pgwire_stream::manifest::{ChecksumAlgorithm, ManifestFile, ManifestWriter};
use pgwire_stream::{
    HistoryFile, Lsn, PgTimestamp, SegmentName, SegmentSize, ServerVersion, SystemId, TimelineId,
};

use super::target::{RecoveryTarget, TargetAction, TimelineChoice};
use super::*;
use crate::catalog::test_wal::TestWal;
use crate::catalog::{
    Archive, BackupOutcome, BackupRecord, CaughtUp, HistoryStore, Identity, Manifest,
    ManifestOrigin, Position, Tablespace, WalIndex,
};
use crate::failure::{Class, Failure};
use crate::progress::Silent;
use crate::settings::ServerName;
use crate::storage::{
    Access, ArchivedWal, ArchivedWriter, Codec, DecryptionError, Home, KeyFile, LockKind, Method,
    Packing, ServerDir, ServerLock, Sha256Sum, durable,
};

/// A daemon that hands out WAL and has no key.
const SERVED: Served = Served { wal: true, decrypts: false };

const MIB: u64 = 1 << 20;
const MAP: &[u8] = b"16386 /nonexistent/fast\n";
const TABLESPACE: &str = "pg_tblspc/16386/";
const CONF: &[u8] = b"port = 5433\nprimary_conninfo = 'host=old'\n";

/// A store with one complete backup, from 0/200028 to 0/200100, and WAL from there.
struct Store {
    dir: tempfile::TempDir,
    home: Home,
    server: ServerDir,
    record: BackupRecord,
}

/// The files of the backup by their manifest paths, in send order: the tablespace comes first.
/// Nobody wants the restore to stop.
fn undisturbed() -> watch::Receiver<bool> {
    watch::channel(false).1
}

fn files() -> Vec<(&'static str, &'static [u8])> {
    vec![
        ("pg_tblspc/16386/PG_15_202209061/5/16387", b"row"),
        ("backup_label", b"START WAL LOCATION"),
        ("tablespace_map", MAP),
        ("PG_VERSION", b"15\n"),
        ("postgresql.conf", b"hba_file = '/etc/pg_hba.conf'\n"),
        ("postgresql.auto.conf", CONF),
        ("standby.signal", b""),
        ("global/pg_control", b"control"),
    ]
}

fn member(archive: &mut Vec<u8>, name: &str, content: Option<&[u8]>) {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    let (kind, mode) = match content {
        Some(_) => (tar::EntryType::Regular, 0o600),
        None => (tar::EntryType::Directory, 0o700),
    };
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.map_or(0, <[u8]>::len) as u64);
    header.set_mtime(0);
    header.set_cksum();
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(content.unwrap_or_default());
    archive.resize(archive.len().next_multiple_of(512), 0);
}

fn stored(server: &ServerDir, record: &mut BackupRecord, name: &str, oid: Option<u32>, tar: &[u8]) {
    let bytes = zstd::encode_all(tar, 1).unwrap();
    let path = server.backup(record.id).archive(name, Codec::Zstd);
    fs::write(path, &bytes).unwrap();
    record.archives.push(Archive {
        name: name.to_owned(),
        tablespace: oid,
        codec: Codec::Zstd,
        encrypted: false,
        by_server: false,
        plain_size: tar.len() as u64,
        stored_size: bytes.len() as u64,
        stored_sha256: Some(Sha256Sum::of(&bytes)),
        stored_crc32c: None,
        files: 0,
        index: None,
    });
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The user that the files are handed to must get here.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = Home::new(dir.path().join("home"), Access::Private);
        let server = home.server(&"main".parse().unwrap());
        let segment_size = SegmentSize::new(MIB).unwrap();
        let server_version = ServerVersion::from_num(150_020);
        let system_id = SystemId::from_u64(7);
        Identity { system_id, segment_size, server_version, data_checksums: None }
            .establish(&server)
            .unwrap();
        let position =
            |lsn: &str| Some(Position { lsn: lsn.parse().unwrap(), timeline: TimelineId::FIRST });
        let began_at: Timestamp = "2026-03-05T15:11:33Z".parse().unwrap();
        let mut record = BackupRecord {
            id: "20260305T151133".parse().unwrap(),
            server: "main".parse().unwrap(),
            outcome: BackupOutcome::Copied,
            name: None,
            label: "walrecv-server".to_owned(),
            parent: None,
            system_id,
            segment_size,
            server_version,
            data_checksums: None,
            program_version: "0.1.0".to_owned(),
            began_at,
            ended_at: Some(began_at + 60.seconds()),
            done_at: None,
            begin: position("0/200028"),
            end: position("0/200100"),
            tablespaces: vec![Tablespace {
                oid: 16386,
                name: Some("fast".to_owned()),
                location: "/nonexistent/fast".to_owned(),
            }],
            archives: Vec::new(),
            manifest: None,
            config_files: None,
            damaged_pages: None,
        };
        durable::create_dir(server.backup(record.id).path(), Access::Private).unwrap();
        Self::store_archives(&server, &mut record);
        let store = Self { dir, home, server, record };
        store.save();
        store.archive_wal(1, 2);
        store.receive_wal(1, 3, 1000);
        store
    }

    fn store_archives(server: &ServerDir, record: &mut BackupRecord) {
        let mut tablespace = Vec::new();
        member(&mut tablespace, "PG_15_202209061/", None);
        member(&mut tablespace, "PG_15_202209061/5/", None);
        let mut base = Vec::new();
        let mut manifest = ManifestWriter::version_1(Vec::new()).unwrap();
        for (path, content) in files() {
            let mut hasher = ChecksumAlgorithm::Crc32c.hasher();
            hasher.update(content);
            manifest
                .file(&ManifestFile {
                    path: path.as_bytes().to_vec(),
                    size: content.len() as u64,
                    modified: "2026-03-05 15:11:33 GMT".to_owned(),
                    checksum: Some((ChecksumAlgorithm::Crc32c, hasher.finish())),
                })
                .unwrap();
            match path.strip_prefix(TABLESPACE) {
                Some(inner) => member(&mut tablespace, inner, Some(content)),
                None => {
                    if path == "backup_label" {
                        for directory in ["pg_wal/", "pg_tblspc/", "global/"] {
                            member(&mut base, directory, None);
                        }
                    }
                    member(&mut base, path, Some(content));
                }
            }
        }
        stored(server, record, "16386.tar", Some(16386), &tablespace);
        stored(server, record, "base.tar", None, &base);
        let manifest = manifest.finish(&[]).unwrap();
        fs::write(server.backup(record.id).manifest(), &manifest).unwrap();
        record.manifest = Some(Manifest {
            origin: ManifestOrigin::Server,
            checksum_algorithm: Some("CRC32C".to_owned()),
            size: manifest.len() as u64,
            sha256: Sha256Sum::of(&manifest),
        });
    }

    fn save(&self) {
        self.record.save(&self.server.backup(self.record.id)).unwrap();
    }

    fn archive_wal(&self, timeline: u32, number: u32) {
        let path = self.server.archived(segment(timeline, number), Codec::None);
        durable::create_dir(path.parent().unwrap(), Access::Private).unwrap();
        fs::write(path, vec![u8::try_from(number).unwrap(); MIB as usize]).unwrap();
    }

    fn receive_wal(&self, timeline: u32, number: u32, length: usize) {
        let path = self.server.streaming_partial(segment(timeline, number));
        fs::write(path, vec![1; length]).unwrap();
    }

    fn history(&self, timeline: u32, content: &str) {
        let timeline = TimelineId::new(timeline).unwrap();
        let content = content.to_owned().into_bytes().into();
        HistoryStore::new(&self.server).put(&HistoryFile { timeline, content }).unwrap();
    }

    fn request(&self) -> Request {
        Request {
            backup: self.record.id.to_string(),
            destination: self.dir.path().join("data"),
            target: RecoveryTarget::Latest,
            timeline: TimelineChoice::Latest,
            inclusive: true,
            action: TargetAction::Promote,
            tablespaces: vec![TablespaceMapping {
                tablespace: "fast".to_owned(),
                directory: self.dir.path().join("fast"),
            }],
            owner: owner_name(),
            wal: WalDelivery::GetWal,
            suspect_wal: false,
            program: PathBuf::from("/bin/sh"),
            keys: None,
            lease: None,
            jobs: NonZeroUsize::MIN,
            standby: None,
            config: true,
        }
    }

    fn plan(&self, change: impl FnOnce(&mut Request)) -> Result<Plan, RestoreError> {
        let mut request = self.request();
        change(&mut request);
        let before = listing(self.dir.path());
        let planned = plan(&self.home, &"main".parse().unwrap(), &request, &|_, _| SERVED);
        assert_eq!(listing(self.dir.path()), before, "planning changes nothing");
        planned
    }

    fn refusal(&self, change: impl FnOnce(&mut Request)) -> RestoreError {
        let error = self.plan(change).unwrap_err();
        assert!(error.hint().is_some(), "{error}");
        error
    }
}

/// Root hands the files to somebody else; others keep them.
fn owner_name() -> Option<String> {
    Owner::current().is_root().then(|| "nobody".to_owned())
}

fn segment(timeline: u32, number: u32) -> SegmentName {
    format!("{timeline:08X}00000000{number:08X}").parse().unwrap()
}

fn lsn(text: &str) -> RecoveryTarget {
    RecoveryTarget::Lsn(text.parse().unwrap())
}

/// Every path below a directory, with its size.
fn listing(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            paths.extend(listing(&entry.path()));
        }
        paths.push((entry.path(), metadata.len()));
    }
    paths.sort();
    paths
}

#[test]
fn an_interrupted_restore_cannot_be_started_and_says_what_to_remove() {
    let store = Store::new();
    let plan = store.plan(|_| {}).unwrap();
    let interrupted = watch::channel(true).1;
    let error = execute(&plan, &Silent, &interrupted).unwrap_err();
    assert_eq!(error.class(), Class::Interrupted);
    let data = store.dir.path().join("data");
    assert!(error.hint().unwrap().contains(data.to_str().unwrap()));
    assert!(data.exists() && !data.join("global/pg_control").exists());
}

#[test]
fn a_backup_becomes_a_data_directory_that_recovers() {
    let store = Store::new();
    let plan = store.plan(|_| {}).unwrap();
    assert_eq!(plan.timeline, TimelineId::FIRST);
    assert_eq!(plan.wal.held_to, "0/3003E8".parse().unwrap());
    assert!(serde_json::to_string(&plan).unwrap().contains("\"restore_command\""));
    let report = execute(&plan, &Silent, &undisturbed()).unwrap();
    assert_eq!((report.files, report.wal_files), (8, 0));

    let data = store.dir.path().join("data");
    let read = |path: &str| fs::read_to_string(data.join(path)).unwrap();
    assert_eq!(read("global/pg_control"), "control");
    assert_eq!(read("backup_label"), "START WAL LOCATION");
    let fast = store.dir.path().canonicalize().unwrap().join("fast");
    assert_eq!(read("tablespace_map"), format!("16386 {}\n", fast.display()));
    assert_eq!(fs::read_link(data.join("pg_tblspc/16386")).unwrap(), fast);
    assert_eq!(read("pg_tblspc/16386/PG_15_202209061/5/16387"), "row");
    assert_eq!(read("recovery.signal"), "");
    assert!(!data.join("standby.signal").exists());
    let conf = read("postgresql.auto.conf");
    assert!(conf.starts_with("port = 5433\n# disabled by restore: primary_conninfo"), "{conf}");
    let home = store.home.path().display();
    let command = format!(
        "restore_command = '''/bin/sh'' --home ''{home}'' get-wal --partial ''main'' \"%f\" \"%p\"'"
    );
    assert!(conf.contains(&command), "{conf}");
    assert!(conf.ends_with("recovery_target_timeline = '1'\n"), "{conf}");
    for note in ["standby.signal", "primary_conninfo", "hba_file"] {
        assert!(report.notes.iter().any(|line| line.contains(note)), "{:?}", report.notes);
    }

    let leftovers = listing(&data);
    assert!(leftovers.iter().all(|(path, _)| !path.to_string_lossy().contains("restoring")));
    let metadata = fs::metadata(&data).unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o700);
    assert_eq!(metadata.uid(), plan.owner.uid);
    assert_eq!(fs::metadata(data.join("PG_VERSION")).unwrap().uid(), plan.owner.uid);
}

#[test]
fn wal_is_copied_up_to_the_padded_tail() {
    let store = Store::new();
    let plan = store.plan(|request| request.wal = WalDelivery::Copy).unwrap();
    let report = execute(&plan, &Silent, &undisturbed()).unwrap();
    assert_eq!(report.wal_files, 2);
    let wal = store.dir.path().join("data/pg_wal");
    let mut tail = vec![1; 1000];
    tail.resize(MIB as usize, 0);
    assert_eq!(fs::read(wal.join(segment(1, 3).to_string())).unwrap(), tail);
    assert_eq!(fs::read(wal.join(segment(1, 2).to_string())).unwrap(), vec![2; MIB as usize]);
    let conf = fs::read_to_string(store.dir.path().join("data/postgresql.auto.conf")).unwrap();
    assert!(conf.contains("restore_command = 'exit 1'\n"), "{conf}");
}

#[test]
fn a_damaged_backup_leaves_nothing_to_start_from() {
    let store = Store::new();
    let manifest = store.server.backup(store.record.id).manifest();
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"Size\": 7", "\"Size\": 8")).unwrap();
    let plan = store.plan(|_| {}).unwrap();
    let error = execute(&plan, &Silent, &undisturbed()).unwrap_err();
    assert!(matches!(error, RestoreError::Extract(ExtractError::Mismatch { .. })), "{error}");
    assert!(!store.dir.path().join("data/global/pg_control").exists());
    // And what is there now is not written over.
    let again = store.refusal(|_| {});
    assert!(matches!(again, RestoreError::Destination(DestinationError::NotEmpty { .. })));
    assert_eq!(again.class(), Class::Refused);
}

#[test]
fn without_checksums_of_files_that_of_the_archive_decides() {
    let mut store = Store::new();
    store.record.archives[1].stored_sha256 = Some(Sha256Sum::of(b"other"));
    store.save();
    let plan = store.plan(|_| {}).unwrap();
    execute(&plan, &Silent, &undisturbed()).unwrap();
    store.record.manifest.as_mut().unwrap().checksum_algorithm = None;
    store.save();
    let directories = |request: &mut Request, dir: &Path| {
        request.destination = dir.join("data2");
        request.tablespaces[0].directory = dir.join("fast2");
    };
    let plan = store.plan(|request| directories(request, store.dir.path())).unwrap();
    let error = execute(&plan, &Silent, &undisturbed()).unwrap_err();
    assert!(matches!(error, RestoreError::Extract(ExtractError::Altered { .. })), "{error}");
}

#[test]
fn backups_that_are_not_whole_are_refused() {
    let mut store = Store::new();
    let unknown = store.refusal(|request| request.backup = "20200101T000000".to_owned());
    assert_eq!(unknown.to_string(), "server `main` has no backup `20200101T000000`");
    assert_eq!(unknown.class(), Class::Failed);

    store.record.parent = Some("20200101T000000".parse().unwrap());
    store.save();
    assert!(matches!(store.refusal(|_| {}), RestoreError::BrokenChain { .. }));
    store.record.parent = None;
    store.record.outcome = BackupOutcome::Failed { error: "connection lost".to_owned() };
    store.save();
    let failed = store.refusal(|_| {}).to_string();
    assert_eq!(failed, "backup `20260305T151133` is not complete: connection lost");
    store.record.outcome = BackupOutcome::Started;
    store.save();
    assert!(matches!(store.refusal(|_| {}), RestoreError::Incomplete { .. }));
}

#[test]
fn wal_within_the_backup_must_be_there() {
    let mut store = Store::new();
    fs::remove_file(store.server.archived(segment(1, 2), Codec::None)).unwrap();
    // Later WAL is there: what is missing never comes.
    assert!(matches!(store.refusal(|_| {}), RestoreError::Broken { .. }));
    fs::remove_file(store.server.streaming_partial(segment(1, 3))).unwrap();
    assert!(matches!(store.refusal(|_| {}), RestoreError::WaitingForWal { .. }));
    store.record.done_at = Some(store.record.began_at);
    store.save();
    assert!(matches!(store.refusal(|_| {}), RestoreError::Broken { .. }));
}

#[test]
fn a_gap_behind_the_backup_closes_the_way() {
    let store = Store::new();
    store.archive_wal(1, 5);
    for target in [RecoveryTarget::Latest, lsn("0/500100"), lsn("0/3003E8")] {
        let error = store.refusal(|request| request.target = target.clone());
        assert!(matches!(error, RestoreError::WalGap { .. }), "{target}: {error}");
        assert_eq!(error.class(), Class::Refused);
        assert!(error.to_string().contains("0/3003E8"), "{error}");
    }
    for target in [RecoveryTarget::Immediate, lsn("0/300100"), RecoveryTarget::Xid(740)] {
        let plan = store.plan(|request| request.target = target).unwrap();
        assert!(plan.wal.gap_behind);
    }
}

#[test]
fn the_timeline_descends_from_that_of_the_backup() {
    let store = Store::new();
    // 1 → 2 behind the end of the backup; 3 left 1 before.
    store.history(2, "1\t0/300200\tr\n");
    store.history(3, "1\t0/200050\tr\n");
    store.history(4, "2\t0/300200\tr\n");
    store.receive_wal(2, 3, 2000);
    let timeline = |choice: &str| {
        let choice = choice.parse().unwrap();
        store.plan(|request| request.timeline = choice).map(|plan| plan.timeline.get())
    };
    assert_eq!(timeline("latest").unwrap(), 2);
    assert_eq!(timeline("current").unwrap(), 1);
    assert_eq!(timeline("2").unwrap(), 2);
    assert!(matches!(timeline("3"), Err(RestoreError::ForkedBeforeEnd { .. })));
    assert!(matches!(timeline("4"), Err(RestoreError::NotADescendant { .. })));
    assert!(matches!(timeline("5"), Err(RestoreError::History(_))));
    // What the WAL of timeline 2 goes on from, nobody knows.
    for history in [2, 4] {
        fs::remove_file(store.server.history(TimelineId::new(history).unwrap())).unwrap();
    }
    let error = timeline("latest").unwrap_err();
    assert!(error.to_string().contains("the history of timeline 2 is not stored"), "{error}");
    assert!(error.hint().unwrap().contains("--target-tli current"));
    // Where nothing descends, but the server went on elsewhere, the backup's own branch is dead.
    fs::remove_file(store.server.streaming_partial(segment(2, 3))).unwrap();
    assert!(matches!(timeline("latest"), Err(RestoreError::ForkedBeforeEnd { .. })));
    assert_eq!(timeline("current").unwrap(), 1);
    store.receive_wal(2, 3, 2000);
    store.history(2, "1\t0/300200\tr\n");
    let plan = store.plan(|_| {}).unwrap();
    assert_eq!(plan.wal.held_to, "0/3007D0".parse::<Lsn>().unwrap());
}

#[test]
fn a_timeline_without_stored_history_is_followed_as_the_servers_own() {
    let mut store = Store::new();
    let timeline = TimelineId::new(6).unwrap();
    for position in [&mut store.record.begin, &mut store.record.end] {
        position.as_mut().unwrap().timeline = timeline;
    }
    store.save();
    store.archive_wal(6, 2);
    let plan = store.plan(|_| {}).unwrap();
    let conf = recovery::to_conf(&plan.settings.auto_conf);
    assert!(conf.ends_with("recovery_target_timeline = 'current'\n"), "{conf}");
    assert!(plan.notes[0].contains("timeline 6"));
}

#[test]
fn places_that_would_not_do_are_refused() {
    let store = Store::new();
    let path = |name: &str| store.dir.path().join(name);
    let refused = |name: &str| {
        let destination = path(name);
        store.refusal(|request| request.destination = destination)
    };
    for (name, wanted) in
        [("home/main/data", "inside the store"), ("a/b", "does not exist"), (".", "is not empty")]
    {
        let error = refused(name);
        assert!(error.to_string().contains(wanted), "{error}");
        assert_eq!(error.class(), Class::Refused);
    }
    let nested = refused("fast");
    assert!(nested.to_string().contains("lie in one another"), "{nested}");

    let unmapped = store.refusal(|request| request.tablespaces.clear());
    assert!(matches!(&unmapped, RestoreError::TablespaceInPlace { .. }), "{unmapped}");
    assert!(unmapped.hint().unwrap().contains("--tablespace fast:"));
    let unknown = store.refusal(|request| request.tablespaces[0].tablespace = "slow".to_owned());
    assert_eq!(unknown.class(), Class::Usage);
    let full = path("home");
    let full = store.refusal(|request| request.tablespaces[0].directory = full);
    assert!(matches!(full, RestoreError::Destination(DestinationError::NotEmpty { .. })));
}

#[test]
fn the_server_must_be_able_to_run_and_to_read_its_wal() {
    let store = Store::new();
    let unknown = store.refusal(|request| request.owner = Some("no such user".to_owned()));
    assert!(matches!(unknown, RestoreError::UnknownOwner { .. }));
    let root = store.refusal(|request| request.owner = Some("root".to_owned()));
    assert!(matches!(root, RestoreError::RootOwner));
    let program = store.dir.path().join("absent");
    let program = store.refusal(|request| request.program = program);
    assert!(matches!(program, RestoreError::ProgramUnreachable { .. }));

    let request = store.request();
    let main: ServerName = "main".parse().unwrap();
    let planned = plan(&store.home, &main, &request, &|_, _| Served::default());
    if Owner::current().is_root() {
        // The store is root's, and 0700.
        let error = planned.unwrap_err();
        assert!(matches!(error, RestoreError::WalUnreadable { .. }), "{error}");
        assert!(error.hint().unwrap().contains("--no-get-wal"));
        let copied = Request { wal: WalDelivery::Copy, ..request };
        plan(&store.home, &main, &copied, &|_, _| Served::default()).unwrap();
    } else {
        planned.unwrap();
    }
}

/// A store whose second segment is encrypted, and an identity file with the key to it.
fn encrypted_store() -> (Store, age::x25519::Identity) {
    let store = Store::new();
    fs::remove_file(store.server.archived(segment(1, 2), Codec::None)).unwrap();
    let secret = store.archive_encrypted(2);
    (store, secret)
}

impl Store {
    /// Archives a segment of the first timeline; the key to it.
    fn archive_encrypted(&self, number: u32) -> age::x25519::Identity {
        use std::io::Write;

        let secret = age::x25519::Identity::generate();
        let packing = Packing::new(Method::new(Codec::Zstd, 1), &[secret.to_public().into()]);
        let segment = segment(1, number);
        let file = ArchivedWal { segment, partial: false, form: packing.form() };
        let path = self.server.archived_file(file);
        let mut writer =
            ArchivedWriter::create(&path, Access::Private, &packing, |file| file).unwrap();
        writer.write_all(&vec![u8::try_from(number).unwrap(); MIB as usize]).unwrap();
        writer.finish().unwrap().2.commit().unwrap();
        secret
    }

    fn identity_file(&self, name: &str, secret: &age::x25519::Identity) -> KeyFile {
        use age::secrecy::ExposeSecret;

        let path = self.dir.path().join(name);
        fs::write(&path, secret.to_string().expose_secret()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        KeyFile::new(path)
    }

    /// What a plan comes to with these keys and such a daemon.
    fn plan_with(
        &self,
        keys: Option<&KeyFile>,
        served: Served,
        change: impl FnOnce(&mut Request),
    ) -> Result<Plan, RestoreError> {
        let mut request = Request { keys: keys.cloned(), ..self.request() };
        change(&mut request);
        plan(&self.home, &"main".parse().unwrap(), &request, &|_, _| served)
    }
}

fn restore_command(plan: &Plan) -> String {
    recovery::to_conf(&plan.settings.auto_conf)
        .lines()
        .find(|line| line.starts_with("restore_command"))
        .unwrap()
        .to_owned()
}

#[test]
fn encrypted_wal_is_refused_beforehand_without_the_key() {
    let (store, secret) = encrypted_store();
    let right = store.identity_file("right", &secret);
    let wrong = store.identity_file("wrong", &age::x25519::Identity::generate());
    let copy = |request: &mut Request| request.wal = WalDelivery::Copy;

    let error = store.plan_with(None, SERVED, copy).unwrap_err();
    assert!(error.to_string().contains(".zst.age` is encrypted"), "{error}");
    assert_eq!(error.class(), Class::Refused);
    assert!(error.hint().unwrap().contains("--identity"));
    let error = store.plan_with(Some(&wrong), SERVED, copy).unwrap_err();
    assert!(error.to_string().starts_with("no identity in `"), "{error}");
    let plan = store.plan_with(Some(&right), SERVED, copy).unwrap();
    assert_eq!(execute(&plan, &Silent, &undisturbed()).unwrap().wal_files, 2);
    let copied = fs::read(store.dir.path().join("data/pg_wal").join(segment(1, 2).to_string()));
    assert!(copied.unwrap() == vec![2; MIB as usize]);
}

#[test]
fn a_restored_server_is_told_of_a_key_that_it_may_read() {
    let (store, secret) = encrypted_store();
    let right = store.identity_file("right", &secret);
    let everything = Served { wal: true, decrypts: true };
    let ask = |_: &mut Request| {};
    if !Owner::current().is_root() {
        // The server runs as the user who reads the store, and the key.
        let plan = store.plan_with(Some(&right), Served::default(), ask).unwrap();
        assert!(restore_command(&plan).contains("--identity"));
        assert!(store.plan_with(None, Served::default(), ask).is_err());
        return;
    }
    // The store is root's: the daemon hands WAL out, and must have the key.
    let error = store.plan_with(Some(&right), SERVED, ask).unwrap_err();
    assert!(matches!(error, RestoreError::DaemonWithoutKeys { .. }), "{error}");
    let plan = store.plan_with(None, everything, ask).unwrap();
    assert!(!restore_command(&plan).contains("--identity"));

    // Open to the server's user, who needs the key, too.
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for path in [store.home.path(), store.server.path()] {
        open(path, 0o755);
    }
    for path in [store.server.wals(), store.server.streaming(), store.server.state()] {
        open(&path, 0o755);
    }
    open(&store.server.identity(), 0o644);
    let error = store.plan_with(Some(&right), Served::default(), ask).unwrap_err();
    assert!(matches!(error, RestoreError::IdentityUnreadable { .. }), "{error}");
    assert_eq!(error.class(), Class::Refused);
    assert!(error.hint().is_some());
    let error = store.plan_with(None, SERVED, ask).unwrap_err();
    assert!(matches!(error, RestoreError::Decryption(DecryptionError::NoKeys { .. })), "{error}");
    // The daemon may have what is missing.
    store.plan_with(Some(&right), everything, ask).unwrap();

    let nobody = Owner::by_name("nobody").unwrap();
    std::os::unix::fs::chown(right.path(), Some(nobody.uid), Some(nobody.gid)).unwrap();
    let plan = store.plan_with(Some(&right), Served::default(), ask).unwrap();
    let expected = format!("--identity ''{}''", right.path().display());
    assert!(restore_command(&plan).contains(&expected), "{}", restore_command(&plan));
    assert!(plan.notes.iter().any(|note| note.contains("decrypts its WAL with")));
    let wrong = store.identity_file("wrong", &age::x25519::Identity::generate());
    std::os::unix::fs::chown(wrong.path(), Some(nobody.uid), Some(nobody.gid)).unwrap();
    assert!(store.plan_with(Some(&wrong), Served::default(), ask).is_err());
}

#[test]
fn an_encrypted_backup_is_decrypted_or_refused_beforehand() {
    use std::io::Write;

    let mut store = Store::new();
    let secret = age::x25519::Identity::generate();
    let packing = Packing::new(Method::new(Codec::None, 0), &[secret.to_public().into()]);
    let backup = store.server.backup(store.record.id);
    for archive in &mut store.record.archives {
        let path = backup.archive(&archive.name, archive.form());
        let zstd = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        archive.encrypted = true;
        let path = backup.archive(&archive.name, archive.form());
        let mut writer =
            ArchivedWriter::create(&path, Access::Private, &packing, |file| file).unwrap();
        writer.write_all(&zstd).unwrap();
        writer.finish().unwrap().2.commit().unwrap();
    }
    store.save();
    let error = store.plan_with(None, SERVED, |_| {}).unwrap_err();
    assert!(error.to_string().contains("16386.tar.zst.age` is encrypted"), "{error}");
    let right = store.identity_file("right", &secret);
    let plan = store.plan_with(Some(&right), SERVED, |_| {}).unwrap();
    assert_eq!(execute(&plan, &Silent, &undisturbed()).unwrap().files, 8);
    assert_eq!(fs::read(store.dir.path().join("data/PG_VERSION")).unwrap(), b"15\n");
}

#[test]
fn a_record_that_disagrees_with_its_archives_is_refused() {
    let mut store = Store::new();
    store.record.tablespaces.clear();
    store.save();
    let plan = store.plan(|request| request.tablespaces.clear()).unwrap();
    let error = execute(&plan, &Silent, &undisturbed()).unwrap_err();
    assert!(matches!(error, RestoreError::TablespaceMap { .. }), "{error}");
}
