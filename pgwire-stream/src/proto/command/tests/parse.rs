//! Commands are read as PostgreSQL reads them, and what is written is read as it was meant.

use proptest::option;
use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Command {
    Command::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The SQLSTATE with which the text is refused.
fn refused(text: &str) -> &'static str {
    match Command::parse(text) {
        Err(error) => error.sql_state(),
        Ok(command) => panic!("{text}: {command:?}"),
    }
}

#[test]
fn keywords_are_upper_case_and_everything_else_is_sql() {
    assert_eq!(parse(" IDENTIFY_SYSTEM ; "), Command::IdentifySystem);
    for sql in ["identify_system", "SELECT 1", "", "-- SHOW", "\"SHOW\" x", "SHOWx", "(SELECT 1)"] {
        assert_eq!(parse(sql), Command::Sql(sql.into()));
    }
    for wrong in
        ["IDENTIFY_SYSTEM;;", "IDENTIFY_SYSTEM x", "IDENTIFY_SYSTEM; SELECT 1", "SHOW", "SHOW SLOT"]
    {
        assert_eq!(refused(wrong), "42601");
    }
    assert_eq!(parse("SHOW Wal_Level"), Command::Show("wal_level".into()));
    assert_eq!(parse("SHOW \"My\" . ext"), Command::Show("my.ext".into()));
}

#[test]
fn what_is_left_out_has_the_servers_default() {
    let server = BaseBackupOptions {
        wait: true,
        progress: false,
        tablespace_map: false,
        manifest: None,
        ..BaseBackupOptions::default()
    };
    assert_eq!(parse("BASE_BACKUP"), Command::BaseBackup(server.clone()));
    assert_eq!(
        parse("BASE_BACKUP (MANIFEST yes)"),
        Command::BaseBackup(BaseBackupOptions {
            manifest: Some(ManifestChecksums::Crc32c),
            ..server
        })
    );
    assert_eq!(
        parse("CREATE_REPLICATION_SLOT Walrecv LOGICAL pgoutput"),
        logical(|options| options.snapshot = Snapshot::Export)
    );
    assert_eq!(
        parse("START_REPLICATION 0/03000000"),
        StartReplication::new(Lsn::from_u64(0x0300_0000)).command()
    );
}

#[test]
fn the_names_of_options_are_folded_unless_they_are_quoted() {
    let text = "BASE_BACKUP (\"label\" 'it''s', Progress, WAIT off, wal true, checkpoint FAST, \
                max_rate 32)";
    let Command::BaseBackup(options) = parse(text) else { panic!() };
    assert_eq!((options.label.as_str(), options.max_rate_kb), ("it's", Some(32)));
    assert!(options.progress && !options.wait && options.wal && options.fast_checkpoint);
    assert_eq!(refused("BASE_BACKUP (\"LABEL\" 'a')"), "42601");
}

#[test]
fn slots_are_read_in_every_grammar() {
    for text in [
        "CREATE_REPLICATION_SLOT walrecv PHYSICAL RESERVE_WAL",
        "CREATE_REPLICATION_SLOT \"walrecv\" PHYSICAL (reserve_wal 1)",
        "CREATE_REPLICATION_SLOT WALRECV PHYSICAL (RESERVE_WAL 'ON');",
    ] {
        let reserved = PhysicalSlot { temporary: false, reserve_wal: true };
        assert_eq!(parse(text), physical(reserved), "{text}");
    }
    assert_eq!(
        parse("CREATE_REPLICATION_SLOT walrecv LOGICAL pgoutput TWO_PHASE USE_SNAPSHOT"),
        logical(|options| {
            (options.two_phase, options.snapshot) = (true, Snapshot::Use);
        })
    );
    for wrong in [
        "CREATE_REPLICATION_SLOT walrecv",
        "CREATE_REPLICATION_SLOT walrecv PHYSICAL ()",
        "CREATE_REPLICATION_SLOT walrecv PHYSICAL (RESERVE_WAL yes)",
        "CREATE_REPLICATION_SLOT walrecv PHYSICAL (RESERVE_WAL, RESERVE_WAL)",
        "CREATE_REPLICATION_SLOT walrecv PHYSICAL (FAILOVER)",
        "CREATE_REPLICATION_SLOT walrecv PHYSICAL USE_SNAPSHOT",
        "CREATE_REPLICATION_SLOT walrecv LOGICAL p RESERVE_WAL",
        "CREATE_REPLICATION_SLOT walrecv LOGICAL p EXPORT_SNAPSHOT USE_SNAPSHOT",
        "CREATE_REPLICATION_SLOT SLOT PHYSICAL",
        "ALTER_REPLICATION_SLOT walrecv",
        "ALTER_REPLICATION_SLOT walrecv (FAILOVER true,)",
        "ALTER_REPLICATION_SLOT walrecv (FAILOVER 2)",
        "TIMELINE_HISTORY 0",
        "TIMELINE_HISTORY 4294967296",
        "START_REPLICATION LOGICAL 0/0",
        "START_REPLICATION SLOT walrecv LOGICAL 0/0 ()",
        "START_REPLICATION PHYSICAL 0/0 TIMELINE 0",
        "START_REPLICATION PHYSICAL 123456789/0",
    ] {
        assert_eq!(refused(wrong), "42601", "{wrong}");
    }
    assert_eq!(refused("READ_REPLICATION_SLOT \"Walrecv\""), "42602");
    assert_eq!(refused("CREATE_REPLICATION_SLOT s LOGICAL p (SNAPSHOT 'USE')"), "22023");
}

#[test]
fn impossible_base_backups_are_refused_as_the_server_does() {
    for wrong in [
        "BASE_BACKUP ()",
        "BASE_BACKUP (LABEL 'a', LABEL 'b')",
        "BASE_BACKUP (LABEL 'a') FAST",
        "BASE_BACKUP (NOWAIT)",
        "BASE_BACKUP (MAX_RATE '1024')",
        "BASE_BACKUP (PROGRESS yes)",
        "BASE_BACKUP (MANIFEST)",
        "BASE_BACKUP (MANIFEST maybe)",
        "BASE_BACKUP (MANIFEST_CHECKSUMS 'SHA256')",
        "BASE_BACKUP (MANIFEST yes, MANIFEST_CHECKSUMS 'MD5')",
        "BASE_BACKUP (CHECKPOINT now)",
        "BASE_BACKUP (TARGET 'server')",
        "BASE_BACKUP (TARGET_DETAIL '/b')",
        "BASE_BACKUP (TARGET 'blackhole', TARGET_DETAIL '/b')",
        "BASE_BACKUP (COMPRESSION 'bzip2')",
        "BASE_BACKUP (COMPRESSION_DETAIL '3')",
        "BASE_BACKUP (COMPRESSION none, COMPRESSION_DETAIL '3')",
        "BASE_BACKUP (COMPRESSION gzip, COMPRESSION_DETAIL 'workers=2')",
        "BASE_BACKUP (COMPRESSION lz4, COMPRESSION_DETAIL 'long')",
        "BASE_BACKUP (COMPRESSION zstd, COMPRESSION_DETAIL 'level=')",
        "BASE_BACKUP (COMPRESSION zstd, COMPRESSION_DETAIL 'long=true')",
        "BASE_BACKUP (COMPRESSION zstd, COMPRESSION_DETAIL 'fast')",
        "BASE_BACKUP LABEL",
        "BASE_BACKUP LABEL 'a', FAST",
        "BASE_BACKUP FAST FAST",
        "BASE_BACKUP SPREAD",
        "BASE_BACKUP MAX_RATE '1024'",
    ] {
        assert_eq!(refused(wrong), "42601", "{wrong}");
    }
    assert_eq!(refused("BASE_BACKUP MAX_RATE 31"), "22003");
    assert_eq!(refused(&format!("BASE_BACKUP (LABEL '{}')", "x".repeat(1025))), "22023");
    let flood = "x,".repeat(1 << 20);
    assert_eq!(refused(&format!("BASE_BACKUP ({flood})")), "42601");
}

#[test]
fn compression_is_detailed_in_many_ways() {
    for (detail, expected) in [
        ("'3'", (Some(3), None, false)),
        ("3", (Some(3), None, false)),
        ("'-7'", (Some(-7), None, false)),
        ("'workers=2,level=1'", (Some(1), Some(2), false)),
        ("'long=1'", (None, None, true)),
        ("'long,long=off'", (None, None, false)),
    ] {
        let text = format!("BASE_BACKUP (COMPRESSION 'zstd', COMPRESSION_DETAIL {detail})");
        let Command::BaseBackup(options) = parse(&text) else { panic!() };
        let (level, workers, long) = expected;
        let expected = ServerCompression::Zstd { level, workers, long };
        assert_eq!(options.compression, Some(expected), "{text}");
    }
}

fn slot_name() -> impl Strategy<Value = SlotName> {
    "[a-z0-9_]{1,63}".prop_map(|name| name.parse().unwrap())
}

fn lsn() -> impl Strategy<Value = Lsn> {
    any::<u64>().prop_map(Lsn::from_u64)
}

fn timeline() -> impl Strategy<Value = TimelineId> {
    (1..=u32::MAX).prop_map(|timeline| TimelineId::new(timeline).unwrap())
}

/// Any text that a name in double quotes can be.
fn name() -> impl Strategy<Value = String> {
    "[^\"\0]{1,15}"
}

fn compression() -> impl Strategy<Value = ServerCompression> {
    let level = || option::of(any::<i32>());
    prop_oneof![
        level().prop_map(|level| ServerCompression::Gzip { level }),
        level().prop_map(|level| ServerCompression::Lz4 { level }),
        (level(), option::of(any::<u32>()), any::<bool>()).prop_map(|(level, workers, long)| {
            ServerCompression::Zstd { level, workers, long }
        }),
    ]
}

fn target() -> impl Strategy<Value = BackupTarget> {
    prop_oneof![
        Just(BackupTarget::Client),
        Just(BackupTarget::Blackhole),
        "[^\0]*".prop_map(BackupTarget::Server),
        // None of PostgreSQL's own.
        ("x[^\0]*", option::of("[^\0]*"))
            .prop_map(|(name, detail)| BackupTarget::Extension { name, detail }),
    ]
}

prop_compose! {
    fn base_backup()(
        label in "[^\\p{Cc}]{0,200}",
        flags in any::<[bool; 8]>(),
        max_rate_kb in option::of(32u32..=1_048_576),
        manifest in option::of(proptest::sample::select(&ManifestChecksums::ALL[..])),
        compression in option::of(compression()),
        target in target(),
    ) -> BaseBackupOptions {
        let [fast_checkpoint, wal, wait, progress, tablespace_map, force_encode, verify_checksums,
            incremental] = flags;
        BaseBackupOptions {
            label,
            fast_checkpoint,
            wal,
            wait,
            progress,
            max_rate_kb,
            tablespace_map,
            manifest,
            // Without a manifest it means nothing.
            force_encode: force_encode && manifest.is_some(),
            verify_checksums,
            compression,
            target,
            incremental,
        }
    }
}

prop_compose! {
    /// A backup that an old server can make, too.
    fn plain_backup()(backup in base_backup(), manifest in any::<bool>()) -> BaseBackupOptions {
        let manifest = backup.manifest.filter(|_| manifest);
        BaseBackupOptions {
            manifest,
            force_encode: backup.force_encode && manifest.is_some(),
            verify_checksums: true,
            compression: None,
            target: BackupTarget::Client,
            incremental: false,
            ..backup
        }
    }
}

prop_compose! {
    fn logical_slot()(
        plugin in name(),
        flags in any::<[bool; 3]>(),
        snapshot in prop_oneof![
            Just(Snapshot::Export), Just(Snapshot::Use), Just(Snapshot::Nothing)
        ],
    ) -> LogicalSlot {
        let [temporary, two_phase, failover] = flags;
        LogicalSlot { plugin, temporary, snapshot, two_phase, failover }
    }
}

fn command() -> impl Strategy<Value = Command> {
    let flag = any::<bool>;
    prop_oneof![
        Just(Command::IdentifySystem),
        Just(Command::UploadManifest),
        "[a-z_][a-z0-9_$]{0,20}(\\.[a-z_][a-z0-9_$]{0,20})?".prop_map(Command::Show),
        timeline().prop_map(Command::TimelineHistory),
        (slot_name(), flag(), flag()).prop_map(|(slot, temporary, reserve_wal)| {
            let options = PhysicalSlot { temporary, reserve_wal };
            Command::CreatePhysicalSlot { slot, options }
        }),
        (slot_name(), logical_slot())
            .prop_map(|(slot, options)| Command::CreateLogicalSlot { slot, options }),
        slot_name().prop_map(Command::ReadSlot),
        (slot_name(), option::of(flag()), option::of(flag())).prop_map(
            |(slot, failover, two_phase)| {
                let changes = AlterSlot { failover, two_phase };
                Command::AlterSlot { slot, changes }
            }
        ),
        (slot_name(), flag()).prop_map(|(slot, wait)| {
            let active = if wait { DropSlot::Wait } else { DropSlot::FailIfActive };
            Command::DropSlot { slot, active }
        }),
        (option::of(slot_name()), lsn(), option::of(timeline()))
            .prop_map(|(slot, from, timeline)| Command::StartReplication { slot, from, timeline }),
        (slot_name(), lsn(), proptest::collection::vec((name(), option::of("[^\0]*")), 0..5))
            .prop_map(|(slot, from, options)| Command::StartLogicalReplication {
                slot,
                from,
                options
            }),
        base_backup().prop_map(Command::BaseBackup),
        plain_backup().prop_map(Command::BaseBackup),
        "[a-z(][^\0]*".prop_map(Command::Sql),
    ]
}

proptest! {
    #[test]
    fn what_is_written_for_any_version_is_read_as_it_was_meant(
        mut command in command(),
        major in 10..=19u32,
    ) {
        if let Command::BaseBackup(options) = &mut command {
            // A server that verifies none is not told that it need not.
            options.verify_checksums |= major < 11;
        }
        match command.text(version(major)) {
            Ok(text) => prop_assert_eq!(Command::parse(&text), Ok(command), "{}", text),
            // A name of too many bytes, or nothing to alter.
            Err(Error::Misuse(_)) => {}
            Err(Error::Unsupported(unsupported)) => {
                prop_assert!(unsupported.needs > version(major));
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn the_newest_version_lacks_nothing(command in command()) {
        prop_assert!(!matches!(command.text(version(19)), Err(Error::Unsupported(_))));
    }

    #[test]
    fn nothing_panics(text in ".*", word in 0..10usize) {
        let _ = Command::parse(&text);
        let commands = ["SHOW", "BASE_BACKUP", "BASE_BACKUP (", "CREATE_REPLICATION_SLOT a LOGICAL",
            "START_REPLICATION", "START_REPLICATION SLOT a LOGICAL 0/0 (", "TIMELINE_HISTORY",
            "ALTER_REPLICATION_SLOT a (", "BASE_BACKUP (COMPRESSION zstd, COMPRESSION_DETAIL",
            "DROP_REPLICATION_SLOT"];
        let _ = Command::parse(&format!("{} {text}", commands[word]));
    }
}
