//! `cargo xtask fuzz`: runs the fuzz targets of `fuzz/`, each for a measured time, and says how
//! fast and how far they got. Fails if one of them finds something.

mod campaign;
mod coverage;
mod report;
mod target;
mod tools;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use walrecv_tests::{Failure, Result};

use campaign::Outcome;
use target::Target;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A target; may be repeated. All without any.
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<String>,
    /// The processor time for each target, in minutes; 0 to run none.
    #[arg(long, value_name = "MINUTES", default_value_t = 1.0)]
    cpu_minutes: f64,
    /// How many targets run at a time.
    #[arg(long, value_name = "COUNT", default_value = "1")]
    jobs: NonZeroUsize,
    /// Show how much of its decoders each target reaches.
    #[arg(long)]
    coverage: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let targets = target::choose(&arguments.targets)?;
    let cpu_time = Duration::try_from_secs_f64(arguments.cpu_minutes * 60.0)
        .map_err(|_| Failure::new("--cpu-minutes must be a positive number"))?;
    let mut finds = 0;
    if !cpu_time.is_zero() {
        let binaries = tools::build(&targets)?;
        let outcomes = run_all(&targets, &binaries, cpu_time, arguments.jobs.get())?;
        print!("{}", report::campaigns(&targets, &outcomes));
        finds = outcomes.iter().filter(|outcome| outcome.find.is_some()).count();
    }
    if arguments.coverage {
        let binaries = tools::build_for_coverage(&targets)?;
        for target in &targets {
            let measured = coverage::measure(target, &binaries)?;
            print!("{}", report::coverage(target, &measured));
        }
    }
    match finds {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} of {} targets failed", targets.len()))),
    }
}

/// Runs the targets, so many at a time. The outcomes are in the order of the targets.
fn run_all(
    targets: &[Target],
    binaries: &Path,
    cpu_time: Duration,
    jobs: usize,
) -> Result<Vec<Outcome>> {
    let waiting = Mutex::new(targets.iter().enumerate());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.min(targets.len()) {
            scope.spawn(|| {
                let next = || waiting.lock().ok().and_then(|mut waiting| waiting.next());
                while let Some((number, target)) = next() {
                    eprintln!("fuzzing {}", target.name);
                    let outcome = campaign::run(target, binaries, cpu_time);
                    if let Ok(mut done) = done.lock() {
                        done.push((number, outcome));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}
