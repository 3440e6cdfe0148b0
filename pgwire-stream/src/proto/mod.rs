//! The protocol as a value: bytes and time go in; bytes, events and deadlines come out.
//!
//! Nothing here knows sockets, TLS, files, clocks or a runtime. [`Session`] is the conversation, and
//! `ServerSession` (with the feature `server`) its other end; [`FrontendMessage`] and
//! [`BackendMessage`] are what is said in it. Whoever drives it owns the buffers: payloads are
//! slices of the input buffer and are never copied.
//!
//! Follows "Frontend/Backend Protocol" and "Streaming Replication Protocol" in PostgreSQL's
//! documentation.

mod auth;
mod authentication_request;
mod backend;
mod backup;
mod cancel;
mod command;
mod feedback;
mod frame;
mod frontend;
mod protocol_version;
mod report;
mod rows;
#[cfg(feature = "server")]
mod server;
mod session;
mod wal;

pub use auth::{AuthenticatedBy, Credentials, TlsBinding};
pub use authentication_request::AuthenticationRequest;
pub use backend::{BackendMessage, BackendPhase, TransactionStatus};
pub use backup::{Archive, BackupDecoder, BackupEnd, BackupEvent, BackupStart, BackupTablespace};
pub use cancel::{CANCEL_SECRET, CancelKey};
#[cfg(feature = "server")]
pub use command::CommandSyntaxError;
pub use command::{
    AlterSlot, BackupTarget, BaseBackupOptions, Command, CompressionMethod, DropSlot, LogicalSlot,
    ManifestChecksums, PhysicalSlot, ServerCompression, Snapshot, StartLogical, StartReplication,
};
pub use feedback::{Action, Feedback, Intervals};
pub use frame::{
    LONG_WAL_MESSAGE, MAX_COPY_DATA, MAX_LOGIN_ERROR, MAX_LOGIN_MESSAGE, MAX_MESSAGE, MAX_REPORT,
    MAX_ROW, encode_copy_data,
};
pub use frontend::{
    FrontendMessage, FrontendPhase, MAX_COMMAND, MAX_PASSWORD_MESSAGE, MAX_SASL_MESSAGE,
    MAX_SMALL_MESSAGE, MAX_STARTUP_PACKET, PasswordMessage,
};
pub use protocol_version::{ProtocolRange, ProtocolVersion};
pub use rows::{Column, Columns, ResultSet, Row};
#[cfg(feature = "server")]
pub use server::{Authentication, Replication, ScramVerifier, ServerEvent, ServerSession, Startup};
pub use session::{Event, Session};
pub use wal::{
    CopyBothMessage, HotStandbyFeedback, Keepalive, PrimaryStatus, StandbyMessage, StandbyStatus,
    WalData,
};

#[cfg(test)]
pub(crate) mod tests;
