//! Configuration files that lay outside of the data directory.

use std::collections::BTreeMap;
use std::io::Write;

use super::*;
use crate::catalog::ConfigFiles;
use crate::storage::{HashingWriter, Stored};

const MAIN: &str = "/etc/pg/postgresql.conf";
const HBA: &str = "/etc/pg/pg_hba.conf";
const CONTENT: &str = "data_directory = '/var/lib/pg'\nhba_file = '/etc/pg/pg_hba.conf'\n\
                       include_dir 'conf.d'\narchive_command = 'cp'\nport = 5433\n";

impl Store {
    /// Adds these files to the backup, packed like this.
    fn keep(&mut self, files: &[(&str, &str)], packing: &Packing) {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            let path = path.trim_start_matches('/');
            // By hand, for what the library would not write.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            archive.append(&header, content.as_bytes()).unwrap();
        }
        let path = self.server.backup(self.record.id).config_files(packing.form());
        let mut writer =
            ArchivedWriter::create(&path, Access::Private, packing, |file| file).unwrap();
        writer.write_all(&archive.into_inner().unwrap()).unwrap();
        writer.finish().unwrap().2.commit().unwrap();
        let named = [("config_file", MAIN), ("hba_file", HBA)];
        self.record.config_files = Some(ConfigFiles {
            files: [MAIN, HBA].map(str::to_owned).to_vec(),
            closed: vec!["/etc/pg/pg_ident.conf".to_owned()],
            named: named.map(|(name, path)| (name.to_owned(), path.to_owned())).into(),
            codec: packing.form().codec,
            encrypted: packing.form().encrypted,
            stored: Some(stored(&path)),
        });
        self.save();
    }

    fn beside(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("data.config")
    }
}

fn stored(path: &Path) -> Stored {
    let mut hashing = HashingWriter::new(io::sink());
    hashing.write_all(&fs::read(path).unwrap()).unwrap();
    hashing.finish().1
}

fn plainly() -> Packing {
    Packing::new(Method::new(Codec::Zstd, 1), &[])
}

#[test]
fn it_is_restored_beside_the_data_directory() {
    let mut store = Store::new();
    store.keep(&[(MAIN, CONTENT), (HBA, "local all all trust\n")], &plainly());
    let plan = store.plan(|_| {}).unwrap();
    let beside = store.beside();
    let main = beside.join("etc/pg/postgresql.conf");
    assert_eq!(plan.config_files.as_ref().unwrap().config_file.as_ref(), Some(&main));
    let report = execute(&plan, &Silent, &undisturbed()).unwrap();

    insta::assert_snapshot!(fs::read_to_string(&main).unwrap(), @r"
    # disabled by restore: data_directory = '/var/lib/pg'
    hba_file = '/etc/pg/pg_hba.conf'
    # disabled by restore: include_dir 'conf.d'
    # disabled by restore: archive_command = 'cp'
    port = 5433
    ");
    let hba = beside.join("etc/pg/pg_hba.conf");
    assert_eq!(fs::read_to_string(&hba).unwrap(), "local all all trust\n");
    let conf = fs::read_to_string(store.dir.path().join("data/postgresql.auto.conf")).unwrap();
    assert!(conf.ends_with(&format!("hba_file = '{}'\n", hba.display())), "{conf}");
    for (path, mode) in [(&beside, 0o700), (&beside.join("etc/pg"), 0o700), (&hba, 0o600)] {
        let metadata = fs::metadata(path).unwrap();
        assert_eq!((metadata.mode() & 0o777, metadata.uid()), (mode, plan.owner.uid));
    }
    for told in ["pg_ident.conf", "archive_command", "include_dir conf.d"] {
        assert!(report.notes.iter().any(|note| note.contains(told)), "{:?}", report.notes);
    }
    let unsettled = |note: &String| note.contains("sets `hba_file`");
    assert!(!report.notes.iter().any(unsettled), "{:?}", report.notes);
}

#[test]
fn it_can_be_left_out() {
    let mut store = Store::new();
    store.keep(&[(MAIN, CONTENT)], &plainly());
    fs::create_dir(store.beside()).unwrap();
    fs::write(store.beside().join("x"), "").unwrap();
    let error = store.refusal(|_| {});
    assert!(error.hint().unwrap().contains("--no-config"));
    assert_eq!(error.class(), Class::Refused, "{error}");
    let plan = store.plan(|request| request.config = false).unwrap();
    assert!(plan.config_files.is_none());
    let report = execute(&plan, &Silent, &undisturbed()).unwrap();
    assert!(report.notes.iter().any(|note| note.contains("hba_file")), "{:?}", report.notes);

    let nested = store.refusal(|request| {
        request.destination = store.dir.path().join("data2");
        request.tablespaces[0].directory = store.dir.path().join("data2.config");
    });
    assert!(nested.hint().unwrap().contains("another directory"), "{nested}");
}

#[test]
fn what_is_not_as_it_was_stored_is_refused() {
    let mut store = Store::new();
    store.keep(&[(MAIN, CONTENT)], &plainly());
    let path = store.server.backup(store.record.id).config_files(Codec::Zstd);
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = store.refusal(|_| {});
    assert!(matches!(error, RestoreError::Outside(OutsideError::Altered { .. })), "{error}");
    for hostile in ["../evil", "etc/../../evil", "etc/other.conf"] {
        store.keep(&[(hostile, "x")], &plainly());
        let error = store.refusal(|_| {});
        let unexpected = matches!(error, RestoreError::Outside(OutsideError::Unexpected { .. }));
        assert!(unexpected, "{hostile}: {error}");
    }
}

/// Even if the record were made to agree.
#[test]
fn nothing_is_written_elsewhere() {
    let mut store = Store::new();
    store.keep(&[("../evil", "x")], &plainly());
    store.record.config_files.as_mut().unwrap().files = vec!["../evil".to_owned()];
    store.save();
    let plan = store.plan(|_| {}).unwrap();
    let error = execute(&plan, &Silent, &undisturbed()).unwrap_err();
    assert!(error.to_string().contains("data.config/.."), "{error}");
    assert!(!store.dir.path().join("evil").exists());
    assert!(!store.dir.path().join("data/global/pg_control").exists());
}

#[test]
fn it_is_encrypted_like_the_archives() {
    let mut store = Store::new();
    let secret = age::x25519::Identity::generate();
    let packing = Packing::new(Method::new(Codec::Zstd, 1), &[secret.to_public().into()]);
    store.keep(&[(MAIN, CONTENT)], &packing);
    let error = store.refusal(|_| {});
    assert!(error.to_string().contains("config.tar.zst.age` is encrypted"), "{error}");
    let right = store.identity_file("right", &secret);
    let plan = store.plan_with(Some(&right), SERVED, |_| {}).unwrap();
    execute(&plan, &Silent, &undisturbed()).unwrap();
    assert!(store.beside().join("etc/pg/postgresql.conf").exists());
}

#[test]
fn names_of_files_are_all_that_is_shown() {
    let mut store = Store::new();
    store.keep(&[(MAIN, "ssl_passphrase_command = 'echo secret'\n")], &plainly());
    let plan = store.plan(|_| {}).unwrap();
    assert!(!format!("{plan:?}").contains("secret"));
    let shown: BTreeMap<String, serde_json::Value> =
        serde_json::from_value(serde_json::to_value(&plan).unwrap()).unwrap();
    assert_eq!(shown["config_files"]["files"][0], MAIN);
    assert!(!serde_json::to_string(&plan).unwrap().contains("secret"));
}
