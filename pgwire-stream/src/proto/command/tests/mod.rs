//! What is sent, and that it is read as it was meant.

#[cfg(feature = "server")]
mod parse;

use super::*;
use crate::Unsupported;

const fn version(major: u32) -> ServerVersion {
    ServerVersion::from_num(major * 10_000)
}

fn slot() -> SlotName {
    "walrecv".parse().unwrap()
}

fn physical(options: PhysicalSlot) -> Command {
    Command::CreatePhysicalSlot { slot: slot(), options }
}

fn logical(change: impl FnOnce(&mut LogicalSlot)) -> Command {
    let mut options = LogicalSlot::new("pgoutput");
    change(&mut options);
    Command::CreateLogicalSlot { slot: slot(), options }
}

fn backup(change: impl FnOnce(&mut BaseBackupOptions)) -> Command {
    // Nothing that any server lacks.
    let mut options = BaseBackupOptions { manifest: None, ..BaseBackupOptions::default() };
    change(&mut options);
    Command::BaseBackup(options)
}

fn compressed(compression: ServerCompression) -> Command {
    backup(|options| options.compression = Some(compression))
}

fn text(command: &Command, major: u32) -> String {
    command.text(version(major)).unwrap()
}

#[test]
fn slots_are_created_in_each_grammar() {
    let reserved = physical(PhysicalSlot { temporary: false, reserve_wal: true });
    assert_eq!(text(&reserved, 14), "CREATE_REPLICATION_SLOT \"walrecv\" PHYSICAL RESERVE_WAL");
    assert_eq!(text(&reserved, 15), "CREATE_REPLICATION_SLOT \"walrecv\" PHYSICAL (RESERVE_WAL)");
    let temporary = physical(PhysicalSlot { temporary: true, reserve_wal: false });
    assert_eq!(text(&temporary, 14), "CREATE_REPLICATION_SLOT \"walrecv\" TEMPORARY PHYSICAL");

    let begin = "CREATE_REPLICATION_SLOT \"walrecv\" LOGICAL \"pgoutput\"";
    for (snapshot, keyword, value) in [
        (Snapshot::Export, "EXPORT_SNAPSHOT", "export"),
        (Snapshot::Use, "USE_SNAPSHOT", "use"),
        (Snapshot::Nothing, "NOEXPORT_SNAPSHOT", "nothing"),
    ] {
        let command = logical(|options| options.snapshot = snapshot);
        assert_eq!(text(&command, 10), format!("{begin} {keyword}"));
        assert_eq!(text(&command, 15), format!("{begin} (SNAPSHOT '{value}')"));
    }
    let command = logical(|options| {
        (options.temporary, options.two_phase, options.failover) = (true, true, true);
    });
    assert_eq!(
        text(&command, 17),
        "CREATE_REPLICATION_SLOT \"walrecv\" TEMPORARY LOGICAL \"pgoutput\" \
         (SNAPSHOT 'nothing', TWO_PHASE, FAILOVER)"
    );
    let exported = logical(|options| options.snapshot = Snapshot::Export);
    assert_eq!(exported.text(ServerVersion::from_num(90600)).unwrap(), begin);
}

#[test]
fn slots_are_read_altered_and_dropped() {
    assert_eq!(text(&Command::ReadSlot(slot()), 15), "READ_REPLICATION_SLOT \"walrecv\"");
    let changes = AlterSlot { failover: Some(true), two_phase: Some(false) };
    assert_eq!(
        text(&Command::AlterSlot { slot: slot(), changes }, 18),
        "ALTER_REPLICATION_SLOT \"walrecv\" (FAILOVER true, TWO_PHASE false)"
    );
    let nothing = Command::AlterSlot { slot: slot(), changes: AlterSlot::default() };
    assert!(matches!(nothing.text(version(18)), Err(Error::Misuse(_))));
    let drop = |active| text(&Command::DropSlot { slot: slot(), active }, 10);
    assert_eq!(drop(DropSlot::FailIfActive), "DROP_REPLICATION_SLOT \"walrecv\"");
    assert_eq!(drop(DropSlot::Wait), "DROP_REPLICATION_SLOT \"walrecv\" WAIT");
}

#[test]
fn streaming_names_slot_position_timeline_and_options() {
    let mut start = StartReplication::new(Lsn::from_u64(0x0300_0000));
    assert_eq!(text(&start.command(), 10), "START_REPLICATION PHYSICAL 0/3000000");
    start.slot = Some(slot());
    start.timeline = TimelineId::new(2);
    assert_eq!(
        text(&start.command(), 19),
        "START_REPLICATION SLOT \"walrecv\" PHYSICAL 0/3000000 TIMELINE 2"
    );

    let mut start = StartLogical::new(slot());
    assert_eq!(text(&start.command(), 10), "START_REPLICATION SLOT \"walrecv\" LOGICAL 0/0");
    start.options = vec![
        ("proto_version".into(), Some("1".into())),
        ("publication_names".into(), Some(r#""it's""#.into())),
        ("binary".into(), None),
    ];
    assert_eq!(
        text(&start.command(), 10),
        "START_REPLICATION SLOT \"walrecv\" LOGICAL 0/0 (\"proto_version\" '1', \
         \"publication_names\" '\"it''s\"', \"binary\")"
    );
}

#[test]
fn base_backups_are_asked_for_in_both_grammars() {
    let command = backup(|options| {
        options.label = "it's\nnight".into();
        options.fast_checkpoint = true;
        options.max_rate_kb = Some(10_240);
        options.manifest = Some(ManifestChecksums::default());
    });
    assert_eq!(
        text(&command, 15),
        "BASE_BACKUP (LABEL 'it''snight', PROGRESS true, CHECKPOINT 'fast', WAL false, \
         WAIT false, TABLESPACE_MAP true, VERIFY_CHECKSUMS true, MAX_RATE 10240, MANIFEST 'yes', \
         MANIFEST_CHECKSUMS 'CRC32C')"
    );
    assert_eq!(
        text(&command, 14),
        "BASE_BACKUP LABEL 'it''snight' PROGRESS FAST NOWAIT TABLESPACE_MAP MAX_RATE 10240 \
         MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'"
    );
    let command = backup(|options| {
        (options.wal, options.wait, options.progress, options.verify_checksums) =
            (true, true, false, false);
        options.manifest = Some(ManifestChecksums::None);
        options.force_encode = true;
    });
    assert_eq!(
        text(&command, 15),
        "BASE_BACKUP (LABEL 'base backup', PROGRESS false, CHECKPOINT 'spread', WAL true, \
         WAIT true, TABLESPACE_MAP true, VERIFY_CHECKSUMS false, MANIFEST 'force-encode', \
         MANIFEST_CHECKSUMS 'NONE')"
    );
    assert_eq!(
        text(&command, 13),
        "BASE_BACKUP LABEL 'base backup' WAL TABLESPACE_MAP NOVERIFY_CHECKSUMS \
         MANIFEST 'force-encode' MANIFEST_CHECKSUMS 'NONE'"
    );
    let unverified = backup(|options| options.verify_checksums = false);
    assert!(text(&unverified, 11).contains("NOVERIFY_CHECKSUMS"));
    assert!(!text(&unverified, 10).contains("CHECKSUMS"));
}

#[test]
fn base_backups_are_compressed_and_sent_elsewhere() {
    let end = |command: &Command| {
        let text = text(command, 17);
        text.split_once("VERIFY_CHECKSUMS true").unwrap().1.to_owned()
    };
    assert_eq!(end(&compressed(ServerCompression::Gzip { level: None })), ", COMPRESSION 'gzip')");
    assert_eq!(
        end(&compressed(ServerCompression::Lz4 { level: Some(3) })),
        ", COMPRESSION 'lz4', COMPRESSION_DETAIL 'level=3')"
    );
    assert_eq!(
        end(&compressed(ServerCompression::Zstd { level: Some(-5), workers: Some(2), long: true })),
        ", COMPRESSION 'zstd', COMPRESSION_DETAIL 'level=-5,workers=2,long')"
    );
    for (target, expected) in [
        (BackupTarget::Client, ")"),
        (BackupTarget::Server("/it's".into()), ", TARGET 'server', TARGET_DETAIL '/it''s')"),
        (BackupTarget::Blackhole, ", TARGET 'blackhole')"),
        (
            BackupTarget::Extension { name: "shell".into(), detail: Some("x".into()) },
            ", TARGET 'shell', TARGET_DETAIL 'x')",
        ),
    ] {
        assert_eq!(end(&backup(|options| options.target = target)), expected);
    }
    let incremental = backup(|options| options.incremental = true);
    assert_eq!(end(&incremental), ", INCREMENTAL true)");
}

#[test]
fn what_no_server_accepts_is_not_sent() {
    for wrong in [
        backup(|options| options.max_rate_kb = Some(31)),
        backup(|options| options.max_rate_kb = Some(1_048_577)),
        logical(|options| options.plugin = "a\"b".into()),
        logical(|options| options.plugin = String::new()),
        Command::Show("a; DROP".into()),
        Command::StartLogicalReplication {
            slot: slot(),
            from: Lsn::ZERO,
            options: vec![("\"".into(), None)],
        },
    ] {
        assert!(matches!(wrong.text(version(18)), Err(Error::Misuse(_))), "{wrong:?}");
    }
}

#[test]
fn labels_are_cut_where_the_server_would_refuse_them() {
    let long = text(&backup(|options| options.label = "ä".repeat(600)), 15);
    assert_eq!(long.matches('ä').count(), 512);
}

/// A version that has a feature, and the one before it; each with a command that needs it.
#[test]
fn every_feature_is_refused_by_the_version_before_it() {
    let zstd = |long| ServerCompression::Zstd { level: None, workers: None, long };
    let alter = |changes| Command::AlterSlot { slot: slot(), changes };
    let failover = AlterSlot { failover: Some(true), two_phase: None };
    let two_phase = AlterSlot { failover: None, two_phase: Some(true) };
    let target = |target| backup(|options| options.target = target);
    for (command, needs, before) in [
        (physical(PhysicalSlot { temporary: false, reserve_wal: true }), 90_600, 90_500),
        (physical(PhysicalSlot { temporary: true, reserve_wal: false }), 100_000, 90_624),
        (Command::Show("wal_level".into()), 100_000, 90_624),
        (Command::Sql("SELECT 1".into()), 100_000, 90_624),
        (Command::DropSlot { slot: slot(), active: DropSlot::Wait }, 100_000, 90_624),
        (logical(|_| {}), 100_000, 90_624),
        (logical(|options| options.snapshot = Snapshot::Use), 100_000, 90_624),
        (backup(|o| o.manifest = Some(ManifestChecksums::None)), 130_000, 120_022),
        (Command::ReadSlot(slot()), 150_000, 140_023),
        (logical(|options| options.two_phase = true), 150_000, 140_023),
        (target(BackupTarget::Server("/b".into())), 150_000, 140_023),
        (target(BackupTarget::Blackhole), 150_000, 140_023),
        (compressed(ServerCompression::Gzip { level: None }), 150_000, 140_023),
        (compressed(zstd(false)), 150_000, 140_023),
        (compressed(zstd(true)), 160_000, 150_020),
        (logical(|options| options.failover = true), 170_000, 160_014),
        (alter(failover), 170_000, 160_014),
        (backup(|options| options.incremental = true), 170_000, 160_014),
        (Command::UploadManifest, 170_000, 160_014),
        (alter(two_phase), 180_000, 170_011),
    ] {
        let (needs, have) = (ServerVersion::from_num(needs), ServerVersion::from_num(before));
        assert!(command.text(needs).is_ok(), "{command:?}");
        match command.text(have) {
            Err(Error::Unsupported(Unsupported { needs: named, have: of, .. })) => {
                assert_eq!((named, of), (needs, have), "{command:?}");
            }
            other => panic!("{command:?}: {other:?}"),
        }
    }
}
