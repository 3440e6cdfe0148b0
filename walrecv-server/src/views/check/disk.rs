//! The room that the store has. Advice only: it is shared by all servers.

use super::{Row, State};
use crate::storage::StorageError;
use crate::units::size;
use crate::views::disk::Disk;

const NAME: &str = "disk space";

/// Less than this part of the disk is worth a warning.
const LEAST_PART: f64 = 0.02;

/// A disk that will be full in so many days is, too.
const LEAST_DAYS: f64 = 7.0;

/// How much room there is, and for how long.
pub(super) fn row(disk: &Result<Disk, StorageError>) -> Row {
    let disk = match disk {
        Ok(disk) => disk,
        Err(error) => return Row::failure(NAME, State::Warning, error).into_advice(),
    };
    let part = disk.free_part() * 100.0;
    let mut told = format!("{} of {} free ({part:.0} %)", size(disk.free), size(disk.total));
    match (disk.growth, disk.days_left()) {
        (None, _) => told.push_str("; too little is stored to tell for how long that will do"),
        (Some(_), None) => told.push_str("; the store does not grow"),
        (Some(growth), Some(days)) => told.push_str(&format!(
            "; the store grows by {} a day, which will do for {}",
            size(growth as u64),
            days_in_words(days)
        )),
    }
    let short = disk.days_left().is_some_and(|days| days < LEAST_DAYS);
    if !short && disk.free_part() >= LEAST_PART {
        return Row::advice(NAME, State::Ok, told);
    }
    let advice = "enlarge it, or keep less (`retention_policy`)";
    Row::advice(NAME, State::Warning, format!("{told}: {advice}"))
}

fn days_in_words(days: f64) -> String {
    if days < 3.0 { format!("{:.0} hours", days * 24.0) } else { format!("{days:.0} days") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn told(free: u64, growth: Option<f64>) -> (State, String) {
        let row = row(&Ok(Disk { total: 100 * GIB, free, growth }));
        assert!(row.advisory);
        (row.state, row.remark.unwrap())
    }

    #[test]
    fn a_disk_that_will_soon_be_full_is_worth_a_warning() {
        assert_eq!(told(50 * GIB, None).0, State::Ok);
        assert_eq!(told(50 * GIB, Some(GIB as f64)).0, State::Ok);
        let (state, remark) = told(50 * GIB, Some(25.0 * GIB as f64));
        assert_eq!(state, State::Warning);
        assert!(remark.contains("grows by 25.0 GiB a day, which will do for 48 hours"), "{remark}");
        assert_eq!(told(GIB, Some(0.0)).0, State::Warning);
    }
}
