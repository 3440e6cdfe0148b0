//! Metrics in OpenMetrics' text. The tables below are what there is; `docs/metrics.md` is made of
//! them.

use std::fmt;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::overview::Overview;
use crate::catalog::BackupStatus;
use crate::daemon::board::Task;
use crate::receiver::State;
use crate::views::check::{KEPT_BY_SLOT, State as CheckState};
use crate::views::window::{BackupKind, Ending};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const PREFIX: &str = "walrecv";

/// A metric of each server.
struct Metric {
    name: &'static str,
    unit: Option<Unit>,
    /// The label that it has beside `server`.
    label: Option<&'static str>,
    help: &'static str,
    read: fn(&Overview) -> Vec<Sample>,
}

/// A value, and that of the metric's label.
type Sample = (&'static str, f64);

fn one(value: Option<f64>) -> Vec<Sample> {
    value.map(|value| ("", value)).into_iter().collect()
}

fn flag(value: bool) -> Vec<Sample> {
    one(Some(f64::from(u8::from(value))))
}

fn seconds_of(time: Option<Timestamp>) -> Vec<Sample> {
    one(time.map(|time| time.as_millisecond() as f64 / 1000.0))
}

macro_rules! receiver {
    ($overview:ident, $receiver:ident, $value:expr) => {
        match &$overview.live.receiver {
            Some($receiver) => one($value),
            None => Vec::new(),
        }
    };
}

const fn metric(
    name: &'static str,
    unit: Option<Unit>,
    label: Option<&'static str>,
    help: &'static str,
    read: fn(&Overview) -> Vec<Sample>,
) -> Metric {
    Metric { name, unit, label, help, read }
}

const METRICS: &[Metric] = &[
    metric("active", None, None, "1 if the server is to be backed up.", |server| {
        flag(server.live.active)
    }),
    metric(
        "receiver_state",
        None,
        Some("state"),
        "1 for the state that the receiver is in: connecting, streaming, waiting, refused, stopped.",
        |server| {
            let now = server.live.receiver.as_ref().map(|receiver| receiver.state);
            let is = |state| f64::from(u8::from(now == Some(state)));
            vec![
                ("connecting", is(State::Connecting)),
                ("streaming", is(State::Streaming)),
                ("waiting", is(State::Waiting)),
                ("refused", is(State::Refused)),
                ("stopped", is(State::Stopped)),
            ]
        },
    ),
    metric(
        "receiver_lag",
        Some(Unit::Bytes),
        None,
        "WAL that the server has and that is not durable here; absent while nothing streams.",
        |server| receiver!(server, receiver, receiver.lag_bytes.map(|bytes| bytes as f64)),
    ),
    metric(
        "receiver_lag",
        Some(Unit::Seconds),
        None,
        "For how long there has been WAL on the server that is not durable here, or may have been, as nothing streams.",
        |server| receiver!(server, receiver, receiver.lag_seconds),
    ),
    metric(
        "server_lsn",
        Some(Unit::Bytes),
        None,
        "How far the server could send when it was last heard, as a number of bytes.",
        |server| receiver!(server, r, r.server_lsn.map(|lsn| lsn.as_u64() as f64)),
    ),
    metric(
        "received_lsn",
        Some(Unit::Bytes),
        None,
        "Everything before this position was received. Its rate is what comes in.",
        |server| receiver!(server, r, r.received_lsn.map(|lsn| lsn.as_u64() as f64)),
    ),
    metric(
        "written_lsn",
        Some(Unit::Bytes),
        None,
        "Everything before this position was written.",
        |server| receiver!(server, r, r.written_lsn.map(|lsn| lsn.as_u64() as f64)),
    ),
    metric(
        "flushed_lsn",
        Some(Unit::Bytes),
        None,
        "Everything before this position is durable, and the server was told so.",
        |server| receiver!(server, r, r.flushed_lsn.map(|lsn| lsn.as_u64() as f64)),
    ),
    metric("timeline", None, None, "The timeline that is received.", |server| {
        receiver!(server, r, r.timeline.map(|timeline| f64::from(timeline.get())))
    }),
    metric(
        "heard_timestamp",
        Some(Unit::Seconds),
        None,
        "When the server last sent something.",
        |server| seconds_of(server.live.receiver.as_ref().and_then(|r| r.heard_at)),
    ),
    metric("synchronous", None, None, "1 if commits on the server wait for us.", |server| {
        receiver!(server, r, Some(f64::from(u8::from(r.synchronous))))
    }),
    metric(
        "disk_full",
        None,
        None,
        "1 if the disk is full, so that nothing can be taken.",
        |server| receiver!(server, r, Some(f64::from(u8::from(r.disk_full)))),
    ),
    metric(
        "archive_queue_segments",
        None,
        None,
        "Complete WAL segments that wait to be archived.",
        |server| receiver!(server, r, Some(r.waiting_for_archive as f64)),
    ),
    metric(
        "slot_safe_wal",
        Some(Unit::Bytes),
        None,
        "What may still be written on the server before the slot is in danger, as of the last check; \
         absent where max_slot_wal_keep_size sets no limit.",
        |server| one(kept_by_slot(server).and_then(|(_, measured)| Some(measured? as f64))),
    ),
    metric(
        "slot_wal_kept",
        None,
        None,
        "1 if the server keeps the WAL that comes next (wal_status reserved or extended), 0 if it is \
         in danger or lost, as of the last check.",
        |server| {
            one(kept_by_slot(server).map(|(state, _)| f64::from(u8::from(state == CheckState::Ok))))
        },
    ),
    metric(
        "check_state",
        None,
        Some("check"),
        "How each thing was on the last check: 0 OK, 1 WARNING, 2 FAILED.",
        |server| {
            let rows = server.check.as_ref().map(|check| check.rows.as_slice());
            let mut samples: Vec<Sample> = Vec::new();
            for row in rows.unwrap_or_default() {
                let value = f64::from(row.severity as u8);
                match samples.iter_mut().find(|(name, _)| *name == row.name) {
                    Some(same) => same.1 = same.1.max(value),
                    None => samples.push((row.name, value)),
                }
            }
            samples
        },
    ),
    metric("check_ok", None, None, "1 if nothing failed on the last check.", |server| {
        server.check.as_ref().map(|check| flag(check.ok)).unwrap_or_default()
    }),
    metric(
        "check_timestamp",
        Some(Unit::Seconds),
        None,
        "When the last check was made.",
        |server| seconds_of(server.check.as_ref().map(|check| check.at)),
    ),
    metric("backups", None, Some("status"), "How many base backups have this status.", |server| {
        let count = |status| {
            let all = &server.stored.window.backups;
            all.iter().filter(|backup| backup.status == status).count() as f64
        };
        vec![
            ("STARTED", count(Some(BackupStatus::Started))),
            ("FAILED", count(Some(BackupStatus::Failed))),
            ("WAITING_FOR_WALS", count(Some(BackupStatus::WaitingForWals))),
            ("DONE", count(Some(BackupStatus::Done))),
            ("BROKEN", count(Some(BackupStatus::Broken))),
            ("unreadable", count(None)),
        ]
    }),
    metric(
        "last_backup_timestamp",
        Some(Unit::Seconds),
        Some("kind"),
        "When the newest backup ended that can be restored, full or incremental.",
        |server| {
            last(server, |backup| backup.ended_at.map(|at| at.as_millisecond() as f64 / 1000.0))
        },
    ),
    metric(
        "last_backup_size",
        Some(Unit::Bytes),
        Some("kind"),
        "What is stored of it.",
        |server| last(server, |backup| Some(backup.stored_bytes as f64)),
    ),
    metric(
        "last_backup_duration",
        Some(Unit::Seconds),
        Some("kind"),
        "How long it took.",
        |server| {
            last(server, |backup| {
                Some(backup.ended_at?.duration_since(backup.began_at).as_secs_f64())
            })
        },
    ),
    metric(
        "recoverable_from_timestamp",
        Some(Unit::Seconds),
        None,
        "The oldest moment that can be recovered to.",
        |server| seconds_of(server.stored.window.recoverable.first().map(|first| first.from)),
    ),
    metric(
        "recoverable_to_timestamp",
        Some(Unit::Seconds),
        None,
        "The newest moment that can be recovered to.",
        |server| seconds_of(server.stored.window.recoverable.iter().map(|s| s.to).max()),
    ),
    metric(
        "recoverable_window",
        Some(Unit::Seconds),
        None,
        "How long the times are that can be recovered to, all together; gaps do not count.",
        |server| one(Some(server.stored.window.recoverable_seconds())),
    ),
    metric(
        "wal_interruptions",
        None,
        Some("kind"),
        "Places that interrupt the WAL that is held: missing, left_out, retired, suspect.",
        |server| {
            let count = |kind| server.stored.window.count(kind) as f64;
            vec![
                ("missing", count(Ending::Missing)),
                ("left_out", count(Ending::LeftOut)),
                ("retired", count(Ending::Retired)),
                ("suspect", count(Ending::Suspect)),
            ]
        },
    ),
    metric("stored", Some(Unit::Bytes), Some("what"), "What is stored: backups, wal.", |server| {
        let sizes = &server.stored.sizes;
        vec![("backups", sizes.backup_bytes as f64), ("wal", sizes.wal_bytes as f64)]
    }),
    metric(
        "stored_growth_per_day",
        Some(Unit::Bytes),
        None,
        "How much backups and WAL grow by in a day; 0 where retention removes as much.",
        |server| one(server.stored.sizes.growth_per_day),
    ),
    metric(
        "disk_size",
        Some(Unit::Bytes),
        None,
        "The size of the store's file system.",
        |server| one(server.stored.sizes.disk.map(|disk| disk.size_bytes as f64)),
    ),
    metric("disk_free", Some(Unit::Bytes), None, "What may still be written to it.", |server| {
        one(server.stored.sizes.disk.map(|disk| disk.free_bytes as f64))
    }),
    metric(
        "disk_full_in",
        Some(Unit::Seconds),
        None,
        "In how much time it is full if all servers go on as they do; absent if it does not fill up.",
        |server| one(server.stored.sizes.disk.and_then(|disk| Some(disk.full_in_seconds? as f64))),
    ),
    metric("task_running", None, Some("task"), "1 for what is being done.", |server| {
        server.live.running.iter().map(|running| (name_of(running.task), 1.0)).collect()
    }),
    metric(
        "task_next_timestamp",
        Some(Unit::Seconds),
        Some("task"),
        "When a scheduled task comes next.",
        |server| {
            let at = |(task, at): (&Task, &Timestamp)| (name_of(*task), at.as_second() as f64);
            server.planned.iter().map(at).collect()
        },
    ),
    metric(
        "task_ended_timestamp",
        Some(Unit::Seconds),
        Some("task"),
        "When a task ended last, well or not, since the daemon was started.",
        |server| {
            server.ended.values().map(|e| (name_of(e.task), e.at.as_second() as f64)).collect()
        },
    ),
    metric(
        "task_failed",
        None,
        Some("task"),
        "1 if a task failed when it was done last, 0 if not.",
        |server| {
            let failed = |e: &crate::daemon::board::Ended| f64::from(u8::from(e.error.is_some()));
            server.ended.values().map(|e| (name_of(e.task), failed(e))).collect()
        },
    ),
    metric(
        "last_scrub_timestamp",
        Some(Unit::Seconds),
        None,
        "When all that is stored was verified last.",
        |server| seconds_of(server.stored.scrub.map(|scrub| scrub.at)),
    ),
    metric("last_scrub_problems", None, None, "How many problems were found then.", |server| {
        one(server.stored.scrub.map(|scrub| scrub.problems as f64))
    }),
    metric(
        "store_problems",
        None,
        None,
        "Things in the store that could not be looked at.",
        |server| one(Some(server.stored.problems.len() as f64)),
    ),
];

/// A metric of the daemon.
struct OfDaemon {
    name: &'static str,
    unit: Option<Unit>,
    label: Option<&'static str>,
    help: &'static str,
    read: fn(&Snapshot) -> Vec<Sample>,
}

const OF_DAEMON: &[OfDaemon] = &[
    OfDaemon {
        name: "build_info",
        unit: None,
        label: Some("version"),
        help: "1, with the version of the program.",
        read: |_| vec![(env!("CARGO_PKG_VERSION"), 1.0)],
    },
    OfDaemon {
        name: "process_resident_memory",
        unit: Some(Unit::Bytes),
        label: None,
        help: "The memory that the daemon uses.",
        read: |_| one(resident()),
    },
    OfDaemon {
        name: "config_reload_ok",
        unit: None,
        label: None,
        help: "0 if the configuration was refused when it was read last, so that the one before holds.",
        read: |snapshot| flag(snapshot.configured),
    },
    OfDaemon {
        name: "process_open_fds",
        unit: None,
        label: None,
        help: "The files and connections that the daemon has open.",
        read: |_| one(std::fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as f64)),
    },
];

fn resident() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: f64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as f64)
}

fn name_of(task: Task) -> &'static str {
    match task {
        Task::Backup => "backup",
        Task::IncrementalBackup => "incremental_backup",
        Task::Verification => "verification",
        Task::Retention => "retention",
        Task::Check => "check",
    }
}

fn kept_by_slot(server: &Overview) -> Option<(CheckState, Option<i64>)> {
    let rows = &server.check.as_ref()?.rows;
    let row = rows.iter().find(|row| row.name == KEPT_BY_SLOT)?;
    Some((row.severity, row.measured))
}

/// Of the newest restorable backup of each kind.
fn last(
    server: &Overview,
    value: impl Fn(&crate::views::window::BackupMark) -> Option<f64>,
) -> Vec<Sample> {
    let of = |kind| {
        let done = |backup: &&crate::views::window::BackupMark| {
            backup.kind == kind && backup.status == Some(BackupStatus::Done)
        };
        value(server.stored.window.backups.iter().rev().find(done)?)
    };
    [("full", of(BackupKind::Full)), ("incremental", of(BackupKind::Incremental))]
        .into_iter()
        .filter_map(|(kind, value)| Some((kind, value?)))
        .collect()
}

/// All metrics of the daemon and of these servers.
pub(super) fn text(servers: Vec<Overview>, configured: bool) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Snapshot { servers, configured }));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// What was seen of all servers at one time.
#[derive(Debug)]
struct Snapshot {
    servers: Vec<Overview>,
    /// Whether the configuration holds that was read last.
    configured: bool,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for OfDaemon { name, unit, label, help, read } in OF_DAEMON {
            let family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            encode_of_daemon(family, *label, read(self))?;
        }
        for Metric { name, unit, label, help, read } in METRICS {
            let samples: Vec<(&str, Vec<Sample>)> = self
                .servers
                .iter()
                .map(|server| (server.live.server.as_str(), read(server)))
                .collect();
            if samples.iter().all(|(_, samples)| samples.is_empty()) {
                continue;
            }
            let mut family =
                encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            for (server, samples) in samples {
                for (of, value) in samples {
                    let mut labels = vec![("server", server)];
                    labels.extend(label.map(|label| (label, of)));
                    ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

fn encode_of_daemon(
    mut family: MetricEncoder<'_>,
    label: Option<&'static str>,
    samples: Vec<Sample>,
) -> Result<(), fmt::Error> {
    for (of, value) in samples {
        match label {
            Some(label) => family.encode_family(&[(label, of)])?.encode_gauge(&value)?,
            None => family.encode_gauge(&value)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
