//! Complete segments, and the cut tails of timelines that were left, move from `streaming/` into
//! the archive.
//!
//! Each step is durable before the next begins: the compressed file under its final name, its
//! record in the index, and only then the raw file goes. A crash between any two of them leaves a
//! raw file beside an archived one; then the two are compared, and what is missing is done.
//!
//! An archived file that is encrypted to somebody else cannot be compared. Its record can, as long
//! as the file is what the record says. Where there is no such record, the archived file is what
//! an interrupted attempt at this very raw file has left, and the attempt is repeated. A beginning
//! of a segment that cannot be compared is set apart and not replaced: if its record was lost, it
//! may be the longer one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgwire_stream::{SegmentName, SegmentNumber, SegmentSize, TimelineId, WalFileName};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::recognise::{Comparison, compare, compare_with_record};
use super::status::Status;
use super::{ReceiverError, blocking};
use crate::catalog::{WalIndex, WalIndexError, WalIndexRecord, archived_file};
use crate::storage::durable::{self, AtomicFile, Put};
use crate::storage::{
    ArchivedWal, ArchivedWriter, Codec, DecryptionError, Form, KeyFile, LockError, LockKind,
    Packing, ServerDir, ServerLock, Sha256Sum, StorageError, Stored, encryption,
};

/// How much is read at a time.
const CHUNK: usize = 256 << 10;

/// When archiving is tried again after it failed.
const RETRY: Duration = Duration::from_secs(5);

/// Why a segment could not be archived. It stays where it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("`{}` has {found} bytes instead of {expected}", path.display())]
    WrongSize { path: PathBuf, found: u64, expected: u64 },
    #[error("`{}` differs from `{}`, which is archived already", raw.display(), archived.display())]
    Differs { raw: PathBuf, archived: PathBuf },
    #[error(transparent)]
    Decryption(#[from] DecryptionError),
    #[error(transparent)]
    Index(#[from] WalIndexError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Partial segments before this one are not received any more: their timeline was left, or WAL
/// after them was given up on.
type Frontier = (TimelineId, SegmentNumber);

/// Moves the segments of one server into its archive.
pub(crate) struct Archive {
    dir: ServerDir,
    segment_size: SegmentSize,
    packing: Packing,
    keys: Option<KeyFile>,
}

impl Archive {
    /// The keys are to compare what is archived already; nothing else needs any.
    pub(crate) fn new(
        dir: ServerDir,
        segment_size: SegmentSize,
        packing: Packing,
        keys: Option<KeyFile>,
    ) -> Self {
        Self { dir, segment_size, packing, keys }
    }

    /// Archives all that waits; `left` is told before each file how many there are.
    ///
    /// The frontier does not move while a partial segment is archived: the receiver may be led
    /// back to its timeline, as by the old primary after a failover, and must not go on with a
    /// file that is about to be removed.
    pub(crate) fn pass(
        &self,
        frontier: &Mutex<Option<Frontier>>,
        mut go_on: impl FnMut(u64) -> bool,
    ) -> Result<(), ArchiveError> {
        let known = *lock_of(frontier);
        let waiting = self.waiting(known)?;
        if waiting.is_empty() {
            go_on(0);
            return Ok(());
        }
        let lock = ServerLock::try_acquire(&self.dir, LockKind::Archive)?;
        for (done, &(segment, partial)) in waiting.iter().enumerate() {
            if !go_on((waiting.len() - done) as u64) {
                return Ok(());
            }
            if partial {
                let frontier = lock_of(frontier);
                if self.is_over(segment, *frontier) {
                    self.archive(segment, partial, &lock)?;
                }
            } else {
                self.archive(segment, partial, &lock)?;
            }
        }
        go_on(0);
        Ok(())
    }

    /// What waits, oldest first.
    fn waiting(
        &self,
        frontier: Option<Frontier>,
    ) -> Result<Vec<(SegmentName, bool)>, StorageError> {
        let mut waiting = Vec::new();
        for name in durable::list_dir(&self.dir.streaming())? {
            match name.to_str().and_then(|name| name.parse().ok()) {
                Some(WalFileName::Segment(segment)) => waiting.push((segment, false)),
                Some(WalFileName::Partial(segment)) if self.is_over(segment, frontier) => {
                    waiting.push((segment, true));
                }
                Some(WalFileName::Partial(_) | WalFileName::History(_)) | None => {}
            }
        }
        waiting.sort();
        Ok(waiting)
    }

    /// Whether nothing more comes for this partial segment.
    fn is_over(&self, segment: SegmentName, frontier: Option<Frontier>) -> bool {
        let position = segment.number(self.segment_size).ok();
        let position = position.map(|number| (segment.timeline(), number));
        position.is_some() && position < frontier
    }

    /// Archives one file, whatever an earlier attempt has left undone.
    fn archive(
        &self,
        segment: SegmentName,
        partial: bool,
        lock: &ServerLock,
    ) -> Result<(), ArchiveError> {
        let raw = if partial {
            self.dir.streaming_partial(segment)
        } else {
            self.dir.streaming_segment(segment)
        };
        let Some(found) = durable::file_size(&raw)? else { return Ok(()) };
        let expected = u64::from(self.segment_size.bytes());
        if !partial && found != expected {
            return Err(ArchiveError::WrongSize { path: raw, found, expected });
        }
        // A timeline that was left before anything was written: nothing to keep.
        if found > 0 {
            match archived_file(&self.dir, segment, partial)? {
                Some(file) => self.complete(&raw, file, lock)?,
                None => self.store(&raw, segment, partial, lock)?,
            }
        }
        Ok(durable::remove_file(&raw)?)
    }

    /// Compresses, and encrypts, into a temporary file, which gets its name when it is complete, then records it.
    fn store(
        &self,
        raw: &Path,
        segment: SegmentName,
        partial: bool,
        lock: &ServerLock,
    ) -> Result<(), ArchiveError> {
        let file = ArchivedWal { segment, partial, form: self.packing.form() };
        let target = self.dir.archived_file(file);
        durable::create_dir(&self.dir.wal_dir(segment), self.dir.access())?;
        let mut writer = ArchivedWriter::create(&target, self.dir.access(), &self.packing)?;
        let pack = || -> io::Result<(Stored, Stored, AtomicFile)> {
            let mut source = File::open(raw)?;
            let mut chunk = vec![0; CHUNK];
            loop {
                let read = source.read(&mut chunk)?;
                if read == 0 {
                    break;
                }
                writer.write_all(chunk.get(..read).unwrap_or_default())?;
            }
            writer.finish()
        };
        let (plain, stored, temporary) = pack().map_err(StorageError::of("archive", raw))?;
        temporary.commit()?;
        self.record(file, plain, stored, lock)
    }

    fn record(
        &self,
        file: ArchivedWal,
        plain: Stored,
        stored: Stored,
        lock: &ServerLock,
    ) -> Result<(), ArchiveError> {
        let record = WalIndexRecord::new(file, plain, stored);
        let index = WalIndex::of(&self.dir, file.segment);
        match index.append(&record, lock) {
            // Nothing may wait for a file that can be made again.
            Err(error @ (WalIndexError::Damaged { .. } | WalIndexError::TooLarge { .. })) => {
                tracing::error!(error = %error, "making the index again from the segments");
                let known = index.rebuild(self.keys.as_ref(), lock)?;
                // What it cannot know without a key is known here.
                if !known.iter().any(|known| known.file == file) {
                    index.append(&record, lock)?;
                }
                Ok(())
            }
            appended => Ok(appended?),
        }
    }

    /// The file is archived already. Its record may be missing, and a cut tail may have grown.
    fn complete(
        &self,
        raw: &Path,
        file: ArchivedWal,
        lock: &ServerLock,
    ) -> Result<(), ArchiveError> {
        let archived = self.dir.archived_file(file);
        let compared = match compare(raw, &archived, file.form, self.keys.as_ref()) {
            Err(error) if error.is_for_want_of_keys() => match self.record_of(file, lock)? {
                None => {
                    if file.partial {
                        self.set_apart(&archived, &error)?;
                    }
                    return self.store(raw, file.segment, file.partial, lock);
                }
                Some(record) => match compare_with_record(raw, &record)? {
                    Some(compared) => compared,
                    None => return self.set_apart(raw, &error),
                },
            },
            compared => compared?,
        };
        match compared {
            Comparison::Same => {}
            Comparison::ArchivedIsLonger if file.partial => {}
            Comparison::RawIsLonger if file.partial => {
                self.store(raw, file.segment, true, lock)?;
                // It may have been stored in another form, and then still be there.
                if file.form != self.packing.form() {
                    durable::remove_file(&archived)?;
                }
                return Ok(());
            }
            _ => return Err(ArchiveError::Differs { raw: raw.to_owned(), archived }),
        }
        // Whoever gave it its name may not have come so far as to make that durable.
        durable::sync_dir(&self.dir.wal_dir(file.segment))?;
        // One that is damaged is made again when the record is added.
        if let Ok(Some(_)) = WalIndex::of(&self.dir, file.segment).find(file) {
            durable::sync_file(&self.dir.wal_index(file.segment))?;
            return Ok(());
        }
        let sum = |source: Box<dyn Read + Send>| {
            Sha256Sum::of_reader(source).map_err(StorageError::of("read", &archived))
        };
        let plain = sum(encryption::open(&archived, file.form, self.keys.as_ref())?)?;
        let stored = sum(encryption::open(&archived, Form::plain(Codec::None), None)?)?;
        self.record(file, plain, stored, lock)
    }

    /// Moves a file to where an operator looks at it; nothing is lost.
    fn set_apart(&self, path: &Path, reason: &DecryptionError) -> Result<(), ArchiveError> {
        let errors = self.dir.errors();
        durable::create_dir(&errors, self.dir.access())?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        for number in 1u64.. {
            let apart = errors.join(format!("{name}.{number}"));
            if durable::rename_file(path, &apart)? == Put::Stored {
                let (path, apart) = (path.display(), apart.display());
                tracing::error!(%path, %apart, %reason, "set apart: it cannot be compared");
                break;
            }
        }
        Ok(())
    }

    /// The record of a file, if the file is still what the record says.
    fn record_of(
        &self,
        file: ArchivedWal,
        lock: &ServerLock,
    ) -> Result<Option<WalIndexRecord>, ArchiveError> {
        let index = WalIndex::of(&self.dir, file.segment);
        let record = match index.find(file) {
            Err(WalIndexError::Damaged { .. } | WalIndexError::TooLarge { .. }) => {
                let known = index.rebuild(self.keys.as_ref(), lock)?;
                known.into_iter().find(|record| record.file == file)
            }
            found => found?,
        };
        let Some(record) = record else { return Ok(None) };
        let path = self.dir.archived_file(file);
        let stored = File::open(&path).and_then(Sha256Sum::of_reader);
        let stored = stored.map_err(StorageError::of("read", &path))?;
        Ok((stored.sha256 == record.stored_sha256).then_some(record))
    }
}

fn lock_of(frontier: &Mutex<Option<Frontier>>) -> MutexGuard<'_, Option<Frontier>> {
    frontier.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The background task that archives one server's segments, one at a time.
pub(super) struct Archiver {
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

/// Wakes the task, from any thread.
#[derive(Clone)]
pub(super) struct ArchiverHandle(Arc<Shared>);

struct Shared {
    news: Notify,
    stop: AtomicBool,
    frontier: Mutex<Option<Frontier>>,
    status: Arc<watch::Sender<Status>>,
}

impl Archiver {
    pub(super) fn new(status: Arc<watch::Sender<Status>>) -> Self {
        let shared = Shared {
            news: Notify::new(),
            stop: AtomicBool::new(false),
            frontier: Mutex::new(None),
            status,
        };
        Self { shared: Arc::new(shared), task: None }
    }

    /// Begins to work, with what is there already; does nothing if it works already.
    pub(super) fn start(&mut self, archive: Archive) {
        if self.task.is_none() {
            let shared = Arc::clone(&self.shared);
            self.task = Some(tokio::spawn(work(Arc::new(archive), shared)));
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

    /// Ends after the file in work.
    pub(super) async fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.news.notify_one();
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            tracing::error!(error = %error, "the archiving task was lost");
        }
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
        let (archive, watched) = (Arc::clone(&archive), Arc::clone(&shared));
        let pass = blocking(move || {
            archive.pass(&watched.frontier, |left| {
                watched.status.send_modify(|status| status.waiting_for_archive = left);
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
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use age::secrecy::ExposeSecret;
    use age::x25519::Identity;

    use super::*;
    use crate::storage::{Access, Home, Method};

    const SEGMENT: usize = 1 << 20;

    struct Store {
        _home: tempfile::TempDir,
        dir: ServerDir,
        archive: Archive,
    }

    fn store() -> Store {
        let home = tempfile::tempdir().unwrap();
        let dir = Home::new(home.path(), Access::Private).server(&"main".parse().unwrap());
        dir.create().unwrap();
        let size = SegmentSize::new(SEGMENT as u64).unwrap();
        let packing = Packing::new(Method::new(Codec::Zstd, 1), &[]);
        let archive = Archive::new(dir.clone(), size, packing, None);
        Store { _home: home, dir, archive }
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
            let Store { dir, archive, _home } = store();
            let raw = dir.streaming_segment(one());
            fs::write(&raw, wal(SEGMENT)).unwrap();
            if crashed_after == 1 {
                fs::create_dir_all(dir.wal_dir(one())).unwrap();
                let name = format!(".{}.tmp", whole());
                fs::write(dir.wal_dir(one()).join(name), b"half").unwrap();
            }
            if crashed_after >= 2 {
                archive.pass(&nowhere(), |_| true).unwrap();
                if crashed_after == 2 {
                    fs::remove_file(dir.wal_index(one())).unwrap();
                }
                if crashed_after <= 3 {
                    fs::write(&raw, wal(SEGMENT)).unwrap();
                }
            }
            archive.pass(&nowhere(), |_| true).unwrap();
            assert!(!raw.exists());
            assert_eq!(content(&dir, whole()), wal(SEGMENT), "{crashed_after}");
            let [record] = &records(&dir)[..] else { panic!("{crashed_after}") };
            assert_eq!(record.plain_sha256, Sha256Sum::of(&wal(SEGMENT)));
            let stored = fs::read(dir.archived_file(whole())).unwrap();
            assert_eq!(record.stored_sha256, Sha256Sum::of(&stored));
            assert_eq!(fs::read_dir(dir.wal_dir(one())).unwrap().count(), 2);
        }
    }

    #[test]
    fn a_segment_of_another_size_or_content_stays_where_it_is() {
        let Store { dir, archive, _home } = store();
        let raw = dir.streaming_segment(one());
        fs::write(&raw, wal(SEGMENT - 1)).unwrap();
        let error = archive.pass(&nowhere(), |_| true).unwrap_err();
        assert!(matches!(error, ArchiveError::WrongSize { .. }), "{error}");
        assert!(raw.exists() && !dir.archived_file(whole()).exists());

        fs::write(&raw, wal(SEGMENT)).unwrap();
        archive.pass(&nowhere(), |_| true).unwrap();
        let mut other = wal(SEGMENT);
        other[700_000] ^= 1;
        fs::write(&raw, &other).unwrap();
        let error = archive.pass(&nowhere(), |_| true).unwrap_err();
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
            archive.pass(&open, |_| true).unwrap();
            assert!(raw.exists(), "{open:?}");
        }
        archive.pass(&frontier(2, 1), |_| true).unwrap();
        assert!(!raw.exists());
        assert_eq!(content(&dir, cut()), wal(5000));
        assert_eq!(records(&dir)[0].plain_size, 5000);

        // Meanwhile the receiver was led back to it.
        fs::write(&raw, wal(6000)).unwrap();
        let moving = frontier(2, 1);
        archive
            .pass(&moving, |_| {
                *moving.lock().unwrap() = *frontier(1, 1).lock().unwrap();
                true
            })
            .unwrap();
        assert!(raw.exists());

        // Received again: shorter, then longer.
        for (length, kept) in [(4000, 5000), (0, 5000), (6000, 6000)] {
            fs::write(&raw, wal(length)).unwrap();
            archive.pass(&frontier(1, 2), |_| true).unwrap();
            assert!(!raw.exists());
            assert_eq!(content(&dir, cut()), wal(kept));
        }
        assert_eq!(records(&dir).last().unwrap().plain_size, 6000);
    }

    /// One that encrypts, with or without the key to read it again.
    fn encrypting(store: &Store, secret: &Identity, with_key: bool) -> Archive {
        let path = store._home.path().join("identity");
        fs::write(&path, secret.to_string().expose_secret()).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let packing = Packing::new(Method::new(Codec::Zstd, 1), &[secret.to_public().into()]);
        let size = SegmentSize::new(SEGMENT as u64).unwrap();
        Archive::new(store.dir.clone(), size, packing, with_key.then(|| KeyFile::new(path)))
    }

    fn sealed(file: ArchivedWal) -> ArchivedWal {
        ArchivedWal { form: file.form.encrypted(), ..file }
    }

    fn decrypted(store: &Store, file: ArchivedWal) -> Vec<u8> {
        let keys = KeyFile::new(store._home.path().join("identity"));
        let path = store.dir.archived_file(file);
        let mut plain = Vec::new();
        let mut reader = encryption::open(&path, file.form, Some(&keys)).unwrap();
        reader.read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn what_is_encrypted_survives_crashes_with_and_without_the_key() {
        for (crashed_after, with_key) in (0..5).flat_map(|after| [(after, false), (after, true)]) {
            let (store, secret) = (store(), Identity::generate());
            let archive = encrypting(&store, &secret, with_key);
            let dir = &store.dir;
            let raw = dir.streaming_segment(one());
            fs::write(&raw, wal(SEGMENT)).unwrap();
            if crashed_after >= 1 {
                archive.pass(&nowhere(), |_| true).unwrap();
                fs::write(&raw, wal(SEGMENT)).unwrap();
            }
            match crashed_after {
                // Before the record was there, with an index or without.
                2 => fs::remove_file(dir.wal_index(one())).unwrap(),
                // Before it was whole, as far as anybody can tell.
                3 => {
                    let mut index = fs::read(dir.wal_index(one())).unwrap();
                    index[20] ^= 1;
                    index.extend_from_slice(b"another line\n");
                    fs::write(dir.wal_index(one()), index).unwrap();
                }
                // By an attempt of which the record is not.
                4 => {
                    let path = dir.archived_file(sealed(whole()));
                    fs::write(path, b"something else that does not decrypt").unwrap();
                }
                _ => {}
            }
            let done = archive.pass(&nowhere(), |_| true);
            if crashed_after == 4 && with_key {
                // Whoever can read it sees that it is not what it should be.
                assert!(done.is_err() && raw.exists());
                continue;
            }
            done.unwrap();
            assert!(!raw.exists(), "{crashed_after} {with_key}");
            let record = records(dir).pop().unwrap();
            assert_eq!(record.file, sealed(whole()));
            assert_eq!(record.plain_sha256, Sha256Sum::of(&wal(SEGMENT)));
            let stored = fs::read(dir.archived_file(sealed(whole()))).unwrap();
            assert_eq!(record.stored_sha256, Sha256Sum::of(&stored), "{crashed_after} {with_key}");
            assert_eq!(record.stored_size, stored.len() as u64);
            assert_eq!(fs::read_dir(dir.wal_dir(one())).unwrap().count(), 2);
        }
    }

    #[test]
    fn without_the_key_the_record_tells_what_differs() {
        let store = store();
        let archive = encrypting(&store, &Identity::generate(), false);
        let raw = store.dir.streaming_segment(one());
        fs::write(&raw, wal(SEGMENT)).unwrap();
        archive.pass(&nowhere(), |_| true).unwrap();
        let mut other = wal(SEGMENT);
        other[700_000] ^= 1;
        fs::write(&raw, &other).unwrap();
        let error = archive.pass(&nowhere(), |_| true).unwrap_err();
        assert!(matches!(error, ArchiveError::Differs { .. }), "{error}");
        assert_eq!(decrypted(&store, sealed(whole())), wal(SEGMENT));
        fs::remove_file(&raw).unwrap();

        // A cut tail that goes on, and one that goes less far than the one there.
        let raw = store.dir.streaming_partial(one());
        for length in [5000, 5000, 6000] {
            fs::write(&raw, wal(length)).unwrap();
            archive.pass(&frontier(1, 2), |_| true).unwrap();
            assert!(!raw.exists());
            assert_eq!(decrypted(&store, sealed(cut())), wal(length));
        }
        fs::write(&raw, wal(4000)).unwrap();
        archive.pass(&frontier(1, 2), |_| true).unwrap();
        assert!(!raw.exists());
        let apart = |name: &str| fs::read(store.dir.errors().join(name)).unwrap();
        assert_eq!(apart(&format!("{}.partial.1", one())), wal(4000));
        assert_eq!(decrypted(&store, sealed(cut())), wal(6000));

        // Nobody knows any more how long the archived one is: both are kept.
        fs::remove_file(store.dir.wal_index(one())).unwrap();
        let stored = fs::read(store.dir.archived_file(sealed(cut()))).unwrap();
        fs::write(&raw, wal(5000)).unwrap();
        archive.pass(&frontier(1, 2), |_| true).unwrap();
        assert_eq!(apart(&format!("{}.1", sealed(cut()))), stored);
        assert_eq!(decrypted(&store, sealed(cut())), wal(5000));
    }

    #[test]
    fn a_tail_that_grows_is_stored_in_the_form_of_today() {
        let store = store();
        let raw = store.dir.streaming_partial(one());
        fs::write(&raw, wal(5000)).unwrap();
        store.archive.pass(&frontier(1, 2), |_| true).unwrap();
        assert!(store.dir.archived_file(cut()).exists());
        fs::write(&raw, wal(6000)).unwrap();
        encrypting(&store, &Identity::generate(), true).pass(&frontier(1, 2), |_| true).unwrap();
        assert!(!store.dir.archived_file(cut()).exists());
        assert_eq!(decrypted(&store, sealed(cut())), wal(6000));
    }

    #[test]
    fn a_damaged_index_is_made_again() {
        let Store { dir, archive, _home } = store();
        for number in 1..=3 {
            let segment = format!("00000001000000000000000{number}").parse().unwrap();
            fs::write(dir.streaming_segment(segment), wal(SEGMENT)).unwrap();
            archive.pass(&nowhere(), |_| true).unwrap();
        }
        let mut index = fs::read(dir.wal_index(one())).unwrap();
        index[20] ^= 1;
        fs::write(dir.wal_index(one()), index).unwrap();
        let four = "000000010000000000000004".parse().unwrap();
        fs::write(dir.streaming_segment(four), wal(SEGMENT)).unwrap();
        archive.pass(&nowhere(), |_| true).unwrap();
        assert_eq!(records(&dir).len(), 4);
        assert_eq!(fs::read_dir(dir.streaming()).unwrap().count(), 0);
    }

    #[test]
    fn a_backlog_is_worked_off_in_order_and_can_be_interrupted() {
        let Store { dir, archive, _home } = store();
        for number in 1..=3 {
            let segment = format!("00000001000000000000000{number}").parse().unwrap();
            fs::write(dir.streaming_segment(segment), wal(SEGMENT)).unwrap();
        }
        let mut seen = Vec::new();
        archive
            .pass(&nowhere(), |left| {
                seen.push(left);
                left > 1
            })
            .unwrap();
        assert_eq!(seen, [3, 2, 1]);
        assert!(!dir.streaming_segment(one()).exists());
        archive.pass(&nowhere(), |_| true).unwrap();
        assert_eq!(fs::read_dir(dir.streaming()).unwrap().count(), 0);
    }
}
