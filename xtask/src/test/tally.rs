//! The sum of all test runs.

/// How many tests passed, failed and were skipped, and what was said about the skipped ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    skipped: Vec<String>,
}

impl Tally {
    /// Takes one line of a test program's output:
    /// `test result: ok. 9 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; ...`, or
    /// the harness's `SKIPPED: ...`.
    pub(super) fn read(&mut self, line: &str) {
        if let Some(what) = line.strip_prefix("SKIPPED: ") {
            self.skipped.push(what.to_owned());
        }
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        let counts = counts.split_once(". ").map_or(counts, |(_, counts)| counts);
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let count = words.next().and_then(|word| word.parse::<u64>().ok());
            match (count, words.next()) {
                (Some(count), Some("passed")) => self.passed += count,
                (Some(count), Some("failed")) => self.failed += count,
                (Some(count), Some("ignored")) => self.ignored += count,
                _ => {}
            }
        }
    }

    /// What was skipped, in the harness's words.
    pub(super) fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// The closing line.
    pub(super) fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_closing_lines_of_all_programs() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
            "SKIPPED: stream::pg12: PostgreSQL 12 is not on this machine",
            "test result: FAILED. 8 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out",
        ] {
            tally.read(line);
        }
        assert_eq!(tally.line(), "11 passed, 2 failed, 1 skipped");
        assert_eq!(tally.skipped(), ["stream::pg12: PostgreSQL 12 is not on this machine"]);
    }

    #[test]
    fn lines_of_other_kinds_count_nothing() {
        let mut tally = Tally::default();
        tally.read("test tests::passed ... ok");
        tally.read("7 passed");
        assert_eq!(tally, Tally::default());
    }
}
