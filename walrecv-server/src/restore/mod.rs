//! From a plan to a data directory that recovers to its target.
