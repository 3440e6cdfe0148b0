//! Checking write-ahead log: pages, the chain of records, and their checksums.
//!
//! ```text
//!  WalOptions, Start ──▶ WalValidator ──feed(bytes, |finding| …)──▶ Finding::Record
//!                          │                                               ::Unchecked
//!                          └── position()                                  ::Warning
//!                                                                          ::Damage
//! ```
//!
//! A [`WalValidator`] is given WAL in order, in pieces of any size: as a server streams it, or as
//! it lies in segments. It needs no files and no clock, never fails, and holds no part of a record
//! but its beginning, so it costs the same memory however long records are.
//!
//! The rules are those of PostgreSQL's own reader (`src/backend/access/transam/xlogreader.c`), for
//! the formats of PostgreSQL 10 to 19. Where that reader stops at the first record that it cannot
//! read, for it cannot tell the end of WAL from damage, the validator goes on: at the next page
//! whose header is right.
//!
//! # What is checked
//!
//! * Every page: magic, address, timeline, flags, and how much of a record it continues; the first
//!   one of each segment also for system identifier, segment size and page size.
//! * Every record: length, the link to the record before it, and CRC-32C over all of it. So every
//!   bit of WAL is covered, but for:
//!   * up to seven bytes of alignment behind each record;
//!   * the four bytes of padding at the end of a short page header (20 to 23);
//!   * the flag `XLP_BKP_REMOVABLE` (up to 18), which may be either;
//!   * on timelines other than the first, a page's timeline if it names an earlier one that is no
//!     earlier than that of the page before;
//!   * what follows a WAL switch in its segment: if it is not empty, that is a
//!     [warning](WalWarning::NotEmpty), for nobody reads it.
//!
//! # Where WAL ends
//!
//! On the wire, WAL ends where the server stops. In a file, what follows its end are zeros, or in
//! the server's own directory the remains of an older segment. Zeros up to the last byte fed are
//! not damage: [`WalPosition::zeros_from`] tells of them, and the caller has to know whether WAL
//! may end there. If anything follows them, it is a [hole](WalDamage::Hole).
//!
//! A record that was never completed, because the server crashed, is no damage either if the
//! server says so: it is [unchecked](Finding::Unchecked), and a record with
//! [`Content::OverwriteContrecord`] follows.

mod content;
mod finding;
mod magic;
mod page;
mod page_rules;
mod partial;
mod prepared;
mod record;
#[cfg(test)]
mod tests;
mod validator;

pub use content::Content;
pub use finding::{Finding, Record, WalDamage, WalWarning};
pub use page::{LongPageHeader, PageHeader, PageSize};
pub use record::{RecordHeader, ResourceManager};
pub use validator::{Start, WalOptions, WalPosition, WalValidator};
