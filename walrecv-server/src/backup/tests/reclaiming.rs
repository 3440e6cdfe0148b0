//! What is left of backups that failed, and of those that nobody ended.

use super::*;
use crate::catalog::BackupOutcome;
use crate::storage::ServerDir;

fn server(home: &Path) -> ServerDir {
    Home::new(home, Access::Private).server(&"main".parse().unwrap())
}

fn identity() -> Identity {
    Identity {
        system_id: SYSTEM,
        segment_size: pgwire_stream::SegmentSize::DEFAULT,
        server_version: pgwire_stream::ServerVersion::from_num(150_020),
        data_checksums: None,
    }
}

fn settings() -> ServerSettings {
    let conninfo = crate::settings::ConnInfo::new("host=db1");
    ServerSettings::new("main".parse().unwrap(), conninfo, "walrecv".parse().unwrap())
}

#[test]
fn a_failed_backup_keeps_its_record_alone() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    let (_lock, backup, record) = begin(&server, &settings(), None, &identity()).unwrap();
    store(&backup, Codec::Zstd, Cluster::new(true).events(20_000, true)).unwrap();
    reclaim::fail(&server, record, "connection lost".to_owned()).unwrap();
    assert_eq!(names(&backup), ["backup.json"]);
    let record = BackupRecord::load(&backup).unwrap().unwrap();
    assert_eq!(record.outcome, BackupOutcome::Failed { error: "connection lost".to_owned() });
    assert!(record.ended_at.is_some());
}

#[test]
fn the_next_backup_settles_what_a_dead_process_left() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    let (lock, left, _) = begin(&server, &settings(), None, &identity()).unwrap();
    fs::write(left.path().join("base.tar.zst"), "some").unwrap();
    fs::write(left.path().join(".16386.tar.zst.tmp"), "more").unwrap();
    drop(lock);

    let (lock, good, mut record) = begin(&server, &settings(), None, &identity()).unwrap();
    assert_ne!(good.id(), left.id());
    assert_eq!(names(&left), ["backup.json"]);
    let settled = BackupRecord::load(&left).unwrap().unwrap();
    assert!(matches!(settled.outcome, BackupOutcome::Failed { .. }));

    store(&good, Codec::Zstd, Cluster::new(true).events(20_000, true)).unwrap();
    record.outcome = BackupOutcome::Copied;
    record.save(&good).unwrap();
    drop(lock);
    let complete = names(&good);
    begin(&server, &settings(), None, &identity()).unwrap();
    assert_eq!(names(&good), complete);
    assert_eq!(complete.len(), 6);
}

#[test]
fn what_died_before_it_had_a_record_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    drop(begin(&server, &settings(), None, &identity()).unwrap());
    let begun = server.base().join(".20260305T151133.hidden");
    let strange = server.base().join("20260305T151200");
    for (directory, file) in [(&begun, ".backup.json.tmp"), (&strange, "base.tar")] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join(file), "").unwrap();
    }
    drop(begin(&server, &settings(), None, &identity()).unwrap());
    assert!(!begun.exists());
    assert!(strange.join("base.tar").exists(), "nobody knows what it is");
}

#[test]
fn one_backup_of_a_server_at_a_time() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    let _first = begin(&server, &settings(), None, &identity()).unwrap();
    let second = begin(&server, &settings(), None, &identity());
    assert!(matches!(second.map(|_| ()), Err(BackupError::Lock(_))));
}

#[test]
fn a_foreign_server_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    drop(begin(&server, &settings(), None, &identity()).unwrap());
    let before = durable::list_dir(&server.base()).unwrap();
    let foreign = Identity { system_id: SystemId::from_u64(8), ..identity() };
    let refused = begin(&server, &settings(), None, &foreign);
    assert!(matches!(refused.map(|_| ()), Err(BackupError::Identity(_))));
    assert_eq!(durable::list_dir(&server.base()).unwrap(), before);
}
