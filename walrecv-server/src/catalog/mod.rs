//! What is stored: identity, WAL, coverage, base backups.
