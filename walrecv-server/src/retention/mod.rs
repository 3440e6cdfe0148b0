//! Which backups stay, which WAL stays with them, and why: policy, plan, execution.
//!
//! ```text
//! store ──▶ facts ──▶ policy: a verdict with its reasons for each backup
//!             │           │
//!             │           └──▶ needs: which WAL those that stay need ──▶ plan ──▶ execute
//!             └── lineage: which timeline leads to which ───────────────────┘
//! ```
//!
//! Nothing is removed on facts that cannot be read: a record, a mark, a lease, a history or a journal
//! that nobody understands ends all of it with an error that names the file.

mod damaged;
mod dates;
mod error;
mod execute;
mod facts;
mod lineage;
mod maintenance;
mod needs;
mod plan;
mod policy;
mod reason;
#[cfg(test)]
mod tests;
mod whole;

pub use error::RetentionError;
pub use execute::{Removed, Steps, execute};
pub use facts::KnownBackup;
pub use maintenance::{Enforced, enforce, enforce_until, free_wal, settle};
pub use needs::Fate;
pub use plan::{KeptFrom, RetentionPlan, WalPlan, plan, plan_wal_without, verdicts};
pub use policy::{Label, Rules, Verdict};
pub use reason::Reason;
