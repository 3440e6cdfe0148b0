//! Values as they were given, and what they mean: durations, rates, choices.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;
use pgwire_stream::{Config, ConfigError, SlotName};

use super::error::Origin;
use super::recipient::Recipient;
use super::webhook_url::WebhookUrl;

/// A value as it was given. Has no `Debug`: it may hold a password.
#[derive(Clone)]
pub(super) enum Raw {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Self>),
    /// Something that no setting is.
    Other,
}

/// A value, and where it was given.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

/// What is wrong with a value, and what to do about it.
pub(super) struct Problem {
    pub(super) text: String,
    pub(super) hint: Option<String>,
}

impl<T: Into<String>> From<T> for Problem {
    fn from(text: T) -> Self {
        Self { text: text.into(), hint: None }
    }
}

type Parsed<T> = Result<T, Problem>;

pub(super) fn text(given: &Given) -> Parsed<String> {
    match &given.raw {
        Raw::Text(text) => Ok(text.clone()),
        _ => Err("must be text in quotes".into()),
    }
}

pub(super) fn boolean(given: &Given) -> Parsed<bool> {
    match &given.raw {
        Raw::Boolean(value) => Ok(*value),
        Raw::Text(text) => match text.as_str() {
            "true" | "on" | "yes" | "1" => Ok(true),
            "false" | "off" | "no" | "0" => Ok(false),
            _ => Err("must be true or false".into()),
        },
        _ => Err("must be true or false".into()),
    }
}

/// A number in these bounds.
pub(super) fn number(given: &Given, least: i64, most: i64) -> Parsed<i64> {
    let value = match &given.raw {
        Raw::Integer(value) => Some(*value),
        Raw::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    value
        .filter(|value| (least..=most).contains(value))
        .ok_or_else(|| format!("must be a number from {least} to {most}").into())
}

/// A duration such as `500ms`, `2 minutes` or `1h 30m`; a bare number counts seconds.
pub(super) fn duration(given: &Given, least: Duration, most: Duration) -> Parsed<Duration> {
    let value = match &given.raw {
        Raw::Integer(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
        Raw::Text(text) => match text.trim().parse::<u64>() {
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => text
                .parse::<jiff::SignedDuration>()
                .ok()
                .and_then(|duration| Duration::try_from(duration).ok()),
        },
        _ => None,
    };
    value.filter(|value| (least..=most).contains(value)).ok_or_else(|| {
        let [least, most] = [least, most].map(in_words);
        format!("must be a duration from {least} to {most}, as \"2s\"").into()
    })
}

/// A duration as it may be written.
fn in_words(duration: Duration) -> String {
    let duration = jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX);
    format!("{duration:#}")
}

/// A rate in kB/s, as Barman and PostgreSQL count; text may carry a unit. `None` is unlimited.
pub(super) fn rate(given: &Given) -> Parsed<Option<u32>> {
    let kilobytes = match &given.raw {
        Raw::Integer(number) => u64::try_from(*number).ok(),
        Raw::Text(text) => kilobytes(text),
        _ => None,
    };
    // The bounds of BASE_BACKUP's MAX_RATE.
    match kilobytes {
        Some(0) => Ok(None),
        Some(rate @ 32..=1_048_576) => Ok(u32::try_from(rate).ok()),
        _ => Err("must be 0 (unlimited) or a rate from \"32kB\" to \"1GB\" per second; \
                  a bare number counts kB"
            .into()),
    }
}

fn kilobytes(text: &str) -> Option<u64> {
    let (number, unit) = digits(text)?;
    let unit = unit.strip_suffix("/s").unwrap_or(unit);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "k" | "kb" => 1,
        "m" | "mb" => 1024,
        "g" | "gb" => 1024 * 1024,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// One of these words.
pub(super) fn choice<T: Copy>(given: &Given, choices: &[(&str, T)]) -> Parsed<T> {
    let word = match &given.raw {
        Raw::Text(text) => text.to_ascii_lowercase(),
        Raw::Boolean(value) => value.to_string(),
        _ => String::new(),
    };
    choices
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(&word))
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
            format!("must be one of {}", names.join(", ")).into()
        })
}

/// A list of words; text is split at commas.
pub(super) fn words(given: &Given) -> Parsed<Vec<String>> {
    const PROBLEM: &str = "must be a list of names, as [\"postgres\"]";
    match &given.raw {
        Raw::List(items) => items
            .iter()
            .map(|item| match item {
                Raw::Text(text) => Ok(text.clone()),
                _ => Err(PROBLEM.into()),
            })
            .collect(),
        Raw::Text(text) => Ok(text
            .split(',')
            .map(|word| word.trim().to_owned())
            .filter(|word| !word.is_empty())
            .collect()),
        _ => Err(PROBLEM.into()),
    }
}

/// Public keys. A single one may stand without the brackets of a list.
pub(super) fn recipients(given: &Given) -> Parsed<Vec<Recipient>> {
    let words = words(given).map_err(|_| "must be a list of public keys, as [\"age1…\"]")?;
    let recipient = |(index, word): (usize, &String)| {
        word.parse::<Recipient>().map_err(|error| Problem {
            // Not the word itself: it may be a secret key.
            text: match words.len() {
                1 => format!("this {error}"),
                _ => format!("entry {} {error}", index + 1),
            },
            hint: Some(error.hint().to_owned()),
        })
    };
    words.iter().enumerate().map(recipient).collect()
}

/// Text that says by itself what is wrong with it.
pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(given: &Given) -> Parsed<T> {
    text(given)?.parse().map_err(|error: T::Err| error.to_string().into())
}

/// The address of a webhook. It may hold a secret, which has no place in an argument.
pub(super) fn webhook(given: &Given) -> Parsed<WebhookUrl> {
    if matches!(given.origin, Origin::Argument(_)) {
        return Err(Problem {
            text: "the secret in it can be seen by every user of this machine, with `ps`".into(),
            hint: Some("put it into the configuration file, or WALRECV_FAILURE_WEBHOOK".into()),
        });
    }
    parsed(given)
}

/// A number of bytes; text may carry one of Barman's units: `k`, `M`, `G`, `T`, and those of 1024.
pub(super) fn size(given: &Given) -> Parsed<u64> {
    let size = match &given.raw {
        Raw::Integer(number) => u64::try_from(*number).ok(),
        Raw::Text(text) => bytes(text),
        _ => None,
    };
    size.ok_or_else(|| "must be a size, as \"500 MiB\" or \"2 GB\"".into())
}

fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = digits(text)?;
    let unit = unit.to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let (letter, base) = match unit.strip_suffix('i') {
        Some(letter) => (letter, 1024_u64),
        None => (unit, 1000),
    };
    let power = match letter {
        "" if base == 1000 => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(base.pow(power))
}

/// The number that a text begins with, and what follows.
fn digits(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number, unit.trim()))
}

/// An address to listen at, or none.
pub(super) fn listen(given: &Given) -> Parsed<Option<SocketAddr>> {
    match &given.raw {
        Raw::Boolean(false) => Ok(None),
        Raw::Text(text) if matches!(text.as_str(), "off" | "none") => Ok(None),
        Raw::Text(text) => text.trim().parse().map(Some).map_err(|_| LISTEN.into()),
        _ => Err(LISTEN.into()),
    }
}

const LISTEN: &str = "must be an address with a port, as \"127.0.0.1:8432\", or \"off\"";

/// A time zone by its name.
pub(super) fn time_zone(given: &Given) -> Parsed<TimeZone> {
    TimeZone::get(text(given)?.trim())
        .map_err(|_| "must be the name of a time zone, as \"Europe/Berlin\"".into())
}

pub(super) fn slot(given: &Given) -> Parsed<SlotName> {
    text(given)?.parse::<SlotName>().map_err(|error| error.to_string().into())
}

/// A path; in a file it must be absolute, elsewhere it counts from the current directory.
pub(super) fn path(given: &Given) -> Parsed<PathBuf> {
    let path = PathBuf::from(text(given)?);
    match given.origin {
        Origin::File { .. } if !path.is_absolute() => Err("must be an absolute path".into()),
        _ => std::path::absolute(&path).map_err(|_| "must not be empty".into()),
    }
}

/// A connection string, checked but not completed from environment and files.
pub(super) fn conninfo(given: &Given) -> Parsed<String> {
    let text = text(given)?;
    if text.trim().is_empty() {
        return Err("must not be empty".into());
    }
    let config: Config = match text.parse() {
        // Which options a service stands for is known when the service file is read.
        Err(ConfigError::InvalidValue { key: "service", .. }) => return Ok(text),
        parsed => parsed.map_err(misspelt)?,
    };
    if config.password.is_some() && matches!(given.origin, Origin::Argument(_)) {
        return Err(Problem {
            text: "a password in an argument can be seen by every user of this machine, with `ps`"
                .into(),
            hint: Some(
                "put it into ~/.pgpass (mode 0600), PGPASSWORD or the configuration file".into(),
            ),
        });
    }
    Ok(text)
}

fn misspelt(error: ConfigError) -> Problem {
    let example =
        "write it as \"host=… user=… dbname=postgres\" or \"postgresql://user@host/postgres\"";
    Problem { text: error.to_string(), hint: Some(example.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(raw: Raw) -> Given {
        Given { raw, origin: Origin::Environment("X".into()) }
    }

    fn of(text: &str) -> Given {
        given(Raw::Text(text.into()))
    }

    #[test]
    fn durations_have_human_units() {
        let parse =
            |raw| duration(&given(raw), Duration::from_millis(1), Duration::from_secs(3600)).ok();
        for (text, expected) in [
            ("500ms", 500),
            ("2s", 2000),
            ("2 minutes", 120_000),
            ("1 min", 60_000),
            ("3", 3000),
            ("1m 30s", 90_000),
        ] {
            let value = parse(Raw::Text(text.into()));
            assert_eq!(value, Some(Duration::from_millis(expected)), "{text}");
        }
        assert_eq!(parse(Raw::Integer(5)), Some(Duration::from_secs(5)));
        for bad in ["", "soon", "-1s", "2h", "0"] {
            assert_eq!(parse(Raw::Text(bad.into())), None, "{bad:?}");
        }
        assert_eq!(parse(Raw::Integer(-1)), None);
    }

    #[test]
    fn rates_count_kilobytes_and_know_units() {
        for (text, expected) in [
            ("0", Some(None)),
            ("32", Some(Some(32))),
            ("10MB", Some(Some(10_240))),
            ("10 mb/s", Some(Some(10_240))),
            ("1GB", Some(Some(1_048_576))),
            ("2GB", None),
            ("31", None),
            ("fast", None),
            ("99999999999999999999", None),
            ("18446744073709551615GB", None),
        ] {
            assert_eq!(rate(&of(text)).ok(), expected, "{text}");
        }
        assert_eq!(rate(&given(Raw::Integer(-5))).ok(), None);
    }

    #[test]
    fn sizes_have_barmans_units() {
        for (text, expected) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("10k", Some(10_000)),
            ("10 KiB", Some(10_240)),
            ("3 GB", Some(3_000_000_000)),
            ("2Gi", Some(2 << 30)),
            ("1 T", Some(1_000_000_000_000)),
            ("10 i", None),
            ("x", None),
            ("-1", None),
            ("99999999999 TiB", None),
        ] {
            assert_eq!(size(&of(text)).ok(), expected, "{text}");
        }
    }

    #[test]
    fn an_address_has_a_port_or_there_is_none() {
        assert_eq!(listen(&of("off")).ok(), Some(None));
        assert_eq!(listen(&given(Raw::Boolean(false))).ok(), Some(None));
        assert!(listen(&of("[::1]:80")).ok().flatten().is_some());
        for bad in ["", "127.0.0.1", "localhost:80", "80"] {
            assert!(listen(&of(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_taken_from_anywhere_but_an_argument() {
        for text in ["host=db password=geheim", "postgresql://u:geheim@db/"] {
            assert!(conninfo(&of(text)).is_ok());
            let argument = Given {
                raw: Raw::Text(text.into()),
                origin: Origin::Argument("--conninfo".into()),
            };
            let problem = conninfo(&argument).err().unwrap();
            assert!(problem.text.contains("password"), "{}", problem.text);
            assert!(!problem.text.contains("geheim"), "{}", problem.text);
            assert!(problem.hint.is_some());
        }
    }
}
