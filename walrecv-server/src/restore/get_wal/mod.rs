//! One file of WAL for a recovering server: finding it, and putting it where it is wanted.
//!
//! PostgreSQL takes an exit code from 1 to 125 of its `restore_command` for "the archive ends
//! here", ends the recovery and may promote. So that is said only when the archive was read
//! completely and does end there ([`Lookup::EndOfArchive`]); every error has a code of 200 or
//! more, on which PostgreSQL stops and a human looks.
//!
//! Finding and putting are apart, because the server's user may not be allowed to read the store:
//! then the daemon finds, and the user's process puts.

mod deliver;
mod error;
mod file;
mod lookup;
mod spool;
#[cfg(test)]
mod tests;

pub use deliver::deliver;
pub use error::{GetWalError, exit_code};
pub(in crate::restore) use error::{read_error, wrong_length};
pub use file::WalFile;
pub use lookup::{Beginnings, Lookup, locate};
pub use spool::{Filling, Spool};
