//! Whether what is stored was verified, and is what was stored.

use jiff::{SignedDuration, Timestamp};

use super::{Row, State};
use crate::catalog::{Scrub, Turns};
use crate::settings::ServerSettings;
use crate::storage::ServerDir;

const NAME: &str = "verification";

/// How late a verification may be: it takes its time, and waits for others.
const LATE: SignedDuration = SignedDuration::from_hours(36);

/// The last verification of everything, where there was one or should have been.
pub(super) fn row(settings: &ServerSettings, store: &ServerDir, now: Timestamp) -> Option<Row> {
    match Scrub::load(store) {
        Ok(Some(scrub)) => Some(judge(&scrub, settings, now)),
        Ok(None) => {
            let schedule = settings.verify_schedule.as_ref()?;
            // What is wrong with the turns has a row of its own.
            let turns = Turns::load(store).unwrap_or_default();
            let next = turns.of("verification").and_then(|turn| schedule.next_after(turn.until));
            Some(match next.filter(|next| now.duration_since(*next) > LATE) {
                Some(next) => {
                    let due = next.strftime("%Y-%m-%d %H:%M UTC");
                    let remark = format!("none was ever made; one has been due since {due}");
                    Row::advice(NAME, State::Warning, remark)
                }
                None => Row::advice(NAME, State::Ok, "scheduled, and not made yet"),
            })
        }
        Err(error) => Some(Row::failure(NAME, State::Warning, &error)),
    }
}

fn judge(scrub: &Scrub, settings: &ServerSettings, now: Timestamp) -> Row {
    let Scrub { ended_at, backups, segments, problems, first_problems, .. } = scrub;
    let when = ended_at.strftime("%Y-%m-%d %H:%M UTC");
    if *problems > 0 {
        let first = first_problems.first().map(String::as_str).unwrap_or_default();
        let remark = format!("{problems} problems were found on {when}; the first: {first}");
        return Row::remark(NAME, State::Failed, remark);
    }
    let next =
        settings.verify_schedule.as_ref().and_then(|schedule| schedule.next_after(*ended_at));
    let late = next.is_some_and(|next| now.duration_since(next) > LATE);
    let state = if late { State::Warning } else { State::Ok };
    let said = if late { "the last was" } else { "made" };
    let remark = format!("{said} on {when}: {backups} backups and {segments} segments, no problem");
    Row::advice(NAME, state, remark)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::catalog::Turn;
    use crate::settings::{ConnInfo, Moments};
    use crate::storage::{Access, Home};

    #[test]
    fn damage_fails_and_lateness_is_told() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let mut settings = ServerSettings::new(
            "main".parse().unwrap(),
            ConnInfo::new("host=x"),
            "walrecv".parse().unwrap(),
        );
        let weekly: Moments = "0 3 * * SUN".parse().unwrap();
        settings.verify_schedule = Some(weekly.within(TimeZone::UTC));
        let mut scrub = Scrub {
            began_at: at("2026-03-01T03:00:00Z"),
            ended_at: at("2026-03-01T05:00:00Z"),
            backups: 3,
            segments: 70,
            bytes: 1,
            problems: 0,
            first_problems: Vec::new(),
        };
        let row = judge(&scrub, &settings, at("2026-03-09T12:00:00Z"));
        assert_eq!((row.state, row.advisory), (State::Ok, true));
        let row = judge(&scrub, &settings, at("2026-03-10T12:00:00Z"));
        assert_eq!(row.state, State::Warning, "{row:?}");

        let directory = tempfile::tempdir().unwrap();
        let store = Home::new(directory.path(), Access::Private).server(&settings.name);
        store.create().unwrap();
        let state = |now| super::row(&settings, &store, at(now)).unwrap().state;
        assert_eq!(state("2026-03-09T12:00:00Z"), State::Ok);
        let mut turns = Turns::default();
        let (schedule, until) = ("0 3 * * SUN UTC".to_owned(), at("2026-03-01T03:00:00Z"));
        turns.set("verification", Turn { schedule, until });
        turns.save(&store).unwrap();
        assert_eq!(state("2026-03-09T12:00:00Z"), State::Ok);
        assert_eq!(state("2026-03-10T12:00:00Z"), State::Warning);
        scrub.problems = 2;
        scrub.first_problems = vec!["backup x: `base.tar.zst` is missing".to_owned()];
        let row = judge(&scrub, &settings, at("2026-03-02T12:00:00Z"));
        assert_eq!((row.state, row.advisory), (State::Failed, false));
        assert!(row.remark.unwrap().ends_with("`base.tar.zst` is missing"));
    }
}
