//! `backup_label` and backup history files, `tablespace_map`, and `pg_control`.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pgwire_stream::backup_label::{self, BackupFrom, BackupHistory, BackupLabel, BackupMethod};
use pgwire_stream::control_file::{self, ClusterState, ControlFile, DataChecksums};
use pgwire_stream::tablespace_map::{self, TablespaceMap};
use pgwire_stream::{BaseBackupOptions, Feature, Lsn, SegmentSize, ServerVersion};
use walrecv_tests::run::ScenarioResult;
use walrecv_tests::{Cluster, Context, Installation, Result};

use super::taken::{Taken, take};

const LABEL: &str = r#"it's "nightly": \ 	ä: LABEL"#;

pub(super) fn small_files(installation: &Installation) -> ScenarioResult {
    let mut options = Cluster::options(installation).data_checksums().archive();
    if installation.major >= 11 {
        options = options.wal_segment_megabytes(2);
    }
    let mut cluster = options.start()?;
    for (number, place) in ["fast disk", "back\\slash", "two\nlines"].into_iter().enumerate() {
        let directory = cluster.new_directory(place)?;
        let path = directory.display().to_string();
        cluster.execute(&format!("CREATE TABLESPACE place{number} LOCATION '{path}'"))?;
    }
    let version = ServerVersion::from_num(cluster.value("SHOW server_version_num")?.parse()?);
    let backup = take(&cluster, "backup", &backup_options(version), None)?;

    label(&cluster, &backup, version)?;
    map(&cluster, &backup, version)?;
    control_file_in_production(&cluster, &backup)?;
    cluster.stop()?;
    let control = read_control(cluster.data_directory())?;
    assert_eq!(control.state, ClusterState::ShutDown);
    assert_eq!(control.checkpoint, control.redo, "a checkpoint at a shutdown");
    Ok(())
}

fn backup_options(version: ServerVersion) -> BaseBackupOptions {
    let mut options = BaseBackupOptions::default();
    options.label = LABEL.to_owned();
    options.fast_checkpoint = true;
    options.manifest = options.manifest.filter(|_| version.supports(Feature::Manifest));
    options.verify_checksums = version.supports(Feature::ChecksumVerification);
    options.wal = true;
    options
}

fn label(cluster: &Cluster, backup: &Taken, version: ServerVersion) -> ScenarioResult {
    let content = fs::read(backup.data.join(backup_label::FILE_NAME))?;
    let label = BackupLabel::parse(&content)?;
    assert_eq!(str::from_utf8(&label.write(version))?, str::from_utf8(&content)?);
    assert_eq!(label.start.lsn, backup.start.lsn);
    assert_eq!(label.start.timeline(), backup.start.timeline);
    assert!(label.checkpoint > label.start.lsn);
    assert_eq!((label.method, label.from), (BackupMethod::Streamed, BackupFrom::Primary));
    // A tabulator is a control character, which the command leaves out.
    assert_eq!(str::from_utf8(&label.label)?, LABEL.replace('\t', ""));
    assert_eq!(label.incremental_from, None);
    assert_eq!(backup_label::without_incremental_lines(&content), content);

    // The server's own history file of the backup.
    let size = SegmentSize::from_setting(&cluster.value("SHOW wal_segment_size")?)?;
    let name = BackupHistory { stop: label.start, stop_time: String::new(), label: label.clone() }
        .file_name(size);
    let archived = cluster.archive_directory().join(name);
    cluster.wait_for("the backup history file", |_| Ok(archived.exists()))?;
    let content = fs::read(archived)?;
    let history = BackupHistory::parse(&content)?;
    assert_eq!(str::from_utf8(&history.write(version))?, str::from_utf8(&content)?);
    assert_eq!(history.stop.lsn, backup.end.lsn);
    assert_eq!(history.stop.timeline(), backup.end.timeline);
    assert_eq!(history.label, label);
    Ok(())
}

fn map(cluster: &Cluster, backup: &Taken, version: ServerVersion) -> ScenarioResult {
    let content = fs::read(backup.data.join(tablespace_map::FILE_NAME))?;
    let map = TablespaceMap::parse(&content, version)?;
    assert_eq!(map.tablespaces.len(), 3);
    for tablespace in &map.tablespaces {
        let link = cluster.data_directory().join("pg_tblspc").join(tablespace.oid.to_string());
        assert_eq!(tablespace.path, fs::read_link(link)?.as_os_str().as_bytes());
    }
    assert_eq!(map.write(version)?, content);
    Ok(())
}

fn control_file_in_production(cluster: &Cluster, backup: &Taken) -> ScenarioResult {
    let copied = read_control(&backup.data)?;
    assert_eq!(copied.state, ClusterState::InProduction);
    assert_eq!(copied.redo, backup.start.lsn);

    let control = read_control(cluster.data_directory())?;
    let checksums = match control.data_checksums {
        DataChecksums::Off => 0,
        DataChecksums::On => 1,
        other => return Err(format!("{other:?}").into()),
    };
    let ours = [
        control.system_id.to_string(),
        control.control_version.to_string(),
        control.catalog_version.to_string(),
        control.modified.to_string(),
        control.checkpoint.to_string(),
        control.redo.to_string(),
        control.timeline.to_string(),
        control.relations.block_size().to_string(),
        control.relations.blocks_per_file().to_string(),
        control.wal_block_size.to_string(),
        control.wal_segment_size.bytes().to_string(),
        checksums.to_string(),
        control.limits.max_connections.to_string(),
        control.limits.max_worker_processes.to_string(),
        control.limits.max_prepared_transactions.to_string(),
        control.limits.max_locks_per_transaction.to_string(),
    ];
    let theirs = cluster.query(
        "SELECT system_identifier, pg_control_version, catalog_version_no, \
                extract(epoch FROM pg_control_last_modified)::bigint, \
                checkpoint_lsn, redo_lsn, timeline_id, \
                database_block_size, blocks_per_segment, wal_block_size, \
                bytes_per_wal_segment, data_page_checksum_version, \
                current_setting('max_connections'), current_setting('max_worker_processes'), \
                current_setting('max_prepared_transactions'), \
                current_setting('max_locks_per_transaction') \
         FROM pg_control_system(), pg_control_checkpoint(), pg_control_init()",
    )?;
    // From 19 on the server pads positions.
    let mut theirs = theirs.into_iter().next().unwrap_or_default();
    for position in theirs.iter_mut().filter(|text| text.contains('/')) {
        *position = position.parse::<Lsn>()?.to_string();
    }
    assert_eq!(theirs, ours);
    let senders: Option<u32> = (cluster.major() >= 12)
        .then(|| cluster.value("SHOW max_wal_senders"))
        .transpose()?
        .map(|senders| senders.parse())
        .transpose()?;
    assert_eq!(control.limits.max_wal_senders, senders);
    assert_eq!(control.min_recovery_timeline, None);
    Ok(())
}

/// What a standby notes in its control file while it replays.
pub(super) fn control_file_in_recovery(installation: &Installation) -> ScenarioResult {
    let cluster = Cluster::start_new(installation)?;
    let version = ServerVersion::from_num(cluster.value("SHOW server_version_num")?.parse()?);
    cluster.execute("CREATE TABLE t AS SELECT generate_series(1, 1000)")?;
    let backup = take(&cluster, "backup", &backup_options(version), None)?;
    let (name, text) = if version.supports(Feature::SignalFiles) {
        ("standby.signal", "")
    } else {
        ("recovery.conf", "standby_mode = 'on'\n")
    };
    let signal = backup.data.join(name);
    fs::write(&signal, text)?;
    cluster.account().owns(&signal)?;
    let mut standby = Cluster::adopt(installation, &backup.data)?;
    standby.start()?;
    standby.execute("CHECKPOINT")?;
    let theirs = standby.query(
        "SELECT min_recovery_end_lsn, min_recovery_end_timeline, backup_start_lsn, \
                backup_end_lsn, end_of_backup_record_required FROM pg_control_recovery()",
    )?;
    let control = read_control(&backup.data)?;
    assert_eq!(control.state, ClusterState::ArchiveRecovery);
    assert!(control.min_recovery_point >= backup.end.lsn, "{control:?}");
    let lsn = |text: &String| text.parse::<Lsn>();
    let row = theirs.first().context(|| "no row".to_owned())?;
    assert_eq!(lsn(&row[0])?, control.min_recovery_point);
    assert_eq!(row[1], control.min_recovery_timeline.map_or(0, |tli| tli.get()).to_string());
    assert_eq!(lsn(&row[2])?, control.backup_start);
    assert_eq!(lsn(&row[3])?, control.backup_end);
    assert_eq!(row[4] == "t", control.backup_end_required);
    standby.stop()?;
    assert_eq!(read_control(&backup.data)?.state, ClusterState::ShutDownInRecovery);
    Ok(())
}

fn read_control(data: &Path) -> Result<ControlFile> {
    let content = fs::read(data.join(control_file::FILE_NAME))
        .context(|| "cannot read pg_control".to_owned())?;
    ControlFile::parse(&content).context(|| "pg_control is not understood".to_owned())
}
