//! What a single option can be set to.

use std::path::PathBuf;
use std::time::Duration;

use super::{ConfigError, Password};

/// The value of an option.
pub(super) struct Value<'a> {
    /// The keyword, or the environment variable if that set it.
    pub(super) name: &'static str,
    /// What it was set to.
    pub(super) text: &'a str,
}

impl Value<'_> {
    /// The error for this value. The problem does not quote it: a mistyped string may have a
    /// password anywhere.
    pub(super) fn invalid(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError::InvalidValue { key: self.name, problem: problem.into() }
    }

    /// Text; empty is as good as unset.
    pub(super) fn text_to(&self, target: &mut Option<String>) -> Result<(), ConfigError> {
        *target = (!self.text.is_empty()).then(|| self.text.to_owned());
        Ok(())
    }

    pub(super) fn path_to(&self, target: &mut Option<PathBuf>) -> Result<(), ConfigError> {
        *target = (!self.text.is_empty()).then(|| self.text.into());
        Ok(())
    }

    pub(super) fn password_to(&self, target: &mut Option<Password>) -> Result<(), ConfigError> {
        *target = (!self.text.is_empty()).then(|| Password::new(self.text));
        Ok(())
    }

    /// A number that is anything but 0 for yes.
    pub(super) fn switch_to(&self, target: &mut bool) -> Result<(), ConfigError> {
        *target = self.integer()? != 0;
        Ok(())
    }

    /// A number; left to the system where it is zero or less.
    pub(super) fn count_to(&self, target: &mut Option<u32>) -> Result<(), ConfigError> {
        *target = u32::try_from(self.integer()?).ok().filter(|number| *number > 0);
        Ok(())
    }

    pub(super) fn seconds_to(&self, target: &mut Option<Duration>) -> Result<(), ConfigError> {
        self.duration_to(target, Duration::from_secs)
    }

    pub(super) fn millis_to(&self, target: &mut Option<Duration>) -> Result<(), ConfigError> {
        self.duration_to(target, Duration::from_millis)
    }

    fn duration_to(
        &self,
        target: &mut Option<Duration>,
        unit: fn(u64) -> Duration,
    ) -> Result<(), ConfigError> {
        let mut count = None;
        self.count_to(&mut count)?;
        *target = count.map(|count| unit(u64::from(count)));
        Ok(())
    }

    fn integer(&self) -> Result<i32, ConfigError> {
        self.text.trim_ascii().parse().map_err(|_| self.invalid("it must be an integer"))
    }

    /// One of the choices, by its spelling.
    pub(super) fn one_of<T: Copy>(
        &self,
        choices: &[T],
        spelling: fn(T) -> &'static str,
    ) -> Result<T, ConfigError> {
        choices.iter().copied().find(|choice| spelling(*choice) == self.text).ok_or_else(|| {
            let spellings: Vec<_> = choices.iter().map(|choice| spelling(*choice)).collect();
            self.invalid(format!("it must be one of `{}`", spellings.join("`, `")))
        })
    }

    /// Any value that a server accepts will do: none of them is sent.
    pub(super) fn check_replication(&self) -> Result<(), ConfigError> {
        let lower = self.text.to_ascii_lowercase();
        let boolean = ["true", "false", "yes", "no"]
            .iter()
            .any(|word| !lower.is_empty() && word.starts_with(&lower))
            || matches!(lower.as_str(), "on" | "of" | "off" | "1" | "0");
        if boolean || self.text == "database" {
            return Ok(());
        }
        Err(self.invalid("it must be a boolean or `database`"))
    }
}
