//! Entry points of the fuzz targets: each takes arbitrary bytes and asserts what must hold whatever
//! they are. Not part of the API.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(missing_docs, reason = "not part of the API")]

mod backup;
mod command;
mod config;
mod files;
mod login;
mod messages;
mod server_session;
mod session;
mod steps;
mod wal;

pub use crate::config::fuzzing::{conninfo_keywords, conninfo_pairs};
pub use backup::backup;
pub use command::command;
pub use config::{conninfo, passfile, service_file, uri};
pub use files::{backup_label, control_file, history, incremental_file, manifest, tablespace_map};
pub use login::login;
pub use messages::{backend, frontend, wal_message};
pub use server_session::{server_accepts, server_session};
pub use session::{client_accepts, session};
pub use wal::wal;

/// A target by its name in `fuzz/`.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("backend", backend),
    ("frontend", frontend),
    ("session", session),
    ("server_session", server_session),
    ("login", login),
    ("command", command),
    ("wal_message", wal_message),
    ("backup", backup),
    ("wal", wal),
    ("history", history),
    ("manifest", manifest),
    ("backup_label", backup_label),
    ("tablespace_map", tablespace_map),
    ("control_file", control_file),
    ("incremental_file", incremental_file),
    ("conninfo", conninfo),
    ("uri", uri),
    ("passfile", passfile),
    ("service_file", service_file),
];
