//! PostgreSQL's streaming-replication protocol.
#![forbid(unsafe_code)]

mod config;
mod error;
mod lsn;
#[cfg(feature = "manifest")]
pub mod manifest;
#[cfg(feature = "tokio")]
#[allow(dead_code, unused_imports)]
pub(crate) mod net;
mod segment;
mod serde_text;
mod system;
mod timeline;
mod timestamp;
#[cfg(feature = "tls")]
#[allow(dead_code, unused_imports)]
mod tls;
mod version;

pub use config::{
    ChannelBinding, Config, ConfigError, Endpoint, Host, Keepalive, Password, RootCert, SslMode,
    TargetSessionAttrs,
};
pub use error::{
    Advice, AuthError, ConnectAttempt, DecodeError, Error, Misuse, Result, ServerError, SqlState,
    TlsError, Violation,
};
pub use lsn::{Lsn, LsnParseError};
pub use segment::{
    SegmentName, SegmentNumber, SegmentSize, SegmentSizeError, WalFileName, WalNameError,
};
pub use system::{SlotName, SlotNameError, SystemId, SystemIdParseError};
pub use timeline::{
    HistoryError, HistoryFile, TimelineHistory, TimelineId, TimelineParseError, TimelineSwitch,
};
pub use timestamp::{PgTimestamp, TimestampParseError};
pub use version::{Feature, ServerVersion, Unsupported};
