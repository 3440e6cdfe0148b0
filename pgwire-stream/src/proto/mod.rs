//! The protocol as a value: bytes and time go in; bytes, events and deadlines come out.
//!
//! Nothing here knows sockets, TLS, files, clocks or a runtime. [`Session`] is the conversation;
//! the other modules are what is said in it. Whoever drives it owns the buffers: payloads are
//! slices of the input buffer and are never copied.
//!
//! Follows "Frontend/Backend Protocol" and "Streaming Replication Protocol" in PostgreSQL's
//! documentation.

mod auth;
mod backend;
mod backup;
mod command;
mod feedback;
mod frame;
mod frontend;
mod rows;
mod session;
mod wal;

pub use auth::{Credentials, TlsBinding};
pub use backup::{Archive, BackupDecoder, BackupEnd, BackupEvent, BackupStart, BackupTablespace};
pub use command::{
    AlterSlot, BackupTarget, BaseBackupOptions, Command, CompressionMethod, DropSlot, LogicalSlot,
    ManifestChecksums, PhysicalSlot, ServerCompression, Snapshot, StartLogical, StartReplication,
};
pub use feedback::{Action, Feedback, Intervals};
pub use frame::{MAX_COPY_DATA, MAX_LOGIN_MESSAGE, MAX_MESSAGE, MAX_REPORT, MAX_ROW};
#[cfg(feature = "tls")]
pub(crate) use frontend::ssl_request;
pub use rows::{Columns, ResultSet, Row};
pub use session::{Event, Session};
pub use wal::{
    CopyBothMessage, HotStandbyFeedback, Keepalive, PrimaryStatus, StandbyMessage, StandbyStatus,
    WalData,
};

#[cfg(test)]
mod tests;
