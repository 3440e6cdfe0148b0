//! Which backups are to stay: Barman's two policies, and generations.

use std::fmt;
use std::str::FromStr;

use super::period::Period;

/// Which backups are to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionPolicy {
    /// The newest so many full backups, with what builds on them and all WAL since the oldest.
    Redundancy(u32),
    /// Whatever is needed to reach every moment since so long ago.
    RecoveryWindow(Period),
    /// The newest backup of each of so many days, weeks, months and years that have one.
    Generations(Generations),
}

/// How many days, weeks, months and years keep a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generations {
    /// The newest days that have a backup.
    pub daily: u32,
    /// The newest weeks (ISO 8601) that have a backup.
    pub weekly: u32,
    /// The newest months that have a backup.
    pub monthly: u32,
    /// The newest years that have a backup.
    pub yearly: u32,
}

/// The text is not a retention policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be \"REDUNDANCY n\", \"RECOVERY WINDOW OF n DAYS|WEEKS|MONTHS\" or \
     \"KEEP n DAILY, n WEEKLY, n MONTHLY, n YEARLY\""
)]
pub struct RetentionPolicyError;

/// More backups than anybody has.
const MOST: u32 = 100_000;

impl fmt::Display for RetentionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redundancy(count) => write!(f, "REDUNDANCY {count}"),
            Self::RecoveryWindow(age) => write!(f, "RECOVERY WINDOW OF {age}"),
            Self::Generations(generations) => {
                let told: Vec<_> = generations
                    .named()
                    .into_iter()
                    .filter(|(count, _)| *count > 0)
                    .map(|(count, name)| format!("{count} {name}"))
                    .collect();
                write!(f, "KEEP {}", told.join(", "))
            }
        }
    }
}

impl Generations {
    fn named(self) -> [(u32, &'static str); 4] {
        let Self { daily, weekly, monthly, yearly } = self;
        [(daily, "DAILY"), (weekly, "WEEKLY"), (monthly, "MONTHLY"), (yearly, "YEARLY")]
    }
}

fn count(word: &str) -> Result<u32, RetentionPolicyError> {
    let count = word.parse().map_err(|_| RetentionPolicyError)?;
    if (1..=MOST).contains(&count) { Ok(count) } else { Err(RetentionPolicyError) }
}

impl FromStr for RetentionPolicy {
    type Err = RetentionPolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.replace(',', " ").to_ascii_uppercase();
        let words: Vec<_> = text.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["REDUNDANCY", number] => Ok(Self::Redundancy(count(number)?)),
            ["RECOVERY", "WINDOW", "OF", number, unit] if !unit.starts_with("HOUR") => {
                let age = format!("{number} {unit}").parse().map_err(|_| RetentionPolicyError)?;
                Ok(Self::RecoveryWindow(age))
            }
            ["KEEP", rest @ ..] if !rest.is_empty() => generations(rest).map(Self::Generations),
            _ => Err(RetentionPolicyError),
        }
    }
}

fn generations(words: &[&str]) -> Result<Generations, RetentionPolicyError> {
    let mut generations = Generations::default();
    for pair in words.chunks(2) {
        let [number, name] = pair else { return Err(RetentionPolicyError) };
        let place = match *name {
            "DAILY" => &mut generations.daily,
            "WEEKLY" => &mut generations.weekly,
            "MONTHLY" => &mut generations.monthly,
            "YEARLY" => &mut generations.yearly,
            _ => return Err(RetentionPolicyError),
        };
        if *place > 0 {
            return Err(RetentionPolicyError);
        }
        *place = count(number)?;
    }
    Ok(generations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_round_trip() {
        for text in [
            "REDUNDANCY 3",
            "RECOVERY WINDOW OF 7 DAYS",
            "RECOVERY WINDOW OF 1 MONTH",
            "KEEP 7 DAILY, 4 WEEKLY, 12 MONTHLY, 3 YEARLY",
            "KEEP 2 MONTHLY",
        ] {
            let policy: RetentionPolicy = text.parse().unwrap();
            assert_eq!(policy.to_string(), text);
        }
        let policy: RetentionPolicy = "recovery window of 2 weeks".parse().unwrap();
        assert_eq!(policy.to_string(), "RECOVERY WINDOW OF 2 WEEKS");
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for text in [
            "",
            "REDUNDANCY",
            "REDUNDANCY 0",
            "REDUNDANCY -1",
            "REDUNDANCY 3 BACKUPS",
            "RECOVERY WINDOW OF 7",
            "RECOVERY WINDOW OF 7 HOURS",
            "RECOVERY WINDOW OF 0 DAYS",
            "KEEP",
            "KEEP 7",
            "KEEP 7 HOURLY",
            "KEEP 7 DAILY 8 DAILY",
            "KEEP 0 DAILY",
        ] {
            assert_eq!(text.parse::<RetentionPolicy>(), Err(RetentionPolicyError), "{text}");
        }
    }
}
