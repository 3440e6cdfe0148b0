//! Archiving what is encrypted, with and without the key to read it again.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use age::secrecy::ExposeSecret;
use age::x25519::Identity;

use super::*;
use crate::storage::KeyFile;

/// A store that encrypts what is archived from now on.
struct Encrypting {
    home: tempfile::TempDir,
    dir: ServerDir,
    secret: Identity,
    with_key: bool,
}

impl Encrypting {
    fn new(with_key: bool) -> Self {
        let Store { _home: home, dir, archive: _ } = store();
        let secret = Identity::generate();
        let this = Self { home, dir, secret, with_key };
        fs::write(this.identity(), this.secret.to_string().expose_secret()).unwrap();
        fs::set_permissions(this.identity(), Permissions::from_mode(0o600)).unwrap();
        this
    }

    fn identity(&self) -> std::path::PathBuf {
        self.home.path().join("identity")
    }

    fn open(&self) -> Archive {
        let recipient = self.secret.to_public().into();
        let packing = Packing::new(Method::new(Codec::Zstd, 1), &[recipient]);
        let size = SegmentSize::new(SEGMENT as u64).unwrap();
        let keys = self.with_key.then(|| KeyFile::new(self.identity()));
        Archive::open(self.dir.clone(), size, packing, keys).unwrap()
    }

    /// A process that archives what there is, and ends.
    fn pass(&self, frontier: &Mutex<Option<Frontier>>) -> Result<(), ArchiveError> {
        pass(&self.open(), frontier, |_| true)
    }

    fn decrypted(&self, file: ArchivedWal) -> Vec<u8> {
        let keys = KeyFile::new(self.identity());
        let path = self.dir.archived_file(file);
        let mut plain = Vec::new();
        let mut reader = encryption::open(&path, file.form, Some(&keys)).unwrap();
        reader.read_to_end(&mut plain).unwrap();
        plain
    }
}

fn sealed(file: ArchivedWal) -> ArchivedWal {
    ArchivedWal { form: file.form.encrypted(), ..file }
}

#[test]
fn what_is_encrypted_survives_crashes_with_and_without_the_key() {
    for (crashed_after, with_key) in (0..5).flat_map(|after| [(after, false), (after, true)]) {
        let store = Encrypting::new(with_key);
        let dir = &store.dir;
        let raw = dir.streaming_segment(one());
        fs::write(&raw, wal(SEGMENT)).unwrap();
        if crashed_after >= 1 {
            store.pass(&nowhere()).unwrap();
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
        let done = store.pass(&nowhere());
        if crashed_after == 4 && with_key {
            // Whoever can read it sees that it is not what it should be.
            assert!(done.is_err() && raw.exists());
            continue;
        }
        done.unwrap();
        assert!(!raw.exists(), "{crashed_after} {with_key}");
        let record = records(dir).pop().unwrap();
        assert_eq!(record.file, sealed(whole()));
        assert_eq!(record.plain_crc32c, Crc32c::of(&wal(SEGMENT)));
        let stored = fs::read(dir.archived_file(sealed(whole()))).unwrap();
        assert_eq!(
            record.stored_sha256,
            Some(Sha256Sum::of(&stored)),
            "{crashed_after} {with_key}"
        );
        assert_eq!(record.stored_size, stored.len() as u64);
        assert_eq!(fs::read_dir(dir.wal_dir(one())).unwrap().count(), 2);
    }
}

#[test]
fn without_the_key_the_record_tells_what_differs() {
    let store = Encrypting::new(false);
    let raw = store.dir.streaming_segment(one());
    fs::write(&raw, wal(SEGMENT)).unwrap();
    store.pass(&nowhere()).unwrap();
    let mut other = wal(SEGMENT);
    other[700_000] ^= 1;
    fs::write(&raw, &other).unwrap();
    let error = store.pass(&nowhere()).unwrap_err();
    assert!(matches!(error, ArchiveError::Differs { .. }), "{error}");
    assert_eq!(store.decrypted(sealed(whole())), wal(SEGMENT));
    fs::remove_file(&raw).unwrap();

    // A cut tail that goes on, and one that goes less far than the one there.
    let raw = store.dir.streaming_partial(one());
    for length in [5000, 5000, 6000] {
        fs::write(&raw, wal(length)).unwrap();
        store.pass(&frontier(1, 2)).unwrap();
        assert!(!raw.exists());
        assert_eq!(store.decrypted(sealed(cut())), wal(length));
    }
    fs::write(&raw, wal(4000)).unwrap();
    store.pass(&frontier(1, 2)).unwrap();
    assert!(!raw.exists());
    let apart = |name: &str| fs::read(store.dir.errors().join(name)).unwrap();
    assert_eq!(apart(&format!("{}.partial.1", one())), wal(4000));
    assert_eq!(store.decrypted(sealed(cut())), wal(6000));

    // Nobody knows any more how long the archived one is: both are kept.
    fs::remove_file(store.dir.wal_index(one())).unwrap();
    let stored = fs::read(store.dir.archived_file(sealed(cut()))).unwrap();
    fs::write(&raw, wal(5000)).unwrap();
    store.pass(&frontier(1, 2)).unwrap();
    assert_eq!(apart(&format!("{}.1", sealed(cut()))), stored);
    assert_eq!(store.decrypted(sealed(cut())), wal(5000));
}

#[test]
fn a_damaged_index_that_is_open_is_made_again_where_records_are_needed() {
    let store = Encrypting::new(false);
    let archive = store.open();
    let two = "000000010000000000000002".parse().unwrap();
    for segment in [one(), two] {
        fs::write(store.dir.streaming_segment(segment), wal(SEGMENT)).unwrap();
        pass(&archive, &nowhere(), |_| true).unwrap();
    }
    let mut index = fs::read(store.dir.wal_index(one())).unwrap();
    index[20] ^= 1;
    fs::write(store.dir.wal_index(one()), index).unwrap();
    // The record of this one is still there, that of the other is not.
    for segment in [two, one()] {
        fs::write(store.dir.streaming_segment(segment), wal(SEGMENT)).unwrap();
        pass(&archive, &nowhere(), |_| true).unwrap();
    }
    let files: Vec<_> = records(&store.dir).into_iter().map(|record| record.file).collect();
    assert_eq!(files, [two, one()].map(|segment| sealed(ArchivedWal { segment, ..whole() })));
}

#[test]
fn a_tail_that_grows_is_stored_in_the_form_of_today() {
    let store = Encrypting::new(true);
    let raw = store.dir.streaming_partial(one());
    fs::write(&raw, wal(5000)).unwrap();
    pass(&open(&store.dir), &frontier(1, 2), |_| true).unwrap();
    assert!(store.dir.archived_file(cut()).exists());
    fs::write(&raw, wal(6000)).unwrap();
    store.pass(&frontier(1, 2)).unwrap();
    assert!(!store.dir.archived_file(cut()).exists());
    assert_eq!(store.decrypted(sealed(cut())), wal(6000));
}

#[test]
fn what_is_encrypted_does_not_come_without_a_raw_file() {
    // With the key as without: what was not complete may have to be read again.
    for with_key in [false, true] {
        let store = Encrypting::new(with_key);
        assert!(store.open().begin_direct(one(), |file| file).unwrap().is_none());
        assert!(open(&store.dir).begin_direct(one(), |file| file).unwrap().is_some());
    }
}
