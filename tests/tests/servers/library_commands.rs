//! Commands of the library and their options on every major, and what a major lacks.

use std::time::Duration;

use futures::stream;
use pgwire_stream::proto::Command;
use pgwire_stream::{
    AlterSlot, BackupTarget, BaseBackupOptions, CompressionMethod, Config, CreatedSlot, DropSlot,
    Error, Feature, LogicalSlot, Lsn, ManifestChecksums, PhysicalSlot, ReplicationClient,
    ServerCompression, SlotName, SlotPosition, Snapshot,
};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation};

use crate::runtime::block_on;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .every_major("library_physical_slots_with_every_option", physical_slots)
        .every_major("library_logical_slots_with_every_option", logical_slots)
        .every_major("library_refuses_what_the_server_lacks", unsupported)
        .per_major("library_reads_commands_as_the_server_does", &[17, 18, 19], reads_commands)
}

type AnyResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

async fn physical(cluster: &Cluster) -> pgwire_stream::Result<ReplicationClient> {
    let config: Config = cluster.superuser_conninfo().parse()?;
    ReplicationClient::connect(&config).await
}

async fn database(cluster: &Cluster) -> pgwire_stream::Result<ReplicationClient> {
    let config: Config = cluster.superuser_conninfo().parse()?;
    ReplicationClient::connect_database(&config).await
}

/// The one value that the SQL gives, on a connection of its own; NULL is empty.
async fn value(cluster: &Cluster, sql: &str) -> pgwire_stream::Result<String> {
    let mut client = database(cluster).await?;
    let result = client.query(sql).await?;
    client.close().await?;
    Ok(result.single().unwrap_or_default().to_owned())
}

fn code(error: &Error) -> String {
    error.sql_state().map(|code| code.to_string()).unwrap_or_default()
}

fn slot(name: &str) -> SlotName {
    name.parse().unwrap()
}

fn physical_slots(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    block_on(async {
        let mut client = physical(&cluster).await?;
        let reads = client.server_version().supports(Feature::ReadSlot);
        for (temporary, reserve_wal) in [(false, false), (false, true), (true, false), (true, true)]
        {
            let name = slot(&format!("t{temporary}_r{reserve_wal}"));
            let mut options = PhysicalSlot::default();
            (options.temporary, options.reserve_wal) = (temporary, reserve_wal);
            let created = client.create_physical_slot(&name, options).await?;
            let CreatedSlot { name: named, consistent_point, snapshot_name, plugin, .. } = created;
            assert_eq!((named, consistent_point), (name.clone(), Lsn::ZERO));
            assert_eq!((snapshot_name, plugin), (None, None));
            let sql = format!(
                "SELECT concat(temporary, restart_lsn IS NOT NULL) FROM pg_replication_slots \
                 WHERE slot_name = '{name}'"
            );
            let letter = |value: bool| if value { "t" } else { "f" };
            let expected = [letter(temporary), letter(reserve_wal)].concat();
            assert_eq!(value(&cluster, &sql).await?, expected);
            if reads {
                let position = client.read_slot(&name).await?;
                let restart = position.and_then(|SlotPosition { restart, .. }| restart);
                assert_eq!((position.is_some(), restart.is_some()), (true, reserve_wal));
            }
        }
        // Temporary slots end with the connection, and a keyword is a name like any other.
        client.close().await?;
        let count = "SELECT count(*) FROM pg_replication_slots";
        let ended = async {
            while value(&cluster, count).await? != "2" {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            AnyResult::Ok(())
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await??;
        let mut client = physical(&cluster).await?;
        client.create_physical_slot(&slot("wait"), PhysicalSlot::default()).await?;
        for name in ["wait", "tfalse_rfalse", "tfalse_rtrue"] {
            client.drop_slot(&slot(name), DropSlot::Wait).await?;
        }
        assert_eq!(value(&cluster, count).await?, "0");
        AnyResult::Ok(())
    })?;
    Ok(())
}

fn logical_slots(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::options(installation)
        .config("wal_level = logical")
        .config("max_prepared_transactions = 2")
        .start()?;
    cluster.execute("CREATE TABLE t AS SELECT generate_series(1, 3) n")?;
    block_on(async {
        let mut client = database(&cluster).await?;
        let supports = |feature| {
            let version = client.server_version();
            version.supports(feature)
        };
        let (two_phase, failover) =
            (supports(Feature::TwoPhaseSlots), supports(Feature::FailoverSlots));
        let (alter, alter_two_phase, reads) = (
            supports(Feature::AlterSlot),
            supports(Feature::AlterTwoPhase),
            supports(Feature::ReadSlot),
        );

        // Without a snapshot, and with every option that the server has.
        let mut options = LogicalSlot::new("pgoutput");
        (options.two_phase, options.failover) = (two_phase, failover);
        let created = client.create_logical_slot(&slot("lasting"), &options).await?;
        assert_eq!((created.name, created.snapshot_name), (slot("lasting"), None));
        assert_eq!(created.plugin.as_deref(), Some("pgoutput"));
        let now: Lsn = value(&cluster, "SELECT pg_current_wal_lsn()").await?.parse()?;
        assert!(Lsn::ZERO < created.consistent_point && created.consistent_point <= now);
        let flags = async || flags(&cluster, two_phase, failover).await;
        assert_eq!(flags().await?, (two_phase.then_some(true), failover.then_some(true)));
        let again = client.create_logical_slot(&slot("lasting"), &options).await.unwrap_err();
        assert!(again.is_slot_present(), "{again}");
        if reads {
            let error = client.read_slot(&slot("lasting")).await.unwrap_err();
            assert_eq!(code(&error), "0A000", "{error}");
        }

        // The exported snapshot shows the database as it was where the slot begins.
        let mut exported = LogicalSlot::new("pgoutput");
        (exported.temporary, exported.snapshot) = (true, Snapshot::Export);
        let created = client.create_logical_slot(&slot("exported"), &exported).await?;
        let snapshot = created.snapshot_name.expect("it was exported");
        value(&cluster, "INSERT INTO t VALUES (4)").await?;
        let mut session = database(&cluster).await?;
        session.query("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        session.query(&format!("SET TRANSACTION SNAPSHOT '{snapshot}'")).await?;
        assert_eq!(session.query("SELECT count(*) FROM t").await?.single(), Some("3"));

        // And so does the transaction that uses it.
        let mut used = LogicalSlot::new("pgoutput");
        (used.temporary, used.snapshot) = (true, Snapshot::Use);
        let error = client.create_logical_slot(&slot("used"), &used).await.unwrap_err();
        assert!(error.sql_state().is_some(), "{error}: not in a transaction");
        client.query("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ").await?;
        let created = client.create_logical_slot(&slot("used"), &used).await?;
        assert_eq!(created.snapshot_name, None);
        value(&cluster, "INSERT INTO t VALUES (5)").await?;
        assert_eq!(client.query("SELECT count(*) FROM t").await?.single(), Some("4"));
        client.query("COMMIT").await?;
        assert_eq!(client.query("SELECT count(*) FROM t").await?.single(), Some("5"));

        // Alterations: one by one, and together.
        let mut changes = AlterSlot::default();
        changes.failover = Some(false);
        if alter {
            client.alter_slot(&slot("lasting"), changes).await?;
            assert_eq!(flags().await?, (Some(true), Some(false)));
            let error = client.alter_slot(&slot("missing"), changes).await.unwrap_err();
            assert!(error.is_slot_missing(), "{error}");
        }
        if alter_two_phase {
            (changes.failover, changes.two_phase) = (Some(true), Some(false));
            client.alter_slot(&slot("lasting"), changes).await?;
            assert_eq!(flags().await?, (Some(false), Some(true)));
        }

        // No such plugin, and none on a physical connection.
        let missing = LogicalSlot::new("no_such_plugin");
        let error = client.create_logical_slot(&slot("other"), &missing).await.unwrap_err();
        assert!(["58P01", "42501"].contains(&code(&error).as_str()), "{error}");
        let mut elsewhere = physical(&cluster).await?;
        let error = elsewhere.create_logical_slot(&slot("other"), &options).await.unwrap_err();
        assert!(error.sql_state().is_some(), "{error}");

        client.drop_slot(&slot("lasting"), DropSlot::FailIfActive).await?;
        client.close().await?;
        AnyResult::Ok(())
    })?;
    Ok(())
}

/// What the server has noted of the slot `lasting`, as far as it can.
async fn flags(
    cluster: &Cluster,
    two_phase: bool,
    failover: bool,
) -> pgwire_stream::Result<(Option<bool>, Option<bool>)> {
    let mut flags = [None; 2];
    for (flag, (exists, column)) in
        flags.iter_mut().zip([(two_phase, "two_phase"), (failover, "failover")])
    {
        let sql = format!("SELECT {column} FROM pg_replication_slots WHERE slot_name = 'lasting'");
        if exists {
            *flag = Some(value(cluster, &sql).await? == "t");
        }
    }
    Ok(flags.into())
}

fn unsupported(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    block_on(async {
        let name = slot("none");
        let mut client = physical(&cluster).await?;
        let version = client.server_version();
        let mut refused = Vec::new();
        // What the server logs is all that it was sent.
        let commands =
            |cluster: &Cluster| cluster.log().matches("received replication command").count();
        client.identify_system().await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let before = commands(&cluster);

        let mut failover = LogicalSlot::new("pgoutput");
        failover.failover = true;
        let mut two_phase = LogicalSlot::new("pgoutput");
        two_phase.two_phase = true;
        let mut change = AlterSlot::default();
        change.two_phase = Some(true);
        if !version.supports(Feature::TwoPhaseSlots) {
            refused.push(client.create_logical_slot(&name, &two_phase).await.err());
        }
        if !version.supports(Feature::FailoverSlots) {
            refused.push(client.create_logical_slot(&name, &failover).await.err());
        }
        if !version.supports(Feature::ReadSlot) {
            refused.push(client.read_slot(&name).await.err());
        }
        if !version.supports(Feature::AlterTwoPhase) {
            refused.push(client.alter_slot(&name, change).await.err());
        }
        if !version.supports(Feature::IncrementalBackup) {
            refused.push(client.upload_manifest(stream::empty()).await.err());
        }
        for (feature, change) in BACKUP_OPTIONS {
            let mut options = BaseBackupOptions::default();
            options.manifest = None;
            change(&mut options);
            if !version.supports(*feature) {
                refused.push(physical(&cluster).await?.base_backup(&options).await.err());
            }
        }
        for error in &refused {
            let needs = match error {
                Some(Error::Unsupported(unsupported)) => unsupported.needs,
                other => panic!("{other:?}"),
            };
            assert!(needs > version, "{error:?}");
        }
        let least = match installation.major {
            10..=12 => 11,
            13..=14 => 10,
            15 => 5,
            16 => 4,
            17 => 1,
            _ => 0,
        };
        assert_eq!(refused.len(), least);
        client.identify_system().await?;
        cluster.wait_for("the server's log", |cluster| Ok(commands(cluster) > before))?;
        assert_eq!(commands(&cluster), before + 1, "something was sent:\n{}", cluster.log());
        client.close().await?;
        AnyResult::Ok(())
    })?;
    Ok(())
}

/// An option of base backups, and the feature that it needs.
type BackupOption = (Feature, fn(&mut BaseBackupOptions));

const BACKUP_OPTIONS: &[BackupOption] = &[
    (Feature::Manifest, |options| options.manifest = Some(ManifestChecksums::Crc32c)),
    (Feature::BackupTargets, |options| options.target = BackupTarget::Blackhole),
    (Feature::BackupTargets, |options| options.target = BackupTarget::Server("/b".into())),
    (Feature::ServerCompression, |options| {
        options.compression = Some(ServerCompression::new(CompressionMethod::Gzip));
    }),
    (Feature::LongDistanceMatching, |options| {
        options.compression =
            Some(ServerCompression::Zstd { level: None, workers: None, long: true });
    }),
    (Feature::IncrementalBackup, |options| options.incremental = true),
];

/// Commands that a server of 17 or later takes or refuses without doing much.
const COMMANDS: &[&str] = &[
    " IDENTIFY_SYSTEM ; ",
    "IDENTIFY_SYSTEM;;",
    "IDENTIFY_SYSTEM; SHOW wal_level",
    "SHOW Wal_Level",
    "SHOW \"My\" . ext",
    "SHOW SLOT",
    "SHOW",
    "TIMELINE_HISTORY 2",
    "TIMELINE_HISTORY 0",
    "TIMELINE_HISTORY -1",
    "CREATE_REPLICATION_SLOT A TEMPORARY PHYSICAL RESERVE_WAL",
    "CREATE_REPLICATION_SLOT b TEMPORARY PHYSICAL (reserve_wal 1);",
    "CREATE_REPLICATION_SLOT \"c\" TEMPORARY PHYSICAL (RESERVE_WAL 'ON')",
    "CREATE_REPLICATION_SLOT \"wait\" TEMPORARY PHYSICAL (RESERVE_WAL \"off\")",
    "CREATE_REPLICATION_SLOT WAIT PHYSICAL",
    "CREATE_REPLICATION_SLOT \"A\" PHYSICAL",
    "CREATE_REPLICATION_SLOT d",
    "CREATE_REPLICATION_SLOT d PHYSICAL ()",
    "CREATE_REPLICATION_SLOT d PHYSICAL (RESERVE_WAL yes)",
    "CREATE_REPLICATION_SLOT d PHYSICAL (RESERVE_WAL 2)",
    "CREATE_REPLICATION_SLOT d PHYSICAL (RESERVE_WAL, RESERVE_WAL)",
    "CREATE_REPLICATION_SLOT d PHYSICAL (RESERVE_WAL,)",
    "CREATE_REPLICATION_SLOT d PHYSICAL (FAILOVER)",
    "CREATE_REPLICATION_SLOT d PHYSICAL USE_SNAPSHOT",
    "CREATE_REPLICATION_SLOT d LOGICAL pgoutput (SNAPSHOT 'nothing', TWO_PHASE, FAILOVER false)",
    "CREATE_REPLICATION_SLOT d LOGICAL pgoutput TWO_PHASE NOEXPORT_SNAPSHOT",
    "CREATE_REPLICATION_SLOT d LOGICAL pgoutput EXPORT_SNAPSHOT USE_SNAPSHOT",
    "CREATE_REPLICATION_SLOT d LOGICAL pgoutput (SNAPSHOT 'USE')",
    "CREATE_REPLICATION_SLOT d LOGICAL pgoutput RESERVE_WAL",
    "READ_REPLICATION_SLOT \"b\"",
    "READ_REPLICATION_SLOT 'b'",
    "ALTER_REPLICATION_SLOT b (FAILOVER true)",
    "ALTER_REPLICATION_SLOT b (FAILOVER 2)",
    "ALTER_REPLICATION_SLOT b",
    "DROP_REPLICATION_SLOT b WAIT",
    "DROP_REPLICATION_SLOT b NOW",
    "START_REPLICATION PHYSICAL FFFFFFFF/FFFFFFFF TIMELINE 9",
    "START_REPLICATION SLOT none PHYSICAL 0/1",
    "START_REPLICATION SLOT none LOGICAL 0/1 (a 'b''\\', \"C\")",
    "START_REPLICATION SLOT none LOGICAL 0/1 ()",
    "START_REPLICATION SLOT none LOGICAL 0/1 (a b)",
    "START_REPLICATION LOGICAL 0/1",
    "START_REPLICATION PHYSICAL 0/ 1",
    "START_REPLICATION PHYSICAL 0/1 TIMELINE 0",
    "BASE_BACKUP (LABEL 'it''s \\', \"progress\", Checkpoint FAST, WAIT 0, WAL off, MANIFEST ye, \
     MANIFEST_CHECKSUMS sha256, COMPRESSION gzip, COMPRESSION_DETAIL 3, MAX_RATE 32, \
     VERIFY_CHECKSUMS, INCREMENTAL 'False', TABLESPACE_MAP TRUE, TARGET nowhere)",
    "BASE_BACKUP (COMPRESSION gzip, COMPRESSION_DETAIL 'level=1,level=2', TARGET nowhere)",
    "BASE_BACKUP (MANIFEST 'FORCE-encode', TARGET nowhere, TARGET_DETAIL x)",
    "BASE_BACKUP LABEL 'a' FAST",
    "BASE_BACKUP ()",
    "BASE_BACKUP (LABEL 'a', LABEL 'b')",
    "BASE_BACKUP (\"LABEL\" 'a')",
    "BASE_BACKUP (NOWAIT)",
    "BASE_BACKUP (MAX_RATE '1024')",
    "BASE_BACKUP (MAX_RATE 31)",
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
    "BASE_BACKUP (COMPRESSION 'GZIP')",
    "BASE_BACKUP (COMPRESSION_DETAIL '3')",
    "BASE_BACKUP (COMPRESSION gzip, COMPRESSION_DETAIL 'workers=2')",
    "BASE_BACKUP (COMPRESSION gzip, COMPRESSION_DETAIL 'long')",
    "BASE_BACKUP (COMPRESSION gzip, COMPRESSION_DETAIL 'level=')",
    "BASE_BACKUP (COMPRESSION gzip, COMPRESSION_DETAIL '')",
    "BASE_BACKUP (COMPRESSION gzip, COMPRESSION_DETAIL 'fast')",
    "UPLOAD_MANIFEST 'x'",
];

fn reads_commands(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    block_on(async {
        let mut client = physical(&cluster).await?;
        let mut differences = Vec::new();
        for text in COMMANDS {
            let theirs = client.query(text).await;
            let theirs = theirs.as_ref().err().map(code).unwrap_or_default();
            // The keywords of servers up to 14 are read, too.
            let is_old = text.starts_with("BASE_BACKUP LABEL");
            let (ours, same) = match Command::parse(text) {
                Err(error) => (error.to_string(), theirs == error.sql_state()),
                Ok(command) => (command.name().to_owned(), (theirs == "42601") == is_old),
            };
            if !same {
                differences.push(format!("{text}: {ours}, and the server says {theirs}"));
            }
        }
        assert!(differences.is_empty(), "{differences:#?}");
        AnyResult::Ok(())
    })?;
    Ok(())
}
