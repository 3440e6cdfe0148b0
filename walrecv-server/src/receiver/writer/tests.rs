//! The writer with a real disk, and with one that fails.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::*;
use crate::receiver::open_segment::{fdatasync, replace};
use crate::storage::{Access, ArchivedWal, Codec, Home, Method, Packing, compression};

const MIB: usize = 1 << 20;

fn store() -> (tempfile::TempDir, ServerDir) {
    let home = tempfile::tempdir().unwrap();
    let dir = Home::new(home.path(), Access::Private).server(&"main".parse().unwrap());
    dir.create().unwrap();
    (home, dir)
}

fn assignment(dir: &ServerDir, from: u64) -> Assignment {
    Assignment {
        dir: dir.clone(),
        timeline: TimelineId::FIRST,
        segment_size: SegmentSize::new(MIB as u64).unwrap(),
        from: Lsn::from_u64(from),
        durable: Lsn::from_u64(from),
        policy: FlushPolicy {
            interval: Duration::from_millis(1),
            synchronous: Arc::new(AtomicBool::new(false)),
        },
        budget: 64 << 10,
        archive: None,
        validation: None,
        sync_data: fdatasync(),
        workplace: None,
        crew: Arc::default(),
    }
}

/// WAL never repeats itself: each position has its own bytes.
fn wal(from: usize, length: usize) -> Bytes {
    (from..from + length).map(|at| (at * 31 + at / 251) as u8 | 1).collect()
}

fn segment(number: u64) -> SegmentName {
    let size = SegmentSize::new(MIB as u64).unwrap();
    SegmentName::new(TimelineId::FIRST, pgwire_stream::SegmentNumber::from_u64(number), size)
}

/// What is in a file before the zeros that may be ahead of it.
fn content(file: &File) -> Vec<u8> {
    let mut bytes = fs::read(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    bytes.truncate(bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
    bytes
}

type Reports = Arc<Mutex<Vec<Report>>>;

fn start(assignment: Assignment) -> (WalWriter, Reports) {
    let reports = Reports::default();
    let sink = Arc::clone(&reports);
    let writer = WalWriter::start(assignment, move |report| sink.lock().unwrap().push(report));
    (writer, reports)
}

async fn feed(writer: &mut WalWriter, at: usize, data: Bytes) -> Result<(), WriterError> {
    let room = writer.reserve(data.len()).await?;
    let at = Lsn::from_u64(at as u64);
    writer.write(at, data, at, room);
    Ok(())
}

async fn until(mut reached: impl FnMut() -> bool) {
    while !reached() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_chunking_gives_the_same_files(
        chunks in proptest::collection::vec(1..200_000usize, 1..20),
    ) {
        let runtime = runtime();
        let _entered = runtime.enter();
        let (_home, dir) = store();
        let total: usize = chunks.iter().sum();
        let (mut writer, reports) = start(assignment(&dir, MIB as u64));
        let end = runtime.block_on(async {
            let mut at = MIB;
            for &chunk in &chunks {
                feed(&mut writer, at, wal(at, chunk)).await.unwrap();
                at += chunk;
            }
            writer.finish().await.unwrap()
        });
        prop_assert_eq!(end, Lsn::from_u64((MIB + total) as u64));
        let mut stored = Vec::new();
        for number in 0..total / MIB {
            stored.extend(fs::read(dir.streaming_segment(segment(1 + number as u64))).unwrap());
        }
        if !total.is_multiple_of(MIB) {
            let last = segment(1 + (total / MIB) as u64);
            stored.extend(fs::read(dir.streaming_partial(last)).unwrap());
        }
        prop_assert!(stored == wal(MIB, total));
        let completed = reports.lock().unwrap().iter()
            .filter(|report| matches!(report, Report::Completed(_))).count();
        prop_assert_eq!(completed, total / MIB);
    }
}

#[test]
fn nothing_is_reported_that_is_not_synced() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (_home, dir) = store();
    let synced = Arc::new(AtomicU64::new(0));
    let mut assignment = assignment(&dir, 0);
    assignment.policy.synchronous.store(true, Ordering::Relaxed);
    let counter = Arc::clone(&synced);
    assignment.sync_data = Arc::new(move |file| {
        // Before the sync: what is written meanwhile does not count.
        let length = content(file).len() as u64;
        file.sync_data()?;
        counter.fetch_max(length, Ordering::SeqCst);
        Ok(())
    });
    let highest = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&highest);
    let mut writer = WalWriter::start(assignment, move |report| {
        if let Report::Flushed(lsn) = report {
            assert!(lsn.as_u64() <= synced.load(Ordering::SeqCst));
            seen.store(lsn.as_u64(), Ordering::SeqCst);
        }
    });
    runtime.block_on(async {
        for number in 0..100 {
            feed(&mut writer, number * 1000, wal(number * 1000, 1000)).await.unwrap();
            if number % 10 == 9 {
                writer.flush();
                let wanted = (number as u64 + 1) * 1000;
                until(|| highest.load(Ordering::SeqCst) == wanted).await;
            }
        }
        writer.finish().await.unwrap();
    });
}

#[test]
fn what_comes_again_is_compared_and_not_written() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (_home, dir) = store();
    fs::write(dir.streaming_partial(segment(0)), wal(0, 20_000)).unwrap();
    let (mut writer, reports) = start(assignment(&dir, 16_384));
    runtime.block_on(async {
        feed(&mut writer, 16_384, wal(16_384, 1000)).await.unwrap();
        writer.flush();
        // Not 20000, although that is stored: only what was compared counts.
        let compared = Some(Report::Flushed(Lsn::from_u64(17_384)));
        until(|| reports.lock().unwrap().last().cloned() == compared).await;
        assert_eq!(fs::read(dir.streaming_partial(segment(0))).unwrap(), wal(0, 20_000));
        feed(&mut writer, 17_384, wal(17_384, 5000)).await.unwrap();
        writer.finish().await.unwrap();
    });
    assert_eq!(fs::read(dir.streaming_partial(segment(0))).unwrap(), wal(0, 22_384));
}

#[test]
fn a_source_that_sends_something_else_is_refused() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (_home, dir) = store();
    fs::write(dir.streaming_partial(segment(0)), wal(0, 20_000)).unwrap();
    let (mut writer, _) = start(assignment(&dir, 0));
    let error = runtime.block_on(async {
        let mut other = wal(0, 20_000).to_vec();
        other[9_000] ^= 2;
        feed(&mut writer, 0, other.into()).await.unwrap();
        writer.failed().await
    });
    let WriterError::Segment { source: SegmentError::Diverged { at, .. }, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(at, Lsn::from_u64(9_000));
    assert_eq!(fs::read(dir.streaming_partial(segment(0))).unwrap(), wal(0, 20_000));
}

#[test]
fn a_hole_left_by_a_power_cut_is_received_anew() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (_home, dir) = store();
    // Synced up to 5000; the rest of that block was lost, the next one was not.
    let mut torn = wal(0, 20_000).to_vec();
    torn[5_000..8_192].fill(0);
    fs::write(dir.streaming_partial(segment(0)), torn).unwrap();
    let (mut writer, _) = start(assignment(&dir, 0));
    runtime.block_on(async {
        feed(&mut writer, 0, wal(0, 30_000)).await.unwrap();
        writer.finish().await.unwrap();
    });
    assert_eq!(fs::read(dir.streaming_partial(segment(0))).unwrap(), wal(0, 30_000));
}

/// Feeds a little three times, and waits each time until it is written: another alarm rings then
/// long before the one that is set for the sync.
async fn feed_now_and_then(writer: &mut WalWriter, reports: &Reports) {
    for at in [0, 1_000, 2_000] {
        feed(writer, at, wal(at, 1_000)).await.unwrap();
        let end = Lsn::from_u64(at as u64 + 1_000);
        // What is flushed is written.
        reported(
            reports,
            |report| matches!(report, Report::Written(lsn) | Report::Flushed(lsn) if *lsn >= end),
        )
        .await;
    }
}

async fn reported(reports: &Reports, is_wanted: impl Fn(&Report) -> bool) {
    let seen = until(|| reports.lock().unwrap().iter().any(&is_wanted));
    tokio::time::timeout(Duration::from_secs(60), seen).await.unwrap();
}

fn syncing_every(dir: &ServerDir, interval: Duration) -> Assignment {
    let mut assignment = assignment(dir, 0);
    assignment.policy.interval = interval;
    assignment
}

#[test]
fn what_comes_is_written_soon_while_its_sync_is_far_away() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (_home, dir) = store();
    let (mut writer, reports) = start(syncing_every(&dir, Duration::from_secs(3600)));
    runtime.block_on(feed_now_and_then(&mut writer, &reports));
    let reports = reports.lock().unwrap();
    assert!(!reports.iter().any(|report| matches!(report, Report::Flushed(_))), "{reports:?}");
}

#[test]
fn the_sync_comes_in_its_time_whatever_was_written_meanwhile() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (_home, dir) = store();
    let (mut writer, reports) = start(syncing_every(&dir, Duration::from_secs(1)));
    runtime.block_on(async {
        feed_now_and_then(&mut writer, &reports).await;
        reported(&reports, |report| *report == Report::Flushed(Lsn::from_u64(3_000))).await;
    });
}

#[test]
fn a_failed_sync_is_final_for_the_file() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (_home, dir) = store();
    let failing = Arc::new(AtomicBool::new(false));
    let mut broken = assignment(&dir, 0);
    let fail = Arc::clone(&failing);
    broken.sync_data = Arc::new(move |file| match fail.load(Ordering::SeqCst) {
        true => Err(io::Error::other("I/O error")),
        false => file.sync_data(),
    });
    let (mut writer, reports) = start(broken);
    let error = runtime.block_on(async {
        feed(&mut writer, 0, wal(0, 10_000)).await.unwrap();
        writer.flush();
        let flushed = Report::Flushed(Lsn::from_u64(10_000));
        until(|| reports.lock().unwrap().last() == Some(&flushed)).await;
        failing.store(true, Ordering::SeqCst);
        feed(&mut writer, 10_000, wal(10_000, 10_000)).await.unwrap();
        writer.flush();
        writer.failed().await
    });
    let WriterError::Segment { segment: failed, durable, source: SegmentError::Sync(_) } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!((failed, durable), (segment(0), Lsn::from_u64(10_000)));
    let flushed = Report::Flushed(Lsn::from_u64(10_000));
    let last = reports.lock().unwrap().iter().rfind(|r| matches!(r, Report::Flushed(_))).cloned();
    assert_eq!(last, Some(flushed));

    // The bytes past the last successful sync can still be read, and are not believed.
    replace(&dir, failed, 10_000).unwrap();
    assert_eq!(fs::read(dir.streaming_partial(failed)).unwrap(), wal(0, 10_000));
}

#[test]
fn wal_out_of_order_is_refused() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (_home, dir) = store();
    let (mut writer, _) = start(assignment(&dir, 0));
    let error = runtime.block_on(async {
        feed(&mut writer, 8, wal(8, 8)).await.unwrap();
        writer.failed().await
    });
    assert!(matches!(error, WriterError::Position { .. }), "{error:?}");
}

/// A synchronous stream whose syncs wait for their release.
fn hanging_until(dir: &ServerDir, released: &Arc<AtomicBool>) -> Assignment {
    let mut slow = assignment(dir, 0);
    slow.policy.synchronous.store(true, Ordering::Relaxed);
    let released = Arc::clone(released);
    slow.sync_data = Arc::new(move |_| {
        while !released.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    });
    slow
}

#[test]
fn the_queue_holds_no_more_than_its_budget() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (_home, dir) = store();
    let released = Arc::new(AtomicBool::new(false));
    let (mut writer, _) = start(hanging_until(&dir, &released));
    runtime.block_on(async {
        let mut at = 0;
        while let Ok(room) =
            tokio::time::timeout(Duration::from_millis(200), writer.reserve(8192)).await
        {
            let lsn = Lsn::from_u64(at as u64);
            writer.write(lsn, wal(at, 8192), lsn, room.unwrap());
            at += 8192;
        }
        // The disk hangs, and what is being synced counts until it was looked at.
        assert_eq!(at, 7 * 8192);
        assert!(writer.try_reserve(8192).is_none());
        // What is left of it, in the smallest messages.
        let mut small = 0;
        while let Some(room) = writer.try_reserve(1) {
            let lsn = Lsn::from_u64(at as u64);
            writer.write(lsn, wal(at, 1), lsn, room);
            at += 1;
            small += 1;
        }
        assert!((1..=32).contains(&small), "{small}");
        released.store(true, Ordering::SeqCst);
        let end = writer.finish().await.unwrap();
        assert_eq!(end, Lsn::from_u64(at as u64));
    });
}

struct Released(Vec<Arc<AtomicBool>>);

impl Drop for Released {
    fn drop(&mut self) {
        self.0.iter().for_each(|released| released.store(true, Ordering::SeqCst));
    }
}

#[test]
fn streams_share_most_of_what_one_may_have_alone() {
    const MESSAGE: usize = 60 << 10;
    let runtime = runtime();
    let _entered = runtime.enter();
    let streams: Vec<_> = (0..9)
        .map(|_| {
            let (home, dir) = store();
            let released = Arc::new(AtomicBool::new(false));
            let mut slow = hanging_until(&dir, &released);
            slow.budget = MIB as u32;
            (home, released, start(slow).0)
        })
        .collect();
    // Nothing hangs when an assertion fails.
    let _released = Released(streams.iter().map(|(_, released, _)| Arc::clone(released)).collect());
    let fill = |writer: &mut WalWriter| {
        let mut at = 0;
        while let Some(room) = writer.try_reserve(MESSAGE) {
            let lsn = Lsn::from_u64(at as u64);
            writer.write(lsn, wal(at, MESSAGE), lsn, room);
            at += MESSAGE;
        }
        at
    };
    runtime.block_on(async {
        let mut filled = Vec::new();
        for (home, released, mut writer) in streams {
            let at = fill(&mut writer);
            filled.push((released, writer, at, home));
        }
        let most = MIB / (MESSAGE + MESSAGE_OVERHEAD) * MESSAGE;
        assert_eq!(filled[0].2, most, "one that is alone has all of it");
        assert!(filled.iter().all(|(_, _, at, _)| *at >= 2 * MESSAGE), "each has its own");
        let all: usize = filled.iter().map(|(_, _, at, _)| at).sum();
        assert!(all <= SHARED + 9 * OWN as usize, "{all}");
        // One that waits goes on when what it has is written, whoever else hangs.
        let (released, mut last, at, _home_of_last) = filled.pop().unwrap();
        assert!(at < most);
        released.store(true, Ordering::SeqCst);
        let room = last.reserve(MESSAGE).await.unwrap();
        let lsn = Lsn::from_u64(at as u64);
        last.write(lsn, wal(at, MESSAGE), lsn, room);
        last.finish().await.unwrap();
        for (released, writer, at, _home) in filled {
            released.store(true, Ordering::SeqCst);
            assert_eq!(writer.finish().await.unwrap(), Lsn::from_u64(at as u64));
        }
    });
}

/// A sync that waits for its release, by the file's path.
fn hanging(dir: &ServerDir, name: &str) -> (SyncData, Arc<AtomicBool>) {
    let released = Arc::new(AtomicBool::new(false));
    let (name, directory, release) = (name.to_owned(), dir.streaming(), Arc::clone(&released));
    let sync: SyncData = Arc::new(move |file| {
        let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        while path == directory.join(&name) && !release.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(2));
        }
        file.sync_data()
    });
    (sync, released)
}

#[test]
fn a_segment_is_hidden_while_the_one_in_front_of_it_is_not_durable() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (_home, dir) = store();
    let mut slow = assignment(&dir, 0);
    slow.policy.interval = Duration::from_secs(3600);
    let (sync, released) = hanging(&dir, &format!("{}.partial", segment(0)));
    slow.sync_data = sync;
    let (mut writer, reports) = start(slow);
    runtime.block_on(async {
        for at in (0..MIB + 100_000).step_by(50_000) {
            feed(&mut writer, at, wal(at, 50_000)).await.unwrap();
        }
        let written = Report::Written(Lsn::from_u64(1_150_000));
        until(|| reports.lock().unwrap().contains(&written)).await;
        assert!(dir.streaming_partial(segment(0)).exists());
        assert!(!dir.streaming_partial(segment(1)).exists());
        // Asking for it does not make the later one durable first either.
        writer.flush();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!reports.lock().unwrap().iter().any(|report| matches!(report, Report::Flushed(_))));
        released.store(true, Ordering::SeqCst);
        until(|| {
            let flushed = Report::Flushed(Lsn::from_u64(1_150_000));
            reports.lock().unwrap().last() == Some(&flushed)
        })
        .await;
        assert_eq!(fs::read(dir.streaming_segment(segment(0))).unwrap(), wal(0, MIB));
        writer.finish().await.unwrap();
    });
    let expected = wal(MIB, 1_150_000 - MIB);
    assert_eq!(fs::read(dir.streaming_partial(segment(1))).unwrap(), expected);
}

#[test]
fn nothing_is_kept_behind_a_segment_that_could_not_be_made_durable() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (_home, dir) = store();
    let mut broken = assignment(&dir, 0);
    broken.policy.interval = Duration::from_secs(3600);
    let partial = dir.streaming_partial(segment(0));
    broken.sync_data = Arc::new(move |file| {
        let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        if path == partial { Err(io::Error::other("I/O error")) } else { file.sync_data() }
    });
    let (mut writer, reports) = start(broken);
    let error = runtime.block_on(async {
        for at in (0..MIB + 200_000).step_by(50_000) {
            if let Err(error) = feed(&mut writer, at, wal(at, 50_000)).await {
                return error;
            }
        }
        writer.failed().await
    });
    let WriterError::Segment { segment: failed, durable, source: SegmentError::Sync(_) } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!((failed, durable), (segment(0), Lsn::ZERO));
    assert!(!reports.lock().unwrap().iter().any(|report| matches!(report, Report::Flushed(_))));
    drop(runtime);
    let left: Vec<_> = fs::read_dir(dir.streaming()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, [dir.streaming_partial(segment(0))]);
}

#[test]
fn a_synchronous_segment_is_ahead_of_its_content_until_it_rests() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (_home, dir) = store();
    let mut synchronous = assignment(&dir, 0);
    synchronous.segment_size = SegmentSize::DEFAULT;
    synchronous.policy.synchronous.store(true, Ordering::Relaxed);
    let (mut writer, reports) = start(synchronous);
    let partial = dir.streaming_partial(SegmentName::new(
        TimelineId::FIRST,
        pgwire_stream::SegmentNumber::from_u64(0),
        SegmentSize::DEFAULT,
    ));
    let length = || fs::metadata(&partial).unwrap().len();
    runtime.block_on(async {
        for at in (0..3_000_000).step_by(50_000) {
            feed(&mut writer, at, wal(at, 50_000)).await.unwrap();
            let flushed = Report::Flushed(Lsn::from_u64(at as u64 + 50_000));
            until(|| reports.lock().unwrap().contains(&flushed)).await;
            if at == 0 {
                until(|| length() == 2 << 20).await;
            }
            assert!(length() - (at as u64 + 50_000) <= 3 << 20);
            // While zeros are being written, its length tells nothing.
            let received = || crate::catalog::received_length(&partial, 16 << 20).unwrap().unwrap();
            until(|| (at as u64 + 50_000..at as u64 + 50_008).contains(&received())).await;
        }
        until(|| length() == 3_000_000).await;
        feed(&mut writer, 3_000_000, wal(3_000_000, 1234)).await.unwrap();
        writer.finish().await.unwrap();
    });
    assert_eq!(fs::read(&partial).unwrap(), wal(0, 3_001_234));
}

#[test]
fn far_behind_segments_go_straight_into_the_archive() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (_home, dir) = store();
    let mut far_behind = assignment(&dir, 0);
    far_behind.policy.interval = Duration::from_secs(3600);
    far_behind.budget = 1 << 20;
    let packing = Packing::new(Method::new(Codec::Zstd, 1), &[]);
    let archive = Archive::open(dir.clone(), far_behind.segment_size, packing, None).unwrap();
    far_behind.archive = Some(Arc::new(archive));
    let (mut writer, reports) = start(far_behind);
    let total = 5 * MIB + 300_000;
    runtime.block_on(async {
        for at in (0..total).step_by(100_000) {
            let data = wal(at, 100_000.min(total - at));
            let room = writer.reserve(data.len()).await.unwrap();
            let server_end = Lsn::from_u64(10 * MIB as u64);
            writer.write(Lsn::from_u64(at as u64), data, server_end, room);
        }
        let written = Report::Written(Lsn::from_u64(total as u64));
        until(|| reports.lock().unwrap().contains(&written)).await;
        assert!(!dir.streaming_partial(segment(5)).exists());
        writer.flush();
        let flushed = Report::Flushed(Lsn::from_u64(total as u64));
        until(|| reports.lock().unwrap().last() == Some(&flushed)).await;
        let stored = fs::read(dir.streaming_partial(segment(5))).unwrap();
        assert_eq!(stored, wal(5 * MIB, 300_000));
        writer.finish().await.unwrap();
    });
    // The first is raw: only when it has come quickly is it known that the next may.
    assert_eq!(fs::read(dir.streaming_segment(segment(0))).unwrap(), wal(0, MIB));
    for number in 1..5 {
        let file =
            ArchivedWal { segment: segment(number), partial: false, form: Codec::Zstd.into() };
        let mut plain = Vec::new();
        let mut reader = compression::open(&dir.archived_file(file), Codec::Zstd).unwrap();
        reader.read_to_end(&mut plain).unwrap();
        assert!(plain == wal(number as usize * MIB, MIB), "{number}");
    }
    assert_eq!(fs::read_dir(dir.wal_dir(segment(1))).unwrap().count(), 5);
    let archived: Vec<_> = reports
        .lock()
        .unwrap()
        .iter()
        .filter(|report| matches!(report, Report::Archived(_)))
        .cloned()
        .collect();
    assert_eq!(archived, [1, 2, 3, 4].map(|number| Report::Archived(segment(number))));
}
