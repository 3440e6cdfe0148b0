//! `global/pg_control`: what a cluster knows of itself before it reads anything else.
//!
//! ```no_run
//! use pgwire_stream::control_file::ControlFile;
//!
//! let control = ControlFile::parse(&std::fs::read("data/global/pg_control")?)?;
//! println!("cluster {}, segments of {}", control.system_id, control.wal_segment_size);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Follows `src/include/catalog/pg_control.h`, and `src/common/controldata_utils.c` for what is
//! verified. Files of little-endian servers with 64-bit alignment are read: those of every platform
//! that PostgreSQL is packaged for, but s390x.

mod layout;
#[cfg(test)]
mod tests;

use layout::Layout;

use crate::{Lsn, RelationFiles, SegmentSize, SystemId, TimelineId};

/// Its path in the data directory.
pub const FILE_NAME: &str = "global/pg_control";

/// The fields of `pg_control` that a restore has a use for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControlFile {
    /// The identifier of the cluster.
    pub system_id: SystemId,
    /// The version of the file's format, such as 1700.
    pub control_version: u32,
    /// The version of the system catalogs, such as 202406281: a part of the names of the
    /// directories in tablespaces.
    pub catalog_version: u32,
    /// What the cluster was doing; in a base backup from a primary it is in production.
    pub state: ClusterState,
    /// When the file was last written, in seconds since 1970.
    pub modified: i64,
    /// The position of the record of the last checkpoint.
    pub checkpoint: Lsn,
    /// Where replay from that checkpoint begins. With a `backup_label` it begins where that says.
    pub redo: Lsn,
    /// The timeline of that checkpoint.
    pub timeline: TimelineId,
    /// How far a server in recovery has to replay before it is consistent; zero outside recovery.
    pub min_recovery_point: Lsn,
    /// The timeline of that position; `None` outside recovery.
    pub min_recovery_timeline: Option<TimelineId>,
    /// The beginning of the backup that is being recovered from; zero outside of that.
    pub backup_start: Lsn,
    /// The end of that backup, if it was taken from a standby; zero otherwise.
    pub backup_end: Lsn,
    /// Whether recovery needs to see the end of that backup in the WAL.
    pub backup_end_required: bool,
    /// What a standby must not have less of.
    pub limits: StandbyLimits,
    /// The sizes of relation files.
    pub relations: RelationFiles,
    /// The size of a page of the WAL in bytes.
    pub wal_block_size: u32,
    /// The size of WAL segments.
    pub wal_segment_size: SegmentSize,
    /// Whether data pages have checksums.
    pub data_checksums: DataChecksums,
}

/// What a cluster was doing when its control file was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClusterState {
    /// It was starting.
    Startup,
    /// It was shut down in good order.
    ShutDown,
    /// It was shut down in good order while in recovery.
    ShutDownInRecovery,
    /// It was shutting down.
    ShuttingDown,
    /// It was recovering from a crash.
    CrashRecovery,
    /// It was recovering from an archive or a stream.
    ArchiveRecovery,
    /// It was running.
    InProduction,
}

/// The settings of the primary that a standby must reach to accept queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct StandbyLimits {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`, from PostgreSQL 12 on.
    pub max_wal_senders: Option<u32>,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
}

/// Whether the pages of a cluster have checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataChecksums {
    /// They have none.
    Off,
    /// All have one.
    On,
    /// They are being enabled or disabled while the server runs (from PostgreSQL 19 on), so that
    /// not every page has a valid one; the number as it stands in the file.
    InTransition(u32),
}

/// Why a file is not a `pg_control` that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlFileError {
    /// The file ends too early.
    #[error("pg_control has {length} bytes and needs {needed}")]
    TooShort {
        /// How long it is.
        length: usize,
        /// How long it has to be at least.
        needed: usize,
    },
    /// The version is not one that is known, so nothing in the file is.
    #[error("pg_control has version {version}, which this program does not know")]
    UnknownVersion {
        /// The version, as little-endian number.
        version: u32,
    },
    /// The file was written by a server of the other byte order.
    #[error("pg_control was written by a big-endian server")]
    ByteOrder,
    /// The content does not have the checksum that is stated in it.
    #[error("pg_control is damaged: its checksum is {computed:08x} and not {stated:08x}")]
    Checksum {
        /// The checksum in the file.
        stated: u32,
        /// The checksum of its content.
        computed: u32,
    },
    /// The checksum is right, and yet a field has a value that it cannot have.
    #[error("pg_control cannot have the value {value} as `{field}`")]
    Field {
        /// The name of the field in PostgreSQL's sources.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

impl ControlFile {
    /// Reads the file. Only its first 512 bytes have a meaning; what lies behind them does not
    /// matter.
    ///
    /// # Errors
    /// If the version is not known, the checksum is wrong, or a field is impossible.
    pub fn parse(content: &[u8]) -> Result<Self, ControlFileError> {
        let file = Bytes(content);
        let control_version = file.u32(8)?;
        let layout = Layout::of(control_version).ok_or_else(|| {
            if Layout::of(control_version.swap_bytes()).is_some() {
                ControlFileError::ByteOrder
            } else {
                ControlFileError::UnknownVersion { version: control_version }
            }
        })?;
        let stated = file.u32(layout.crc)?;
        let computed = crc32c::crc32c(content.get(..layout.crc).unwrap_or_default());
        if stated != computed {
            return Err(ControlFileError::Checksum { stated, computed });
        }
        // The server's own two checks that it has the layout that it thinks it has.
        if file.u32(layout.max_align)? != 8 {
            return Err(file.impossible("maxAlign", layout.max_align));
        }
        let float_format = layout.block_size - 8;
        if file.u64(float_format)? != 1_234_567.0_f64.to_bits() {
            return Err(file.impossible("floatFormat", float_format));
        }
        let (min_recovery, limits) = (layout.min_recovery_point, layout.max_connections);
        let behind_workers = limits + if layout.max_wal_senders { 12 } else { 8 };
        let wal_segment_size = layout.wal_block_size + 4;
        Ok(Self {
            system_id: SystemId::from_u64(file.u64(0)?),
            control_version,
            catalog_version: file.u32(12)?,
            state: ClusterState::of(file.u32(16)?).ok_or_else(|| file.impossible("state", 16))?,
            modified: file.u64(24)?.cast_signed(),
            checkpoint: file.lsn(32)?,
            redo: file.lsn(layout.checkpoint)?,
            timeline: TimelineId::new(file.u32(layout.checkpoint + 8)?)
                .ok_or_else(|| file.impossible("ThisTimeLineID", layout.checkpoint + 8))?,
            min_recovery_point: file.lsn(min_recovery)?,
            min_recovery_timeline: TimelineId::new(file.u32(min_recovery + 8)?),
            backup_start: file.lsn(min_recovery + 16)?,
            backup_end: file.lsn(min_recovery + 24)?,
            backup_end_required: file.array::<1>(min_recovery + 32)? != [0],
            limits: StandbyLimits {
                max_connections: file.u32(limits)?,
                max_worker_processes: file.u32(limits + 4)?,
                max_wal_senders: match layout.max_wal_senders {
                    true => Some(file.u32(limits + 8)?),
                    false => None,
                },
                max_prepared_transactions: file.u32(behind_workers)?,
                max_locks_per_transaction: file.u32(behind_workers + 4)?,
            },
            relations: RelationFiles::new(
                file.u32(layout.block_size)?,
                file.u32(layout.block_size + 4)?,
            )
            .map_err(|_| file.impossible("blcksz", layout.block_size))?,
            wal_block_size: match file.u32(layout.wal_block_size)? {
                size if size.is_power_of_two() && (1024..=65536).contains(&size) => size,
                _ => return Err(file.impossible("xlog_blcksz", layout.wal_block_size)),
            },
            wal_segment_size: SegmentSize::new(file.u32(wal_segment_size)?.into())
                .map_err(|_| file.impossible("xlog_seg_size", wal_segment_size))?,
            data_checksums: match file.u32(layout.data_checksums)? {
                0 => DataChecksums::Off,
                1 => DataChecksums::On,
                other => DataChecksums::InTransition(other),
            },
        })
    }
}

impl ClusterState {
    const fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Startup,
            1 => Self::ShutDown,
            2 => Self::ShutDownInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::CrashRecovery,
            5 => Self::ArchiveRecovery,
            6 => Self::InProduction,
            _ => return None,
        })
    }
}

/// The content, by offset.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(self, at: usize) -> Result<[u8; N], ControlFileError> {
        self.0
            .get(at..)
            .and_then(<[u8]>::first_chunk)
            .copied()
            .ok_or(ControlFileError::TooShort { length: self.0.len(), needed: at + N })
    }

    fn u32(self, at: usize) -> Result<u32, ControlFileError> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(self, at: usize) -> Result<u64, ControlFileError> {
        self.array(at).map(u64::from_le_bytes)
    }

    fn lsn(self, at: usize) -> Result<Lsn, ControlFileError> {
        self.u64(at).map(Lsn::from_u64)
    }

    fn impossible(self, field: &'static str, at: usize) -> ControlFileError {
        ControlFileError::Field { field, value: self.u32(at).unwrap_or_default().into() }
    }
}
