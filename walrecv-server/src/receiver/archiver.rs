//! The background task that moves complete segments, and the cut tails of timelines that were
//! left, from `streaming/` into the archive: several at a time, oldest first.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use pgwire_stream::{SegmentName, SegmentNumber, TimelineId, WalFileName};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::archive::{Archive, ArchiveError};
use super::status::Status;
use super::{ReceiverError, blocking};
use crate::hooks::HookError;
use crate::storage::{ServerDir, StorageError, durable};

/// When archiving is tried again after it failed.
const RETRY: Duration = Duration::from_secs(5);

/// Partial segments before this one are not received any more: their timeline was left, or WAL
/// after them was given up on.
pub(super) type Frontier = (TimelineId, SegmentNumber);

/// Archives all that waits; `go_on` is asked before each file and while scripts run, and told how
/// many there are.
///
/// A file that cannot be archived keeps no other from it: the first such error is given in the end.
///
/// The frontier does not move while a partial segment is archived: the receiver may be led
/// back to its timeline, as by the old primary after a failover, and must not go on with a
/// file that is about to be removed.
pub(super) fn pass(
    archive: &Archive,
    frontier: &Mutex<Option<Frontier>>,
    go_on: impl Fn(u64) -> bool + Sync,
) -> Result<(), ArchiveError> {
    let known = *lock_of(frontier);
    let waiting = waiting(archive, known)?;
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        while let Some(&(segment, partial)) = waiting.get(next.fetch_add(1, Ordering::Relaxed)) {
            let left = waiting.len().saturating_sub(next.load(Ordering::Relaxed) - 1) as u64;
            let interrupted = || !go_on(left);
            // Neither is kept from others while scripts run.
            let archive_it = || {
                let _hand = Hand::free();
                let frontier = partial.then(|| lock_of(frontier));
                match &frontier {
                    _ if interrupted() => Ok(()),
                    Some(frontier) if !is_over(archive, segment, **frontier) => Ok(()),
                    None if archive.notes().is_held(segment) => Ok(()),
                    _ => archive.archive(segment, partial),
                }
            };
            if interrupted() {
                return;
            }
            match archive.between_scripts(segment, partial, &interrupted, archive_it) {
                Ok(()) => {}
                Err(ArchiveError::Hook(HookError::Interrupted { .. })) => return,
                Err(error) => {
                    lock_of(&failed).get_or_insert(error);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..hands().min(waiting.len()) {
            scope.spawn(work);
        }
        work();
    });
    archive.record_rest()?;
    go_on(0);
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// What waits, oldest first.
fn waiting(
    archive: &Archive,
    frontier: Option<Frontier>,
) -> Result<Vec<(SegmentName, bool)>, StorageError> {
    let mut waiting = Vec::new();
    for name in durable::list_dir(&archive.dir().streaming())? {
        match name.to_str().and_then(|name| name.parse().ok()) {
            Some(WalFileName::Segment(segment)) if !archive.notes().is_held(segment) => {
                waiting.push((segment, false));
            }
            Some(WalFileName::Partial(segment)) if is_over(archive, segment, frontier) => {
                waiting.push((segment, true));
            }
            _ => {}
        }
    }
    waiting.sort();
    Ok(waiting)
}

/// How many complete segments are not archived yet.
pub(super) fn complete(server: &ServerDir) -> Result<u64, StorageError> {
    let mut complete = 0;
    durable::for_each_name(&server.streaming(), |name| {
        complete += u64::from(matches!(name.parse(), Ok(WalFileName::Segment(_))));
    })?;
    Ok(complete)
}

/// Whether nothing more comes for this partial segment.
fn is_over(archive: &Archive, segment: SegmentName, frontier: Option<Frontier>) -> bool {
    let position = segment.number(archive.segment_size()).ok();
    let position = position.map(|number| (segment.timeline(), number));
    position.is_some() && position < frontier
}

/// How many segments are compressed at a time in this process, however many servers there are:
/// as many as there are processors, but for one that receives.
fn hands() -> usize {
    thread::available_parallelism().map_or(1, |processors| (processors.get() - 1).max(1))
}

/// The right to compress a segment.
struct Hand;

static BUSY: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl Hand {
    fn free() -> Self {
        let busy = FREED.wait_while(lock_of(&BUSY), |busy| *busy >= hands());
        *busy.unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        *lock_of(&BUSY) -= 1;
        FREED.notify_one();
    }
}

fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The background task that archives one server's segments.
pub(super) struct Archiver {
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

/// Wakes the task, from any thread.
#[derive(Clone)]
pub(super) struct ArchiverHandle(Arc<Shared>);

/// When the task ends that is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// After the files in work.
    Soon,
    /// When nothing waits any more, or the rest cannot be archived.
    Done,
}

struct Shared {
    news: Notify,
    stop: AtomicBool,
    /// To be ended after the next pass.
    finish: AtomicBool,
    frontier: Mutex<Option<Frontier>>,
    status: Arc<watch::Sender<Status>>,
}

impl Archiver {
    pub(super) fn new(status: Arc<watch::Sender<Status>>) -> Self {
        let shared = Shared {
            news: Notify::new(),
            stop: AtomicBool::new(false),
            finish: AtomicBool::new(false),
            frontier: Mutex::new(None),
            status,
        };
        Self { shared: Arc::new(shared), task: None }
    }

    /// Begins to work, with what is there already; does nothing if it works already.
    pub(super) fn start(&mut self, archive: Arc<Archive>, runtime: &Handle) {
        if self.task.is_none() {
            let shared = Arc::clone(&self.shared);
            self.task = Some(runtime.spawn(work(archive, shared)));
            self.shared.news.notify_one();
        }
    }

    /// Reception begins at this segment: partial segments before it are over.
    pub(super) async fn frontier(
        &self,
        timeline: TimelineId,
        segment: SegmentNumber,
    ) -> Result<(), ReceiverError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || *lock_of(&shared.frontier) = Some((timeline, segment))).await?;
        self.shared.news.notify_one();
        Ok(())
    }

    pub(super) fn handle(&self) -> ArchiverHandle {
        ArchiverHandle(Arc::clone(&self.shared))
    }

    /// Ends after the files in work, or when all that waits is archived.
    pub(super) async fn stop(&mut self, when: End) {
        match when {
            End::Soon => self.shared.stop.store(true, Ordering::Relaxed),
            End::Done => self.shared.finish.store(true, Ordering::Relaxed),
        }
        self.shared.news.notify_one();
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            tracing::error!(error = %error, "the archiving task was lost");
        }
    }
}

impl Drop for Archiver {
    /// Its task holds the archive's lock, which whoever comes next needs.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.news.notify_one();
    }
}

impl ArchiverHandle {
    pub(super) fn wake(&self) {
        self.0.news.notify_one();
    }
}

async fn work(archive: Arc<Archive>, shared: Arc<Shared>) {
    let mut failed = false;
    while !shared.stop.load(Ordering::Relaxed) {
        tokio::select! {
            () = shared.news.notified() => {}
            () = tokio::time::sleep(RETRY), if failed => {}
        }
        // Looked at first: what is complete now is in the pass.
        let last = shared.finish.load(Ordering::Relaxed);
        let (archive, watched) = (Arc::clone(&archive), Arc::clone(&shared));
        let pass = blocking(move || {
            pass(&archive, &watched.frontier, |left| {
                watched.status.send_if_modified(|status| {
                    mem::replace(&mut status.waiting_for_archive, left) != left
                });
                !watched.stop.load(Ordering::Relaxed)
            })
        });
        let error: Option<Box<dyn std::error::Error + Send + Sync>> = match pass.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.into()),
            Err(error) => Some(ReceiverError::into(error)),
        };
        if let Some(error) = &error {
            let cause = error.source().map(tracing::field::display);
            tracing::error!(error = %error, cause, "WAL was not archived; trying again");
        }
        failed = error.is_some();
        if last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use pgwire_stream::SegmentSize;

    use super::*;
    use crate::catalog::{WalIndex, WalIndexRecord};
    use crate::storage::{
        Access, ArchivedWal, Codec, Crc32c, Form, Home, Method, Packing, Plain, Sha256Sum,
        encryption,
    };

    mod encrypted;

    const SEGMENT: usize = 1 << 20;

    struct Store {
        _home: tempfile::TempDir,
        dir: ServerDir,
        archive: Archive,
    }

    fn store() -> Store {
        store_of(Method::new(Codec::Zstd, 1))
    }

    fn store_of(method: Method) -> Store {
        let home = tempfile::tempdir().unwrap();
        let dir = Home::new(home.path(), Access::Private).server(&"main".parse().unwrap());
        dir.create().unwrap();
        let archive = open_with(&dir, method);
        Store { _home: home, dir, archive }
    }

    fn open(dir: &ServerDir) -> Archive {
        open_with(dir, Method::new(Codec::Zstd, 1))
    }

    fn open_with(dir: &ServerDir, method: Method) -> Archive {
        let size = SegmentSize::new(SEGMENT as u64).unwrap();
        Archive::open(dir.clone(), size, Packing::new(method, &[]), None).unwrap()
    }

    fn wal(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 100 + at) as u8).collect()
    }

    fn one() -> SegmentName {
        "000000010000000000000001".parse().unwrap()
    }

    fn content(dir: &ServerDir, file: ArchivedWal) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut reader = encryption::open(&dir.archived_file(file), file.form, None).unwrap();
        reader.read_to_end(&mut plain).unwrap();
        plain
    }

    fn whole() -> ArchivedWal {
        ArchivedWal { segment: one(), partial: false, form: Codec::Zstd.into() }
    }

    fn cut() -> ArchivedWal {
        ArchivedWal { partial: true, ..whole() }
    }

    fn frontier(timeline: u32, number: u64) -> Mutex<Option<Frontier>> {
        let timeline = TimelineId::new(timeline).unwrap();
        Mutex::new(Some((timeline, SegmentNumber::from_u64(number))))
    }

    fn nowhere() -> Mutex<Option<Frontier>> {
        Mutex::new(None)
    }

    fn records(dir: &ServerDir) -> Vec<WalIndexRecord> {
        WalIndex::of(dir, one()).records().unwrap()
    }

    #[test]
    fn every_point_of_a_crash_ends_in_the_same_archive() {
        // What was done before the crash: nothing, half a temporary file, the archived file, the
        // record as well, and all but nothing left to do.
        for crashed_after in 0..5 {
            let Store { dir, mut archive, _home } = store();
            let raw = dir.streaming_segment(one());
            fs::write(&raw, wal(SEGMENT)).unwrap();
            if crashed_after == 1 {
                fs::create_dir_all(dir.wal_dir(one())).unwrap();
                let name = format!(".{}.tmp", whole());
                fs::write(dir.wal_dir(one()).join(name), b"half").unwrap();
            }
            if crashed_after >= 2 {
                pass(&archive, &nowhere(), |_| true).unwrap();
                if crashed_after == 2 {
                    fs::remove_file(dir.wal_index(one())).unwrap();
                }
                if crashed_after <= 3 {
                    fs::write(&raw, wal(SEGMENT)).unwrap();
                }
                drop(archive);
                archive = open(&dir);
            }
            pass(&archive, &nowhere(), |_| true).unwrap();
            assert!(!raw.exists());
            assert_eq!(content(&dir, whole()), wal(SEGMENT), "{crashed_after}");
            let [record] = &records(&dir)[..] else { panic!("{crashed_after}") };
            assert_eq!(record.plain_crc32c, Crc32c::of(&wal(SEGMENT)));
            let stored = fs::read(dir.archived_file(whole())).unwrap();
            assert_eq!(record.stored_sha256, Some(Sha256Sum::of(&stored)));
            assert_eq!(fs::read_dir(dir.wal_dir(one())).unwrap().count(), 2);
        }
    }

    #[test]
    fn what_is_kept_as_it_came_is_moved_at_every_point_of_a_crash() {
        let file = ArchivedWal { form: Form::plain(Codec::None), ..whole() };
        // What was done before the crash: nothing, the record, the new name beside the old one.
        for crashed_after in 0..3 {
            let Store { dir, archive, _home } = store_of(Method::new(Codec::None, 0));
            let raw = dir.streaming_segment(one());
            if crashed_after > 0 {
                fs::write(&raw, wal(SEGMENT)).unwrap();
                pass(&archive, &nowhere(), |_| true).unwrap();
                if crashed_after == 1 {
                    fs::rename(dir.archived_file(file), &raw).unwrap();
                } else {
                    fs::copy(dir.archived_file(file), &raw).unwrap();
                }
            } else {
                fs::write(&raw, wal(SEGMENT)).unwrap();
            }
            pass(&archive, &nowhere(), |_| true).unwrap();
            assert!(!raw.exists(), "{crashed_after}");
            assert_eq!(fs::read(dir.archived_file(file)).unwrap(), wal(SEGMENT));
            let records = records(&dir);
            assert!(records.iter().all(|record| record.file == file));
            assert_eq!(records.last().unwrap().plain_crc32c, Crc32c::of(&wal(SEGMENT)));
            assert_eq!(records.last().unwrap().stored_sha256, None);
        }
    }

    #[test]
    fn what_is_kept_as_it_came_is_not_read_again_unless_it_was_mended() {
        let noted = Plain { crc32c: "01234567".parse().unwrap(), ..Plain::of(&wal(SEGMENT)) };
        let read = Plain::of(&wal(SEGMENT));
        for (mended, validates, expected) in
            [(false, false, noted), (true, false, read), (false, true, read)]
        {
            let Store { dir, archive, _home } = store_of(Method::new(Codec::None, 0));
            let archive = archive.with_validation(validates);
            archive.notes().note_sum(one(), noted);
            if mended {
                archive.notes().hold(one(), true, false);
                archive.notes().note_sum(one(), noted);
                archive.notes().hold(one(), false, true);
            }
            fs::write(dir.streaming_segment(one()), wal(SEGMENT)).unwrap();
            pass(&archive, &nowhere(), |_| true).unwrap();
            let [record] = &records(&dir)[..] else { panic!("{mended} {validates}") };
            assert_eq!(record.plain_crc32c, expected.crc32c, "{mended} {validates}");
            // What looks like no WAL at all is not even looked at.
            assert_eq!(record.findings.validity.is_some(), validates);
        }
    }

    #[test]
    fn a_segment_of_another_size_or_content_stays_where_it_is() {
        let Store { dir, archive, _home } = store();
        let raw = dir.streaming_segment(one());
        fs::write(&raw, wal(SEGMENT - 1)).unwrap();
        let error = pass(&archive, &nowhere(), |_| true).unwrap_err();
        assert!(matches!(error, ArchiveError::WrongSize { .. }), "{error}");
        assert!(raw.exists() && !dir.archived_file(whole()).exists());

        fs::write(&raw, wal(SEGMENT)).unwrap();
        pass(&archive, &nowhere(), |_| true).unwrap();
        let mut other = wal(SEGMENT);
        other[700_000] ^= 1;
        fs::write(&raw, &other).unwrap();
        let error = pass(&archive, &nowhere(), |_| true).unwrap_err();
        assert!(matches!(error, ArchiveError::Differs { .. }), "{error}");
        assert_eq!(fs::read(&raw).unwrap(), other);
        assert_eq!(content(&dir, whole()), wal(SEGMENT));
    }

    #[test]
    fn only_tails_that_are_over_are_archived() {
        let Store { dir, archive, _home } = store();
        let raw = dir.streaming_partial(one());
        fs::write(&raw, wal(5000)).unwrap();
        for open in [nowhere(), frontier(1, 0), frontier(1, 1)] {
            pass(&archive, &open, |_| true).unwrap();
            assert!(raw.exists(), "{open:?}");
        }
        pass(&archive, &frontier(2, 1), |_| true).unwrap();
        assert!(!raw.exists());
        assert_eq!(content(&dir, cut()), wal(5000));
        assert_eq!(records(&dir)[0].plain_size, 5000);

        // Meanwhile the receiver was led back to it.
        fs::write(&raw, wal(6000)).unwrap();
        let moving = frontier(2, 1);
        pass(&archive, &moving, |_| {
            *moving.lock().unwrap() = *frontier(1, 1).lock().unwrap();
            true
        })
        .unwrap();
        assert!(raw.exists());

        // Received again: shorter, then longer.
        for (length, kept) in [(4000, 5000), (0, 5000), (6000, 6000)] {
            fs::write(&raw, wal(length)).unwrap();
            pass(&archive, &frontier(1, 2), |_| true).unwrap();
            assert!(!raw.exists());
            assert_eq!(content(&dir, cut()), wal(kept));
        }
        assert_eq!(records(&dir).last().unwrap().plain_size, 6000);
    }

    #[test]
    fn a_damaged_index_is_made_again() {
        let Store { dir, archive, _home } = store();
        for number in 1..=3 {
            let segment = format!("00000001000000000000000{number}").parse().unwrap();
            fs::write(dir.streaming_segment(segment), wal(SEGMENT)).unwrap();
            pass(&archive, &nowhere(), |_| true).unwrap();
        }
        let mut index = fs::read(dir.wal_index(one())).unwrap();
        index[20] ^= 1;
        fs::write(dir.wal_index(one()), index).unwrap();
        drop(archive);
        let archive = open(&dir);
        let four = "000000010000000000000004".parse().unwrap();
        fs::write(dir.streaming_segment(four), wal(SEGMENT)).unwrap();
        pass(&archive, &nowhere(), |_| true).unwrap();
        let records = records(&dir);
        for number in 1..=4 {
            let name = format!("00000001000000000000000{number}.zst");
            assert!(records.iter().any(|record| record.file.to_string() == name), "{number}");
        }
        assert_eq!(fs::read_dir(dir.streaming()).unwrap().count(), 0);
    }

    #[test]
    fn a_backlog_is_worked_off_in_order_and_can_be_interrupted() {
        let Store { dir, archive, _home } = store();
        for number in 1..=3 {
            let segment = format!("00000001000000000000000{number}").parse().unwrap();
            fs::write(dir.streaming_segment(segment), wal(SEGMENT)).unwrap();
        }
        let seen = Mutex::new(Vec::new());
        pass(&archive, &nowhere(), |left| {
            seen.lock().unwrap().push(left);
            left > 2
        })
        .unwrap();
        let mut seen = seen.into_inner().unwrap();
        // It is asked more than once for each.
        seen.dedup();
        assert_eq!(seen[..2], [3, 2]);
        assert!(!dir.streaming_segment(one()).exists());
        pass(&archive, &nowhere(), |_| true).unwrap();
        assert_eq!(fs::read_dir(dir.streaming()).unwrap().count(), 0);
    }
}
