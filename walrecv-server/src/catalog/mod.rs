//! What is stored: identity, WAL, coverage, base backups.
//!
//! Everything is found by reading directories and the small files beside the data; there is no
//! separate database to lose. Like the storage below it, all of this blocks.

mod document;
pub(crate) mod judge;
#[cfg(test)]
pub(crate) mod test_wal;

pub mod backup_record;
pub mod backups;
pub mod coverage;
pub mod history;
pub mod identity;
pub mod partial;
pub mod status;
pub mod wal;
pub mod wal_findings;
pub mod wal_index;
mod wal_size;

pub use backup_record::{
    Archive, BackupOutcome, BackupRecord, Manifest, ManifestOrigin, Position, Tablespace,
};
pub use backups::{BackupError, Catalog, CatalogEntry};
pub use coverage::{Coverage, Gap, Reach, Span};
pub use document::DocumentError;
pub use history::{HistoryStore, HistoryStoreError};
pub use identity::{Identity, IdentityError};
pub use partial::{AHEAD, received_length};
pub use status::{BackupStatus, Standing};
pub use wal::{Held, WalError, WalStore, archived_file};
pub use wal_findings::{FindingsCollector, RestorePoint, SuspectRange, Validity, WalFindings};
pub use wal_index::{WalIndex, WalIndexError, WalIndexRecord, WalIndexWriter, WalIndexWriters};
