//! No commit that was acknowledged is lost, whenever the receiver is killed: SIGKILL again and
//! again under synchronous commits, and in the end to the primary too.
//!
//! `WALRECV_TEST_KILLS` says how often.

use walrecv_tests::Installation;
use walrecv_tests::run::{ScenarioResult, Scenarios, rounds};

use crate::synchronous::{CLIENTS, Synchronous, sleep_between};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("acknowledged_commits_survive_kills", &[10, 18], survive_kills)
}

fn survive_kills(installation: &Installation) -> ScenarioResult {
    let Some(mut watched) = Synchronous::new(installation, None)? else { return Ok(()) };
    watched.start()?;
    let writers = watched.ledger.write(&watched.site.cluster, CLIENTS)?;
    for round in 0..rounds("WALRECV_TEST_KILLS", 6) {
        sleep_between(50..600);
        watched.kill_receiver()?;
        assert_eq!(watched.first_loss()?, None, "lost in round {round}");
        // Every other time it may be killed while it starts.
        watched.daemon = Some(watched.site.walrecv.spawn(&["run"])?);
        if round % 2 == 0 {
            watched.site.wait_until_streaming()?;
        }
    }
    watched.site.wait_until_streaming()?;
    sleep_between(300..600);
    writers.expect_death();
    watched.site.cluster.kill9()?;
    watched.kill_receiver()?;
    writers.join()?;
    watched.judge()
}
