//! Registering scenarios, and running them.
//!
//! ```no_run
//! use walrecv_tests::{Cluster, run::{Scenarios, ScenarioResult}, Installation};
//!
//! fn answers(installation: &Installation) -> ScenarioResult {
//!     let cluster = Cluster::start_new(installation)?;
//!     assert_eq!(cluster.value("SELECT 1")?, "1");
//!     Ok(())
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     Scenarios::new().per_major("answers", &[10, 14, 18], answers).run()
//! }
//! ```
//!
//! A major that this machine does not have becomes an ignored test, and is said so on stderr.
//! `WALRECV_TEST_MAJORS="14 18"` limits a run to some majors.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use crate::barman::BarmanInstallation;
use crate::failure::Failure;
use crate::installation::{self, Installation, MAJORS};
use crate::{tools, walrecv};

/// What a scenario returns; `?` takes every error, and panics count as failures.
pub type ScenarioResult = Result<(), libtest_mimic::Failed>;

/// The scenarios of one test program.
#[derive(Debug, Default)]
pub struct Scenarios {
    trials: Vec<Trial>,
    skipped: Vec<String>,
}

impl Scenarios {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A scenario that needs no particular server.
    #[must_use]
    pub fn once(
        mut self,
        name: &str,
        scenario: impl FnOnce() -> ScenarioResult + Send + 'static,
    ) -> Self {
        self.trials.push(Trial::test(name, scenario));
        self
    }

    /// A scenario for each of these majors.
    #[must_use]
    pub fn per_major(
        mut self,
        name: &str,
        majors: &[u32],
        scenario: fn(&Installation) -> ScenarioResult,
    ) -> Self {
        let chosen = chosen_majors();
        for &major in majors {
            let name = format!("{name}::pg{major}");
            if chosen.as_ref().is_some_and(|chosen| !chosen.contains(&major)) {
                continue;
            }
            match installation::of_major(major) {
                Some(installation) => {
                    self.trials.push(Trial::test(name, move || scenario(installation)));
                }
                None => {
                    let reason = format!("PostgreSQL {major} is not on this machine");
                    self.skipped.push(format!("{name}: {reason}"));
                    let trial = Trial::test(name, move || Err(reason.into()));
                    self.trials.push(trial.with_ignored_flag(true));
                }
            }
        }
        self
    }

    /// A scenario with a server of this major and a real Barman.
    #[must_use]
    pub fn beside_barman(
        mut self,
        name: &str,
        major: u32,
        scenario: fn(&Installation, &BarmanInstallation) -> ScenarioResult,
    ) -> Self {
        let name = format!("{name}::pg{major}");
        if chosen_majors().is_some_and(|chosen| !chosen.contains(&major)) {
            return self;
        }
        let found = match installation::of_major(major) {
            Some(server) => BarmanInstallation::for_major(major).map(|barman| (server, barman)),
            None => Err(Failure::new(format!("PostgreSQL {major} is not on this machine"))),
        };
        match found {
            Ok((server, barman)) => {
                self.trials.push(Trial::test(name, move || scenario(server, &barman)));
            }
            Err(reason) => {
                let reason = reason.to_string();
                self.skipped.push(format!("{name}: {reason}"));
                let trial = Trial::test(name, move || Err(reason.into()));
                self.trials.push(trial.with_ignored_flag(true));
            }
        }
        self
    }

    /// A scenario for every supported major.
    #[must_use]
    pub fn every_major(self, name: &str, scenario: fn(&Installation) -> ScenarioResult) -> Self {
        let majors: Vec<u32> = MAJORS.collect();
        self.per_major(name, &majors, scenario)
    }

    /// Runs what the command line asks for; the `main` of a test program.
    pub fn run(self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        // Each scenario runs servers of its own: more at once only makes them all slow.
        arguments.test_threads.get_or_insert(2);
        if !arguments.list {
            for skipped in &self.skipped {
                eprintln!("SKIPPED: {skipped} (`cargo xtask postgres install` gets it)");
            }
        }
        let conclusion = libtest_mimic::run(&arguments, self.trials);
        walrecv::remove_copy();
        if tools::count_missing() > 0 {
            eprintln!("SKIPPED: {} judgements, for want of a judge", tools::count_missing());
        }
        conclusion.exit_code()
    }
}

/// How often a scenario repeats itself: as an environment variable says, or so often.
pub fn rounds(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn chosen_majors() -> Option<Vec<u32>> {
    let chosen = std::env::var("WALRECV_TEST_MAJORS").ok()?;
    Some(chosen.split([' ', ',']).filter_map(|major| major.parse().ok()).collect())
}
