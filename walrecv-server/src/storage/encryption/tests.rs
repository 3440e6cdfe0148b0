use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use age::secrecy::ExposeSecret;

use super::*;
use crate::failure::Failure;
use crate::settings::Recipient;
use crate::storage::archived_writer::{ArchivedWriter, Packing};
use crate::storage::{Access, Codec, Method, Plain, Sha256Sum};

/// A key pair, and its identity file.
struct Pair {
    recipient: Recipient,
    keys: KeyFile,
}

struct Desk {
    directory: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn identity_file(&self, name: &str, content: &str, mode: u32) -> KeyFile {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        KeyFile::new(path)
    }

    fn pair(&self, name: &str) -> Pair {
        let secret = age::x25519::Identity::generate();
        let content = format!("# created: today\n{}\n", secret.to_string().expose_secret());
        Pair {
            recipient: secret.to_public().into(),
            keys: self.identity_file(name, &content, 0o600),
        }
    }

    fn store(&self, name: &str, codec: Codec, recipients: &[Recipient], plain: &[u8]) -> PathBuf {
        let packing = Packing::new(Method::new(codec, 1), recipients);
        let path = self.path(&format!("{name}{}", packing.form()));
        let mut writer =
            ArchivedWriter::create(&path, Access::Private, &packing, |file| file).unwrap();
        writer.write_all(plain).unwrap();
        let (before, after, file) = writer.finish().unwrap();
        assert!(!path.exists());
        file.commit().unwrap();
        assert_eq!(before, Plain::of(plain));
        let stored = fs::read(&path).unwrap();
        assert_eq!((after.size, after.sha256), (stored.len() as u64, Sha256Sum::of(&stored)));
        path
    }
}

fn read(path: &Path, keys: Option<&KeyFile>) -> Result<Vec<u8>, DecryptionError> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let mut plain = Vec::new();
    let mut reader = open(path, Form::split_suffix(name).1, keys)?;
    reader.read_to_end(&mut plain).map_err(StorageError::of("read", path))?;
    Ok(plain)
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 1000 + at) as u8).collect()
}

#[test]
fn each_recipient_reads_it_and_nobody_else() {
    let desk = Desk::new();
    let [a, b, other] = ["a", "b", "other"].map(|name| desk.pair(name));
    // Around the chunks of age, and those of the codecs.
    for length in [0, 1, 65_535, 65_536, 65_537, 300_000] {
        let plain = content(length);
        for codec in Codec::ALL {
            let recipients = [a.recipient.clone(), b.recipient.clone()];
            let path = desk.store(&length.to_string(), codec, &recipients, &plain);
            assert!(path.to_str().unwrap().ends_with(&format!("{}.age", codec.suffix())));
            for keys in [&a.keys, &b.keys] {
                assert_eq!(read(&path, Some(keys)).unwrap(), plain, "{codec} {length}");
            }
            let error = read(&path, Some(&other.keys)).unwrap_err();
            assert!(matches!(error, DecryptionError::OtherKeys { .. }), "{error}");
            let error = read(&path, None).unwrap_err();
            assert!(matches!(error, DecryptionError::NoKeys { .. }), "{error}");
            assert!(error.hint().unwrap().contains("--identity"), "{error}");
            assert!(error.is_for_want_of_keys());
        }
    }
}

#[test]
fn without_recipients_nothing_is_encrypted_and_no_key_is_asked_for() {
    let desk = Desk::new();
    let path = desk.store("x", Codec::Zstd, &[], &content(70_000));
    assert!(path.ends_with("x.zst"));
    let absent = KeyFile::new(desk.path("absent"));
    for keys in [None, Some(&absent)] {
        assert_eq!(read(&path, keys).unwrap(), content(70_000));
    }
    // And a file that is gone is missed before a key is.
    assert!(read(&desk.path("gone.age"), None).unwrap_err().is_not_found());
}

#[test]
fn whatever_is_altered_or_cut_does_not_decrypt() {
    let desk = Desk::new();
    let pair = desk.pair("a");
    let path = desk.store("x", Codec::None, &[pair.recipient], &content(200_000));
    let whole = fs::read(&path).unwrap();
    let mut places: Vec<usize> = (0..whole.len()).step_by(4099).collect();
    places.extend([1, 30, 100, 150, whole.len() - 1]);
    for at in places {
        let mut altered = whole.clone();
        altered[at] ^= 1;
        fs::write(&path, &altered).unwrap();
        assert!(read(&path, Some(&pair.keys)).is_err(), "altered at {at}");
        fs::write(&path, &whole[..at]).unwrap();
        assert!(read(&path, Some(&pair.keys)).is_err(), "cut at {at}");
    }
    // Exactly between two chunks, too.
    let header = whole.len() - (200_000 + 16 * 4);
    fs::write(&path, &whole[..header + 65_552]).unwrap();
    assert!(read(&path, Some(&pair.keys)).is_err());
    fs::write(&path, b"").unwrap();
    let error = read(&path, Some(&pair.keys)).unwrap_err();
    assert!(matches!(error, DecryptionError::Damaged { .. }), "{error}");
    assert!(!error.is_for_want_of_keys());
}

#[test]
fn an_identity_file_is_read_only_if_nobody_else_can_and_never_shown() {
    let desk = Desk::new();
    let pair = desk.pair("good");
    let path = desk.store("x", Codec::Zstd, std::slice::from_ref(&pair.recipient), b"wal");
    let good = fs::read_to_string(pair.keys.path()).unwrap();
    assert_eq!(pair.keys.recipients().unwrap(), [pair.recipient]);

    for mode in [0o640, 0o604, 0o660, 0o644] {
        let exposed = desk.identity_file("exposed", &good, mode);
        let error = read(&path, Some(&exposed)).unwrap_err();
        assert!(matches!(error, DecryptionError::KeysExposed { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{mode:04o}")), "{error}");
        assert!(error.hint().unwrap().contains("chmod 0600"));
        assert_eq!(error.class().exit_code(), 2);
    }
    assert!(read(&path, Some(&desk.identity_file("mine", &good, 0o400))).is_ok());
    let secret = good.lines().last().unwrap();
    let spoilt = secret.replace("KEY-1", "KEY-2");
    for bad in ["", "# nothing\n", &spoilt, &format!("{good}nonsense\n")] {
        let bad = desk.identity_file("bad", bad, 0o600);
        let error = read(&path, Some(&bad)).unwrap_err();
        assert!(matches!(error, DecryptionError::KeysMalformed { .. }), "{error}");
        let told = format!("{error:?} {error} {:?} {:?}", error.hint(), pair.keys);
        assert!(!told.contains(secret.get(20..).unwrap()), "{told}");
    }
    let absent = KeyFile::new(desk.path("absent"));
    let error = read(&path, Some(&absent)).unwrap_err();
    assert!(matches!(error, DecryptionError::KeysUnreadable { .. }), "{error}");
    assert!(!error.is_not_found());
}

#[test]
fn a_file_that_was_not_finished_does_not_decrypt() {
    let desk = Desk::new();
    let pair = desk.pair("a");
    let mut sink = Vec::new();
    let mut writer = EncryptedWriter::new(&mut sink, &[pair.recipient]).unwrap();
    writer.write_all(&content(131_072)).unwrap();
    writer.flush().unwrap();
    drop(writer);
    let path = desk.path("x.age");
    fs::write(&path, &sink).unwrap();
    assert!(sink.len() > 65_536);
    let mut reader = open(&path, Form::plain(Codec::None).encrypted(), Some(&pair.keys)).unwrap();
    assert!(io::copy(&mut reader, &mut io::sink()).is_err());
}
