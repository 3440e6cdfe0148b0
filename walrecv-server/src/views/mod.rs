//! What operators look at, as values: the same for commands, the daemon's pages and its metrics.
//!
//! A view is gathered from the store, from the server, and from what its receiver says. Nothing here
//! changes anything, prints, or knows how it was asked.

pub mod backups;
pub mod check;
pub mod diagnose;
pub mod disk;
pub mod privileges;
pub mod replication;
pub mod server_config;
pub mod server_facts;
pub mod servers;
pub mod sizes;
pub mod status;
pub mod stored;
mod wal_rate;
pub mod window;
