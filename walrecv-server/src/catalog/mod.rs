//! What is stored: identity, WAL, coverage, base backups.
//!
//! Everything is found by reading directories and the small files beside the data; there is no
//! separate database to lose. Like the storage below it, all of this blocks.

mod chain;
mod conclusion;
mod document;
pub(crate) mod judge;
#[cfg(test)]
pub(crate) mod test_wal;

pub mod archive_index;
mod archive_reader;
pub mod backup_record;
pub mod backups;
mod caught_up;
pub mod clock;
pub mod coverage;
mod damage;
pub mod history;
mod hook_facts;
pub mod identity;
pub mod journal;
pub mod keep;
pub mod leases;
pub mod manifest_files;
mod outline;
pub mod partial;
pub mod previous;
mod ranges;
mod register;
pub mod removal;
mod scrub;
pub mod status;
mod turns;
mod verdicts;
pub mod wal;
pub mod wal_findings;
mod wal_growth;
mod wal_health;
pub mod wal_index;
mod wal_path;
mod wal_removal;
mod wal_size;

pub use archive_index::IndexWriter;
pub use archive_reader::{open_member, read_archive};
pub use backup_record::{
    Archive, BackupOutcome, BackupRecord, ConfigFiles, DamagedPages, Manifest, ManifestOrigin,
    Position, Tablespace,
};
pub use backups::{BackupError, Catalog, CatalogEntry, hint_to_vanished};
pub use caught_up::CaughtUp;
pub use clock::Clock;
pub use conclusion::EarlyLook;
pub use coverage::{Absence, Coverage, Gap, Reach};
pub use damage::Damage;
pub use document::DocumentError;
pub use history::{HistoryStore, HistoryStoreError};
pub use identity::{Identity, IdentityError};
pub use journal::{RecordedRange, RecordedSwitch};
pub use keep::{Keep, KeepTarget};
pub use leases::{HeldLease, Lease, LeaseId, LeaseIdError, Leases, NoNewLeases};
pub use manifest_files::{ManifestFiles, ManifestFilesError};
pub use outline::{FolderOutline, WalOutline};
pub use partial::{AHEAD, received_length};
pub use ranges::{Ranges, Span};
pub use removal::{Removal, RemovalError, hint_to_unreadable};
pub use scrub::{BegunScrub, Scrub};
pub(crate) use status::history_of;
pub use status::{BackupStatus, Standing};
pub use turns::{Turn, Turns};
pub use verdicts::{SuspectWal, Verdicts};
pub use wal::{Held, WalError, WalReader, WalStore, archived_file};
pub use wal_findings::{FindingsCollector, RestorePoint, SuspectRange, Validity, WalFindings};
pub use wal_growth::WalGrowth;
pub use wal_health::{LostWal, WalHealth};
pub use wal_index::{
    WalIndex, WalIndexError, WalIndexRecord, WalIndexWriter, WalIndexWriters, WalTotals,
};
pub use wal_path::WalPath;
