//! How strings and names are spelled in replication commands.
//!
//! Follows `src/backend/replication/repl_scanner.l`: a single quote in a string is doubled, a
//! backslash is literal, and a name in double quotes keeps its case.

use crate::{Misuse, SlotName};

/// The longest name that a server keeps whole (`NAMEDATALEN - 1`).
pub(super) const MAX_NAME: usize = 63;

/// A string literal.
pub(super) fn string(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name in double quotes, so that it is never taken for a keyword.
///
/// # Errors
/// If it is empty, would be cut off, or contains a double quote: servers before 19 know no way to
/// write one.
pub(super) fn name(text: &str) -> Result<String, Misuse> {
    match text {
        "" => Err(Misuse::Argument("a name in a replication command cannot be empty")),
        _ if text.len() > MAX_NAME => {
            Err(Misuse::Argument("a name in a replication command has at most 63 bytes"))
        }
        _ if text.contains('"') => {
            Err(Misuse::Argument("a name in a replication command cannot contain a double quote"))
        }
        _ => Ok(format!("\"{text}\"")),
    }
}

/// A slot's name, whose characters were checked when it was made.
pub(super) fn slot(slot: &SlotName) -> String {
    format!("\"{slot}\"")
}

/// A setting's name, maybe with an extension's prefix. It goes without quotes and in lower case,
/// for keywords are in upper case.
pub(super) fn setting(name: &str) -> Result<String, Misuse> {
    let start = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let inner = |b: u8| start(b) || b.is_ascii_digit() || b == b'$';
    let part = |part: &str| {
        part.len() <= MAX_NAME && part.bytes().next().is_some_and(start) && part.bytes().all(inner)
    };
    if name.split('.').count() <= 2 && name.split('.').all(part) {
        Ok(name.to_ascii_lowercase())
    } else {
        Err(Misuse::Argument("this cannot be the name of a setting"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled_in_strings_and_backslashes_are_literal() {
        assert_eq!(string(r"it's a \ "), r"'it''s a \ '");
    }

    #[test]
    fn names_that_would_arrive_as_others_are_refused() {
        assert_eq!(name("pgoutput").unwrap(), "\"pgoutput\"");
        for wrong in ["", "a\"b", &"x".repeat(64)] {
            assert!(name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn settings_cannot_smuggle_commands() {
        assert_eq!(setting("wal_level").unwrap(), "wal_level");
        assert_eq!(setting("DateStyle").unwrap(), "datestyle");
        assert_eq!(setting("my_ext.x$1").unwrap(), "my_ext.x$1");
        for wrong in ["", "a; DROP", "1a", "a.", ".a", "a.b.c", "a b", "ä"] {
            assert!(setting(wrong).is_err(), "{wrong:?}");
        }
    }
}
