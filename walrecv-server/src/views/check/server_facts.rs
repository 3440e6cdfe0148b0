//! What a server tells of itself that is worth a row. Advice only.

use pgwire_stream::ServerVersion;

use super::{Row, State};
use crate::views::privileges::Privileges;
use crate::views::server_facts::{Clock, ServerFacts};

const CLOCK: &str = "clock skew";
const KEEP: &str = "max_slot_wal_keep_size";
const SUMMARIES: &str = "summarize_wal";
const PRIVILEGES: &str = "further privileges";

/// Clocks that differ by more seconds make targets in time, and ages, misleading.
const MOST_SKEW: f64 = 2.0;

/// The rows. `chains` is whether incremental backups are taken, or there.
pub(super) fn rows(facts: &ServerFacts, role: &str, chains: bool) -> Vec<Row> {
    let mut rows = vec![clock(facts.clock)];
    rows.extend(facts.max_slot_wal_keep_size.as_deref().map(keep));
    rows.extend(facts.summarize_wal.and_then(|on| summaries(on, chains)));
    rows.push(privileges(facts.privileges, role, facts.version));
    rows
}

fn clock(clock: Clock) -> Row {
    let Clock { ahead, uncertain } = clock;
    let direction = if ahead < 0.0 { "behind" } else { "ahead of" };
    let told =
        format!("the server's clock is {:.3} s {direction} ours, ± {uncertain:.3} s", ahead.abs());
    if ahead.abs() - uncertain <= MOST_SKEW {
        return Row::advice(CLOCK, State::Ok, told);
    }
    let advice = "synchronise the clocks of both hosts, or mind it in `--target-time`";
    Row::advice(CLOCK, State::Warning, format!("{told}: {advice}"))
}

fn keep(setting: &str) -> Row {
    let told = match setting {
        "-1" => "-1: the server keeps WAL for us as long as its disk has room".to_owned(),
        size => format!("{size}: behind by more, the slot is lost, and WAL is missing"),
    };
    Row::advice(KEEP, State::Ok, told)
}

fn summaries(on: bool, chains: bool) -> Option<Row> {
    if !chains {
        return None;
    }
    let off = "incremental backups need it: `ALTER SYSTEM SET summarize_wal = on` and reload";
    Some(if on {
        Row::advice(SUMMARIES, State::Ok, "on")
    } else {
        Row::advice(SUMMARIES, State::Warning, off)
    })
}

fn privileges(privileges: Privileges, role: &str, version: ServerVersion) -> Row {
    let missing = privileges.missing(role, version);
    if missing.is_empty() {
        return Row::advice(PRIVILEGES, State::Ok, "all that is of use");
    }
    let told: Vec<_> =
        missing.iter().map(|lack| format!("for {}: {}", lack.purpose, lack.grant)).collect();
    Row::advice(PRIVILEGES, State::Ok, format!("not needed for backups; {}", told.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_surely_off_is_worth_a_warning() {
        let told = |ahead, uncertain| {
            let row = clock(Clock { ahead, uncertain });
            (row.state, row.remark.unwrap())
        };
        assert_eq!(told(-1.5, 0.01).0, State::Ok);
        assert_eq!(told(8.0, 7.0).0, State::Ok, "the question took too long to tell");
        let (state, remark) = told(-8.0, 0.001);
        assert_eq!(state, State::Warning);
        assert!(remark.starts_with("the server's clock is 8.000 s behind ours"), "{remark}");
    }

    #[test]
    fn summaries_matter_to_those_who_need_them() {
        assert_eq!(summaries(false, false), None);
        assert_eq!(summaries(true, true).unwrap().state, State::Ok);
        assert_eq!(summaries(false, true).unwrap().state, State::Warning);
    }

    #[test]
    fn a_missing_privilege_is_told_with_its_grant_and_no_warning() {
        let row = privileges(Privileges::default(), "walrecv", ServerVersion::from_num(17_00_00));
        assert_eq!((row.state, row.advisory), (State::Ok, true));
        assert!(row.remark.unwrap().contains("for switch-wal: GRANT EXECUTE ON FUNCTION"));
        assert_eq!(keep("-1").state, State::Ok);
    }
}
