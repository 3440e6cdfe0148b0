//! One base backup: receive, verify in flight, compress, store, record.
