//! What is wrong with the text of a command.

use crate::SlotNameError;

/// Why a command cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandSyntaxError {
    /// The grammar wants something else here.
    #[error("syntax error: expected {expected} at byte {at}")]
    Unexpected {
        /// Where, counted in bytes from the beginning of the command.
        at: usize,
        /// What should be here.
        expected: &'static str,
    },
    /// An option is unknown, repeated or has an impossible value.
    #[error("option \"{name}\" {problem}")]
    Option {
        /// The option, in lower case.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A logical slot's snapshot can be exported, used or left alone, and nothing else.
    #[error("unrecognized value for option \"snapshot\": \"{value}\"")]
    Snapshot {
        /// The value.
        value: String,
    },
    /// No slot can have this name.
    #[error(transparent)]
    SlotName(#[from] SlotNameError),
    /// The label of a base backup is longer than 1024 bytes.
    #[error("the backup label is too long (at most 1024 bytes)")]
    LabelTooLong,
    /// The rate of a base backup is not from 32 to 1048576 kB/s.
    #[error("{rate} is outside the valid range for option \"max_rate\" (32 .. 1048576)")]
    RateOutOfRange {
        /// The rate.
        rate: u32,
    },
}

impl CommandSyntaxError {
    /// The SQLSTATE with which PostgreSQL reports it.
    pub fn sql_state(&self) -> &'static str {
        match self {
            Self::Unexpected { .. } | Self::Option { .. } => "42601",
            Self::SlotName(_) => "42602",
            Self::Snapshot { .. } | Self::LabelTooLong => "22023",
            Self::RateOutOfRange { .. } => "22003",
        }
    }
}
