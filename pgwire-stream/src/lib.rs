//! PostgreSQL's streaming-replication protocol: identify a server, keep its WAL with a slot, stream
//! it without gaps across timelines, take base backups, and check what was received, for every
//! server from 10 on.
//!
//! It speaks to the server alone, over one connection of a role with `REPLICATION`. No libpq, no
//! PostgreSQL programs, no `unsafe`.
//!
//! # The picture
//!
//! Each layer can be used alone, and is built only on those below it.
//!
//! ```text
//!  Config ──connect──▶ ReplicationClient ──start_replication──▶ WalStream ──finish──▶ client, StreamEnd
//!                        │  ▲                                       │
//!                        │  └─ identify_system, show, slots, …      └─ progress() ▶ Progress (Clone)
//!                        └──────base_backup──▶ BaseBackup ──finish──▶ client, BackupEnd
//!  ──────────────────────────────────────────────────────────────────────────────────────────────
//!  Connection<S>     drives a session over any AsyncRead + AsyncWrite        (feature `tokio`)
//!  ──────────────────────────────────────────────────────────────────────────────────────────────
//!  proto             the conversation as a value: no sockets, no clocks, no runtime
//!  ──────────────────────────────────────────────────────────────────────────────────────────────
//!  wal, manifest, backup_label, tablespace_map, control_file, incremental    formats
//!  Lsn, TimelineId, TimelineHistory, SegmentName, ServerVersion, …           values
//! ```
//!
//! A stream or a backup consumes its client and gives it back at its end. So no command can be sent
//! in the middle of one, and everything is `Send` and can be spawned.
//!
//! # A receiver in twenty lines
//!
//! ```no_run
//! use pgwire_stream::{Config, ReplicationClient, StartReplication, StreamEnd, WalEvent};
//!
//! # fn store(_: &pgwire_stream::WalData) -> std::io::Result<()> { Ok(()) }
//! # async fn receive() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::load("host=db.example user=backup sslmode=verify-full")?;
//! let mut client = ReplicationClient::connect(&config).await?;
//! let size = client.wal_segment_size().await?;
//! let system = client.identify_system().await?;
//! let (mut timeline, mut from) = (system.timeline, system.flushed_to);
//! loop {
//!     let mut options = StartReplication::new(size.start_of(size.segment_of(from)));
//!     options.slot = Some("archive".parse()?);
//!     options.timeline = Some(timeline);
//!     let mut stream = client.start_replication(options).await?;
//!     let progress = stream.progress();
//!     while let Some(event) = stream.next().await? {
//!         if let WalEvent::Data(wal) = event {
//!             store(&wal)?; // Write it, and `fsync` it: only then is it durable.
//!             progress.flushed(wal.end())?; // The server may forget it now.
//!         }
//!     }
//!     match stream.finish()? {
//!         (idle, StreamEnd::NextTimeline { timeline: next, start }) => {
//!             (client, timeline, from) = (idle, next, start);
//!         }
//!         _ => return Ok(()),
//!     }
//! }
//! # }
//! ```
//!
//! What cannot be stored at once is waited for inside [`WalStream::hold`], which reads nothing more
//! and keeps the session alive.
//!
//! The [recipes](manual::recipes) go on from here: being let in, a whole archiver in under fifty
//! lines, being a synchronous standby, backups and how they are verified, cancelling, TLS of one's
//! own, a scripted server for tests. [What proves it](manual::capabilities) lists what the library
//! can do, and the test that shows each of it.
//!
//! # A base backup
//!
//! ```no_run
//! use pgwire_stream::{BackupEvent, BaseBackupOptions, ReplicationClient};
//!
//! # async fn back_up(client: ReplicationClient) -> Result<(), Box<dyn std::error::Error>> {
//! let mut backup = client.base_backup(&BaseBackupOptions::default()).await?;
//! let mut bytes = 0;
//! while let Some(event) = backup.next().await? {
//!     if let BackupEvent::ArchiveData(data) = event {
//!         bytes += data.len();
//!     }
//! }
//! // The only proof that the backup is good: the server reports damaged pages last.
//! let (client, end) = backup.finish()?;
//! println!("{bytes} bytes; consistent with WAL up to {}", end.lsn);
//! # client.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! * It stores nothing, and never reports anything as durable by itself: that is
//!   [`Progress::flushed`], and the caller's word.
//! * It does not reconnect. [`Error::advice`] says whether trying again can help.
//! * It checks WAL ([`wal`]) but does not decode what its records mean, nor what an output plugin
//!   writes: that comes as bytes.
//! * It starts no tasks and no timers of its own, but for [`spawn_wal_stream`]: whatever happens,
//!   happens inside the future that is awaited. A stream that is neither in `next` nor in `hold` is
//!   silent, and the server closes the connection after its `wal_sender_timeout`.
//! * It does not speak Kerberos (GSSAPI, SSPI) or OAuth.
//!
//! # Errors
//!
//! An [`Error`] says whose fault it is: a [refusal](Error::Server) is the server's decision,
//! a [violation](Error::Violation) or [malformed bytes](Error::Decode) its mistake,
//! [misuse](Error::Misuse) ours. What a server is too old for is
//! [unsupported](Error::Unsupported), and said before anything is sent. [`Error::advice`] is what a
//! supervisor needs: try again, after an operator has done something, or never.
//!
//! What an error prints does not repeat its [`source`](std::error::Error::source): "the connection
//! failed" has the operating system's reason there. Logs want the whole chain.
//!
//! # Cancel safety
//!
//! Dropping a future never breaks the conversation, because what was received or is still to be
//! sent stays in the connection.
//!
//! | Dropped | What happens |
//! |---|---|
//! | [`WalStream::next`], [`BaseBackup::next`], [`SpawnedWalStream::next`] | Nothing is lost; call it again. |
//! | [`WalStream::hold`] | As with its future; the pause ends with the next call of `next`. |
//! | a command of a [`ReplicationClient`] | It may have been executed. The next command first reads the rest of its answer. |
//! | [`start_replication`](ReplicationClient::start_replication), [`base_backup`](ReplicationClient::base_backup), [`connect`](ReplicationClient::connect) | The connection is closed. |
//! | the client, a stream or a backup itself | The connection is closed, and the server ends what it was doing. |
//!
//! # Limits
//!
//! Every length from the network is checked before memory is taken for it: see
//! [`proto::MAX_COPY_DATA`] and its neighbours. Nothing that a server sends panics. Payloads are
//! slices of the receive buffer; the library copies none, but for the beginning of a message that
//! does not fit into the rest of its buffer.
//!
//! # Features
//!
//! Features add API; none changes what the rest does.
//!
//! | Feature | Default | Adds |
//! |---|---|---|
//! | `tokio` | yes | [`Connection`], [`ReplicationClient`] and connecting over TCP and Unix sockets |
//! | `tls` | yes | TLS by rustls, channel binding |
//! | `aws-lc-rs`, `ring` | `aws-lc-rs` | the cryptography that TLS uses; one is needed, neither becomes the process's default |
//! | `native-certs` | yes | `sslrootcert=system` |
//! | `manifest` | no | [`manifest`]: reading, writing and verifying `backup_manifest` |
//! | `server` | no | the server's end in [`proto`] and, with `tokio`, [`server`]: a PostgreSQL of one's own, for tests, proxies and to serve replication |
//! | `tokio-rt` | no | [`spawn_wal_stream`]: a stream in a task of its own, with a queue bounded in bytes |
//! | `serde` | no | `Serialize` and `Deserialize` for the values |
//!
//! Without any there are the values, the formats but for the manifest, [`Config`] and [`proto`], and
//! no tokio among the dependencies.
//!
//! Rust 1.89 or newer is needed. A newer one will only be asked for with a new minor version.
#![cfg_attr(docsrs, feature(doc_cfg))]
// The documentation speaks of everything; what is left out of a build has no page to link to.
#![cfg_attr(
    not(all(feature = "tls", feature = "manifest", feature = "server", feature = "tokio-rt")),
    allow(rustdoc::broken_intra_doc_links)
)]
#![forbid(unsafe_code)]

mod account;
pub mod backup_label;
#[cfg(feature = "tokio")]
mod client;
mod config;
#[cfg(feature = "tokio")]
mod connection;
pub mod control_file;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod incremental;
mod lsn;
#[cfg(feature = "manifest")]
pub mod manifest;
#[cfg(any(doc, doctest))]
pub mod manual;
#[cfg(feature = "tokio")]
mod net;
pub mod page;
pub mod proto;
mod relation;
mod segment;
mod serde_text;
#[cfg(all(feature = "server", feature = "tokio"))]
pub mod server;
mod system;
pub mod tablespace_map;
mod timeline;
mod timestamp;
#[cfg(feature = "tls")]
mod tls;
mod version;
pub mod wal;
#[cfg(feature = "tokio")]
mod wire;

#[cfg(feature = "tokio")]
pub use client::{
    BaseBackup, CancelToken, CreatedSlot, Positions, Progress, ReplicationClient, SlotPosition,
    StreamEnd, SystemIdentification, WalEvent, WalStream,
};
#[cfg(feature = "tokio-rt")]
pub use client::{SpawnedWalStream, spawn_wal_stream};
pub use config::{
    AuthMethod, ChannelBinding, Config, ConfigError, ConnectionOptions, Endpoint, Host,
    LoadBalanceHosts, Password, RequireAuth, RootCert, SslCertMode, SslMode, SslNegotiation,
    TargetSessionAttrs, TcpKeepalive, TlsVersion,
};
#[cfg(feature = "tokio")]
pub use connection::Connection;
pub use error::{
    Advice, AuthError, ConnectAttempt, DecodeError, Error, Misuse, Result, ServerError, SqlState,
    TlsError, Violation,
};
pub use lsn::{Lsn, LsnParseError};
#[cfg(feature = "tokio")]
pub use net::{Stream, TlsInUse};
#[doc(inline)] // Most programs name them from here.
pub use proto::{
    AlterSlot, Archive, AuthenticatedBy, BackupEnd, BackupEvent, BackupStart, BackupTablespace,
    BackupTarget, BaseBackupOptions, CompressionMethod, DropSlot, HotStandbyFeedback, Intervals,
    Keepalive, LogicalSlot, ManifestChecksums, PhysicalSlot, PrimaryStatus, ResultSet,
    ServerCompression, Snapshot, StartLogical, StartReplication, WalData,
};
pub use relation::{RelationFiles, RelationFilesError};
pub use segment::{
    SegmentName, SegmentNumber, SegmentPiece, SegmentSize, SegmentSizeError, WalFileName,
    WalNameError,
};
pub use system::{SlotName, SlotNameError, SystemId, SystemIdParseError};
pub use timeline::{
    HistoryError, HistoryFile, TimelineHistory, TimelineId, TimelineParseError, TimelineSwitch,
};
pub use timestamp::{PgTimestamp, TimestampParseError};
#[cfg(feature = "tls")]
pub use tls::TlsConfig;
pub use version::{Feature, ServerVersion, Unsupported};

#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
