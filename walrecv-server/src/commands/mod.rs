//! One file per command: what each does, as a value. No argument structs and no printing here.

pub mod backup;
pub mod check;
pub mod connection;
pub mod get_wal;
pub mod init;
pub mod interruption;
pub mod list_backups;
pub mod receive_wal;
pub mod restore;
#[cfg(test)]
mod scale;
pub mod show_backup;
pub mod store;
pub mod switch_wal;
