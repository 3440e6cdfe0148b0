//! Retention against an oracle: random servers, with timelines, chains, marks, leases and clocks that
//! are set back, and what can be restored of each before and after.
//!
//! The oracle knows nothing of the planner. It asks for every moment and every backup whether a
//! recovery gets there through the files that are left, as PostgreSQL would go.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "a test")]

mod cases;
mod left;
mod moments;
mod oracle;
mod properties;
mod world;
