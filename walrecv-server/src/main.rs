//! Keeps base backups and continuous WAL of many PostgreSQL servers.
fn main() {}
