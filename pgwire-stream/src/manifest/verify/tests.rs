use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::manifest::{ChecksumAlgorithm, ManifestWriter};

/// A backup with a tablespace, and its manifest.
struct Backup {
    dir: TempDir,
    files: Vec<ManifestFile>,
}

impl Backup {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut backup = Self { dir, files: Vec::new() };
        fs::create_dir_all(backup.path("data/pg_tblspc")).unwrap();
        fs::create_dir_all(backup.path("elsewhere/PG_17_202406281/5")).unwrap();
        fs::create_dir_all(backup.path("data/base/5")).unwrap();
        symlink(backup.path("elsewhere"), backup.path("data/pg_tblspc/16386")).unwrap();
        for (path, content) in [
            (&b"PG_VERSION"[..], "17\n"),
            (b"base/5/1259", "a relation"),
            (b"base/5/\xFF\n", "an odd name"),
            (b"pg_tblspc/16386/PG_17_202406281/5/16387", "in a tablespace"),
            (b"pg_wal/archive_status/x.done", ""),
        ] {
            backup.put(path, content);
        }
        fs::remove_file(backup.data(b"pg_wal/archive_status/x.done")).unwrap();
        backup.sign();
        backup
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn data(&self, path: &[u8]) -> PathBuf {
        paths::located(&self.path("data"), path).unwrap()
    }

    /// Writes a file and lists it.
    fn put(&mut self, path: &[u8], content: &str) {
        let on_disk = self.data(path);
        fs::create_dir_all(on_disk.parent().unwrap()).unwrap();
        fs::write(on_disk, content).unwrap();
        self.list(path, content);
    }

    fn list(&mut self, path: &[u8], content: &str) {
        let mut hasher = ChecksumAlgorithm::Sha224.hasher();
        hasher.update(content.as_bytes());
        self.files.push(ManifestFile {
            path: path.to_owned(),
            size: content.len() as u64,
            modified: "2026-11-20 11:03:39 GMT".to_owned(),
            checksum: Some((ChecksumAlgorithm::Sha224, hasher.finish())),
        });
    }

    fn sign(&self) {
        let into = File::create(self.data(b"backup_manifest")).unwrap();
        let mut writer = ManifestWriter::version_2(into, SystemId::from_u64(7)).unwrap();
        for file in &self.files {
            writer.file(file).unwrap();
        }
        writer.finish(&[]).unwrap();
    }

    fn verify(&self) -> Result<(Verified, Vec<Problem>), VerifyError> {
        self.verify_with(&VerifyOptions::default())
    }

    fn verify_with(
        &self,
        options: &VerifyOptions,
    ) -> Result<(Verified, Vec<Problem>), VerifyError> {
        let mut problems = Vec::new();
        let verified = verify_directory(&self.path("data"), options, |found| problems.push(found))?;
        assert_eq!(verified.problems, problems.len() as u64);
        Ok((verified, problems))
    }

    fn problem(&self) -> (Vec<u8>, Discrepancy) {
        let (_, problems) = self.verify().unwrap();
        let [Problem { path, discrepancy }] = &problems[..] else { panic!("{problems:?}") };
        (path.clone(), discrepancy.clone())
    }
}

#[test]
fn a_whole_backup_has_no_problems() {
    let backup = Backup::new();
    for name in ["postgresql.auto.conf", "standby.signal", "pg_wal/000000010000000000000001"] {
        fs::write(backup.data(name.as_bytes()), "of no interest").unwrap();
    }
    let (verified, problems) = backup.verify().unwrap();
    assert_eq!(problems, []);
    assert_eq!((verified.version, verified.files), (2, 5));
    assert_eq!(verified.bytes, 3 + 10 + 11 + 15);
    assert_eq!(verified.system_id, Some(SystemId::from_u64(7)));
}

#[test]
fn every_difference_is_reported() {
    let backup = Backup::new();
    fs::remove_file(backup.data(b"PG_VERSION")).unwrap();
    fs::write(backup.data(b"base/5/1259"), "a relatiom").unwrap();
    fs::write(backup.data(b"base/5/\xFF\n"), "an odd nam").unwrap();
    fs::write(backup.data(b"pg_tblspc/16386/PG_17_202406281/5/0"), "").unwrap();
    let (_, mut problems) = backup.verify().unwrap();
    problems.sort_by(|a, b| a.path.cmp(&b.path));
    let found: Vec<_> = problems
        .into_iter()
        .map(|problem| (String::from_utf8_lossy(&problem.path).into_owned(), problem.discrepancy))
        .collect();
    let algorithm = ChecksumAlgorithm::Sha224;
    assert_eq!(
        found,
        [
            ("PG_VERSION".to_owned(), Discrepancy::Missing),
            ("base/5/1259".to_owned(), Discrepancy::Checksum { algorithm }),
            ("base/5/\u{FFFD}\n".to_owned(), Discrepancy::Size { on_disk: 10, listed: 11 }),
            ("pg_tblspc/16386/PG_17_202406281/5/0".to_owned(), Discrepancy::Extra),
        ]
    );

    let unread = VerifyOptions { checksums: false, ..VerifyOptions::default() };
    let (verified, problems) = backup.verify_with(&unread).unwrap();
    assert_eq!((verified.bytes, problems.len()), (0, 3));
    let ignoring = VerifyOptions {
        ignore: vec![b"base".to_vec(), b"PG_VERSION".to_vec(), b"pg_tblspc/16386/PG_1".to_vec()],
        ..VerifyOptions::default()
    };
    assert_eq!(backup.verify_with(&ignoring).unwrap().1.len(), 1, "`PG_1` is no directory here");
}

#[test]
fn only_links_to_tablespaces_are_followed() {
    // A link to the very file is not the file.
    let backup = Backup::new();
    fs::rename(backup.data(b"PG_VERSION"), backup.path("version")).unwrap();
    symlink(backup.path("version"), backup.data(b"PG_VERSION")).unwrap();
    let (_, problems) = backup.verify().unwrap();
    let of = |discrepancy: Discrepancy| discrepancy.of(b"PG_VERSION");
    assert_eq!(problems, [of(Discrepancy::NotAFile), of(Discrepancy::Missing)]);

    let backup = Backup::new();
    fs::rename(backup.data(b"base"), backup.path("base")).unwrap();
    symlink(backup.path("base"), backup.data(b"base")).unwrap();
    let (_, problems) = backup.verify().unwrap();
    assert_eq!(problems[0], Discrepancy::NotAFile.of(b"base"));
    assert_eq!(problems.len(), 3, "{problems:?}");

    let backup = Backup::new();
    symlink("nowhere", backup.data(b"pg_tblspc/16390")).unwrap();
    assert!(matches!(backup.problem().1, Discrepancy::Unreadable { .. }));

    let backup = Backup::new();
    fs::remove_dir_all(backup.path("elsewhere")).unwrap();
    let (_, problems) = backup.verify().unwrap();
    let [link, file] = &problems[..] else { panic!("{problems:?}") };
    assert!(matches!(link.discrepancy, Discrepancy::Unreadable { .. }), "{link:?}");
    let path = b"pg_tblspc/16386/PG_17_202406281/5/16387";
    assert_eq!(*file, Discrepancy::Missing.of(path));
}

#[test]
fn a_manifest_does_not_reach_outside() {
    let mut backup = Backup::new();
    fs::write(backup.path("secret"), "x").unwrap();
    let absolute = backup.path("secret").into_os_string().into_encoded_bytes();
    for path in [&b"../secret"[..], b"base/../PG_VERSION", b"./PG_VERSION", &absolute] {
        backup.list(path, "x");
        backup.sign();
        assert_eq!(backup.problem(), (path.to_owned(), Discrepancy::Missing));
        backup.files.pop();
    }
}

#[test]
fn the_control_file_is_of_the_cluster_of_the_manifest() {
    let mut backup = Backup::new();
    backup.put(b"global/pg_control", "not one");
    backup.sign();
    let (path, discrepancy) = backup.problem();
    assert_eq!(path, b"global/pg_control");
    assert!(matches!(discrepancy, Discrepancy::ControlFile(_)), "{discrepancy:?}");
}

#[test]
fn without_an_intact_manifest_nothing_is_verified() {
    let mut backup = Backup::new();
    let path = backup.data(b"backup_manifest");
    let changed = fs::read_to_string(&path).unwrap().replace("\"Size\": 3", "\"Size\": 4");
    fs::write(&path, changed).unwrap();
    assert!(matches!(backup.verify(), Err(VerifyError::Manifest { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(backup.verify(), Err(VerifyError::Io { action: "open", .. })));
    backup.list(b"PG_VERSION", "17\n");
    backup.sign();
    assert_eq!(backup.verify(), Err(VerifyError::Repeated { path: b"PG_VERSION".to_vec() }));
    let elsewhere = VerifyOptions { manifest: Some(path), ..VerifyOptions::default() };
    let mut none = |problem| panic!("{problem:?}");
    let gone = verify_directory(&backup.path("gone"), &elsewhere, &mut none);
    assert!(matches!(gone, Err(VerifyError::Io { action: "read", .. })), "{gone:?}");
}
