//! Keeps base backups and continuous WAL of many PostgreSQL servers.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(walrecv_server::program::run(std::env::args_os().collect()))
}
