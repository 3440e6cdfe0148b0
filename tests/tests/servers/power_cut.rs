//! No byte that was acknowledged is lost when the power is cut, and no commit: the store lies on a
//! disk of its own, whose power goes under synchronous commits, again and again.
//!
//! `WALRECV_TEST_POWER_CUTS` says how often on each file system; a round takes about a second.
//!
//! That the judge would see a loss is tested too: the same with a receiver whose syncs do nothing.

use walrecv_tests::disk::FileSystem;
use walrecv_tests::run::{ScenarioResult, Scenarios, rounds};
use walrecv_tests::{Installation, Result, program, strace, tools};

use pgwire_stream::Lsn;

use crate::synchronous::{CLIENTS, Synchronous, sleep_between};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("power_cuts_on_ext4", &[18], |installation| {
            lose_power(installation, FileSystem::Ext4)
        })
        .per_major("power_cuts_on_xfs", &[18], |installation| {
            lose_power(installation, FileSystem::Xfs)
        })
        .per_major("power_cut_without_syncs_is_noticed", &[18], without_syncs)
}

fn lose_power(installation: &Installation, file_system: FileSystem) -> ScenarioResult {
    let Some(mut watched) = Synchronous::new(installation, Some(file_system))? else {
        return Ok(());
    };
    watched.start()?;
    let writers = watched.ledger.write(&watched.site.cluster, CLIENTS)?;
    for round in 0..rounds("WALRECV_TEST_POWER_CUTS", 10) {
        let before = watched.ledger.acknowledged();
        sleep_between(150..600);
        watched.cut_power()?;
        watched.restore_power()?;
        assert_eq!(watched.first_loss()?, None, "acknowledged WAL is lost in round {round}");
        assert!(watched.ledger.acknowledged() > before, "no commit came through in round {round}");
        watched.start()?;
    }
    sleep_between(150..600);
    writers.expect_death();
    watched.cut_power()?;
    watched.site.cluster.kill9()?;
    watched.restore_power()?;
    writers.join()?;
    watched.judge()
}

/// The syncs of libc do nothing (`eatmydata`), and what goes past libc is stubbed out in the kernel
/// (`strace`).
fn without_syncs(installation: &Installation) -> ScenarioResult {
    let what = "a receiver whose syncs do nothing";
    if !strace::is_possible(what) {
        return Ok(());
    }
    if program::find_on_path("eatmydata").is_none() {
        tools::missing("eatmydata", what);
        return Ok(());
    }
    let Some(mut watched) = Synchronous::new(installation, Some(FileSystem::Ext4))? else {
        return Ok(());
    };
    let _writers = watched.ledger.write(&watched.site.cluster, CLIENTS)?;
    for _ in 0..5 {
        if let Some(lost) = round_without_syncs(&mut watched)? {
            assert!(lost < watched.acknowledged);
            return Ok(());
        }
    }
    Err("nothing was ever lost without syncs: a loss would go unnoticed".into())
}

fn round_without_syncs(watched: &mut Synchronous) -> Result<Option<Lsn>> {
    let trace = watched.site.walrecv.directory().join("syncs.trace");
    let stubs = strace::in_front(
        &trace,
        &[
            "--seccomp-bpf",
            "-E",
            "LD_PRELOAD=libeatmydata.so",
            "-e",
            "trace=fsync,fdatasync,sync,syncfs,msync,sync_file_range",
            "-e",
            "inject=fsync,fdatasync,sync,syncfs,msync,sync_file_range:retval=0",
        ],
    );
    watched.daemon = Some(watched.site.walrecv.spawn_behind(&stubs, &["run"])?);
    watched.site.wait_until_streaming()?;
    let before = watched.ledger.acknowledged();
    sleep_between(300..600);
    watched.cut_power()?;
    watched.restore_power()?;
    assert!(watched.ledger.acknowledged() > before, "no commit came through");
    watched.first_loss()
}
