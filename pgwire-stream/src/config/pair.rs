//! What both forms of connection strings are made of.

use zeroize::Zeroizing;

/// A keyword and its value, as written in a connection string.
pub(super) struct Pair {
    pub(super) keyword: String,
    pub(super) value: Zeroizing<String>,
}
