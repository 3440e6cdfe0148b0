//! Who a client says it is, and what it wants.

use super::super::protocol_version::OPTION_PREFIX;
use super::fatal;
use crate::Error;
use crate::proto::ProtocolVersion;

/// A startup packet that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Startup {
    /// The role, not proved yet.
    pub user: String,
    /// The database; the user's name where none was given.
    pub database: String,
    /// What kind of session is wanted.
    pub replication: Replication,
    /// The protocol that is spoken: the older of the client's and ours.
    pub protocol: ProtocolVersion,
    /// The other parameters: settings, as the client wrote them.
    pub parameters: Vec<(String, String)>,
}

/// What kind of session a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// An ordinary one: SQL.
    No,
    /// Physical replication: replication commands.
    Physical,
    /// Replication commands and SQL, in a database.
    Database,
}

impl Startup {
    /// What these parameters ask for, and the protocol options that nobody here knows.
    ///
    /// # Errors
    /// If no user is named, or `replication` has an impossible value.
    pub(super) fn new(
        protocol: ProtocolVersion,
        parameters: Vec<(String, String)>,
    ) -> Result<(Self, Vec<String>), Error> {
        let (mut user, mut database) = (None, None);
        let mut replication = Replication::No;
        let (mut settings, mut unrecognized) = (Vec::new(), Vec::new());
        for (name, value) in parameters {
            match name.as_str() {
                "user" => user = Some(value),
                "database" => database = Some(value),
                "replication" => replication = Replication::parse(&value)?,
                option if option.starts_with(OPTION_PREFIX) => unrecognized.push(name),
                _ => settings.push((name, value)),
            }
        }
        let Some(user) = user.filter(|user| !user.is_empty()) else {
            let problem = "no PostgreSQL user name specified in startup packet";
            return Err(fatal("28000", problem));
        };
        let database = database.filter(|name| !name.is_empty()).unwrap_or_else(|| user.clone());
        let parameters = settings;
        Ok((Self { user, database, replication, protocol, parameters }, unrecognized))
    }
}

impl Replication {
    /// As the server reads the parameter: `database`, or any spelling of a boolean.
    fn parse(value: &str) -> Result<Self, Error> {
        let lower = value.to_ascii_lowercase();
        let begins = |word: &str, least: usize| lower.len() >= least && word.starts_with(&lower);
        if value == "database" {
            Ok(Self::Database)
        } else if lower == "1" || begins("true", 1) || begins("yes", 1) || begins("on", 2) {
            Ok(Self::Physical)
        } else if lower == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2) {
            Ok(Self::No)
        } else {
            let problem = format!("invalid value for parameter \"replication\": \"{value}\"");
            Err(fatal("22023", problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replication_is_a_boolean_or_a_database() {
        for (value, expected) in [
            ("true", Some(Replication::Physical)),
            ("T", Some(Replication::Physical)),
            ("on", Some(Replication::Physical)),
            ("1", Some(Replication::Physical)),
            ("off", Some(Replication::No)),
            ("n", Some(Replication::No)),
            ("database", Some(Replication::Database)),
            ("Database", None),
            ("o", None),
            ("", None),
        ] {
            assert_eq!(Replication::parse(value).ok(), expected, "{value}");
        }
    }
}
