//! The options of a command that is read, and what their values may be.
//!
//! Follows `src/backend/commands/define.c` and `parse_bool` in `src/backend/utils/adt/bool.c`.

use super::syntax_error::CommandSyntaxError;

/// What stands behind an option's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A name or a string.
    Text(String),
    /// A number without quotes.
    Number(u32),
}

/// Options by name, each at most once.
#[derive(Debug, Default)]
pub(super) struct OptionList(Vec<(String, Option<Value>)>);

impl OptionList {
    pub(super) fn error(name: &str, problem: &'static str) -> CommandSyntaxError {
        CommandSyntaxError::Option { name: name.to_owned(), problem }
    }

    pub(super) fn add(
        &mut self,
        name: String,
        value: Option<Value>,
    ) -> Result<(), CommandSyntaxError> {
        if self.0.iter().any(|(known, _)| *known == name) {
            return Err(Self::error(&name, "is given twice"));
        }
        // There are no more than this in any command, and each is sought among those before.
        if self.0.len() >= MAX_OPTIONS {
            return Err(Self::error(&name, "is one too many"));
        }
        self.0.push((name, value));
        Ok(())
    }

    fn take(&mut self, name: &str) -> Option<Option<Value>> {
        let position = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(position).1)
    }

    /// An option that is on when it has no value.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, CommandSyntaxError> {
        let is = |text: &str, words: [&str; 2]| words.iter().any(|w| w.eq_ignore_ascii_case(text));
        match self.take(name) {
            None => Ok(None),
            Some(None | Some(Value::Number(1))) => Ok(Some(true)),
            Some(Some(Value::Number(0))) => Ok(Some(false)),
            Some(Some(Value::Text(text))) if is(&text, ["true", "on"]) => Ok(Some(true)),
            Some(Some(Value::Text(text))) if is(&text, ["false", "off"]) => Ok(Some(false)),
            Some(_) => Err(Self::error(name, "requires a Boolean value")),
        }
    }

    /// An option that must have a value, of whatever kind.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, CommandSyntaxError> {
        match self.take(name) {
            None => Ok(None),
            Some(None) => Err(Self::error(name, "requires a parameter")),
            Some(Some(Value::Text(text))) => Ok(Some(text)),
            Some(Some(Value::Number(number))) => Ok(Some(number.to_string())),
        }
    }

    /// An option whose value is a number without quotes.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u32>, CommandSyntaxError> {
        match self.take(name) {
            None => Ok(None),
            Some(Some(Value::Number(number))) => Ok(Some(number)),
            Some(_) => Err(Self::error(name, "requires a numeric value")),
        }
    }

    /// To be called when every known option has been taken.
    pub(super) fn finish(self) -> Result<(), CommandSyntaxError> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Self::error(name, "is not known here")),
        }
    }
}

/// More than any command has.
const MAX_OPTIONS: usize = 32;

/// A Boolean in the wide sense, where the beginning of a word will do.
pub(super) fn boolean(text: &str) -> Option<bool> {
    let begins = |word: &str, least: usize| {
        let beginning = word.get(..text.len()).unwrap_or_default();
        text.len() >= least && beginning.eq_ignore_ascii_case(text)
    };
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || text == "1" {
        Some(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0" {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_read_as_the_server_reads_them() {
        for (text, value) in [
            ("t", Some(true)),
            ("YES", Some(true)),
            ("on", Some(true)),
            ("1", Some(true)),
            ("fal", Some(false)),
            ("n", Some(false)),
            ("of", Some(false)),
            ("0", Some(false)),
            ("o", None),
            ("", None),
            ("onn", None),
            ("truely", None),
            ("10", None),
        ] {
            assert_eq!(boolean(text), value, "{text:?}");
        }
    }
}
