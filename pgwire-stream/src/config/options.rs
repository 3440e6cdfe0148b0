//! A connection string as a list of options, to be changed and written anew.

use std::fmt;
use std::str::FromStr;

use super::ConfigError;
use super::keyword::KEYWORDS;
use super::settings::Settings;

/// The options that a connection string sets, for handing them on to another program.
///
/// Reads either form, and writes keywords and values: what [`Config`](crate::Config) would make of
/// them is not looked at, so that a `service`, say, stays one. Written out, it holds every password
/// that was not [removed](Self::remove); its `Debug` shows none.
///
/// ```
/// use pgwire_stream::ConnectionOptions;
///
/// let mut options: ConnectionOptions = "postgresql://backup:secret@db/app".parse()?;
/// assert!(options.remove("password"));
/// assert_eq!(options.to_string(), "host=db dbname=app user=backup");
/// # Ok::<(), pgwire_stream::ConfigError>(())
/// ```
pub struct ConnectionOptions(Settings);

impl FromStr for ConnectionOptions {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Settings::parse(text).map(Self)
    }
}

impl ConnectionOptions {
    /// The value of an option, if it is set.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.0.text(keyword)
    }

    /// Removes an option; the answer is whether it was set.
    pub fn remove(&mut self, keyword: &str) -> bool {
        self.0.remove(keyword)
    }

    /// The options that are set, in the order of libpq's documentation.
    pub fn keywords(&self) -> impl Iterator<Item = &'static str> {
        KEYWORDS.iter().map(|keyword| keyword.name).filter(|name| self.0.contains(name))
    }
}

impl fmt::Display for ConnectionOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, keyword) in self.keywords().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            write!(f, "{separator}{keyword}=")?;
            write_value(f, self.get(keyword).unwrap_or_default())?;
        }
        Ok(())
    }
}

/// A value, in quotes where it would not be read back without.
fn write_value(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.,:/@%+~*[]".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return f.write_str(value);
    }
    f.write_str("'")?;
    for c in value.chars() {
        if matches!(c, '\'' | '\\') {
            f.write_str("\\")?;
        }
        fmt::Write::write_char(f, c)?;
    }
    f.write_str("'")
}

impl fmt::Debug for ConnectionOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keywords()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(text: &str) -> ConnectionOptions {
        text.parse().unwrap()
    }

    #[test]
    fn both_forms_are_written_as_keywords_and_values() {
        for (given, written) in [
            ("port=5433 host=db", "host=db port=5433"),
            (
                "postgres://u@[::1]:5433,db/?sslmode=require",
                "host=::1,db port=5433, user=u sslmode=require",
            ),
            ("host=db service=x user=''", "host=db user='' service=x"),
            (r"options='-c a=\'b c\\'", r"options='-c a=\'b c\\'"),
        ] {
            assert_eq!(options(given).to_string(), written);
        }
        assert!("host=db nonsense=1".parse::<ConnectionOptions>().is_err());
    }

    #[test]
    fn what_is_removed_is_gone_and_nothing_is_shown_while_debugging() {
        let mut some = options(r"host=db password='it\'s a=b secret' user=me");
        assert_eq!(some.get("password"), Some("it's a=b secret"));
        assert_eq!(format!("{some:?}"), r#"["host", "user", "password"]"#);
        assert!(some.remove("password") && !some.remove("password"));
        assert_eq!(some.to_string(), "host=db user=me");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(user in "[^\0]*", database in "[^\0]*") {
            let mut settings = Settings::default();
            for (name, value) in [("user", &user), ("dbname", &database)] {
                let keyword = super::super::keyword::find(name).unwrap();
                settings.set(keyword, keyword.name, zeroize::Zeroizing::new(value.clone()));
            }
            let again = options(&ConnectionOptions(settings).to_string());
            prop_assert_eq!(again.get("user"), Some(user.as_str()));
            prop_assert_eq!(again.get("dbname"), Some(database.as_str()));
        }
    }
}
