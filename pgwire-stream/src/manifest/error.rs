//! What can be wrong with a manifest.

/// The bytes are not a manifest, not a complete one, or not the one that was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The text breaks a rule of the format.
    #[error("the backup manifest is malformed at byte {at}: {rule}")]
    Malformed {
        /// The offset of the offending byte in the file.
        at: u64,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The entry of a file or of a WAL range cannot be understood.
    #[error("the backup manifest has a bad entry at byte {at}: {reason}")]
    Entry {
        /// The offset in the file of what is wrong, or else of the entry.
        at: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry is longer than any that a server writes.
    #[error("the backup manifest has an entry of more than {limit} bytes at byte {at}")]
    TooLong {
        /// The offset in the file at which the limit was passed.
        at: u64,
        /// The limit.
        limit: usize,
    },
    /// The version of the format is not one that we know.
    #[error("the backup manifest has version {version}; this program reads versions 1 and 2")]
    UnknownVersion {
        /// The version as written.
        version: String,
    },
    /// The file ended too early, or a part of it was left out.
    #[error("the backup manifest is incomplete: {missing} is missing")]
    Incomplete {
        /// What is missing.
        missing: &'static str,
    },
    /// The manifest was changed after the server wrote it.
    #[error(
        "the backup manifest was altered: it states its checksum as {stated}, but has {computed}"
    )]
    Altered {
        /// The checksum that the last line states.
        stated: String,
        /// The checksum of the lines before it.
        computed: String,
    },
}
