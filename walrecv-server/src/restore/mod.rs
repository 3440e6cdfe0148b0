//! From a stored backup and WAL to a data directory that a server starts from.

pub mod recovery;
pub mod target;
