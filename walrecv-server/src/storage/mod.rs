//! Bytes that last: paths, durable writes, locks and compression.

pub mod tar;
