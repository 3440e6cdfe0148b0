//! One file per command: what each does, as a value. No argument structs and no printing here.

pub mod adopt;
pub mod archive_wal;
pub mod backup;
pub mod check;
pub mod check_backup;
pub mod config;
pub mod cron;
pub mod delete;
pub mod diagnose;
pub mod extract;
pub mod generate_manifest;
pub mod get_wal;
pub mod init;
pub mod interruption;
pub mod keep;
pub mod list_files;
pub mod receive_wal;
pub mod restore;
#[cfg(test)]
mod scale;
pub mod show_backup;
pub mod status;
pub mod store;
pub mod switch_wal;
pub mod verify_backup;
