//! Each flush position is reported after the sync that it stands on, by the receiver's own system
//! calls: while it catches up, and while commits wait for it.

use std::time::Duration;

use pgwire_stream::{Lsn, SegmentSize};
use walrecv_tests::ledger::Ledger;
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::strace::order::{OPTIONS, judge};
use walrecv_tests::strace::{self, calls};
use walrecv_tests::{Cluster, Installation};

use crate::site::{Site, lsn, write_wal};
use crate::synchronous::CLIENTS;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("sync_before_report", &[18], sync_before_report)
        .once("reports_before_syncs_are_noticed", reports_before_syncs_are_noticed)
}

fn sync_before_report(installation: &Installation) -> ScenarioResult {
    if !strace::is_possible("the order of syncs and reports") {
        return Ok(());
    }
    // Without TLS, or nobody could read what is reported.
    let mut options = Cluster::options(installation);
    if installation.major >= 11 {
        options = options.wal_segment_megabytes(1);
    }
    let site = Site::around(options.start()?)?;
    let cluster = &site.cluster;
    let size = site.segment_size()?;
    let ledger = Ledger::create(cluster)?;
    site.walrecv.run(&["receive-wal", "main", "--create-slot"])?.success()?;
    write_wal(cluster, 12)?;
    let caught_up = site.position()?;
    cluster.execute("ALTER SYSTEM SET synchronous_standby_names = 'walrecv'")?;
    cluster.reload()?;

    let trace = site.walrecv.directory().join("calls.trace");
    let daemon = site.walrecv.spawn_behind(&strace::in_front(&trace, &OPTIONS), &["run"])?;
    let pid = daemon.id();
    site.wait_until_streaming()?;
    let writers = ledger.write(cluster, CLIENTS)?;
    let enough = caught_up.saturating_add(3 * u64::from(size.bytes()));
    cluster.wait_for("three segments", |_| Ok(site.position()? > enough))?;
    std::thread::sleep(Duration::from_millis(300));
    writers.stop()?;
    assert_eq!(daemon.stop()?, 0);

    let calls = calls::parse(&strace::wait_for_end(&trace, pid)?)?;
    let verdict = judge(&calls, size)?;
    assert_eq!(verdict.unproven, 0, "{verdict:#?}");
    assert_eq!(verdict.failed_syncs, 0, "{verdict:#?}");
    // Nothing before the first position is proven.
    let first = verdict.first.ok_or("nothing was reported")?;
    assert_eq!(size.offset_in_segment(first), 0, "{verdict:#?}");
    assert!(first < caught_up && verdict.last >= Some(enough), "{verdict:#?}");
    assert!(verdict.advances >= 50, "{verdict:#?}");
    Ok(())
}

/// A receiver as it should be: one segment from its creation on, the next one beside it.
const GOOD: &str = r#"7 openat(AT_FDCWD</s>, "/s/000000010000000000000001.partial", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 5</s/000000010000000000000001.partial>
7 fsync(6</s>)                      = 0
9 sendto(4<socket:[1]>, "\x64\x00\x00\x00\x26\x72\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 39, MSG_NOSIGNAL, NULL, 0) = 39
7 pwrite64(5</s/000000010000000000000001.partial>, "\x16\xd1"..., 8192, 0) = 8192
7 fdatasync(5</s/000000010000000000000001.partial> <unfinished ...>
9 sendto(4<socket:[1]>, "\x51\x00\x00\x00\x04\x64\x00\x00\x00\x26\x72\x00\x00\x00\x00\x00\x10\x20\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 44, MSG_NOSIGNAL, NULL, 0) = 44
7 <... fdatasync resumed>)          = 0
9 sendto(4<socket:[1]>, "\x64\x00\x00\x00\x26\x72\x00\x00\x00\x00\x00\x10\x20\x00\x00\x00\x00\x00\x00\x10\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 39, MSG_NOSIGNAL, NULL, 0 <unfinished ...>
7 pwrite64(5</s/000000010000000000000001.partial>, "\x16\xd1"..., 1040384, 8192) = 1040384
9 <... sendto resumed>)             = 39
7 fdatasync(5</s/000000010000000000000001.partial>) = 0
7 renameat2(AT_FDCWD</s>, "/s/000000010000000000000001.partial", AT_FDCWD</s>, "/s/000000010000000000000001", RENAME_NOREPLACE) = 0
7 openat(AT_FDCWD</s>, "/s/.next", O_RDWR|O_CREAT|O_EXCL|O_DSYNC|O_CLOEXEC, 0600) = 8</s/.next>
7 pwrite64(8</s/.next>, "\x16\xd1"..., 100, 0) = 100
7 rename("/s/.next", "/s/000000010000000000000002.partial") = 0
7 fsync(6</s>)                      = 0
9 sendto(4<socket:[1]>, "\x64\x00\x00\x00\x26\x72\x00\x00\x00\x00\x00\x20\x00\x64\x00\x00\x00\x00\x00\x20\x00\x64\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 39, MSG_NOSIGNAL, NULL, 0) = 39
"#;

/// The judge's own test: it accepts what is right, and nothing that is wrong.
fn reports_before_syncs_are_noticed() -> ScenarioResult {
    let size = SegmentSize::new(1 << 20)?;
    let judged = |trace: &str| judge(&calls::parse(trace)?, size);
    let good = judged(GOOD)?;
    assert_eq!((good.advances, good.unproven, good.failed_syncs), (2, 0, 0), "{good:#?}");
    assert_eq!(good.first, Some(lsn("0/100000")?));
    assert_eq!(good.last, Some(Lsn::from_u64(0x20_0064)));

    let lines: Vec<&str> = GOOD.lines().collect();
    let line = |begin: &str, which: usize| {
        let found = lines.iter().enumerate().filter(|(_, line)| line.contains(begin));
        found.map(|(at, _)| at).nth(which).ok_or(format!("no {begin}"))
    };
    // Each sync is needed, and so is O_DSYNC where there is none.
    for (needed, which) in
        [("fsync(6", 0), ("fdatasync(5</s/000000010000000000000001.partial>)", 0), ("fsync(6", 1)]
    {
        let mut without = lines.clone();
        without.remove(line(needed, which)?);
        assert!(judged(&without.join("\n"))?.unproven > 0, "{needed} is not missed");
    }
    assert!(judged(&GOOD.replace("O_DSYNC|", ""))?.unproven > 0);
    for (right, wrong) in [
        ("fdatasync resumed>)          = 0", "fdatasync resumed>) = -1 EIO (Input/output error)"),
        ("fdatasync resumed>)          = 0", "fdatasync resumed>) = 0 (INJECTED)"),
        ("\"/s/.next\", \"/s/000000010000000000000002.partial\"", "\"/s/.next\", \"/s/.other\""),
        // Written while the sync was under way, or somewhere else.
        ("8192, 0) = 8192", "8191, 0) = 8191"),
        ("1040384, 8192) = 1040384", "1040384, 8193) = 1040384"),
    ] {
        let trace = GOOD.replace(right, wrong);
        assert_ne!(trace, GOOD);
        assert!(judged(&trace)?.unproven > 0, "{wrong} is not noticed");
    }
    // A report while the sync is under way.
    let (report, sync) =
        (line("\\x10\\x20\\x00\\x00\\x00\\x00\\x00\\x00\\x10\\x20", 0)?, line("resumed", 0)?);
    let mut early = lines.clone();
    early.swap(report, sync);
    assert_eq!(judged(&early.join("\n"))?.unproven, 1);
    // A write that has not ended when the sync begins.
    let overlapping = GOOD.replace(
        "7 pwrite64(5</s/000000010000000000000001.partial>, \"\\x16\\xd1\"..., 8192, 0) = 8192\n",
        "8 pwrite64(5</s/000000010000000000000001.partial>, \"\\x16\\xd1\"..., 8192, 0 <unfinished ...>\n",
    );
    let overlapping = overlapping.replacen(
        "7 <... fdatasync",
        "8 <... pwrite64 resumed>) = 8192\n7 <... fdatasync",
        1,
    );
    assert!(judged(&overlapping)?.unproven > 0);
    // What is not seen cannot be judged.
    assert!(judged(&format!("{GOOD}7 io_uring_setup(8, 0x7ffe) = 9\n")).is_err());
    Ok(())
}
