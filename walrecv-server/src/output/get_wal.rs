//! What `get-wal` came to: its exit code says it all.

use serde_json::{Map, Value, json};

use super::Report;
use crate::commands::get_wal::GetWalOutcome;

/// What a report says whose exit code is to be "the archive ends here". No failure has this code,
/// and none of those that `get-wal` has for itself is this one.
pub const END_OF_ARCHIVE: u8 = 199;

impl Report for GetWalOutcome {
    fn console(&self) -> String {
        String::new()
    }

    fn barman(&self, _document: &mut Map<String, Value>) {}

    fn clean(&self) -> Value {
        json!({"delivered": *self == Self::Delivered})
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Delivered => 0,
            Self::EndOfArchive => END_OF_ARCHIVE,
        }
    }
}
