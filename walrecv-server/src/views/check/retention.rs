//! Whether as many backups are there as should be, and whether the policy can be followed.

use jiff::Timestamp;

use super::{Row, State};
use crate::catalog::{BackupStatus, Clock};
use crate::retention::{self, RetentionError, Rules};
use crate::settings::{RetentionPolicy, ServerSettings};
use crate::storage::ServerDir;

const POLICY: &str = "retention policy settings";
const WINDOW: &str = "recovery window";
const REDUNDANCY: &str = "minimum redundancy requirements";

/// Both, as Barman has them.
pub(super) fn rows(settings: &ServerSettings, store: &ServerDir) -> Vec<Row> {
    let rules = Rules::from(settings);
    let plan = retention::plan(store, &rules, Timestamp::now());
    let redundancy = match &plan {
        Ok(plan) => {
            let backups = plan.iter().flat_map(|plan| &plan.backups);
            let full = backups.filter(|(backup, _)| {
                backup.parent.is_none() && backup.status == BackupStatus::Done && !backup.damaged
            });
            redundancy(full.count(), rules.minimum_redundancy)
        }
        Err(error) => Row::failure(REDUNDANCY, State::Failed, error),
    };
    let clock = plan.as_ref().ok().and_then(Option::as_ref).map(|plan| plan.clock);
    let mut rows = vec![policy(&rules, plan.as_ref().err()), redundancy];
    rows.extend(clock.and_then(|clock| window(&rules, clock)));
    rows
}

/// A window that stands still, because the server is not heard of, or our clock is ahead.
fn window(rules: &Rules, clock: Clock) -> Option<Row> {
    let is_window = matches!(rules.policy, Some(RetentionPolicy::RecoveryWindow(_)));
    let heard = clock.stands_still().filter(|_| is_window)?;
    let remark = format!(
        "the window stands still: the server was heard of last on {}, by its own clock",
        heard.strftime("%Y-%m-%d %H:%M UTC")
    );
    Some(Row::advice(WINDOW, State::Warning, remark))
}

fn policy(rules: &Rules, error: Option<&RetentionError>) -> Row {
    match (rules.policy, error) {
        (Some(_), Some(error)) => Row::failure(POLICY, State::Failed, error),
        _ => Row::ok(POLICY),
    }
}

fn redundancy(found: usize, wanted: u32) -> Row {
    let remark = format!("have {found} backups, expected at least {wanted}");
    let enough = u32::try_from(found).map_or(true, |found| found >= wanted);
    Row::remark(REDUNDANCY, if enough { State::Ok } else { State::Failed }, remark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_stands_still_is_told() {
        let at = |text: &str| format!("2026-03-{text}T12:00:00Z").parse::<Timestamp>().unwrap();
        let rules = |policy: &str| Rules { policy: policy.parse().ok(), minimum_redundancy: 0 };
        let days = rules("RECOVERY WINDOW OF 7 DAYS");
        let dead = Clock::new(at("20"), Some(at("10")));
        let row = window(&days, dead).unwrap();
        assert!(row.advisory && row.remark.unwrap().contains("2026-03-10 12:00 UTC"));
        assert_eq!(window(&days, Clock::new(at("20"), Some(at("19")))), None);
        assert_eq!(window(&rules("REDUNDANCY 2"), dead), None);
    }

    #[test]
    fn redundancy_is_told_as_by_barman() {
        let row = redundancy(1, 2);
        assert_eq!(row.state, State::Failed);
        assert_eq!(row.remark.as_deref(), Some("have 1 backups, expected at least 2"));
        assert_eq!(redundancy(2, 2).state, State::Ok);
        assert_eq!(redundancy(0, 0).state, State::Ok);
    }
}
