//! The backup server's parts, as a library so that tests and benches can link them; not an API.
//!
//! Each module may use those above it in this list, and none below.
#![doc(hidden)]
#![deny(unsafe_code)]

pub mod failure;
pub mod progress;
pub mod units;

pub mod settings;

pub mod peer;

pub mod storage;

pub mod hooks;

pub mod catalog;

pub mod receiver;

pub mod backup;

pub mod restore;

pub mod verify;

pub mod retention;

pub mod views;

pub mod daemon;

pub mod commands;

pub mod output;

pub mod cli;

pub mod program;
