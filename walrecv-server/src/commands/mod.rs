//! One file per command: what each does, as a value. No argument structs and no printing here.

pub mod connection;
pub mod init;
pub mod switch_wal;
