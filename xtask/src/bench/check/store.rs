//! A store with more in it than anybody wants to wait for: segments that are hardly more than their
//! names, with the indexes and records that real ones have.

use std::fs;
use std::sync::Arc;

use jiff::{Timestamp, ToSpan};
use pgwire_stream::{
    Lsn, PgTimestamp, SegmentName, SegmentNumber, SegmentSize, ServerVersion, SystemId, TimelineId,
};
use walrecv_server::catalog::{
    BackupOutcome, BackupRecord, Identity, Position, Validity, WalFindings, WalIndexRecord,
    WalIndexWriters,
};
use walrecv_server::storage::{
    Access, ArchivedWal, BackupId, Codec, Home, LockKind, Plain, ServerDir, ServerLock, Sha256Sum,
    Stored, durable,
};
use walrecv_tests::walrecv::Walrecv;
use walrecv_tests::{Context, Failure, Result};

const SIZE: SegmentSize = SegmentSize::DEFAULT;
const PER_FOLDER: u64 = 256;

/// How many segments a backup takes.
const BACKUP_SPAN: u64 = 3;

/// The store, and a configuration for it.
pub(super) struct LargeStore {
    walrecv: Walrecv,
}

impl LargeStore {
    /// So many archived segments, and backups all along the way.
    pub(super) fn make(segments: u64, backups: u64) -> Result<Self> {
        let walrecv = Walrecv::new("[servers.main]\nconninfo = \"host=127.0.0.1 user=x\"\n")?;
        let home = Home::new(walrecv.home(), Access::Private);
        let name = "main".parse().context(|| "a server's name".to_owned())?;
        let server = home.server(&name);
        let system_id = SystemId::from_u64(7);
        let server_version = ServerVersion::from_num(180_000);
        Identity { system_id, segment_size: SIZE, server_version, data_checksums: None }
            .establish(&server)
            .context(|| "cannot write the identity".to_owned())?;
        archive(&server, segments)?;
        let apart = segments.checked_div(backups).filter(|apart| *apart >= BACKUP_SPAN);
        let apart = apart.ok_or_else(|| Failure::new("too few segments for so many backups"))?;
        for number in 0..backups {
            back_up(&server, number, number * apart)?;
        }
        Ok(Self { walrecv })
    }

    pub(super) fn walrecv(&self) -> &Walrecv {
        &self.walrecv
    }
}

fn archive(server: &ServerDir, segments: u64) -> Result<()> {
    let about = || "cannot write the archive".to_owned();
    let lock = ServerLock::try_acquire(server, LockKind::Archive).context(about)?;
    let mut indexes = WalIndexWriters::new(server, SIZE, Arc::new(lock));
    let content = b"not much";
    let stored = Stored { size: content.len() as u64, sha256: Sha256Sum::of(content) };
    let plain = Plain { size: SIZE.bytes().into(), ..Plain::of(content) };
    for first in (0..segments).step_by(PER_FOLDER as usize) {
        durable::create_dir(&server.wal_dir(segment(first)), Access::Private).context(about)?;
        let mut records = Vec::new();
        for number in first..segments.min(first + PER_FOLDER) {
            let form = Codec::Zstd.into();
            let file = ArchivedWal { segment: segment(number), partial: false, form };
            fs::write(server.archived_file(file), content).context(about)?;
            let micros = i64::try_from(number).unwrap_or_default().saturating_mul(1_000_000);
            let commit = Some(PgTimestamp::from_micros(micros));
            records.push(WalIndexRecord::new(file, plain, stored).with(WalFindings {
                validity: Some(Validity::Validated),
                first_record: Some(start_of(number).saturating_add(40)),
                first_commit: commit,
                last_commit: commit,
                latest_end: commit,
                ..WalFindings::default()
            }));
        }
        indexes.append(&records).context(about)?;
    }
    Ok(())
}

fn back_up(server: &ServerDir, number: u64, first: u64) -> Result<()> {
    let about = || "cannot write a backup".to_owned();
    let begin: Timestamp = "2026-03-05T15:11:33Z".parse().context(about)?;
    let began_at = begin + i64::try_from(number).unwrap_or_default().hours();
    let position = |segment: u64| {
        let lsn = start_of(segment).saturating_add(1000);
        Some(Position { lsn, timeline: TimelineId::FIRST })
    };
    let record = BackupRecord {
        id: BackupId::at(began_at),
        server: server.name().clone(),
        outcome: BackupOutcome::Copied,
        name: None,
        label: "walrecv-server".to_owned(),
        parent: None,
        system_id: SystemId::from_u64(7),
        segment_size: SIZE,
        server_version: ServerVersion::from_num(180_000),
        data_checksums: None,
        program_version: String::new(),
        began_at,
        ended_at: Some(began_at + 10.minutes()),
        done_at: Some(began_at + 10.minutes()),
        begin: position(first),
        end: position(first + BACKUP_SPAN - 1),
        tablespaces: Vec::new(),
        archives: Vec::new(),
        manifest: None,
        config_files: None,
        damaged_pages: None,
    };
    let backup = server.backup(record.id);
    durable::create_dir(backup.path(), Access::Private).context(about)?;
    record.save(&backup).context(about)
}

fn segment(number: u64) -> SegmentName {
    SegmentName::new(TimelineId::FIRST, SegmentNumber::from_u64(number), SIZE)
}

fn start_of(number: u64) -> Lsn {
    SIZE.start_of(SegmentNumber::from_u64(number))
}
