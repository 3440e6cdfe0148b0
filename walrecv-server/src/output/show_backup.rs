//! Everything about a base backup, in Barman's words.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::list_backups::{clean_label, kind};
use super::units::local;
use super::{Report, units};
use crate::catalog::{Absence, BackupRecord, ManifestOrigin, Position};
use crate::commands::show_backup::ShowBackupOutcome;
use crate::retention::Label;
use crate::storage::BackupId;

/// Barman's words for neighbours that there are not.
const OLDEST: &str = "- (this is the oldest base backup)";
const LATEST: &str = "- (this is the latest base backup)";

/// Rows under a title.
struct Section {
    title: &'static str,
    rows: Vec<(String, String)>,
}

impl Report for ShowBackupOutcome {
    fn console(&self) -> String {
        let mut text = format!("Backup {}:\n", self.record.id);
        for (name, value) in general(self) {
            text.push_str(&format!("  {name:<23}: {value}\n"));
        }
        for Section { title, rows } in sections(self) {
            if rows.is_empty() {
                continue;
            }
            text.push_str(&format!("\n  {title}:\n"));
            for (name, value) in rows {
                text.push_str(&format!("    {name:<21}: {value}\n"));
            }
        }
        text
    }

    fn barman(&self, document: &mut Map<String, Value>) {
        let record = &self.record;
        let mut backup = Map::new();
        backup.insert("backup_id".into(), json!(record.id));
        if let Some(name) = &record.name {
            backup.insert("backup_name".into(), json!(name));
        }
        backup.insert("status".into(), json!(self.standing.status));
        backup.insert("system_id".into(), json!(record.system_id));
        backup.insert("backup_type".into(), json!(kind(record)));
        if let Some(error) = self.standing.error(record) {
            backup.insert("error".into(), json!(error));
        }
        let checksums = record.data_checksums.map(|on| if on { "on" } else { "off" });
        // Whether WAL was summarised then is not asked for: an incremental backup proves it.
        let server = json!({"data_checksums": checksums, "summarize_wal": Value::Null});
        backup.insert("server_information".into(), server);
        // Where the server's files lay is known to those who may see its settings only.
        backup.insert("pgdata_directory".into(), Value::Null);
        backup.insert("postgresql_version".into(), json!(record.server_version.num()));
        backup.insert("cluster_size".into(), json!(units::size(record.plain_size())));
        backup.insert("cluster_size_bytes".into(), json!(record.plain_size()));
        backup.insert("tablespaces".into(), tablespaces(record));
        backup.insert("base_backup_information".into(), base_backup(self));
        backup.insert("catalog_information".into(), catalog(self));
        if let Some(wal) = &self.wal {
            backup.insert(
                "wal_information".into(),
                json!({
                    "no_of_files": wal.segments,
                    "disk_usage": units::size(self.wal_size),
                    "disk_usage_bytes": self.wal_size,
                    "last_available": wal.last,
                    "compression_ratio": compression_ratio(self, wal.segments),
                    "wal_rate": wal_rate(self, wal.segments).map(per_hour),
                    "wal_rate_per_second": wal_rate(self, wal.segments),
                    "timelines": [],
                }),
            );
        }
        document.insert(record.server.to_string(), Value::Object(backup));
    }

    fn clean(&self) -> Value {
        let record = &self.record;
        let missing = self.standing.missing.map(|gap| {
            json!({
                "timeline": gap.timeline,
                "from": gap.from,
                "to": gap.to,
                "segment": gap.segment,
                "absence": gap.absence,
            })
        });
        let wal = self
            .wal
            .map(|wal| json!({"segments": wal.segments, "last_segment": wal.last, "end": wal.end}));
        json!({
            "server": record.server,
            "id": record.id,
            "name": record.name,
            "type": kind(record),
            "status": self.standing.status,
            "missing_wal": missing,
            "damaged": self.standing.damaged,
            "error": self.standing.error(record),
            "parent": record.parent,
            "children": self.children,
            "keep": self.keep.map(|keep| keep.target),
            "retention": clean_label(self.retention),
            "leases": self.leases,
            "previous": self.previous,
            "next": self.next,
            "system_id": record.system_id,
            "server_version": record.server_version.to_string(),
            "segment_size": record.segment_size,
            "data_checksums": record.data_checksums,
            "program_version": record.program_version,
            "began_at": record.began_at,
            "ended_at": record.ended_at,
            "begin": position(record.begin),
            "end": position(record.end),
            "plain_size": record.plain_size(),
            "size": record.stored_size(),
            "wal_size": self.wal_size,
            "wal": wal,
            "tablespaces": record.tablespaces,
            "archives": record.archives,
            "manifest": record.manifest,
            "damaged_pages": record.damaged_pages,
            "config_files": record.config_files,
        })
    }
}

fn retention(outcome: &ShowBackupOutcome) -> &'static str {
    match outcome.retention {
        Label::None if !outcome.has_policy => "not enforced",
        label => label.name(),
    }
}

fn position(position: Option<Position>) -> Value {
    position.map_or(Value::Null, |at| json!({"lsn": at.lsn, "timeline": at.timeline}))
}

fn tablespaces(record: &BackupRecord) -> Value {
    let tablespace = |tablespace: &crate::catalog::Tablespace| json!({"name": tablespace.name, "oid": tablespace.oid, "location": tablespace.location});
    record.tablespaces.iter().map(tablespace).collect()
}

fn row(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

fn general(outcome: &ShowBackupOutcome) -> Vec<(String, String)> {
    let record = &outcome.record;
    let mut rows = Vec::new();
    if let Some(name) = &record.name {
        rows.push(row("Backup Name", name));
    }
    rows.push(row("Server Name", &record.server));
    rows.push(row("System Id", record.system_id));
    rows.push(row("Status", outcome.standing.status));
    if outcome.standing.damaged {
        rows.push(row("Damaged", "yes: `verify-backup` names what is wrong"));
    }
    if let Some(gap) = &outcome.standing.missing {
        rows.push(match gap.absence {
            Absence::Missing => row("Missing WAL", gap),
            absence => row("Missing WAL", format!("{gap}, {absence}")),
        });
    }
    if let Some(error) = outcome.standing.error(record) {
        rows.push(row("Error", error));
    }
    if let Some(damaged) = &record.damaged_pages {
        let text = format!("{} in {}", damaged.pages, damaged.files.join(", "));
        rows.push(row("Damaged Pages", text));
    }
    rows.push(row("PostgreSQL Version", record.server_version));
    rows.push(row("Cluster Size", units::size(record.plain_size())));
    rows
}

fn sections(outcome: &ShowBackupOutcome) -> [Section; 5] {
    let record = &outcome.record;
    let server = match record.data_checksums {
        Some(true) => vec![row("Checksums", "on")],
        Some(false) => vec![row("Checksums", "off")],
        None => Vec::new(),
    };
    let tablespaces = record
        .tablespaces
        .iter()
        .map(|tablespace| {
            let oid = tablespace.oid.to_string();
            let name = tablespace.name.as_deref().unwrap_or(&oid);
            row(name, format!("{} (oid: {oid})", tablespace.location))
        })
        .collect();
    let wal = outcome.wal.map_or_else(Vec::new, |wal| {
        vec![
            row("No of files", wal.segments),
            row("Disk usage", units::size(outcome.wal_size)),
            row("Last available", wal.last),
            row("Last LSN", wal.end),
        ]
    });
    let neighbour =
        |id: Option<BackupId>, none: &str| id.map_or_else(|| none.to_owned(), |id| id.to_string());
    let mut catalog = vec![
        row("Retention Policy", retention(outcome)),
        row("Previous Backup", neighbour(outcome.previous, OLDEST)),
        row("Next Backup", neighbour(outcome.next, LATEST)),
    ];
    catalog.extend(outcome.leases.iter().map(|lease| {
        let until = if lease.restoring { "runs".to_owned() } else { local(lease.expires) };
        row("Needed by restore", format!("{} ({until})", lease.destination))
    }));
    [
        Section { title: "Server information", rows: server },
        Section { title: "Tablespaces", rows: tablespaces },
        Section { title: "Base backup information", rows: base_rows(outcome) },
        Section { title: "WAL information", rows: wal },
        Section { title: "Catalog information", rows: catalog },
    ]
}

fn base_rows(outcome: &ShowBackupOutcome) -> Vec<(String, String)> {
    let record = &outcome.record;
    let mut rows = vec![
        row("Backup Method", "postgres"),
        row("Backup Type", kind(record)),
        row(
            "Backup Size",
            format!(
                "{} ({} with WALs)",
                units::size(record.stored_size()),
                units::size(record.stored_size() + outcome.wal_size)
            ),
        ),
    ];
    if let Some(parent) = record.parent {
        rows.push(row("Parent Backup", parent));
    }
    if !outcome.children.is_empty() {
        let children: Vec<_> = outcome.children.iter().map(ToString::to_string).collect();
        rows.push(row("Children Backup(s)", children.join(" ")));
    }
    if let Some(archive) = record.archives.first() {
        let by_server = if archive.by_server { ", by the server in one piece" } else { "" };
        rows.push(row("Backup Compression", format!("{}{by_server}", archive.codec)));
    }
    if record.is_encrypted() {
        rows.push(row("Backup Encryption", "age"));
    }
    if let Some(config) = &record.config_files {
        if !config.files.is_empty() {
            rows.push(row("Configuration", config.files.join(", ")));
        }
        if !config.closed.is_empty() {
            rows.push(row("Not readable", config.closed.join(", ")));
        }
    }
    if let Some(manifest) = &record.manifest {
        let origin = match manifest.origin {
            ManifestOrigin::Server => "by the server",
            ManifestOrigin::Receipt => "made on receipt",
        };
        let algorithm = manifest.checksum_algorithm.as_deref().unwrap_or("no checksums");
        rows.push(row("Manifest", format!("{origin}, {algorithm}")));
    }
    for (position, [wal, offset, lsn]) in [
        (record.begin, ["Begin WAL", "Begin Offset", "Begin LSN"]),
        (record.end, ["End WAL", "End Offset", "End LSN"]),
    ] {
        if let Some(at) = position {
            if lsn == "Begin LSN" {
                rows.push(row("Timeline", at.timeline));
            }
            rows.push(row(wal, segment_of(record, at, lsn == "End LSN")));
            rows.push(row(offset, record.segment_size.offset_in_segment(at.lsn)));
            rows.push(row(lsn, at.lsn));
        }
    }
    rows.push(row("Begin time", local(record.began_at)));
    if let Some(ended_at) = record.ended_at {
        rows.push(row("End time", local(ended_at)));
        let took = elapsed(record.began_at, ended_at);
        rows.push(row("Copy time", units::duration(took)));
        if let Some(rate) = units::per_second(record.plain_size(), took) {
            rows.push(row("Estimated throughput", format!("{}/s", units::size(rate))));
        }
    }
    rows
}

/// The segment of a position; of the byte before it where the position is an end.
fn segment_of(record: &BackupRecord, at: Position, end: bool) -> pgwire_stream::SegmentName {
    let size = record.segment_size;
    let number = if end { size.last_byte_segment_of(at.lsn) } else { size.segment_of(at.lsn) };
    pgwire_stream::SegmentName::new(at.timeline, number, size)
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// What a backup is among the others, with Barman's words for neighbours that there are not.
fn catalog(outcome: &ShowBackupOutcome) -> Value {
    let neighbour = |id: Option<BackupId>, none: &str| match id {
        Some(id) => json!(id),
        None => json!(none),
    };
    let mut catalog = Map::new();
    let mut put = |key: &str, value: Value| drop(catalog.insert(key.to_owned(), value));
    put("retention_policy", json!(retention(outcome)));
    put("previous_backup", neighbour(outcome.previous, OLDEST));
    put("next_backup", neighbour(outcome.next, LATEST));
    if let Some(parent) = outcome.record.parent {
        put("parent_backup_id", json!(parent));
    }
    let children = &outcome.children;
    put("children_backup_ids", json!((!children.is_empty()).then_some(children)));
    Value::Object(catalog)
}

/// How many segments came in a second since the backup ended.
fn wal_rate(outcome: &ShowBackupOutcome, segments: u64) -> Option<f64> {
    let ended_at = outcome.record.ended_at?;
    let elapsed = elapsed(ended_at, Timestamp::now()).as_secs_f64();
    (elapsed > 0.0).then(|| segments as f64 / elapsed)
}

fn per_hour(rate: f64) -> String {
    format!("{:.2}/hour", rate * 3600.0)
}

/// The part of the WAL that compression saves.
fn compression_ratio(outcome: &ShowBackupOutcome, segments: u64) -> f64 {
    let plain = segments.saturating_mul(outcome.record.segment_size.bytes().into());
    if plain == 0 { 0.0 } else { (1.0 - outcome.wal_size as f64 / plain as f64).max(0.0) }
}

/// How many segments a backup needs to be consistent.
fn segments_of(record: &BackupRecord) -> Option<u64> {
    let (begin, end) = (record.begin?, record.end?);
    let size = record.segment_size;
    let (first, last) = (size.segment_of(begin.lsn), size.last_byte_segment_of(end.lsn));
    Some(last.as_u64().saturating_sub(first.as_u64()) + 1)
}

fn base_backup(outcome: &ShowBackupOutcome) -> Value {
    let record = &outcome.record;
    let size = record.stored_size();
    let mut base = Map::new();
    let mut put = |key: &str, value: Value| {
        base.insert(key.to_owned(), value);
    };
    put("backup_method", json!("postgres"));
    put("encryption", json!(record.is_encrypted().then_some("age")));
    put("compression", json!(record.archives.first().map(|archive| archive.codec.to_string())));
    put("backup_size", json!(units::size(size)));
    put("backup_size_bytes", json!(size));
    put("backup_size_with_wals", json!(units::size(size + outcome.wal_size)));
    put("backup_size_with_wals_bytes", json!(size + outcome.wal_size));
    put("wal_size", json!(units::size(outcome.wal_size)));
    put("wal_size_bytes", json!(outcome.wal_size));
    if let Some(begin) = record.begin {
        put("timeline", json!(begin.timeline));
        put("begin_wal", json!(segment_of(record, begin, false)));
        put("begin_offset", json!(record.segment_size.offset_in_segment(begin.lsn)));
        put("begin_lsn", json!(begin.lsn));
    }
    if let Some(end) = record.end {
        put("end_wal", json!(segment_of(record, end, true)));
        put("end_offset", json!(record.segment_size.offset_in_segment(end.lsn)));
        put("end_lsn", json!(end.lsn));
    }
    put("wal_num", json!(segments_of(record)));
    put("number_of_workers", json!(1));
    put("begin_time", json!(local(record.began_at)));
    put("begin_time_timestamp", json!(record.began_at.as_second().to_string()));
    if let Some(ended_at) = record.ended_at {
        let took = elapsed(record.began_at, ended_at);
        put("end_time", json!(local(ended_at)));
        put("end_time_timestamp", json!(ended_at.as_second().to_string()));
        put("copy_time", json!(units::duration(took)));
        put("copy_time_seconds", json!(took.as_secs_f64()));
        let rate = units::per_second(record.plain_size(), took);
        put("throughput", json!(rate.map(|rate| format!("{}/s", units::size(rate)))));
        put("throughput_bytes", json!(rate));
    }
    Value::Object(base)
}

#[cfg(test)]
pub(super) mod tests {
    use pgwire_stream::{SegmentSize, ServerVersion, SystemId, TimelineId};

    use super::*;
    use crate::catalog::{Archive, BackupOutcome, BackupStatus, Standing, Tablespace};
    use crate::commands::show_backup::HeldWal;
    use crate::storage::{Codec, Sha256Sum};

    pub(in crate::output) fn record(id: &str) -> BackupRecord {
        let at = |lsn: &str| Position { lsn: lsn.parse().unwrap(), timeline: TimelineId::FIRST };
        BackupRecord {
            id: id.parse().unwrap(),
            server: "main".parse().unwrap(),
            outcome: BackupOutcome::Copied,
            name: None,
            label: "walrecv-server".to_owned(),
            parent: None,
            system_id: SystemId::from_u64(7),
            segment_size: SegmentSize::DEFAULT,
            server_version: ServerVersion::from_num(170_002),
            data_checksums: Some(true),
            program_version: "0.1.0".to_owned(),
            began_at: "2026-03-05T15:11:33Z".parse().unwrap(),
            ended_at: Some("2026-03-05T15:12:03Z".parse().unwrap()),
            done_at: None,
            begin: Some(at("0/2000028")),
            end: Some(at("0/3000000")),
            tablespaces: vec![Tablespace {
                oid: 16386,
                name: Some("fast".to_owned()),
                location: "/srv/fast".to_owned(),
            }],
            archives: vec![Archive {
                name: "base.tar".to_owned(),
                tablespace: None,
                codec: Codec::Zstd,
                encrypted: false,
                by_server: false,
                plain_size: 30 << 20,
                stored_size: 1024,
                stored_sha256: Some(Sha256Sum::of(b"x")),
                stored_crc32c: None,
                files: 3,
                index: None,
            }],
            manifest: None,
            config_files: None,
            damaged_pages: None,
        }
    }

    fn outcome() -> ShowBackupOutcome {
        ShowBackupOutcome {
            record: record("20260305T151133"),
            standing: Standing { status: BackupStatus::Done, missing: None, damaged: false },
            wal_size: 1024,
            wal: Some(HeldWal {
                segments: 2,
                last: "000000010000000000000003".parse().unwrap(),
                end: "0/3000100".parse().unwrap(),
            }),
            previous: None,
            next: Some("20260306T151133".parse().unwrap()),
            keep: None,
            has_policy: false,
            retention: Label::None,
            leases: Vec::new(),
            children: Vec::new(),
        }
    }

    #[test]
    fn the_text_looks_as_barmans() {
        let (begin, end) = (record("20260305T151133").began_at, "2026-03-05T15:12:03Z");
        let text = outcome()
            .console()
            .replace(&local(begin), "BEGIN")
            .replace(&local(end.parse().unwrap()), "END");
        insta::assert_snapshot!(text, @r"
        Backup 20260305T151133:
          Server Name            : main
          System Id              : 7
          Status                 : DONE
          PostgreSQL Version     : 17.2
          Cluster Size           : 30.0 MiB

          Server information:
            Checksums            : on

          Tablespaces:
            fast                 : /srv/fast (oid: 16386)

          Base backup information:
            Backup Method        : postgres
            Backup Type          : full
            Backup Size          : 1.0 KiB (2.0 KiB with WALs)
            Backup Compression   : zstd
            Timeline             : 1
            Begin WAL            : 000000010000000000000002
            Begin Offset         : 40
            Begin LSN            : 0/2000028
            End WAL              : 000000010000000000000002
            End Offset           : 0
            End LSN              : 0/3000000
            Begin time           : BEGIN
            End time             : END
            Copy time            : 30 seconds
            Estimated throughput : 1.0 MiB/s

          WAL information:
            No of files          : 2
            Disk usage           : 1.0 KiB
            Last available       : 000000010000000000000003
            Last LSN             : 0/3000100

          Catalog information:
            Retention Policy     : not enforced
            Previous Backup      : - (this is the oldest base backup)
            Next Backup          : 20260306T151133
        ");
    }

    #[test]
    fn json_has_barmans_keys() {
        let mut document = Map::new();
        outcome().barman(&mut document);
        let backup = &document["main"];
        assert_eq!(backup["status"], "DONE");
        assert_eq!(backup["tablespaces"][0]["oid"], 16386);
        let base = &backup["base_backup_information"];
        assert_eq!(base["begin_wal"], "000000010000000000000002");
        // The end is that of the segment before: no byte of the next one is needed.
        assert_eq!(base["end_wal"], "000000010000000000000002");
        assert_eq!(base["throughput"], "1.0 MiB/s");
        assert_eq!(base["copy_time_seconds"], 30.0);
        assert_eq!(base["encryption"], Value::Null);
        assert_eq!(backup["wal_information"]["last_available"], "000000010000000000000003");
    }

    #[test]
    fn an_encrypted_backup_is_told_apart() {
        let mut outcome = outcome();
        outcome.record.archives.iter_mut().for_each(|archive| archive.encrypted = true);
        assert!(outcome.console().contains("    Backup Encryption    : age\n"));
        let mut document = Map::new();
        outcome.barman(&mut document);
        assert_eq!(document["main"]["base_backup_information"]["encryption"], "age");
    }

    #[test]
    fn missing_wal_and_errors_are_shown() {
        let mut outcome = outcome();
        outcome.record.outcome = BackupOutcome::Failed { error: "disk on fire".to_owned() };
        outcome.standing.status = BackupStatus::Failed;
        let text = outcome.console();
        assert!(text.contains("  Status                 : FAILED\n"), "{text}");
        assert!(text.contains("  Error                  : disk on fire\n"), "{text}");
        assert_eq!(outcome.clean()["error"], "disk on fire");
    }
}
