//! Whether as many backups are there as should be, and whether the policy can be followed.

use jiff::Timestamp;

use super::{Row, State};
use crate::catalog::BackupStatus;
use crate::retention::{self, RetentionError, Rules};
use crate::settings::ServerSettings;
use crate::storage::ServerDir;

const POLICY: &str = "retention policy settings";
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
    vec![policy(&rules, plan.as_ref().err()), redundancy]
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
    fn redundancy_is_told_as_by_barman() {
        let row = redundancy(1, 2);
        assert_eq!(row.state, State::Failed);
        assert_eq!(row.remark.as_deref(), Some("have 1 backups, expected at least 2"));
        assert_eq!(redundancy(2, 2).state, State::Ok);
        assert_eq!(redundancy(0, 0).state, State::Ok);
    }
}
