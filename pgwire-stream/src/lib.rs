//! PostgreSQL's streaming-replication protocol.
#![forbid(unsafe_code)]

#[cfg(feature = "tokio")]
mod client;
mod config;
#[cfg(feature = "tokio")]
mod connection;
mod error;
mod lsn;
#[cfg(feature = "manifest")]
pub mod manifest;
#[cfg(feature = "tokio")]
mod net;
pub mod proto;
#[cfg(test)]
mod scripted;
mod segment;
mod serde_text;
mod system;
mod timeline;
mod timestamp;
#[cfg(feature = "tls")]
mod tls;
mod version;

#[cfg(feature = "tokio")]
pub use client::{
    BaseBackup, Positions, Progress, ReplicationClient, SlotPosition, StreamEnd,
    SystemIdentification, WalEvent, WalStream,
};
pub use config::{
    ChannelBinding, Config, ConfigError, Endpoint, Host, Keepalive, Password, RootCert, SslMode,
    TargetSessionAttrs,
};
#[cfg(feature = "tokio")]
pub use connection::Connection;
pub use error::{
    Advice, AuthError, ConnectAttempt, DecodeError, Error, Misuse, Result, ServerError, SqlState,
    TlsError, Violation,
};
pub use lsn::{Lsn, LsnParseError};
#[cfg(feature = "tokio")]
pub use net::Stream;
pub use proto::{
    Archive, BackupEnd, BackupEvent, BackupStart, BackupTablespace, BaseBackupOptions, DropSlot,
    Intervals, Keepalive as ServerKeepalive, ManifestChecksums, PhysicalSlot, ResultSet,
    StartReplication, WalData,
};
pub use segment::{
    SegmentName, SegmentNumber, SegmentSize, SegmentSizeError, WalFileName, WalNameError,
};
pub use system::{SlotName, SlotNameError, SystemId, SystemIdParseError};
pub use timeline::{
    HistoryError, HistoryFile, TimelineHistory, TimelineId, TimelineParseError, TimelineSwitch,
};
pub use timestamp::{PgTimestamp, TimestampParseError};
pub use version::{Feature, ServerVersion, Unsupported};
